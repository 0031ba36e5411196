"""Coverage of the 99% bounds, by simulation of whole runs.

By hand: ``python tests/bench/bench_statistics.py [--runs N] [--only TEXT]``; 10,000 runs a row take about an hour on
two cores. Exits 1 when a row misses.

A run is what the profiler would do with such latencies at the default effort: turns through :class:`Pace`, which goes
on where queries hang together, then drift and bounds as ``edgekit profile`` takes them. A run that the tool itself
calls inconclusive (it drifted, or a percentile has no bound) is not counted for coverage; the share is printed. Of
the others the true percentile must lie within the upper bound in 99%: a row misses where it is significantly less
often (one-sided binomial, 0.1%). Independent and recorded latencies may be inconclusive in at most 10% of the runs.

**Recorded**: blocks of 20 successive queries drawn at random from a real session (``recorded.py``), so that what hangs
together within a block stays together and there is a truth to cover: the recording's own percentiles. What lasts longer
than a block is mixed. Blocks of 100 are shown too, for coverage: of the slowest sessions a run then holds some 20 to 40
blocks, which is too few for a p99 whatever the method, and being inconclusive is right.
**Independent**: lognormal, heavy tail (one in 50 takes up to many times as long, Pareto 1.5), bimodal, each of 1 ms,
and lognormal of 30 ms, where the count decides and not the time. **Correlated**: AR(1), and slow stretches of 20
queries on average. **Drifting**: a level that rises by so much in the planned time and goes on at that rate; the truth
is the percentile of all that the run saw, so a small drift that the tool lets pass is counted too.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from recorded import recordings
from scipy.signal import lfilter
from scipy.stats import binom, norm

from edgekit.profiling.dependence import autocorrelation, drift
from edgekit.profiling.load import LoadSpec
from edgekit.profiling.statistics import bounds_of
from edgekit.profiling.turns import Pace

LOAD = LoadSpec()
MOST_INCONCLUSIVE = 0.10
ALPHA = 0.001
CV = 0.1

Draw = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class Source:
    """Latencies in ms; ``truth`` gives percentile ``q`` of a run of ``n``; ``limited``: few may be inconclusive."""

    name: str
    draw: Draw
    truth: Callable[[float, int], float]
    limited: bool
    load: LoadSpec = LOAD


def lognormal(rng: np.random.Generator, n: int, ms: float = 1.0) -> np.ndarray:
    return ms * np.exp(CV * rng.standard_normal(n))


def heavy(rng: np.random.Generator, n: int) -> np.ndarray:
    return lognormal(rng, n) * np.where(rng.random(n) < 0.02, 1 + rng.pareto(1.5, n), 1.0)


def bimodal(rng: np.random.Generator, n: int) -> np.ndarray:
    return lognormal(rng, n) * np.where(rng.random(n) < 0.25, 1.3, 1.0)


def first_order(rng: np.random.Generator, n: int, rho: float) -> np.ndarray:
    noise = rng.standard_normal(n) * math.sqrt(1 - rho * rho)
    noise[0] = rng.standard_normal()
    return np.exp(CV * lfilter([1.0], [1.0, -rho], noise))


def stretches(rng: np.random.Generator, n: int) -> np.ndarray:
    """One query in ten is 40% slower, in stretches of 20 on average."""
    count = n // 50 + 20
    lengths = np.stack([rng.geometric(1 / 180, count), rng.geometric(1 / 20, count)], axis=1).ravel()
    slow = np.repeat(np.arange(2 * count) % 2 == 1, lengths)
    start = rng.integers(0, max(1, len(slow) - n))
    return lognormal(rng, n) * np.where(np.resize(slow[start:], n), 1.4, 1.0)


def drifting(rng: np.random.Generator, n: int, rise: float, planned: int) -> np.ndarray:
    return lognormal(rng, n) * (1 + rise * np.arange(n) / planned)


def blocks(rng: np.random.Generator, n: int, recording: np.ndarray, length: int) -> np.ndarray:
    starts = rng.integers(0, len(recording) - length, -(-n // length))
    return recording[(starts[:, None] + np.arange(length)).ravel()[:n]]


@cache
def percentile_of(draw: Draw, q: float) -> float:
    """Of a stationary source: from many long runs."""
    rng = np.random.default_rng(1)
    return float(np.percentile(np.concatenate([draw(rng, 50_000) for _ in range(100)]), q))


def of_drift(q: float, n: int, rise: float, planned: int) -> float:
    """Percentile of everything that a drifting run of n queries draws from."""
    levels = np.log(1 + rise * np.linspace(0, n / planned, 400))
    low, high = 0.1, 10.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if norm.cdf((np.log(middle) - levels) / CV).mean() < q / 100 else (low, middle)
    return high


def sources() -> Iterator[Source]:
    plain = {"lognormal": lognormal, "heavy tail": heavy, "bimodal": bimodal, "30 ms": partial(lognormal, ms=30.0)}
    for name, draw in plain.items():
        yield Source(f"independent, {name}", draw, lambda q, n, d=draw: percentile_of(d, q), True)
    for name, draw in {"AR(1) 0.7": partial(first_order, rho=0.7), "AR(1) 0.9": partial(first_order, rho=0.9)}.items():
        yield Source(f"correlated, {name}", draw, lambda q, n, d=draw: percentile_of(d, q), False)
    yield Source("correlated, stretches", stretches, lambda q, n: percentile_of(stretches, q), False)
    for rise in (0.01, 0.03, 0.1, 0.3):
        draw = partial(drifting, rise=rise, planned=3000)
        yield Source(f"drifting, {rise:.0%}", draw, partial(of_drift, rise=rise, planned=3000), False)
    for length in (20, 100):
        for name, recording, _ in recordings():
            draw = partial(blocks, recording=recording, length=length)
            # 66,000 queries in 3 s would take hours to simulate: such short ones get a third of the time.
            load = LOAD if recording.mean() > 0.1 else LoadSpec(min_seconds=1.0)
            truth = partial(_of_recording, recording)
            yield Source(f"recorded, {name}, blocks of {length}", draw, truth, length == 20, load)


def _of_recording(recording: np.ndarray, q: float, n: int) -> float:
    return float(np.percentile(recording, q, method="inverted_cdf"))


def session(source: Source, rng: np.random.Generator) -> np.ndarray:
    """The latencies that a run keeps."""
    drawn = source.draw(rng, 2000)
    most = int(4 * source.load.min_seconds * 1e3 / drawn.mean()) + 4000
    latencies = source.draw(rng, most)
    pace, at = Pace(), 0
    while pace.share(source.load) < 1:
        queries = pace.next_turn(source.load)
        turn = np.resize(latencies[at : at + queries], queries)
        pace.took(queries, float(turn.sum()) / 1e3, turn)
        at += queries
        if at > most:  # the rest of a very slow run
            latencies, at = source.draw(rng, most), 0
    return np.concatenate(pace.latencies_ms)


def simulate(source: Source, runs: int, seed: int) -> tuple[int, dict[float, int], list[int]]:
    """How many runs are inconclusive, how many others each bound covers, and the queries of each."""
    rng = np.random.default_rng(seed)
    inconclusive, covered, sizes = 0, dict.fromkeys(source.load.percentiles, 0), []
    for _ in range(runs):
        kept = session(source, rng)
        sizes.append(len(kept))
        bounds = {q: bounds_of(kept, q).upper_ms for q in covered}
        if drift(kept) or None in bounds.values():
            inconclusive += 1
            continue
        for q, upper in bounds.items():
            covered[q] += upper >= source.truth(q, len(kept))
    return inconclusive, covered, sizes


def _row(index: int, runs: int, seed: int) -> tuple[int, dict[float, int], list[int]]:
    return simulate(list(sources())[index], runs, seed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--only", default="", help="rows whose name holds this text")
    options = parser.parse_args()
    header = "".join(f"{f'p{q:g}':>9}" for q in LOAD.percentiles)
    print(f"{'latencies':<50}{'CV':>6}{'r1':>6}{'queries':>9}{'inconcl.':>9}{header}")
    missed, parts = [], 10
    with ProcessPoolExecutor(2) as pool:
        for index, source in enumerate(sources()):
            if options.only not in source.name:
                continue
            jobs = [pool.submit(_row, index, options.runs // parts, seed) for seed in range(parts)]
            found = [job.result() for job in jobs]
            sample = source.draw(np.random.default_rng(0), 100_000 if "drift" not in source.name else 3000)
            runs = options.runs // parts * parts
            inconclusive = sum(f[0] for f in found)
            counted = runs - inconclusive
            cells, short = "", source.limited and inconclusive > MOST_INCONCLUSIVE * runs
            for q in source.load.percentiles:
                hits = sum(f[1][q] for f in found)
                low = counted > 0 and binom.cdf(hits, counted, 0.99) < ALPHA
                cells += f"{hits / counted if counted else math.nan:>8.2%}{'!' if low else ' '}"
                short = short or low
            if short:
                missed.append(source.name)
            print(
                f"{source.name:<50}{sample.std() / sample.mean():>6.2f}{autocorrelation(sample):>6.2f}"
                f"{np.median(np.concatenate([f[2] for f in found])):>9.0f}{inconclusive / runs:>9.1%}{cells}",
                flush=True,
            )
    print(f"{options.runs} runs a row; " + (f"missed: {'; '.join(missed)}" if missed else "every row holds"))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
