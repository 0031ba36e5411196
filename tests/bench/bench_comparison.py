"""How often ``edgekit compare`` calls like sides different, and how often it finds a true slowdown of 3%.

By hand: ``python tests/bench/bench_comparison.py [--runs N] [--only TEXT]``; 10,000 runs a source take about 15
minutes on one core. The figure is met when in every judged row like sides (A/A) are called different in at most 1% of
the runs, for p50, p90 and p99 alike, and the slowdown of the median is found in at least 95%. Exits 1 when not.

A run is one comparison at the default effort: turns of 10 queries or 20 ms, rounds AB, BA, …, 15 s a side. Its log
ratios go through the very functions that ``edgekit compare`` uses. The slowdown multiplies every latency of B by 1.03,
which moves every log ratio by log 1.03 and nothing else; so one interval answers both questions.

**Recorded** latencies come from real sessions on a machine with two cores that others used too: its speed changes by
tens of percent within seconds and less. What is compared there is decided by what the two sides share, so rounds are
resampled, not queries: the recording of *one* session is cut into turns in the order of time, neighbouring turns are
dealt to A and B as the rounds of a comparison would (AB, BA, …), and a run is put together of stretches of 2 s drawn
at random. Nothing is assumed to be shared beyond what neighbouring stretches of the machine's time did share; what
lies between two turns in reality, the change of the process, is not in the recording, only the first query of each
turn is dropped as in a real run. Two processes that differ for as long as they live (memory layout) are not in it
either: no number of turns shows that.

**Apart** draws A and B from the recording independently of each other, so that nothing is shared and regimes of the
machine fall on one side alone. That is no comparison in turns, and is shown to say what turns are worth; it is not
judged.

**Synthetic** queries of 1 ms: lognormal; heavy tail (one in 50 takes up to many times as long, Pareto 1.5); bimodal
(one in four takes 30% longer); AR(1) (the log of each side's latency, coefficient 0.9, sides apart); drift (both sides
lognormal, and both slower by up to 40% as the run goes on, with a wave of 3 s of another 20%).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable

import numpy as np
from recorded import recordings

from edgekit.comparing import DEFAULT_SECONDS
from edgekit.profiling.comparison import Ratio, compare_in_turns, queries_a_group, ratio_of
from edgekit.profiling.load import COMPARED_TURN_S as TURN_S
from edgekit.profiling.load import FEWEST_TURN_QUERIES

STRETCH_S = 2.0
SLOWDOWN = 1.03
PERCENTILES = (50.0, 90.0, 99.0)
MOST_CALLED, LEAST_FOUND = 0.01, 0.95
QUERY_MS = 1.0
SHOWN_RUNS = 2_000  # of what is not judged
SEED = 0

Draw = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]  # both sides' kept latencies, [rounds, kept]


def cut(latencies_ms: np.ndarray, turns: np.ndarray) -> tuple[np.ndarray, float]:
    """Turns as a comparison takes them, [turns, kept queries], and the seconds of one."""
    mean_ms = float(latencies_ms.mean())
    size = max(FEWEST_TURN_QUERIES, math.ceil(TURN_S * 1e3 / mean_ms))
    whole = np.split(latencies_ms, np.cumsum(turns)[:-1])
    cuts = [turn[: len(turn) // size * size].reshape(-1, size) for turn in whole]
    return np.concatenate(cuts)[:, 1:], size * mean_ms / 1e3


def recorded_draw(turns: np.ndarray, turn_s: float, *, shared: bool) -> Draw:
    """Runs put together of stretches of a recording."""
    rounds = int(DEFAULT_SECONDS / turn_s)
    length = max(1, round(STRETCH_S / (2 * turn_s)))
    swapped = np.arange(length) % 2 == 1

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        stretches = -(-rounds // length)
        if not shared:
            steps = np.arange(length)
            a, b = ((rng.integers(len(turns), size=stretches)[:, None] + steps) % len(turns) for _ in "AB")
        else:
            at = (rng.integers(len(turns), size=stretches)[:, None] + np.arange(2 * length)) % len(turns)
            first, second = at[:, 0::2], at[:, 1::2]
            a, b = np.where(swapped, second, first), np.where(swapped, first, second)
        return a.reshape(-1)[:rounds], b.reshape(-1)[:rounds]

    return draw


def synthetic() -> dict[str, Draw]:
    """Sources of known shape; a run's queries are kept ones."""
    size = max(FEWEST_TURN_QUERIES, math.ceil(TURN_S * 1e3 / QUERY_MS))
    rounds, kept = int(DEFAULT_SECONDS * 1e3 / QUERY_MS / size), size - 1
    shape = (2, rounds, kept)

    def ar1(rng: np.random.Generator, phi: float = 0.9) -> np.ndarray:
        values = rng.normal(0, 0.1 * math.sqrt(1 - phi**2), shape)
        for step in range(1, kept):
            values[:, :, step] += phi * values[:, :, step - 1]
        before = rng.normal(0, 0.1, 2)  # what the turn before left
        powers = phi ** np.arange(1, kept + 1)
        for turn in range(rounds):
            values[:, turn] += before[:, None] * powers
            before = values[:, turn, -1]
        return np.exp(values)

    def drift(rng: np.random.Generator) -> np.ndarray:
        seconds = (np.arange(rounds)[:, None] * 2 + np.array([[0, 1]])) * TURN_S  # when each turn of a round begins
        level = 1 + 0.4 * seconds / seconds.max() + 0.2 * np.sin(2 * np.pi * (seconds / 3 + rng.random()))
        level[1::2] = level[1::2, ::-1]
        return rng.lognormal(0, 0.1, shape) * level.T[:, :, None]

    def heavy(rng: np.random.Generator) -> np.ndarray:
        return rng.lognormal(0, 0.05, shape) * (1 + (rng.random(shape) < 0.02) * rng.pareto(1.5, shape))

    makers: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
        "lognormal": lambda rng: rng.lognormal(0, 0.1, shape),
        "heavy tail": heavy,
        "bimodal": lambda rng: rng.lognormal(0, 0.03, shape) * (1 + 0.3 * (rng.random(shape) < 0.25)),
        "AR(1)": ar1,
        "drift of both": drift,
    }

    def drawing(make: Callable[[np.random.Generator], np.ndarray]) -> Draw:
        def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
            both = make(rng) * QUERY_MS
            return both[0], both[1]

        return draw

    return {name: drawing(make) for name, make in makers.items()}


