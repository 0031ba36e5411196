from __future__ import annotations

import itertools
import re
from fractions import Fraction

import numpy as np
import pytest

from edgekit.errors import MeasurementError, ModelError, SpecError
from edgekit.pruning.knapsack import STEPS, Choice, Option, choose, forecast_mb


def option(cost_us: float, importance: float, name: str = "an option") -> Option:
    return Option(name=name, cost_us=cost_us, importance=importance)


def drawn(seed: int) -> dict[str, list[Option]]:
    """A small instance: whole, broken or repeated costs, and a removed block that costs nothing."""
    rng = np.random.default_rng(seed)
    groups = {}
    for group in range(rng.integers(1, 6)):
        count = rng.integers(1, 5)
        costs = rng.integers(0, 12, count) if seed % 2 else rng.uniform(0, 12, count)
        importance = rng.integers(-2, 6, count) if seed % 3 else rng.uniform(0, 5, count)
        options = [option(float(c), float(i), f"{n}") for n, (c, i) in enumerate(zip(costs, importance, strict=True))]
        groups[f"block{group}"] = [*options, option(0.0, 0.0, "removed")] if rng.random() < 0.5 else options
    return groups


def exact(value: float) -> Fraction:
    return Fraction(repr(float(value)))


def cost_of(options) -> Fraction:
    return sum((exact(o.cost_us) for o in options), Fraction(0))


def best_by_hand(groups: dict[str, list[Option]], budget: float) -> float:
    """The most importance of any choice within a budget of undiscretised costs."""
    return max(
        (sum(o.importance for o in options) for options in itertools.product(*groups.values())
         if cost_of(options) <= exact(budget)),
        default=-np.inf,
    )  # fmt: skip


def least(groups: dict[str, list[Option]]) -> float:
    return sum(min(o.cost_us for o in options) for options in groups.values())


@pytest.mark.parametrize("seed", range(1, 120, 2))
def test_is_the_best_of_all_choices_where_costs_are_whole_steps(seed):
    groups = drawn(seed)
    for budget in (least(groups), least(groups) + 3.0, least(groups) + 9.5, 1000.0):
        choice = choose(groups, budget, step_us=1.0)
        assert choice.slack_us == 0
        assert choice.importance == pytest.approx(best_by_hand(groups, budget), abs=1e-9)
        assert cost_of(choice.options.values()) <= exact(budget)
        assert list(choice.options) == list(groups)
        assert all(chosen in groups[name] for name, chosen in choice.options.items())


@pytest.mark.parametrize("seed", range(0, 120, 2))
def test_of_broken_costs_it_is_within_the_stated_bound_and_never_over_the_budget(seed):
    groups = drawn(seed)
    for step in (0.7, 0.05):
        budget = least(groups) + len(groups) * step + 4.321
        choice = choose(groups, budget, step_us=step)
        assert cost_of(choice.options.values()) <= exact(budget)
        assert choice.slack_us <= len(groups) * step
        assert choice.importance >= best_by_hand(groups, budget - choice.slack_us) - 1e-9
        assert choice.importance <= best_by_hand(groups, budget) + 1e-9


@pytest.mark.parametrize("seed", range(20))
def test_a_larger_budget_never_keeps_less(seed):
    groups = drawn(seed)
    budgets = np.linspace(least(groups) + len(groups) * 0.3, 60.0, 15)
    kept = [choose(groups, float(budget), step_us=0.3).importance for budget in budgets]
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(kept))
    assert kept[-1] == pytest.approx(sum(max(o.importance for o in options) for options in groups.values()))


def test_a_greedy_choice_is_beaten():
    """The best ratio of importance to cost leaves no room for what is worth more."""
    groups = {"a": [option(0, 0), option(6, 7)], "b": [option(0, 0), option(10, 11)]}
    assert choose(groups, 10.0, step_us=1.0).options["b"].importance == 11


def test_a_budget_may_be_met_exactly_in_decimals():
    """In binary three times 0.1 is above 0.3, and 0.3 is below three steps of 0.1."""
    groups = {name: [option(0.1, 1.0, "whole"), option(0.0, 0.0, "removed")] for name in "abc"}
    choice = choose(groups, 0.3, step_us=0.1)
    assert [o.name for o in choice.options.values()] == ["whole"] * 3
    assert choice.cost_us == 0.3
    assert choice.slack_us == 0
    fewer = choose(groups, 0.29, step_us=0.01)
    assert sorted(o.name for o in fewer.options.values()) == ["removed", "whole", "whole"]


def test_among_equals_the_cheapest_is_taken_then_the_first():
    dear, cheap, twin = option(5, 1.0, "dear"), option(2, 1.0, "cheap"), option(2, 1.0, "twin")
    assert choose({"a": [dear, cheap, twin]}, 9.0, step_us=1.0).options["a"].name == "cheap"
    assert choose({"a": [twin, dear, cheap]}, 9.0, step_us=1.0).options["a"].name == "twin"


def test_options_that_cost_nothing_need_no_budget():
    groups = {"a": [option(0, 1), option(3, 9)], "b": [option(0, 2), option(0, 5)]}
    choice = choose(groups, 0.0)
    assert [o.importance for o in choice.options.values()] == [1, 5]
    assert choice.cost_us == 0


def test_a_group_of_one_option_is_what_the_network_takes_anyway():
    groups = {"rest": [option(4, 0)], "a": [option(0, 0), option(3, 1)]}
    assert choose(groups, 6.9, step_us=0.1).options["a"].importance == 0
    assert choose(groups, 7.0, step_us=0.1).options["a"].importance == 1


