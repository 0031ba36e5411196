"""``--precision auto``: the plan with the lowest measured latency whose drop stays within the profile's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgekit.artifact import Artifact
from edgekit.candidate import Candidate, Task, measure_all, prepare
from edgekit.checking import Proof
from edgekit.choosing import COLLAPSE_DB, ratio_in_turns
from edgekit.errors import EdgeKitError
from edgekit.planning import Traits, first_plans, more_corrections, other_methods, traits_of
from edgekit.quantization.groups import Group, groups_of
from edgekit.quantization.schemes import STATIC_METHODS, Plan
from edgekit.recipe import Quantization
from edgekit.sensitivity import alone, measure_sensitivity

# What int8 may lose where the profile sets no limit: what the field calls lossless.
USUAL_LIMIT_POINTS = 1.0
# Of the limit, what int8 may lose on the samples that the search sees: the rest is for those it does not see.
SHARE_OF_LIMIT = 0.5
# A plan in int8 that takes more than this of fp32's time has groups that int8 slows down, or nothing to gain.
SUSPECT_RATIO = 0.85
MOST_GROUPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One plan that the search tried on samples of its own.

    Attributes:
        plan: The plan.
        within: Whether it lost little enough.
        proof: What was seen; None where it could not be made.
        failure: Why it could not be made, or None.
    """

    plan: Plan
    within: bool
    proof: Proof | None = None
    failure: str | None = None

    @property
    def db(self) -> float:
        """Its signal-to-noise ratio, in dB; below everything where it failed or is broken."""
        return self.proof.reference_db if self.proof and not self.proof.broken else float("-inf")


@dataclass(slots=True, kw_only=True, eq=False)
class _Search:
    """What the search of one target shares, and what it tried."""

    model: Artifact
    settings: Quantization
    task: Task
    traits: Traits
    groups: tuple[Group, ...]
    out: Path
    total: int = 0
    trials: list[Trial] = field(default_factory=list)

    def run(self, plan: Plan, model: Artifact | None = None) -> Trial:
        """Makes a plan and judges it on the search's own samples; one that was tried is not tried again."""
        known = next((trial for trial in self.trials if trial.plan == plan), None)
        if known is not None:
            return known
        self.task.progress("auto", len(self.trials), self.total, f"trials at most; {plan}")
        try:
            proof = prepare(model or self.model, plan, self.task, self.out).proof
        except EdgeKitError as exc:
            trial = Trial(plan=plan, within=False, failure=str(exc))
        else:
            assert proof is not None, "prepare ends at a proof"
            trial = Trial(plan=plan, within=within(proof, self.task), proof=proof)
        self.trials.append(trial)
        return trial

    def left(self, engine: str) -> int:
        """How many more plans the recipe allows on an engine."""
        return self.settings.trials - sum(trial.plan.engine == engine for trial in self.trials)


def search(
    model: Artifact,
    engines: Sequence[str],
    settings: Quantization,
    task: Task,
    trial: Task,
    out: Path,
    trained: Sequence[tuple[Plan, Artifact]] = (),
) -> tuple[list[Candidate], list[Trial]]:
    """Looks for the fastest plan that loses little enough; :func:`edgekit.choosing.best` of the candidates ships.

    On every engine: fp32, and other float precisions the target runs; the usual int8; where that loses too much, its
    other range methods, then corrections, then the operator groups that lose most back in float, until one is within.
    What is left is proven on the test samples and measured in turns. Where an int8 plan gains little, each group's
    time is measured, and those that int8 slows down go back to float.

    Args:
        model: The fp32 ONNX model.
        engines: Candidate engines.
        settings: The recipe's; ``trials`` bounds the plans tried on each engine.
        task: What candidates are judged by.
        trial: The same with samples that are not the test samples, on which plans are chosen.
        out: Root of the step folders.
        trained: Plans that were trained in int8, each with what it became: candidates beside those found here.

    Returns:
        Measured candidates, and every plan that was tried.
    """
    from edgekit.conversion.clean import load_onnx

    proto = load_onnx(model.path)
    state = _Search(
        model=model,
        settings=settings,
        task=trial,
        traits=traits_of(proto),
        groups=groups_of(proto, MOST_GROUPS),
        out=out,
        total=settings.trials * len(engines) + len(trained),
    )
    plans = [plan for engine in engines for plan in _finalists(engine, state)]
    made = [(state.run(plan, artifact).plan, artifact) for plan, artifact in trained]
    state.task.progress("auto", state.total, state.total, f"{len(state.trials)} plans tried")
    tries = [*((plan, model) for plan in plans), *made]
    candidates = measure_all([_prepared(plan, own, task, out) for plan, own in tries], task, out)
    better = [plan for c in candidates if (plan := _without_losers(c, candidates, state)) is not None]
    if better:
        candidates += [_prepared(plan, model, task, out) for plan in better]
        candidates = measure_all([replace(c, measured=None, verdict=None) for c in candidates], task, out)
    return candidates, state.trials


