"""From a model to a verdict, for one plan or for many measured in turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.artifact import Array, Artifact
from edgekit.backends import load_backend
from edgekit.backends.methods import check_plan
from edgekit.checking import Proof, References, placed_there, prove
from edgekit.choosing import best
from edgekit.data import Samples
from edgekit.errors import EdgeKitError, EngineError, ModelError
from edgekit.making import compile_step, export, golden_step, measure_step, quantize_step
from edgekit.metrics import Metric
from edgekit.places import Place, host_of, lacks
from edgekit.processing import as_tensors
from edgekit.processing_specs import InGraph, Postprocessing
from edgekit.profiling.host import this_host
from edgekit.profiling.in_numpy import InNumpy
from edgekit.profiling.load import COMPARED_TURN_S, LoadSpec
from edgekit.profiling.measured import Measured
from edgekit.progress import Progress, silent
from edgekit.quantization.schemes import Plan
from edgekit.specs import Profile, Target, mismatch
from edgekit.verdict import Verdict, judge

if TYPE_CHECKING:
    from torch.nn import Module

__all__ = ["Candidate", "Plan", "Task", "choose", "measure_all", "prepare", "try_plan"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """What every try of one target shares.

    Attributes:
        target: What is deployed on.
        profile: What must be met.
        calibration: Samples that calibrate a quantised model; None: int8 is refused.
        test: Samples on which numbers and score are judged, as a compiled artifact takes them.
        metric: The task metric; None without labels.
        references: Teacher and fp32 student on ``test``, scored once; what a compiled artifact should give.
        progress: Where long steps tell how far they are.
        place: The device that measures; None: this machine does.
        in_graph: What compiled artifacts do in their graphs; None: nothing.
        postprocessing: What is done in numpy to their outputs; None: nothing.
        labels: Class names.
    """

    target: Target
    profile: Profile
    calibration: Samples | None
    test: Samples
    metric: Metric | None
    references: References
    progress: Progress = silent
    place: Place | None = None
    in_graph: InGraph | None = None
    postprocessing: Postprocessing | None = None
    labels: tuple[str, ...] = ()

    @property
    def examples(self) -> Samples:
        """The test samples as a model takes them that was not compiled yet."""
        return as_tensors(self.test, self.in_graph)

    @property
    def in_numpy(self) -> InNumpy:
        """What is done in numpy around a run of a compiled artifact, and timed."""
        labels = () if self.postprocessing is None else self.labels
        return InNumpy(preprocessing=self.test.preprocessing, postprocessing=self.postprocessing, labels=labels)

    @property
    def not_measured(self) -> str | None:
        """Why a verdict on latency cannot be given where it is measured, or None."""
        why = mismatch(self.target, host_of(self.place))
        return why if why is None or self.place is None else why.replace("this host", self.place.name)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """One try: its plan and how far it came.

    Attributes:
        plan: How it was made.
        artifact: The compiled artifact; None where making it failed.
        proof: Numbers and score; None where it failed.
        measured: Latencies; None where the host is not the target, or it failed.
        verdict: Every limit judged; None where it failed.
        failure: Why it failed, or None.
        scores: Its score of every sample, ``[n]``; None where it failed or none is known.
    """

    plan: Plan
    artifact: Artifact | None = None
    proof: Proof | None = None
    measured: Measured | None = None
    verdict: Verdict | None = None
    failure: str | None = None
    scores: Array | None = None


def prepare(model: Module | Artifact, plan: Plan, task: Task, out: Path) -> Candidate:
    """Makes one candidate and proves its numbers: export, quantise, compile, check.

    Every step is a folder under ``out`` keyed by what it depends on; a finished one is not repeated.

    Args:
        model: A torch module, or the fp32 ONNX artifact it became; for a plan that was trained, the int8 artifact.
        plan: How the candidate is made; int8 without a scheme gets the engine's own dialect on the target.
        task: What it is judged by.
        out: Root of the step folders.

    Returns:
        The candidate with a proof.

    Raises:
        EdgeKitError: A step failed.
    """
    backend = load_backend(plan.engine)
    reason = backend.missing(task.target)
    if reason is not None:
        raise EdgeKitError(f"engine {plan.engine!r} cannot prepare a model here", found=reason)
    lacking = None if task.place is None else lacks(task.place, plan.engine)
    if task.place is not None and lacking is not None:
        raise EdgeKitError(f"engine {plan.engine!r} cannot run on {task.place.name}", found=lacking)
    artifact = model if isinstance(model, Artifact) else export(model, task.examples, out)
    check_plan(plan, task.target)
    if plan.trained and artifact.precision != plan.precision:
        raise ModelError(f"{plan} is what a training ends in", found=f"a model in {artifact.precision}")
    if plan.scheme is None and plan.precision in backend.SCHEMED:
        plan = replace(plan, scheme=backend.scheme(task.target))
    if plan.precision != "fp32" and not plan.trained:
        artifact = quantize_step(artifact, plan, task, out)
    built = compile_step(artifact, plan.engine, task, out)
    on_target = mismatch(task.target, this_host()) is None
    proof, scores = prove(task.references, built, task.test, task.metric, task.progress, on_target=on_target)
    return Candidate(plan=plan, artifact=built, proof=proof, scores=scores)


def measure_all(candidates: Sequence[Candidate], task: Task, out: Path) -> list[Candidate]:
    """Measures candidates in turns, one process each, and judges every one.

    Candidates that failed, or whose numbers are broken, are passed through. Where the host is not the target
    nothing is timed and the verdict says so.

    Args:
        candidates: As :func:`prepare` gave them.
        task: What they are judged by.
        out: Root of the step folders.
    """
    ready = [c for c in candidates if c.artifact is not None and c.proof is not None and not c.proof.broken]
    measured: dict[int, Measured] = {}
    if task.not_measured is None and ready:
        # Short turns: half a dozen sides need many rounds before one can be shown to be faster than another.
        load = replace(task.profile.load_spec(), shortest_turn_s=COMPARED_TURN_S)
        results = _measured_there(ready, task, out, load) if task.place else _measured_here(ready, task, out, load)
        measured = {id(c): result for c, result in zip(ready, results, strict=True)}
    return [_judged(c, measured.get(id(c)), task) for c in candidates]


def _measured_here(ready: Sequence[Candidate], task: Task, out: Path, load: LoadSpec) -> list[Measured]:
    return measure_step([c.artifact for c in ready if c.artifact is not None], task, out, load)


def _measured_there(ready: Sequence[Candidate], task: Task, out: Path, load: LoadSpec) -> list[Measured]:
    """Measures on the task's device, where the golden samples of each are run before it is timed."""
    artifacts = [c.artifact for c in ready if c.artifact is not None]
    bundled = [golden_step(c.artifact, c.plan, task, out) for c in ready if c.artifact is not None]
    results = measure_step(bundled, task, out, load)
    return [replace(r, artifact_sha256=a.sha256) for a, r in zip(artifacts, results, strict=True)]


