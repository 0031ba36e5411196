"""What a pruned student is judged by at every step: its score against the teacher, and its latency when compiled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit.artifact import Artifact, TensorSpec
from edgekit.candidate import Candidate, Task, prepare, try_plans
from edgekit.checking import References
from edgekit.choosing import best, ratio_in_turns, shown_faster
from edgekit.data import Samples, draw_calibration
from edgekit.errors import EdgeKitError, MeasurementError
from edgekit.ingredients import Ingredients, seen_by
from edgekit.latency_table import LONGER, longer, table_load
from edgekit.making import compile_step, export, measure_step, quantize_step
from edgekit.planning import plans_for
from edgekit.processing import postprocessing_of
from edgekit.profiling.comparison import Ratio
from edgekit.profiling.load import LoadSpec
from edgekit.profiling.measured import Measured
from edgekit.profiling.statistics import bounds_or_stretches, percentile
from edgekit.progress import Progress
from edgekit.quantization.schemes import Plan
from edgekit.recipe import Recipe
from edgekit.recipe_pruning import Pruning
from edgekit.references import score_references
from edgekit.shipping import Job
from edgekit.teaching import TrainedModel

if TYPE_CHECKING:
    from torch import Tensor

    from edgekit.pruning.criteria import Evidence
    from edgekit.pruning.worth import Worth

BATCH = 64  # samples that a loss or a criterion is computed on at once


@dataclass(frozen=True, kw_only=True, eq=False)  # without slots: some of its properties are kept
class Line:
    """What all steps of one pruning share.

    Attributes:
        recipe: The recipe; it has a table ``[pruning]``.
        job: The target that is pruned for, with its profile.
        base: The recipe's folder.
        data: The recipe's data.
        teacher: What is learnt from after each step, and what the score is held against.
        student: The unpruned student.
        steps: Root of the step folders.
        progress: Told of every step.
    """

    recipe: Recipe
    job: Job
    base: Path
    data: Ingredients
    teacher: TrainedModel
    student: TrainedModel
    steps: Path
    progress: Progress

    @property
    def settings(self) -> Pruning:
        """The recipe's table."""
        assert self.recipe.pruning is not None  # a line is made of recipes that have one
        return self.recipe.pruning

    @property
    def judged_on(self) -> Samples:
        """The samples kept for validation: the test samples are for what ships."""
        assert self.data.validation is not None  # roles see that there are data
        return self.data.validation

    @property
    def multiple(self) -> int:
        """What widths are a multiple of."""
        return self.settings.multiple or self.job.target.channel_multiple or 1

    @cached_property
    def worths(self) -> dict[tuple[str, ...], Worth]:
        """What each move of a student loses, by its identity and the names of its groups."""
        return {}

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        """Two training samples, on which a module is traced."""
        import torch

        from edgekit.distillation.forward import to_torch

        samples = seen_by(self.data, self.student.inputs).train
        assert samples is not None  # likewise
        return to_torch(samples.tensors(np.arange(min(2, len(samples)))), torch.device("cpu"))

    @cached_property
    def evidence(self) -> Evidence:
        """Training samples with labels, as the data have them; where one has none, the unpruned student's class."""
        import torch

        from edgekit.distillation.batch import Batch
        from edgekit.distillation.forward import forward, to_torch
        from edgekit.pruning.criteria import Evidence

        assert self.data.train is not None  # likewise
        assert self.student.module is not None
        chosen = draw_calibration(self.data.train, self.settings.samples, self.recipe.seed)
        classes = np.full(len(chosen), -1) if chosen.targets is None else np.asarray(chosen.targets)
        if (classes < 0).any():
            answers = next(iter(forward(self.student.module, chosen).values()))
            classes = np.where(classes < 0, answers.argmax(axis=1), classes)
        batches = []
        for start in range(0, len(chosen), BATCH):
            indices = np.arange(start, min(start + BATCH, len(chosen)))
            labels = torch.tensor(classes[indices], dtype=torch.int64)
            inputs = to_torch(chosen.tensors(indices), torch.device("cpu"))
            batches.append(Batch(inputs=inputs, labels=labels, indices=indices, view=0, share=0.0))
        return Evidence(batches=batches, seed=self.recipe.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """The median application latency of a step.

    Attributes:
        p50_ms: Median; where it was not measured, what a table of latencies makes of it.
        low_ms: Lower end of its interval; None where there is none.
        high_ms: Upper end, likewise.
        ratio: To the unpruned student, in the same turns; None where it was not measured.
        faster: Whether it is shown to be faster than the step before, in the same turns; None where not measured.
    """

    p50_ms: float
    low_ms: float | None = None
    high_ms: float | None = None
    ratio: Ratio | None = None
    faster: bool | None = None

    def within(self, share: float) -> bool | None:
        """Whether it is shown to take at most such a share of the unpruned student's; None where neither is shown."""
        if self.ratio is None or self.ratio.low <= share < self.ratio.high:
            return None
        return self.ratio.high <= share


def task_for(line: Line, model: TrainedModel, fp32: Artifact) -> Task:
    """What a student is judged by, on the samples kept for validation."""
    references = score_references(
        line.teacher, model, fp32, line.data, line.steps, line.progress, samples=line.judged_on
    )
    return _task(line, fp32.outputs, references)


def untrained_task(line: Line, outputs: Sequence[TensorSpec]) -> Task:
    """The same for what only takes time: there is nothing yet to judge numbers by."""
    nothing = References(student={}, teacher={}, metric_name=None, teacher_score=None, student_score=None)
    return _task(line, outputs, nothing)


def _task(line: Line, outputs: Sequence[TensorSpec], references: References) -> Task:
    seen, judged = seen_by(line.data, line.student.inputs), line.judged_on
    return Task(
        target=line.job.target,
        profile=line.job.profile,
        calibration=seen.calibration,
        test=judged.only(line.student.inputs) if line.student.inputs else judged,
        metric=line.data.metric,
        references=references,
        progress=line.progress,
        place=line.job.place,
        postprocessing=postprocessing_of(line.recipe, outputs),
        labels=line.data.labels,
    )


def output_specs(line: Line) -> tuple[TensorSpec, ...]:
    """What the student gives, as it will cross to ONNX; axis 0 is the batch."""
    import torch

    from edgekit.distillation.forward import call, evaluating

    assert line.student.module is not None  # roles refuse .onnx students
    with evaluating(line.student.module), torch.no_grad():
        outputs = call(line.student.module, line.inputs)
    return tuple(
        TensorSpec(name=name, dtype=str(output.numpy().dtype), shape=("batch", *output.shape[1:]))
        for name, output in outputs.items()
    )


def first_plan(line: Line) -> tuple[Candidate, Task]:
    """The unpruned student as it would ship: the plan that all steps are made by.

    Raises:
        EdgeKitError: No plan of the target may ship.
    """
    fp32 = exported(line, line.student)
    task = task_for(line, line.student, fp32)
    plans = plans_for(line.job.target, line.job.engines, line.job.quantization, line.job.place)
    candidates = try_plans(fp32, plans, task, line.steps)
    chosen = best(candidates)
    if chosen is None:
        raise EdgeKitError(
            "pruning: nothing of the unpruned student may ship, so there is no latency to bring down",
            found="; ".join(f"{c.plan}: {c.failure or (c.verdict.reason if c.verdict else '')}" for c in candidates),
            fix="see what `edgekit deploy` says of the recipe without [pruning]",
        )
    return chosen, task


def score(line: Line, model: TrainedModel, plan: Plan) -> Candidate:
    """Makes a student by the plan and scores it; it is not measured yet."""
    fp32 = exported(line, model)
    return prepare(fp32, plan, task_for(line, model, fp32), line.steps)


def compiled(line: Line, model: TrainedModel, plan: Plan, task: Task) -> Artifact:
    """What the engine loads of a student by the plan, without proving its numbers: its latency alone is asked for."""
    artifact = exported(line, model)
    if plan.precision != "fp32":
        artifact = quantize_step(artifact, plan, task, line.steps)
    return compile_step(artifact, plan.engine, task, line.steps)


def time_in_turns(
    new: Artifact, before: Artifact, first: Artifact, task: Task, steps: Path, share: float | None = None
) -> Times:
    """Measures a step beside the one before and the unpruned student.

    Args:
        new: The step.
        before: The one before.
        first: The unpruned student.
        task: Its target, profile and samples.
        steps: Root of the step folders.
        share: Of the unpruned student's median that the step is to take at most: while it is not shown whether it does,
            all are measured again, and longer. None: once is enough.

    Raises:
        MeasurementError: One of them could not be measured.
    """
    artifacts = list({artifact.sha256: artifact for artifact in (first, before, new)}.values())
    for times in LONGER:
        found = _timed(artifacts, new, before, first, task, steps, longer(table_load(task), times))
        if share is None or found.within(share) is not None:
            break
    return found


def _timed(
    artifacts: Sequence[Artifact],
    new: Artifact,
    before: Artifact,
    first: Artifact,
    task: Task,
    steps: Path,
    load: LoadSpec,
) -> Times:
    found: dict[str, Measured] = {}
    for artifact, measured in zip(artifacts, measure_step(artifacts, task, steps, load), strict=True):
        if measured.status != "ok":
            raise MeasurementError("pruning: a step could not be measured", found=measured.reason or measured.status)
        found[artifact.sha256] = measured
    mine, sides = found[new.sha256], len(artifacts)
    bounds = bounds_or_stretches(mine.application_ms, 50.0)
    return Times(
        p50_ms=percentile(mine.application_ms, 50.0),
        low_ms=bounds.lower_ms,
        high_ms=bounds.upper_ms,
        ratio=ratio_in_turns(found[first.sha256], mine, sides) if first.sha256 != new.sha256 else None,
        faster=shown_faster(found[before.sha256], mine, sides) if before.sha256 != new.sha256 else None,
    )


def exported(line: Line, model: TrainedModel) -> Artifact:
    """A student as it crosses to ONNX."""
    assert model.module is not None  # roles refuse .onnx students
    judged = line.judged_on
    return export(model.module, judged.only(model.inputs) if model.inputs else judged, line.steps)
