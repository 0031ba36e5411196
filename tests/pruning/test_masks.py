from __future__ import annotations

import copy

import pytest
import torch
from sparse_nets import Net, of_four, same, state_of
from torch import nn
from torch.nn.utils import parametrizations

from edgekit.errors import ModelError, SpecError, TrainingError
from edgekit.pruning.holding import held
from edgekit.pruning.masks import sparse, sparsity_of


def test_two_of_four_along_the_inputs_stay_and_they_are_the_largest():
    net = Net()
    before = state_of(net)
    masks = sparse(net, pattern=(2, 4))
    assert same(before, state_of(net))  # choosing changes nothing
    assert set(masks.kept) == {"body.0.weight", "head.weight"}
    assert masks.dense == {"stem.weight": "input dimension 3 is no multiple of 4"}
    with held(net, masks):
        pass
    assert (of_four(net.body[0].weight) == 2).all()
    assert (of_four(net.head.weight) == 2).all()
    assert (net.stem.weight != 0).all()
    for name in masks.kept:
        groups = before[name].abs().movedim(1, -1).unflatten(-1, (-1, 4))
        stayed = masks.kept[name].movedim(1, -1).unflatten(-1, (-1, 4))
        smallest_kept = groups.masked_fill(~stayed, torch.inf).amin(-1)
        assert (groups.masked_fill(stayed, 0).amax(-1) <= smallest_kept).all()
        assert torch.equal(net.state_dict()[name][masks.kept[name]], before[name][masks.kept[name]])


@pytest.mark.parametrize(
    ("layer", "dim"),
    [
        (nn.ConvTranspose2d(8, 6, 3), 0),
        (nn.Conv1d(16, 4, 3, groups=2), 1),
        (nn.Conv3d(4, 2, 1), 1),
        (nn.Linear(12, 5, dtype=torch.float64), 1),
        (nn.Linear(12, 5, dtype=torch.bfloat16), 1),
    ],
    ids=["transposed", "grouped", "3d", "float64", "bfloat16"],
)
def test_the_input_dimension_is_that_of_the_layer(layer, dim):
    layer = copy.deepcopy(layer)
    with held(layer, sparse(layer, pattern=(1, 4))):
        assert (of_four(layer.weight, dim) == 1).all()


def test_weights_of_attention_and_recurrent_layers_are_masked():
    net = nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2, kdim=4, vdim=4), "lstm": nn.LSTM(4, 8)})
    masks = sparse(net, pattern=(2, 4))
    attention = {"q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"}
    recurrent = {"weight_ih_l0", "weight_hh_l0"}
    assert set(masks.kept) == {f"attention.{name}" for name in attention} | {f"lstm.{name}" for name in recurrent}
    with held(net, masks):
        assert all((of_four(net.get_parameter(name)) == 2).all() for name in masks.kept)
    assert set(sparse(nn.MultiheadAttention(8, 2), share=0.5).kept) == {"in_proj_weight", "out_proj.weight"}


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_smallest_share_becomes_zero(scope):
    net = Net()
    with torch.no_grad():
        net.head.weight.mul_(100)
    masks = sparse(net, share=0.6, scope=scope)
    before = state_of(net)
    with held(net, masks):
        pass
    found = sparsity_of(net)
    assert found.zeros == sum(layer.zeros for layer in found.layers)
    assert [layer.name for layer in found.layers] == ["stem.weight", "body.0.weight", "head.weight"]
    if scope == "layer":
        assert [layer.zeros for layer in found.layers] == [130, 346, 14]  # of 216, 576, 24
    else:
        assert found.zeros == round(0.6 * 816)
        assert found.layers[-1].zeros == 0  # its weights are larger than all others
    for names in [[name] for name in masks.kept] if scope == "layer" else [list(masks.kept)]:
        gone = torch.cat([before[name][~masks.kept[name]].abs() for name in names])
        stayed = torch.cat([before[name][masks.kept[name]].abs() for name in names])
        assert len(gone) == 0 or gone.max() <= stayed.min()


def test_sparsity_is_told_by_layer_and_in_all():
    net = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 1))
    nn.init.ones_(net[0].weight)
    nn.init.zeros_(net[2].weight)
    found = sparsity_of(net)
    assert [(layer.name, layer.share) for layer in found.layers] == [("0.weight", 0.0), ("2.weight", 1.0)]
    assert (found.zeros, found.weights, found.share) == (2, 10, 0.2)
    assert sparsity_of(nn.ReLU()).share == 0.0


