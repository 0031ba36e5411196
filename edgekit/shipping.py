"""What ships and why: the bundle of a target, its ancestry, its reason and its exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.artifact import Artifact, Manifest, Parent, to_json
from edgekit.bundle import BundleFacts, make_golden, write_bundle
from edgekit.candidate import Candidate, Plan, Task
from edgekit.checking import References, without_times
from edgekit.choosing import Settled, collapsed, eligible, p50_bound_ms, p50_ms, ratio_in_turns
from edgekit.ingredients import Ingredients
from edgekit.places import Place, host_of
from edgekit.progress import Progress
from edgekit.recipe import Quantization, Recipe
from edgekit.reporting.measurement import measured_report, without_pictures
from edgekit.specs import Profile, Target
from edgekit.teaching import TrainedModel
from edgekit.verdict import EXIT_BY_STATUS
from edgekit.watch_facts import reference_statistics, watch_settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One target of a run, its specs read and checked before any work.

    ``place`` is the device that measures for it; None: this machine does, where it is the target.
    """

    target: Target
    profile: Profile
    engines: tuple[str, ...]
    quantization: Quantization
    place: Place | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """What all targets of a run share.

    ``unpruned`` is the student before it was pruned, and ``pruning`` what is told of that; None where it was not.
    """

    recipe: Recipe
    data: Ingredients
    teacher: TrainedModel
    student: TrainedModel
    fp32: Artifact
    references: References
    steps: Path
    progress: Progress
    unpruned: TrainedModel | None = None
    pruning: dict[str, Any] | None = None


def ship(job: Job, run: Run, task: Task, shipped: Candidate, out: Path) -> Manifest:
    """Writes the bundle of a target's chosen candidate at ``out`` and returns its manifest."""
    assert shipped.artifact is not None, "best() returns judged candidates only"
    assert shipped.verdict is not None
    watched = run.recipe.watch
    fed = None if task.in_graph is None else task.in_graph.preprocessing
    statistics = reference_statistics(shipped.artifact, task.calibration, task.test, watched, fed)
    facts = BundleFacts(
        name=run.recipe.name,
        target=job.target.name,
        plan=shipped.plan,
        batch=job.profile.load.batch,
        preprocessing=task.test.preprocessing,
        postprocessing=task.postprocessing,
        in_graph=task.in_graph,
        labels=task.labels,
        parents=_parents(run, shipped.plan, shipped.artifact),
        accuracy=to_json(without_times(shipped.proof) if shipped.proof else None),
        timings={
            "verdict": to_json(shipped.verdict),
            "profile": job.profile.model_dump(),
            "target": to_json(dict(job.target)),
            "not_measured": task.not_measured,
            "host": to_json(host_of(task.place)),
            "measured": without_pictures(measured_report(shipped.measured, job.profile.load_spec())),
        },
        statistics=statistics,
        watch=watch_settings(watched, job.profile, statistics),
    )
    golden = make_golden(shipped.artifact, task.references, task.test, facts.batch)
    return write_bundle(shipped.artifact, golden, facts, out)


def _parents(run: Run, plan: Plan, artifact: Artifact) -> tuple[Parent, ...]:
    """Everything a bundle can be traced back to, oldest first."""
    parents = [*run.data.parents, Parent(kind="teacher", name=run.teacher.name, sha256=run.teacher.sha256)]
    if run.unpruned is not None and run.unpruned is not run.teacher:
        parents.append(Parent(kind="unpruned", name=run.unpruned.name, sha256=run.unpruned.sha256))
    if run.student is not run.teacher:
        parents.append(Parent(kind="student", name=run.student.name, sha256=run.student.sha256))
    parents.append(Parent(kind="fp32", name="onnx", sha256=run.fp32.sha256))
    if artifact.parent and artifact.parent != run.fp32.sha256:
        parents.append(Parent(kind="quantized", name=str(plan), sha256=artifact.parent))
    return tuple(parents)


def exit_code_of(candidates: Sequence[Candidate], shipped: Candidate | None) -> int:
    """A target's exit code: its verdict's; 3 where accuracy kept everything back, 1 where everything failed."""
    if shipped is not None and shipped.verdict is not None:
        return EXIT_BY_STATUS[shipped.verdict.status]
    return 3 if any(c.verdict is not None and c.verdict.accuracy_failed for c in candidates) else 1


def why_it_ships(
    job: Job, candidates: Sequence[Candidate], shipped: Candidate | None, task: Task, settled: Sequence[Settled] = ()
) -> str:
    """Why this candidate ships, or why none does, in one line."""
    if shipped is None:
        beyond = any(c.verdict is not None and c.verdict.accuracy_failed for c in candidates)
        lost = "every candidate failed" + (" or collapsed" if any(map(collapsed, candidates)) else "")
        return "nothing ships: " + ("the accuracy limit is missed" if beyond else lost)
    chosen = str(shipped.plan)
    auto = job.quantization.precision == "auto" and "int8" in job.target.precisions
    passed_over = "".join(f"; {pair.goes.plan} {pair.why}" for pair in settled if pair.stays is shipped)
    if task.not_measured:
        because = "auto ships fp32 where nothing can be measured" if auto else "as asked"
        return f"{chosen}: {because} ({task.not_measured}){passed_over}"
    note = "; int8 was not tried: there are no calibration samples" if auto and task.calibration is None else ""
    left = eligible(candidates)
    kept = {id(c) for c in left}
    gone = [c for c in candidates if c.proof is not None and collapsed(c) and id(c) not in kept]
    note = "".join(f"; {c.plan} has collapsed ({c.proof.reference_db:.1f} dB)" for c in gone if c.proof) + note
    if len(left) == 1:
        return f"{chosen}: the only candidate{' left' if len(candidates) > 1 else ''}{note}"
    status = shipped.verdict.status if shipped.verdict else ""
    among = "of those that meet every limit" if status == "pass" else f"of the best there is ({status})"
    bounds = [p50_bound_ms(c) for c in left]
    bound = p50_bound_ms(shipped)
    lowest = "lowest median" if bound is None or None in bounds else f"lowest p50 bound ({bound:.3f} ms)"
    vain = _in_vain(candidates, shipped)
    return f"{chosen}: {lowest}{' in fp32' if vain else ''} {among}{f'; {vain}' if vain else ''}{passed_over}{note}"


def _in_vain(candidates: Sequence[Candidate], shipped: Candidate) -> str | None:
    """Which other precision with as good a verdict came nearest to being faster than the fp32 that ships; or None."""
    ours, status = p50_ms(shipped), shipped.verdict.status if shipped.verdict else None
    if shipped.plan.precision != "fp32" or ours is None or shipped.measured is None:
        return None
    sides = sum(c.measured is not None for c in candidates)
    others = [
        c for c in eligible(candidates) if c.plan.precision != "fp32" and c.verdict and c.verdict.status == status
    ]
    medians = [(ms, i) for i, c in enumerate(others) if (ms := p50_ms(c)) is not None]
    if not medians:
        return None
    theirs, at = min(medians)
    measured = others[at].measured
    assert measured is not None, "it has a median"
    ratio = ratio_in_turns(shipped.measured, measured, sides)
    seen = f"{ratio.ratio:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]" if ratio else f"{theirs / ours:.2f}x"
    return f"{others[at].plan} is not shown to be faster ({seen} of its p50)"