def _judged(candidate: Candidate, measured: Measured | None, task: Task) -> Candidate:
    if candidate.artifact is None or candidate.proof is None:
        return candidate
    if candidate.proof.broken:
        return replace(candidate, failure=candidate.failure or candidate.proof.broken)
    if measured is not None and measured.status != "ok":
        return replace(candidate, measured=measured, failure=measured.reason or measured.status)
    proof = candidate.proof
    if measured is not None and measured.placement is not None:
        try:
            proof = placed_there(proof, candidate.artifact, measured.placement)
        except EngineError as exc:
            return replace(candidate, measured=measured, failure=str(exc))
    verdict = judge(
        proof,
        measured,
        task.profile,
        size_mb=candidate.artifact.size_bytes / 1e6,
        not_measured=task.not_measured,
    )
    return replace(candidate, proof=proof, measured=measured, verdict=verdict)


def try_plan(model: Module | Artifact, plan: Plan, task: Task, out: Path) -> Candidate:
    """Prepares, measures and judges one plan."""
    return measure_all([prepare(model, plan, task, out)], task, out)[0]


def try_plans(
    model: Module | Artifact,
    plans: Sequence[Plan],
    task: Task,
    out: Path,
    trained: Sequence[tuple[Plan, Artifact]] = (),
) -> list[Candidate]:
    """Prepares every plan, measures them in turns and judges them; a plan that fails is a candidate with a reason.

    Plans that were trained bring their own artifact, and come last.
    """
    candidates = []
    tries = [*((plan, model) for plan in plans), *trained]
    for i, (plan, own) in enumerate(tries):
        task.progress(f"prepare for {task.target.name}", i, len(tries), str(plan))
        try:
            candidates.append(prepare(own, plan, task, out))
        except EdgeKitError as exc:
            candidates.append(Candidate(plan=plan, failure=str(exc)))
    task.progress(f"prepare for {task.target.name}", len(tries), len(tries))
    return measure_all(candidates, task, out)


def choose(model: Module | Artifact, plans: Sequence[Plan], task: Task, out: Path) -> Candidate:
    """Tries every plan and returns the one that ships; see :func:`edgekit.choosing.best`.

    Raises:
        EdgeKitError: No plan gave an artifact that may ship.
    """
    candidates = try_plans(model, plans, task, out)
    found = best(candidates)
    if found is None:
        raise EdgeKitError(
            f"no candidate for target {task.target.name!r} may ship",
            found="; ".join(f"{c.plan}: {c.failure or (c.verdict.reason if c.verdict else '')}" for c in candidates),
        )
    return found