def log_ratios(a: np.ndarray, b: np.ndarray, q: float) -> tuple[np.ndarray, int]:
    """The log ratios of :func:`compare_in_turns` for turns of one size, and the rounds of each; arrays only."""
    width = -(-queries_a_group(q) // a.shape[1])
    groups = len(a) // width
    sides = [np.percentile(side[: groups * width].reshape(groups, -1), q, axis=1) for side in (a, b)]
    return np.log(sides[1] / sides[0]), width


def same_as_compare(a: np.ndarray, b: np.ndarray, q: float, found: Ratio) -> bool:
    """Whether the short way above gives what the function that ``edgekit compare`` calls gives."""
    whole = compare_in_turns(list(a), list(b), q)
    return whole is not None and math.isclose(whole.low, found.low) and math.isclose(whole.high, found.high)


def simulate(draw: Draw, turns: np.ndarray | None, runs: int) -> dict[float, np.ndarray]:
    """By percentile: lower end, upper end, settled, rounds a group of every run; turns are looked up where given."""
    rng = np.random.default_rng(SEED)
    found: dict[float, list[tuple[float, ...]]] = {q: [] for q in PERCENTILES}
    tables = {}
    if turns is not None:
        for q in PERCENTILES:
            if turns.shape[1] >= queries_a_group(q):
                tables[q] = np.log(np.percentile(turns, q, axis=1))
    for run in range(runs):
        a, b = draw(rng)
        for q in PERCENTILES:
            if q in tables:
                values, width = tables[q][b] - tables[q][a], 1
            else:
                values, width = log_ratios(*((a, b) if turns is None else (turns[a], turns[b])), q)
            ratio = ratio_of(values, q, base_ms=1.0, other_ms=1.0, rounds_per_value=width)
            if ratio is None:
                continue
            if run < 3:
                assert same_as_compare(*((a, b) if turns is None else (turns[a], turns[b])), q, ratio)
            found[q].append((ratio.low, ratio.high, ratio.settled, ratio.rounds_per_group))
    return {q: np.array(rows, dtype=np.float64).reshape(-1, 4) for q, rows in found.items()}


def describe(latencies: np.ndarray) -> tuple[float, float]:
    """Coefficient of variation and lag-1 autocorrelation."""
    centred = latencies - latencies.mean()
    return float(latencies.std() / latencies.mean()), float((centred[1:] * centred[:-1]).mean() / latencies.var())


def row(name: str, kind: str, latencies: np.ndarray, rounds: int, found: dict[float, np.ndarray], judged: bool) -> bool:
    """Prints a row; whether it misses the figure."""
    cv, correlation = describe(latencies)
    called = {}
    for q, runs in found.items():
        called[q] = float(((runs[:, 0] > 1) | (runs[:, 1] < 1)).mean()) if len(runs) else math.nan
    low, high, settled, width = found[50.0].T
    power = float((low * SLOWDOWN > 1).mean())
    missed = judged and (any(share > MOST_CALLED for share in called.values()) or power < LEAST_FOUND)
    cells = " ".join(f"{'-' if math.isnan(share) else f'{share:.2%}':>6}" for share in called.values())
    half = float(np.mean(np.log(high / low)) / 2)
    print(
        f"{name:<25} {kind:<9} {cv:>5.2f} {correlation:>5.2f} {rounds:>6} {width.mean():>5.1f} {cells} "
        f"{1 - settled.mean():>8.2%} {half:>6.2%} {power:>7.2%} {'MISSED' if missed else '' if judged else '(shown)'}",
        flush=True,
    )
    return missed


def main() -> int:
    """Prints the table; 0 when every judged row meets the figure."""
    parser = argparse.ArgumentParser(description="Simulates comparisons of like sides and of a 3%% slowdown.")
    parser.add_argument("--runs", type=int, default=10_000, help="runs a source")
    parser.add_argument("--only", default="", help="sources whose name holds this text")
    given = parser.parse_args()
    print(f"{given.runs} runs a source, {DEFAULT_SECONDS:g} s a side, turns of {TURN_S * 1e3:g} ms or 10 queries")
    print(
        f"{'source':<25} {'sides':<9} {'CV':>5} {'r1':>5} {'rounds':>6} {'width':>5} {'A/A 50':>6} {'90':>6} {'99':>6} "
        f"{'unsettl.':>8} {'+-':>6} {'3% seen':>7}"
    )
    missed = 0
    for name, draw in synthetic().items():
        if given.only in name:
            sample = draw(np.random.default_rng(SEED))[0]
            missed += row(name, "synthetic", sample.ravel(), len(sample), simulate(draw, None, given.runs), True)
    for name, latencies, sizes in recordings():
        if given.only not in name:
            continue
        turns, turn_s = cut(latencies, sizes)
        for kind, shared in (("in turns", True), ("apart", False)):
            draw = recorded_draw(turns, turn_s, shared=shared)
            found = simulate(draw, turns, given.runs if shared else min(given.runs, SHOWN_RUNS))
            missed += row(name, kind, latencies, int(DEFAULT_SECONDS / turn_s), found, shared)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
