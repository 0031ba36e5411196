"""Which parts of a network are alike."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from nets_to_cut import make_net
from torch import nn

from edgekit.errors import ModelError
from edgekit.pruning.alike import alike, run_once

ROWS = {"input": torch.rand(3, 4)}
LEAVE = [("removed", [])]


def make(kind=nn.ReLU, bias=True, **given):
    return nn.Sequential(nn.Linear(4, 4, bias=bias), kind(**given)).eval()


def hashed(net, inputs=ROWS, moves=LEAVE):
    return alike(dict(net.named_modules()), run_once(net, inputs), moves)


def test_weights_and_the_number_of_samples_make_no_difference():
    assert hashed(make()) == hashed(make(), {"input": torch.rand(7, 4)})


@pytest.mark.parametrize(
    "other",
    [
        make(nn.GELU),
        make(inplace=True),
        make(bias=False),
        make().double(),
        nn.Sequential(*make(), nn.ReLU()),
        make(nn.LeakyReLU),
    ],
)
def test_other_layers_are_not_alike(other):
    inputs = {"input": ROWS["input"].to(next(other.parameters()).dtype)}
    assert hashed(other, inputs) != hashed(make())


def test_settings_of_layers_make_a_difference():
    assert hashed(make(nn.LeakyReLU)) != hashed(make(nn.LeakyReLU, negative_slope=0.3))


def test_other_shapes_are_not_alike():
    net = nn.Conv1d(4, 4, 3)
    assert hashed(net, {"input": torch.rand(2, 4, 8)}) != hashed(net, {"input": torch.rand(2, 4, 9)})


def test_other_moves_are_not_alike():
    assert len({hashed(make(), moves=moves) for moves in (LEAVE, [], [("2", [("0", 2)])], [("2", [("0", 3)])])}) == 4


def test_what_does_nothing_where_nothing_is_trained_makes_no_difference():
    assert hashed(make(nn.Dropout, p=0.1)) == hashed(make(nn.Dropout, p=0.2)) == hashed(make(nn.Identity))
    assert hashed(make(nn.Dropout, p=0.1)) != hashed(make())


def test_torchs_own_transformer_is_looked_into_and_keeps_its_fast_path():
    net, inputs = make_net("encoder")
    for fast in (True, False):
        torch.backends.mha.set_fastpath_enabled(fast)
        try:
            assert run_once(net, inputs)[net.encoder.layers[1].linear1] == [
                [[["torch.float32", [1, 6, 16]]], ["torch.float32", [1, 6, 32]]]
            ]
            assert torch.backends.mha.get_fastpath_enabled() == fast
        finally:
            torch.backends.mha.set_fastpath_enabled(True)


def test_a_module_that_does_not_run_is_told():
    net, _ = make_net("resnet")
    with pytest.raises(ModelError, match="does not run while its layers are looked at: layer 'stem"):
        run_once(net, {"input": torch.rand(2, 4, 8, 8)})
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())


SCRIPT = """
from nets_to_cut import make_net
from edgekit.pruning.alike import alike, run_once
net, inputs = make_net("fused", seed=3)
print(alike(dict(net.named_modules()), run_once(net, inputs), [("8 of 16 channels", [("blocks.0.mlp.0", 8)])]))
"""


def test_another_process_gives_the_same():
    net, inputs = make_net("fused")
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)]), "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == hashed(net, inputs, [("8 of 16 channels", [("blocks.0.mlp.0", 8)])])