def test_a_gain_may_be_worth_its_loss():
    """An importance below 0 is chosen where nothing else fits."""
    groups = {"a": [option(0, -3), option(5, 1)], "b": [option(4, 0)]}
    assert choose(groups, 5.0, step_us=1.0).importance == -3


def test_unless_told_the_step_is_a_ten_thousandth_of_the_budget():
    choice = choose({"a": [option(1.23456, 1), option(0, 0)]}, 30.0)
    assert choice.step_us == pytest.approx(30.0 / STEPS)
    assert 0 < choice.slack_us < choice.step_us
    assert choice.options["a"].importance == 1


def test_many_groups_with_many_options_are_solved():
    rng = np.random.default_rng(0)
    groups = {
        f"layer{g}": [option(width * rng.uniform(0.5, 2), float(np.sqrt(width)), f"{width}") for width in range(300)]
        for g in range(8)
    }
    choice = choose(groups, 900.0, step_us=0.5)
    assert 0.97 * 900 < choice.cost_us <= 900


def test_a_budget_below_the_smallest_network_is_told_with_the_least_there_is():
    groups = {"a": [option(3.3, 1), option(9, 2)], "b": [option(2.25, 1)]}
    with pytest.raises(SpecError, match=r"(?s)below what the smallest network takes.*found: +5 µs.*5\.55 µs or more"):
        choose(groups, 5.0, step_us=0.01)
    assert choose(groups, 5.55, step_us=0.01).cost_us == 5.55


def test_the_least_that_is_told_is_enough():
    groups = {name: [option(1 / 3, 1)] for name in "abc"} | {"d": [option(1234.56789, 1)]}
    with pytest.raises(SpecError) as caught:
        choose(groups, 1.0, step_us=1e-3)
    told = float(re.findall(r"[\d.]+", caught.value.allowed)[0])
    assert choose(groups, told, step_us=1e-3).cost_us <= told


def test_a_step_too_coarse_for_the_budget_is_told_apart():
    groups = {name: [option(1.1, 1)] for name in "ab"}
    with pytest.raises(SpecError, match=r"(?s)too coarse.*the cheapest options, 2.2 µs, count as 4.*smaller step_us"):
        choose(groups, 2.5, step_us=1.0)
    assert choose(groups, 2.5, step_us=0.1).importance == 2


def test_a_budget_that_only_the_cheapest_fit_is_kept_without_a_step_that_tells_them_apart():
    groups = {name: [option(1, 9, "whole"), option(1 / 3, 1, "third"), option(1 / 3, 2, "better")] for name in "abc"}
    chosen = choose(groups, 1.0)
    assert [one.name for one in chosen.options.values()] == ["better"] * 3
    assert chosen.cost_us <= chosen.budget_us


@pytest.mark.parametrize("cost", [-0.001, float("nan"), float("inf"), None, "3"])
def test_a_cost_that_is_no_latency_is_refused(cost):
    groups = {"a": [option(1, 1)], "b": [option(1, 1), option(cost, 1, "half")]}
    with pytest.raises(MeasurementError, match="group 'b', option 'half': its cost is no latency"):
        choose(groups, 9.0)


@pytest.mark.parametrize("importance", [float("nan"), float("-inf"), None])
def test_an_importance_that_is_no_number_is_refused(importance):
    with pytest.raises(ModelError, match="group 'a', option 'half': its importance is no number"):
        choose({"a": [option(1, importance, "half")]}, 9.0)


@pytest.mark.parametrize("budget", [-1.0, float("nan"), float("inf"), None, True])
def test_a_budget_that_is_no_latency_is_refused(budget):
    with pytest.raises(SpecError, match=r"(?s)the budget is no latency.*a finite number, 0 or more"):
        choose({"a": [option(0, 1)]}, budget)


@pytest.mark.parametrize("step", [0.0, -1.0, float("nan"), float("inf")])
def test_a_step_that_is_none_is_refused(step):
    for ask in (choose, forecast_mb):
        with pytest.raises(SpecError, match=r"(?s)step_us is no step.*a finite number above 0"):
            ask({"a": [option(0, 1)]}, 1.0, step_us=step)


def test_nothing_to_choose_from_is_refused():
    with pytest.raises(MeasurementError, match="nothing to choose from"):
        choose({}, 1.0)
    with pytest.raises(MeasurementError, match="group 'b' has no options"):
        choose({"a": [option(0, 1)], "b": []}, 1.0)


def test_memory_is_foretold_and_bounded():
    groups = {str(g): [option(900.0, 1), option(0, 0)] for g in range(20)}
    with pytest.raises(SpecError, match=r"(?s)too fine.*20 groups by 1000000 steps.*at most 1 MB") as caught:
        choose(groups, 1000.0, step_us=0.001, most_mb=1.0)
    step = float(re.findall(r"step_us = ([\d.e-]+)", caught.value.fix)[0])
    assert choose(groups, 1000.0, step_us=step, most_mb=1.0).importance == 1
    assert forecast_mb(groups, 1000.0, step_us=step) <= 1.0
    assert forecast_mb(groups, 1000.0, step_us=0.001) == pytest.approx(20 + 25, rel=0.01)


def test_a_budget_beyond_all_costs_takes_no_more_memory():
    groups = {"a": [option(3, 1), option(5, 2)]}
    assert forecast_mb(groups, 1e12, step_us=1e-3) > 1e6
    assert choose(groups, 1e12, step_us=1e-3).options["a"].importance == 2


def test_a_choice_cannot_be_changed():
    choice = choose({"a": [option(1, 1)]}, 2.0)
    assert isinstance(choice, Choice)
    with pytest.raises(AttributeError):
        choice.budget_us = 3.0
