"""What is lost by each move alone."""

import copy

import pytest
import torch
from nets_to_cut import make_net
from nets_to_prune import ROWS, batch, evidence, perceptron
from torch import nn

from edgekit.distillation.depth import without_blocks
from edgekit.errors import DataError, ModelError, TrainingError, UnknownName
from edgekit.pruning.blocks import score_blocks
from edgekit.pruning.changes import Change
from edgekit.pruning.criteria import Evidence
from edgekit.pruning.gradients import taylor
from edgekit.pruning.moves import Move, MoveGroup, find_moves
from edgekit.pruning.scores import score_channels
from edgekit.pruning.structured import prune_to
from edgekit.pruning.worth import BY, worth_of


def moves(*changes):
    """A group with these changes, named by number."""
    named = tuple(Move(name=str(number), change=change) for number, change in enumerate(changes))
    return [MoveGroup(name="all", kind="block", alike="", moves=named)]


def mean_loss(net, given):
    with torch.no_grad():
        return sum(float(given.loss(each, net(each.inputs["input"]))) for each in given.batches) / len(given.batches)


def two_batches():
    generator = torch.Generator().manual_seed(3)
    pictures = torch.rand(6, 3, 8, 8, generator=generator)
    return Evidence(batches=[batch(pictures[:4], [0, 1, 2, 0]), batch(pictures[4:], [1, 2])])


def test_by_the_loss_it_is_the_rise_once_the_move_is_made():
    net, inputs = make_net("resnet")
    given = two_batches()
    groups = moves(Change(blocks={"layer1": (2,)}), Change(widths={"layer2.1.conv1": 4}))
    found = worth_of(net, inputs, groups, given)["all"]
    whole = mean_loss(net, given)
    with without_blocks(net, "layer1", {2}):
        assert found["0"] == pytest.approx(mean_loss(net, given) - whole, abs=1e-6)
    prune_to(net, inputs, {"layer2.1.conv1": 4})
    assert found["1"] == pytest.approx(mean_loss(net, given) - whole, abs=1e-6)
    assert found["0"] != found["1"] != 0


def test_by_the_criterion_it_is_the_sum_of_what_goes():
    net, inputs = make_net("resnet")
    groups = moves(
        Change(blocks={"layer1": (2,)}),
        Change(blocks={"layer1": (2, 3)}, widths={"layer2.1.conv1": 4, "stem.0": 6}),
    )
    found = worth_of(net, inputs, groups, two_batches(), criterion="taylor", by="criterion")["all"]
    blocks = {
        (each.path, each.number): each.importance
        for each in score_blocks(net, inputs, criterion="taylor", evidence=two_batches())
    }
    channels = {
        each.name: sorted(each.importance)
        for each in score_channels(net, inputs, criterion="taylor", evidence=two_batches())
        if each.importance
    }
    assert found["0"] == pytest.approx(blocks["layer1", 2])
    gone = sum(channels["layer2.1.conv1"][:12]) + sum(channels["stem.0"][:2])
    assert found["1"] == pytest.approx(blocks["layer1", 2] + blocks["layer1", 3] + gone)


def test_by_the_share_it_is_how_much_of_a_stage_goes_and_equals_are_told_apart_by_the_loss():
    net, inputs = make_net("resnet")
    groups = moves(
        *(Change(blocks={"layer1": (i,)}) for i in (1, 2, 3)),
        Change(blocks={"layer2": (1,)}),
        Change(blocks={"layer1": (2, 3)}, widths={"layer2.1.conv1": 4}),
    )
    found = worth_of(net, inputs, groups, two_batches(), by="share")["all"]
    rises = worth_of(net, inputs, groups, two_batches())["all"]
    first, second = len(net.layer1), len(net.layer2)
    shares = [1 / first, 1 / first, 1 / first, 1 / second, 2 / first + 12 / 16]
    assert [*found.values()] == pytest.approx(shares, rel=1e-3)
    alike = sorted("012", key=found.__getitem__)
    assert alike == sorted("012", key=rises.__getitem__)
    assert len({found[name] for name in alike}) == 3


