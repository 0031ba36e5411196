"""One option of each group, such as a width of a block, so that most importance stays within a latency budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real
from typing import Any

import numpy as np

from edgekit.artifact import Array
from edgekit.errors import MeasurementError, ModelError, SpecError

STEPS = 100_000  # of a budget, where no step is told
MOST_MB = 512.0
_MB = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One way in which a group of layers may be built.

    Attributes:
        name: What it is, e.g. ``24 channels`` or ``removed``.
        cost_us: Latency that it takes, in microseconds; 0 or more.
        importance: What is kept of the network with it; any finite number, more is better.
    """

    name: str
    cost_us: float
    importance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """An option for each group.

    Attributes:
        options: By group, in the order that the groups were given in.
        budget_us: What their costs may sum to, in microseconds.
        step_us: What each cost was rounded up to a multiple of.
        slack_us: Most that the rounding may have added up to, at most a step a group: no choice that costs
            ``budget_us - slack_us`` or less keeps more than this one. 0 where all costs are multiples of the step.
    """

    options: Mapping[str, Option]
    budget_us: float
    step_us: float
    slack_us: float

    @property
    def cost_us(self) -> float:
        """Sum of the costs as they were measured, in microseconds; never above the budget."""
        return float(sum(_exact(option.cost_us) for option in self.options.values()))

    @property
    def importance(self) -> float:
        """Sum of what is kept."""
        return math.fsum(option.importance for option in self.options.values())


def choose(
    groups: Mapping[str, Sequence[Option]], budget_us: float, *, step_us: float | None = None, most_mb: float = MOST_MB
) -> Choice:
    """Chooses one option of each group: of all choices within the budget, one that keeps the most importance.

    M. Shen et al., "Structural Pruning via Latency-Saliency Knapsack" (HALP), NeurIPS 2022, as the multiple-choice
    knapsack problem (H. Kellerer, U. Pferschy, D. Pisinger, "Knapsack Problems", 2004, chapter 11), solved exactly by
    dynamic programming over latency in steps. Costs are rounded up to steps, so the budget is never exceeded; how much
    that may lose is told by :attr:`Choice.slack_us`. With a fixed step a larger budget never keeps less. Among choices
    of equal importance one of the lowest cost in steps is taken, and of equal options the first.

    Costs add up. What a network takes whatever is chosen is a group of one option.

    Args:
        groups: Options by group; at least one each.
        budget_us: What all options together may take, in microseconds.
        step_us: Latency is counted in steps of so many microseconds; None: a hundred-thousandth of the budget, and
            where only the cheapest options fit, by less than such steps can tell, they are taken.
        most_mb: Most memory of the table, in MB; see :func:`forecast_mb`.

    Raises:
        SpecError: The budget is no number of 0 or more, or below the least that any choice takes; the step is not
            above 0, is too coarse for a budget that tight, or too fine for ``most_mb``.
        MeasurementError: A group has no options, or a cost is negative or not finite.
        ModelError: An importance is not finite.
    """
    _check_groups(groups)
    _check_settings(budget_us, step_us)
    budget, step = _exact(budget_us), _step(budget_us, step_us)
    units = [[math.ceil(_exact(option.cost_us) / step) for option in options] for options in groups.values()]
    capacity = min(math.floor(budget / step), sum(map(max, units)))
    _check_budget(groups, budget)
    if step_us is not None:
        _check_step(groups, units, budget, step)
    needed_mb = _table_mb(groups, capacity)
    if needed_mb > most_mb:
        raise SpecError(
            "step_us is too fine for the memory there is",
            found=f"{len(groups)} groups by {capacity} steps of {float(step):g} µs take {needed_mb:.0f} MB",
            allowed=f"at most {most_mb:g} MB",
            fix=f"step_us = {_ceiled(step * _exact(1.01 * needed_mb / most_mb), 2)} or more",
        )
    if sum(map(min, units)) > capacity:
        picked = [
            each.index(min(each, key=lambda option: (option.cost_us, -option.importance))) for each in groups.values()
        ]
    else:
        picked = _solve(units, [[float(option.importance) for option in each] for each in groups.values()], capacity)
    rounding = sum(
        max(unit * step - _exact(option.cost_us) for unit, option in zip(of_group, options, strict=True))
        for of_group, options in zip(units, groups.values(), strict=True)
    )
    return Choice(
        options={name: options[i] for (name, options), i in zip(groups.items(), picked, strict=True)},
        budget_us=float(budget_us),
        step_us=float(step),
        slack_us=float(rounding),
    )


def forecast_mb(groups: Mapping[str, Sequence[Option]], budget_us: float, *, step_us: float | None = None) -> float:
    """Memory that :func:`choose` takes at most, in MB: groups × steps of the budget, and two rows of float64.

    Raises:
        SpecError: The budget or the step has no sensible value.
    """
    _check_settings(budget_us, step_us)
    return _table_mb(groups, math.floor(_exact(budget_us) / _step(budget_us, step_us)))