def within(proof: Proof, task: Task) -> bool:
    """Whether a plan lost little enough on the search's samples to be worth measuring.

    Where a score is known, at most half of what the limit leaves may be lost, or the whole interval lies within the
    limit. Where only numbers are known, it must not have collapsed.
    """
    if proof.broken:
        return False
    limit = task.profile.limits.max_drop_points
    limit = USUAL_LIMIT_POINTS if limit is None else limit
    if proof.drop is None or proof.drop_from_fp32 is None:
        return proof.reference_db >= COLLAPSE_DB
    lost_before = proof.drop.points - proof.drop_from_fp32.points
    allowed = max(SHARE_OF_LIMIT * (limit - lost_before), 0.1 * limit)
    return proof.drop.high <= limit or proof.drop_from_fp32.points <= allowed


def _finalists(engine: str, state: _Search) -> list[Plan]:
    """The plans of an engine that are measured: fp32, float precisions within the limit, and the best int8."""
    plans = first_plans(engine, state.task.target, state.settings, state.traits)
    fp32, *firsts = [state.run(plan) for plan in plans]
    chosen = [fp32.plan]
    for first in sorted(firsts, key=_is_static):  # last what may take all trials that are left
        if _is_static(first):
            best = first if first.within else _mended(first, state)
            chosen.append(best.plan)  # even when it loses too much: its row says so
            continue
        best = first if first.within or first.plan.method != "dynamic" else _smoothed(first, state)
        if best.within or best.failure:
            chosen.append(best.plan)
    return chosen


def _is_static(trial: Trial) -> bool:
    return trial.plan.precision == "int8" and trial.plan.method in STATIC_METHODS


def _mended(first: Trial, state: _Search) -> Trial:
    """The first plan within the limit among methods, corrections and groups in float; else the one that lost least."""
    best, engine = first, first.plan.engine
    if first.failure:
        return first  # what the engine refuses, or runs in float, no other range mends
    for plan in other_methods(first.plan, state.settings):
        if best.within or state.left(engine) <= 0:
            return best
        best = max(best, state.run(plan), key=_merit)
    for correction in more_corrections(first.plan, state.settings, state.traits):
        if best.within or state.left(engine) <= 0:
            return best
        added = replace(best.plan, corrections=(*best.plan.corrections, correction))
        best = max(best, state.run(added), key=_merit)
    return best if best.within else _in_parts(best, state)


def _smoothed(first: Trial, state: _Search) -> Trial:
    """The dynamic plan with SmoothQuant, where that may be tried and does better."""
    plan = first.plan
    useful = "smooth-quant" in more_corrections(plan, state.settings, state.traits)
    if first.failure or not useful or state.left(plan.engine) <= 0:
        return first
    return max(first, state.run(replace(plan, corrections=("smooth-quant",))), key=_merit)


def _merit(trial: Trial) -> tuple[bool, float]:
    return trial.within, trial.db


def _in_parts(best: Trial, state: _Search) -> Trial:
    """Leaves the groups that lose most in float, twice as many each time."""
    groups, engine = state.groups, best.plan.engine
    if len(groups) < 2 or state.left(engine) <= len(groups):
        return best
    lost = sorted((state.run(alone(best.plan, group, groups)).db, i) for i, group in enumerate(groups))
    start, count = best.plan, 1
    while count < len(groups) and state.left(engine) > 0 and not best.within:
        worst = [name for _, i in lost[:count] for name in groups[i].nodes]
        plan = replace(start, float_groups=tuple(dict.fromkeys([*start.float_groups, *worst])))
        best = max(best, state.run(plan), key=_merit)
        count *= 2
    return best


def _without_losers(candidate: Candidate, all_of_them: Sequence[Candidate], state: _Search) -> Plan | None:
    """The plan with the groups in float that int8 slows down; None where it gains well, or nothing would be left."""
    plan, groups = candidate.plan, state.groups
    static = plan.precision == "int8" and plan.method in STATIC_METHODS
    if not static or candidate.measured is None or len(groups) < 2 or state.left(plan.engine) <= 0:
        return None
    fp32 = next((c for c in all_of_them if c.plan.engine == plan.engine and c.plan.precision == "fp32"), None)
    if fp32 is None or fp32.measured is None:
        return None
    ratio = ratio_in_turns(fp32.measured, candidate.measured, sum(c.measured is not None for c in all_of_them))
    if ratio is None or ratio.ratio <= SUSPECT_RATIO:
        return None
    open_groups = [group for group in groups if not set(group.nodes) <= set(plan.float_groups)]
    rows = measure_sensitivity(state.model, plan, open_groups, state.task, state.out)
    losers = [row.group for row in rows if not row.pays]
    if not losers or len(losers) == len(open_groups):
        return None
    left = tuple(dict.fromkeys([*plan.float_groups, *(name for group in losers for name in group.nodes)]))
    trial = state.run(replace(plan, float_groups=left))
    return trial.plan if trial.proof is not None and not trial.proof.broken else None


def _prepared(plan: Plan, model: Artifact, task: Task, out: Path) -> Candidate:
    try:
        return prepare(model, plan, task, out)
    except EdgeKitError as exc:
        return Candidate(plan=plan, failure=str(exc))
