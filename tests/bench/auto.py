"""What the benches of quantisation share: ``--precision auto`` of a recipe, engine by engine, and fresh turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.artifact import Artifact
from edgekit.candidate import Candidate, Task
from edgekit.catalog import load_profile, load_target
from edgekit.checking import References
from edgekit.choosing import best, ratio_in_turns
from edgekit.distilling import train_models
from edgekit.ingredients import Ingredients, specs_of
from edgekit.making import export, measuring_feeds
from edgekit.profiling.comparison import Ratio, rounds_needed
from edgekit.profiling.load import LoadSpec
from edgekit.profiling.measure import measure_in_turns
from edgekit.profiling.measured import Measured
from edgekit.progress import Progress, silent
from edgekit.recipe import Recipe
from edgekit.references import score_references, trial_samples
from edgekit.searching import Trial, search
from edgekit.steps import locked
from edgekit.teaching import import_onnx

ENGINES = ("openvino", "onnxruntime")
# The rule of every figure of speed: the 99.5% interval of the ratio reaches 1, and its centre is no further than this.
MOST_RATIO = 1.02


@dataclass(frozen=True, kw_only=True)
class Auto:
    """A model, what it is judged by, and what ``auto`` made of it."""

    fp32: Artifact
    data: Ingredients
    task: Task
    candidates: list[Candidate]
    trials: list[Trial]

    def of(self, engine: str) -> list[Candidate]:
        return [c for c in self.candidates if c.plan.engine == engine]

    def fp32_of(self, engine: str) -> Candidate:
        return next(c for c in self.of(engine) if c.plan.precision == "fp32")

    def chosen(self, engine: str) -> Candidate | None:
        """What ships where this is the only engine."""
        return best(self.of(engine))


def run_auto(
    recipe: Recipe,
    base: Path,
    out: Path,
    *,
    engines: Sequence[str] = ENGINES,
    scored: bool = True,
    progress: Progress = silent,
) -> Auto:
    """What ``edgekit deploy`` does with a recipe up to the choice, for every engine.

    With ``scored`` False plans are judged by their numbers alone: which class a network of random weights prefers says
    nothing.
    """
    profile, target = load_profile(recipe.profile, (base,)), load_target("local")
    with locked(out) as steps:
        data, teacher, student = train_models(recipe, base, steps, progress)
        if student.onnx is not None:
            fp32 = import_onnx(student, steps, specs_of(data.test))
        else:
            assert student.module is not None
            fp32 = export(student.module, data.test, steps)
        trial = trial_samples(data, recipe.seed)
        assert trial is not None
        references, on_trial = (
            score_references(teacher, student, fp32, data, steps, progress, samples=samples)
            for samples in (None, trial)
        )
        if not scored:
            references, on_trial = unscored(references), unscored(on_trial)
        task = Task(
            target=target,
            profile=profile,
            calibration=data.calibration,
            test=data.test,
            metric=data.metric if scored else None,
            references=references,
            progress=progress,
        )
        trying = replace(task, test=trial, references=on_trial)
        candidates, trials = search(fp32, engines, recipe.quantization, task, trying, steps)
    return Auto(fp32=fp32, data=data, task=task, candidates=candidates, trials=trials)


def unscored(references: References) -> References:
    return replace(references, metric_name=None, teacher_score=None, student_score=None)


def fresh_turns(artifacts: Sequence[Artifact], auto: Auto, seconds: float) -> list[Measured]:
    """Measures artifacts in turns in processes of their own; nothing of an earlier measurement is used."""
    rounds = 2 * rounds_needed() * (1 if len(artifacts) == 2 else len(artifacts))
    load = LoadSpec(
        min_seconds=seconds,
        max_seconds=8 * seconds,
        min_count=9 * rounds,
        percentiles=(50.0,),
        shortest_turn_s=0.02,
        cold_loads=1,
    )
    feeds = measuring_feeds(auto.task.test, 1)
    return measure_in_turns(artifacts, load, feeds, in_numpy=[auto.task.in_numpy] * len(artifacts))


def ratio_of(base: Measured, other: Measured, sides: int) -> Ratio | None:
    return ratio_in_turns(base, other, sides)


def met(ratio: Ratio | None) -> bool:
    """Whether the other side is as fast as the base, by the rule of the figures."""
    return ratio is not None and ratio.low <= 1.0 and ratio.ratio <= MOST_RATIO


def told(ratio: Ratio | None) -> str:
    return "-" if ratio is None else f"{ratio.ratio:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