def _table_mb(groups: Mapping[str, Sequence[Option]], capacity: int) -> float:
    most = max((len(options) for options in groups.values()), default=1)
    # The table of options, and the rows: the best so far, the next best, one shifted.
    return (capacity + 1) * (len(groups) * np.min_scalar_type(most).itemsize + 3 * 8 + 1) / _MB


def _solve(units: Sequence[Sequence[int]], importance: Sequence[Sequence[float]], capacity: int) -> list[int]:
    """Positions of the options of the most importance whose units sum to ``capacity`` at most; there must be some."""
    kind = np.min_scalar_type(max(map(len, units)))
    table: Array = np.zeros((len(units), capacity + 1), dtype=kind)
    best: Array = np.full(capacity + 1, -np.inf)  # of the groups so far, at exactly so many units
    best[0] = 0.0
    for row, costs, values in zip(table, units, importance, strict=True):
        following: Array = np.full(capacity + 1, -np.inf)
        for i, (cost, value) in enumerate(zip(costs, values, strict=True)):
            if cost > capacity:
                continue
            reached = best[: capacity + 1 - cost] + value
            better = reached > following[cost:]
            np.copyto(following[cost:], reached, where=better)
            np.copyto(row[cost:], i, where=better, casting="unsafe")
        best = following
    at, picked = int(np.argmax(best)), []  # the first, so the cheapest
    for row, costs in zip(reversed(table), reversed(units), strict=True):
        picked.append(int(row[at]))
        at -= costs[picked[-1]]
    return picked[::-1]


def _exact(value: float) -> Fraction:
    """A number as it is written: 0.3 is three steps of 0.1, which it is not in binary."""
    return Fraction(repr(float(value)))


def _step(budget_us: float, step_us: float | None) -> Fraction:
    if step_us is not None:
        return _exact(step_us)
    return _exact(budget_us) / STEPS or Fraction(1)


def _is_finite(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def _check_settings(budget_us: float, step_us: float | None) -> None:
    if not _is_finite(budget_us) or budget_us < 0:
        raise SpecError("the budget is no latency", found=f"{budget_us!r} µs", allowed="a finite number, 0 or more")
    if step_us is not None and (not _is_finite(step_us) or step_us <= 0):
        raise SpecError("step_us is no step of latency", found=repr(step_us), allowed="a finite number above 0")


def _check_groups(groups: Mapping[str, Sequence[Option]]) -> None:
    if not groups:
        raise MeasurementError("there is nothing to choose from", found="0 groups", allowed="at least one")
    for name, options in groups.items():
        if not options:
            raise MeasurementError(f"group {name!r} has no options", found="0", allowed="at least one")
        for option in options:
            if not _is_finite(option.cost_us) or option.cost_us < 0:
                raise MeasurementError(
                    f"group {name!r}, option {option.name!r}: its cost is no latency",
                    found=f"{option.cost_us!r} µs",
                    allowed="a finite number, 0 or more",
                    fix="measure it again; a gain is the full width's cost less this one's",
                )
            if not _is_finite(option.importance):
                raise ModelError(
                    f"group {name!r}, option {option.name!r}: its importance is no number",
                    found=repr(option.importance),
                    allowed="a finite number",
                )


def _least(groups: Mapping[str, Sequence[Option]]) -> Fraction:
    return sum((min(_exact(option.cost_us) for option in options) for options in groups.values()), Fraction(0))


def _check_budget(groups: Mapping[str, Sequence[Option]], budget: Fraction) -> None:
    """The cheapest option of every group must fit."""
    least = _least(groups)
    if least > budget:
        raise SpecError(
            "the budget is below what the smallest network takes",
            found=f"{float(budget):g} µs",
            allowed=f"{_ceiled(least, 6)} µs or more: the cheapest option of each of {len(groups)} groups",
            fix="a larger budget, or options that cost less",
        )


def _check_step(
    groups: Mapping[str, Sequence[Option]], units: Sequence[Sequence[int]], budget: Fraction, step: Fraction
) -> None:
    """The cheapest options must fit as they are counted."""
    counted = sum(map(min, units)) * step
    if counted > budget:
        raise SpecError(
            "step_us is too coarse for a budget this tight",
            found=f"the cheapest options, {float(_least(groups)):g} µs, count as {float(counted):g} in steps of "
            f"{float(step):g}",
            allowed=f"{float(budget):g} µs",
            fix="a smaller step_us, or one that all costs are multiples of",
        )


def _ceiled(value: Fraction, digits: int) -> str:
    """A number above 0 in so many digits, not below it."""
    unit = Fraction(10) ** (math.floor(math.log10(value)) + 1 - digits)
    return f"{float(math.ceil(value / unit) * unit):.{digits}g}"
