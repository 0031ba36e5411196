"""Embedding tables cut by SVD."""

import pytest
import torch
from nets_to_cut import make_net
from torch import nn

from edgekit.distillation.embeddings import Factored, factorise, narrowed, truncated
from edgekit.errors import ModelError


def table(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("rows", "columns"), [(30, 12), (8, 20)])
def test_the_factors_are_the_best_of_their_rank(rows, columns):
    weight = table(rows, columns)
    left, right = truncated(weight, 5)
    assert (left.shape, right.shape) == ((rows, 5), (5, columns))
    rest = torch.linalg.svdvals(weight)[5:]
    assert torch.isclose((left @ right - weight).norm(), rest.norm(), rtol=1e-4)  # Eckart-Young
    assert torch.allclose(left.norm(dim=0), right.norm(dim=1), rtol=1e-4)


def test_a_table_of_that_rank_is_kept_whole():
    weight = table(30, 3) @ table(3, 12, seed=1)
    left, right = truncated(weight, 4)
    assert torch.allclose(left @ right, weight, atol=1e-5)
    assert torch.isfinite(left).all()
    assert torch.isfinite(right).all()


def test_a_narrowed_table_keeps_inner_products():
    weight = table(30, 3) @ table(3, 12, seed=1)
    small = narrowed(weight, 3)
    assert small.shape == (30, 3)
    assert torch.allclose(small @ small.T, weight @ weight.T, atol=1e-4)


def test_a_network_with_a_factored_table():
    net, inputs = make_net("bag")
    with torch.no_grad():
        net.words.weight.copy_(table(50, 3) @ table(3, 16, seed=1))
        net.words.weight[0] = 0  # padding
    expected = net(inputs["input"])
    notes = factorise(net, 4)
    assert isinstance(net.words, Factored)
    assert notes == ["words: rank 4 of 16, relative error 0.000"]
    assert torch.allclose(net(inputs["input"]), expected, atol=1e-5)
    assert not net.words.weight[0].any()
    assert (net.words.num_embeddings, net.words.embedding_dim, net.words.table.padding_idx) == (50, 16, 0)
    net(inputs["input"]).sum().backward()
    assert not net.words.table.weight.grad[0].any()
    assert net.words.project.weight.grad.any()


def test_the_error_is_told_relative_to_the_table():
    net, _ = make_net("bag")
    weight = net.words.weight.detach().clone()
    error = torch.linalg.svdvals(weight)[4:].norm() / weight.norm()
    assert factorise(net, 4) == [f"words: rank 4 of 16, relative error {float(error):.3f}"]


def test_small_tables_stay():
    net, _ = make_net("bag")
    net.kinds = nn.Embedding(2, 16)
    assert factorise(net, 4)[1] == "kinds: stays whole, it is too small"
    assert isinstance(net.kinds, nn.Embedding)


def shared(net):
    net.out = nn.Linear(16, 50, bias=False)
    net.out.weight = net.words.weight


def limited(net):
    net.words.max_norm = 1.0


@pytest.mark.parametrize(
    ("change", "rank", "message"),
    [
        (
            lambda net: None,
            13,
            r"embeddings = 13 makes no embedding table smaller(.|\n)*words \[50, 16\](.|\n)*1 to 12",
        ),
        (lambda net: None, 100, "makes no embedding table smaller"),
        (lambda net: setattr(net, "words", nn.Identity()), 4, "Bag has no embedding table"),
        (shared, 4, "the table of words is also out.weight"),
        (limited, 4, "words cannot be cut"),
    ],
)
def test_tables_that_cannot_be_cut_are_told(change, rank, message):
    net, _ = make_net("bag")
    change(net)
    with pytest.raises(ModelError, match=message):
        factorise(net, rank)
