"""What layers compute and move, against hand counts, where torch has fused kernels too."""

import pytest
import torch
from nets_to_cut import Bag, Encoder, Mobile, Recurrent, Vision
from torch import nn

from edgekit.pruning.traffic import Traffic, traffic_of

IMAGE = {"input": torch.rand(1, 3, 8, 8)}
IDS = {"input": torch.arange(1, 7)[None]}


def operations(module, inputs):
    return sum(layer.operations for layer in traffic_of(module.eval(), inputs))


def test_a_convolution_is_its_products_its_weights_and_what_it_takes_and_gives():
    (found,) = traffic_of(nn.Conv2d(3, 8, 3, padding=1), IMAGE)
    assert found == Traffic(operations=2 * 64 * 8 * 27, weights=8 * 27 + 8, activations=64 * 3 + 64 * 8)


def test_groups_and_strides_count():
    (found,) = traffic_of(nn.Conv2d(4, 4, 3, 2, 1, groups=4, bias=False), {"input": torch.rand(1, 4, 8, 8)})
    assert found == Traffic(operations=2 * 16 * 4 * 9, weights=36, activations=64 * 4 + 16 * 4)


def test_products_of_attention_have_no_weights():
    class Product(nn.Module):
        def forward(self, x):
            return x @ x.transpose(1, 2)

    (found,) = traffic_of(Product(), {"input": torch.rand(1, 5, 4)})
    assert found == Traffic(operations=2 * 5 * 5 * 4, weights=0, activations=20 + 20 + 25)


def test_a_table_is_read_by_row():
    found = traffic_of(Bag().eval(), IDS)
    assert found[0] == Traffic(operations=0, weights=6 * 16, activations=6 + 6 * 16)


@pytest.mark.parametrize("norm", [nn.LayerNorm(4), nn.GroupNorm(2, 4)])
def test_a_norm_moves_what_it_takes_and_gives_and_a_folded_one_nothing(norm):
    (found,) = traffic_of(norm, {"input": torch.rand(1, 4, 4)})
    assert found == Traffic(operations=0, weights=8, activations=32)
    assert traffic_of(nn.BatchNorm1d(4).eval(), {"input": torch.rand(1, 4, 4)}) == []


@pytest.mark.parametrize("layers", [1, 2])
def test_nothing_hides_in_fused_kernels_of_a_transformer(layers):
    tokens, width = 6, 16
    linear = 2 * tokens * width * (3 * width + width + 2 * width + 2 * width)
    attention = 2 * 2 * tokens * tokens * width
    assert operations(Encoder(layers, width), IDS) == layers * (linear + attention) + 2 * width * 3


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_nothing_hides_in_fused_kernels_of_a_recurrent_layer(kind, gates):
    rest = 2 * (5 * 4 * 8 + 6 * 8 + 8 * 3)
    assert operations(Recurrent(kind), {"input": torch.rand(1, 5, 4)}) == rest + 2 * 5 * gates * 6 * (8 + 6)
    assert torch.backends.mkldnn.enabled
    assert torch.backends.mha.get_fastpath_enabled()


def test_twice_the_samples_are_twice_the_operations_and_the_same_weights():
    one, two = (traffic_of(Mobile().eval(), {"input": torch.rand(n, 3, 8, 8)}) for n in (1, 2))
    assert [t.operations for t in two] == [2 * t.operations for t in one]
    assert [t.weights for t in two] == [t.weights for t in one]


def test_the_mode_and_the_weights_of_a_module_stay():
    module = Vision(1).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    traffic_of(module, IMAGE)
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