def test_a_larger_share_contains_a_smaller_and_ties_are_no_accident():
    net = nn.Linear(8, 4)
    nn.init.ones_(net.weight)
    few = sparse(net, share=0.25)
    with held(net, few):
        many = sparse(net, share=0.5)
    assert few.kept["weight"].sum() == 24
    assert many.kept["weight"].sum() == 16
    assert not (many.kept["weight"] & ~few.kept["weight"]).any()
    assert torch.equal(sparse(net, share=0.5).kept["weight"], many.kept["weight"])


def test_layers_named_dense_stay_whole():
    masks = sparse(Net(), share=0.5, dense=["stem", "body"])
    assert set(masks.kept) == {"head.weight"}
    assert masks.dense == {"stem.weight": "named in dense", "body.0.weight": "named in dense"}


def test_a_weight_that_layers_share_is_masked_once_for_both():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    masks = sparse(net, pattern=(2, 4))
    assert set(masks.kept) == {"0.weight"}
    with held(net, masks):
        assert net[1].weight is net[0].weight
        assert (of_four(net[1].weight) == 2).all()
    with pytest.raises(ModelError, match=r"0\.weight: named in dense"):
        sparse(net, share=0.5, dense=["1"])


def test_weights_computed_from_others_are_named():
    net = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 4), nn.LazyLinear(4))
    masks = sparse(net, pattern=(2, 4))
    assert set(masks.kept) == {"1.weight"}
    assert masks.dense == {
        "0.weight": "computed from other parameters",
        "2.weight": "not initialised before a first batch",
    }
    assert [layer.name for layer in sparsity_of(net).layers] == ["1.weight"]


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan"), True, "0.5"])
def test_a_share_out_of_range_is_told(share):
    with pytest.raises(SpecError, match=r"(?s)share is not a share.*above 0 and below 1"):
        sparse(Net(), share=share)


@pytest.mark.parametrize("pattern", [(4, 4), (4, 2), (0, 4), (-1, 4), (2,), (2, 4, 8), (1.5, 4), (True, 4), "2:4", 2])
def test_a_pattern_that_is_none_is_told(pattern):
    with pytest.raises(SpecError, match=r"(?s)pattern is not N of M.*1 <= N < M"):
        sparse(Net(), pattern=pattern)


def test_exactly_one_of_share_and_pattern_is_asked_for():
    with pytest.raises(SpecError, match="neither share nor pattern"):
        sparse(Net())
    with pytest.raises(SpecError, match=r"(?s)do not go together.*share = 0.5, pattern = \(2, 4\)"):
        sparse(Net(), share=0.5, pattern=(2, 4))
    with pytest.raises(SpecError, match=r"(?s)'row'.*'global' or 'layer'"):
        sparse(Net(), share=0.5, scope="row")


def test_a_module_with_nothing_to_mask_is_told():
    with pytest.raises(ModelError, match=r"(?s)Sequential has no weights to mask.*no linear, convolutional"):
        sparse(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), nn.Embedding(4, 4)), share=0.5)
    with pytest.raises(ModelError, match=r"(?s)0.weight: input dimension 3 is no multiple of 4.*inputs by the 4"):
        sparse(nn.Sequential(nn.Linear(3, 8), nn.Conv2d(8, 8, 3, groups=8)), pattern=(2, 4))


def test_a_share_that_empties_a_layer_is_told():
    net = Net()
    with torch.no_grad():
        net.head.weight.mul_(1e-6)
    with pytest.raises(ModelError, match=r"(?s)share = 0.5 leaves nothing of head.weight.*1 of 3 layers.*'layer'"):
        sparse(net, share=0.5)
    assert sparse(net, share=0.5, scope="layer").kept["head.weight"].sum() == 12
    with pytest.raises(ModelError, match=r"(?s)share = 0.99 leaves nothing of head.weight.*a smaller share$"):
        sparse(net, share=0.99, scope="layer")


def test_a_share_of_no_weight_is_told():
    with pytest.raises(ModelError, match=r"(?s)share = 0.01 makes no weight of Linear zero.*8 weights in 1 layers"):
        sparse(nn.Linear(4, 2), share=0.01)


def test_a_wrong_path_and_a_weight_that_is_not_finite_are_told():
    with pytest.raises(TrainingError, match=r"(?s)dense: Net has no module 'haed'.*'head'"):
        sparse(Net(), share=0.5, dense=["haed"])
    net = Net()
    with torch.no_grad():
        net.head.weight[0, 0] = torch.nan
    with pytest.raises(ModelError, match=r"(?s)head.weight has NaN.*1 of 24"):
        sparse(net, share=0.5)