def test_heads_lose_the_same_channels_of_each():
    net, inputs = make_net("fused")
    for each in score_channels(net, inputs):
        if each.name == "blocks.0.attention.qkv":
            units = torch.tensor(each.importance).view(4, 6).sum(0).sort().values
    widths = {"patches": 12, **{f"blocks.{i}.attention.qkv": 12 for i in range(4)}}
    alone = Change(widths={"blocks.0.attention.qkv": 12})
    found = worth_of(net, inputs, moves(alone, Change(widths=widths)), Evidence(), by="criterion")["all"]
    assert found["0"] == pytest.approx(float(units[:3].sum()))
    assert found["1"] > found["0"]


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("name", ["resnet", "encoder", "mobile"])
def test_every_move_has_its_worth_and_nothing_of_the_module_changes(name, by):
    net, inputs = make_net(name)
    groups, _ = find_moves(net, inputs, multiple=4, shares=(0.5,))
    net.train()
    before, told = copy.deepcopy(net.state_dict()), []
    found = worth_of(
        net, inputs, groups, evidence(inputs["input"]), by=by, progress=lambda *given: told.append(given[:3])
    )
    assert {group.name: [*moved] for group, moved in zip(groups, found.values(), strict=True)} == {
        group.name: [move.name for move in group.moves] for group in groups
    }
    count = sum(len(group.moves) for group in groups)
    assert told == [("worth of moves", done, count) for done in range(count + 1)]
    assert net.training
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert found == worth_of(net, inputs, groups, evidence(inputs["input"]), by=by), "the same again"


def test_data_are_looked_at_once_for_all_widths():
    net, inputs = make_net("resnet")
    calls = []

    def counted(module, groups, given):
        calls.append(len(groups))
        return taylor(module, groups, given)

    groups = moves(*(Change(widths={f"layer1.{i}.conv1": 4}) for i in range(4)))
    worth_of(net, inputs, groups, two_batches(), criterion=counted)
    assert len(calls) == 1
    calls.clear()
    worth_of(net, inputs, moves(Change(blocks={"layer1": (1,)})), two_batches(), criterion=counted)
    assert calls == []


def test_a_move_after_which_the_loss_is_not_finite_is_infinitely_bad():
    net, inputs = make_net("resnet")
    given = Evidence(batches=[batch(inputs["input"])], loss=lambda *_: torch.tensor(1.0) / (len(net.layer1) - 3))
    groups = moves(Change(blocks={"layer1": (0,)}), Change(blocks={"layer2": (1,)}))
    assert worth_of(net, inputs, groups, given)["all"] == {"0": float("inf"), "1": 0.0}


LEAVE = Change(blocks={"layer1": (1,)})


@pytest.mark.parametrize(
    ("change", "given", "further", "error", "message"),
    [
        (LEAVE, Evidence(), {}, DataError, "what a move loses cannot be told by the loss: there are no data"),
        (LEAVE, Evidence(batches=[batch(torch.rand(2, 3, 8, 8))]), {}, DataError, "'loss' needs labels for its loss"),
        (LEAVE, Evidence(), {"by": "criterion", "criterion": "taylor"}, DataError, "criterion 'taylor' needs data"),
        (LEAVE, two_batches(), {"by": "losses"}, UnknownName, "measure of what a move loses 'losses'(.|\n)*loss"),
        (Change(widths={"stem.0": 4}), two_batches(), {"criterion": "l3"}, UnknownName, "criterion 'l3'"),
        (Change(blocks={"layer1": (7,)}), two_batches(), {}, ModelError, "layer1 has no block 7"),
        (Change(blocks={"layer7": (1,)}), two_batches(), {}, ModelError, "no list of blocks 'layer7'"),
        (Change(widths={"stem.7": 4}), two_batches(), {}, ModelError, "no channels of stem.7 that may be dropped"),
        (Change(widths={"fc": 2}), Evidence(), {"by": "criterion"}, ModelError, "no channels of fc that may be"),
        (
            LEAVE,
            Evidence(batches=two_batches().batches, loss=lambda *_: torch.tensor(float("nan"))),
            {},
            TrainingError,
            "loss of ResNet is not finite before anything is left out",
        ),
    ],
)
def test_bad_input_is_told(change, given, further, error, message):
    net, inputs = make_net("resnet")
    with pytest.raises(error, match=message):
        worth_of(net, inputs, moves(change), given, **further)


def test_a_block_of_which_a_criterion_says_nothing_is_told():
    net = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4)) for _ in range(2)), nn.BatchNorm1d(4), perceptron()).eval()
    with pytest.raises(ModelError, match="the criterion says nothing of block 1"):
        worth_of(
            net, {"input": ROWS}, moves(Change(blocks={"": (1,)})), Evidence(), by="criterion", criterion="batchnorm"
        )
