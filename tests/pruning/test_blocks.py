"""Whole blocks that may be left out."""

import pytest
import torch
from nets_to_cut import INPUTS, Residual, make_net
from nets_to_prune import ROWS, batch, evidence, perceptron
from torch import nn

from edgekit.distillation.depth import without_blocks
from edgekit.errors import DataError, ModelError
from edgekit.models import count_parameters
from edgekit.pruning.blocks import removable, score_blocks
from edgekit.pruning.criteria import CRITERIA, Evidence


def test_blocks_that_keep_the_shape_may_be_left_out():
    net, inputs = make_net("resnet")
    assert removable(net, inputs) == [("layer1", 0), ("layer1", 1), ("layer1", 2), ("layer1", 3)] + [
        ("layer2", i) for i in (1, 2, 3)
    ]


@pytest.mark.parametrize(("criterion", "norm"), [("l1", torch.abs), ("l2", torch.square)])
@pytest.mark.parametrize("name", ["resnet", "encoder", "fused"])
def test_a_block_counts_for_all_its_weights(criterion, norm, name):
    net, inputs = make_net(name)
    found = score_blocks(net, inputs, criterion=criterion)
    assert len(found) == {"resnet": 7, "encoder": 4, "fused": 4}[name]
    for each in found:
        block = net.get_submodule(each.path)[each.number]
        weights = [
            norm(parameter.detach().double()).sum() for key, parameter in block.named_parameters() if "bias" not in key
        ]
        assert each.importance == pytest.approx(float(torch.stack(weights).sum()))
        assert each.parameters == count_parameters(block)
        assert each.drop is None


def test_batchnorm_sums_the_scales_of_a_block():
    net, inputs = make_net("resnet")
    with torch.no_grad():
        net.layer1[2].bn1.weight.fill_(0.5)
        net.layer1[2].bn2.weight.fill_(-0.25)
    found = {(each.path, each.number): each for each in score_blocks(net, inputs, criterion="batchnorm")}
    assert found["layer1", 2].importance == 6.0
    assert found["layer1", 1].importance == 16.0


def test_taylor_of_a_block_is_what_gates_on_its_layers_give():
    net = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4, bias=False), nn.Identity()) for _ in range(2)), nn.Linear(4, 3))
    given = Evidence(batches=[batch(ROWS)], loss=lambda _, logits: logits.square().sum())
    found = score_blocks(net, {"input": ROWS}, criterion="taylor", evidence=given)
    gates = torch.ones(2, requires_grad=True)
    hidden = net[1](net[0](ROWS) * gates[0]) * gates[1]
    net[2](hidden).square().sum().backward()
    assert [each.importance for each in found] == pytest.approx(gates.grad.square().tolist(), rel=1e-4)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_scores_blocks(criterion):
    net, inputs = make_net("resnet")
    with torch.no_grad():
        net.layer1[1].bn2.weight.fill_(0.1)
    found = score_blocks(net, inputs, criterion=criterion, evidence=evidence(inputs["input"]))
    assert len({each.importance for each in found}) > 1
    assert all(each.importance > 0 for each in found)


def test_a_block_without_a_batchnorm_has_no_importance_by_it():
    net, inputs = make_net("fused")
    net.norm = nn.Sequential(net.norm, nn.Flatten(0, 1), nn.BatchNorm1d(24), nn.Unflatten(0, (4, 5))).eval()
    assert {each.importance for each in score_blocks(net, inputs, criterion="batchnorm")} == {None}


def test_the_drop_is_what_a_score_loses_without_the_block():
    net, inputs = make_net("resnet")
    seen = []

    def accuracy(module):
        seen.append((len(module.layer1), len(module.layer2)))
        return 10.0 * len(module.layer1) + len(module.layer2)

    drops = [each.drop for each in score_blocks(net, inputs, accuracy=accuracy)]
    assert drops == [10.0] * 4 + [1.0] * 3
    assert seen == [(4, 4)] + [(3, 4)] * 4 + [(4, 3)] * 3


def test_a_list_is_whole_again_also_after_an_error():
    net, _ = make_net("encoder")
    blocks = list(net.encoder.layers)

    def fail():
        with without_blocks(net, "encoder.layers", {1, 2}):
            assert list(net.encoder.layers) == [blocks[0], blocks[3]]
            assert net.encoder.num_layers == 2
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert list(net.encoder.layers) == blocks
    assert net.encoder.num_layers == 4


class Numbered(nn.Module):
    """Goes through its blocks by number, and through others that change the shape."""

    def __init__(self):
        super().__init__()
        self.pair = nn.ModuleList(Residual(3, 3) for _ in range(2))
        self.wider = nn.Sequential(Residual(3, 4), Residual(4, 5))

    def forward(self, x):
        return self.wider(self.pair[1](self.pair[0](x))).mean((2, 3))


@pytest.mark.parametrize(
    ("net", "inputs", "message"),
    [
        (Numbered, INPUTS["images"], r"pair.0 is needed: IndexError(.|\n)*wider.1 gives another shape than it takes"),
        (perceptron, ROWS, r"no Sequential or ModuleList with two blocks or more of one class"),
    ],
)
def test_a_network_without_blocks_to_leave_out_is_told(net, inputs, message):
    with pytest.raises(ModelError, match=rf"no block of \w+ can be left out(.|\n)*{message}"):
        score_blocks(net().eval(), {"input": inputs})


def test_a_criterion_that_needs_data_is_refused_for_blocks_too():
    net, inputs = make_net("resnet")
    with pytest.raises(DataError, match="criterion 'taylor' needs data"):
        score_blocks(net, inputs, criterion="taylor")
