"""From what moves save to options of a knapsack: their costs sum to what a network takes; what is said of others."""

import pytest
from tables import group, row, table

from edgekit.errors import ModelError
from edgekit.pruning.knapsack import Option, choose
from edgekit.table_options import REST, notes_of, options_of, overlap_us

WORTH = {"layer1.0": {"removed": 0.5, "half": 0.125}, "layer1.1": {"removed": 0.25, "half": 1.0}}
GROUPS = [group("layer1.0", "removed", "half"), group("layer1.1", "removed", "half")]


def test_a_move_costs_what_it_saves_less_than_the_best_one():
    found = options_of(table(row("removed", 30.0), row("half", 12.0)), GROUPS, WORTH)
    assert found == {
        "layer1.0": [
            Option(name="whole", cost_us=30.0, importance=0.0),
            Option(name="removed", cost_us=0.0, importance=-0.5),
            Option(name="half", cost_us=18.0, importance=-0.125),
        ],
        "layer1.1": [
            Option(name="whole", cost_us=30.0, importance=0.0),
            Option(name="removed", cost_us=0.0, importance=-0.25),
            Option(name="half", cost_us=18.0, importance=-1.0),
        ],
        REST: [Option(name="whole", cost_us=40.0, importance=0.0)],
    }


@pytest.mark.parametrize(
    ("budget_us", "wanted"),
    [
        (100.0, {"layer1.0": "whole", "layer1.1": "whole"}),
        (88.0, {"layer1.0": "half", "layer1.1": "whole"}),
        (70.0, {"layer1.0": "whole", "layer1.1": "removed"}),
        (58.0, {"layer1.0": "half", "layer1.1": "removed"}),
        (40.0, {"layer1.0": "removed", "layer1.1": "removed"}),
    ],
)
def test_a_choice_takes_what_the_network_takes_with_it(budget_us, wanted):
    found = choose(options_of(table(row("removed", 30.0), row("half", 12.0)), GROUPS, WORTH), budget_us, step_us=1.0)
    assert {name: option.name for name, option in found.options.items() if name != REST} == wanted
    assert found.cost_us == budget_us


def test_moves_that_are_not_shown_and_groups_without_others_are_no_options():
    told = table(
        row("removed", 30.0, -1.0, 61.0),
        row("half", 12.0),
        row("removed", 5.0, 0.0, 9.0, alike="wide", group="layer2.0"),
    )
    groups = [*GROUPS, group("layer2.0", "removed", alike="wide"), group("fc", "half", alike="new")]
    found = options_of(told, groups, WORTH)
    assert {name: [option.name for option in options] for name, options in found.items()} == {
        "layer1.0": ["whole", "half"],
        "layer1.1": ["whole", "half"],
        REST: ["whole"],
    }
    assert found[REST][0].cost_us == 76.0
    assert notes_of(told, groups) == [
        "fewer operations are not shown faster: layer1.0, removed: saves 30 µs [-1, 61] on null fp32",
        "fewer operations are not shown faster: layer2.0, removed: saves 5 µs [0, 9] on null fp32",
        "fc, half: left out, for no latency of it is known",
    ]


def test_what_several_alike_do_not_gain_is_said_of_all():
    told = table(row("half", 1.2, -0.4, 2.9, members=9), engine="openvino", precision="int8")
    assert told.not_shown == (
        "fewer operations are not shown faster: layer1.0 and 8 alike, half: saves 1.2 µs [-0.4, 2.9] on openvino int8",
    )


def test_where_savings_overlap_the_rest_is_nothing_and_the_budget_larger():
    told = table(row("removed", 60.0), row("half", 12.0))
    options = options_of(told, GROUPS, WORTH)
    assert options[REST] == [Option(name="whole", cost_us=0.0, importance=0.0)]
    assert overlap_us(told, GROUPS) == 20.0
    assert choose(options, 100.0 + 20.0).cost_us == 120.0  # nothing needs to go
    assert notes_of(told, GROUPS) == [
        "the best moves of all groups save 120 µs of 100 µs: some save the same time twice, or it is noise; "
        "together they save less than the table says"
    ]
    assert overlap_us(table(row("removed", 30.0)), GROUPS) == 0.0


def test_a_move_of_unknown_worth_is_an_error():
    with pytest.raises(ModelError, match=r"group 'layer1.1', move 'half': its worth is not known\n  found:   removed"):
        options_of(table(row("half", 12.0)), GROUPS, WORTH | {"layer1.1": {"removed": 1.0}})


def test_a_move_after_which_the_loss_is_no_number_is_no_option():
    worth = WORTH | {"layer1.1": {"removed": float("inf"), "half": 1.0}}
    found = options_of(table(row("removed", 30.0), row("half", 12.0)), GROUPS, worth)
    assert [option.name for option in found["layer1.1"]] == ["whole", "half"]
