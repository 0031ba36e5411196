"""The roofline: times by hand, what a target must tell, and what each move saves by it."""

import math

import pytest
import torch
from fake_line import fake_target
from nets_to_cut import ResNet
from tables import INPUTS, Stack, block_group
from torch import nn

from edgekit.errors import ModelError, SpecError
from edgekit.latency_table import notes_of
from edgekit.pruning.changes import Change
from edgekit.pruning.moves import Move, MoveGroup
from edgekit.roofline import estimate_table, roofline_us

ROW = {"input": torch.rand(1, 4)}


def target(fp32=1.0, bandwidth_gb_s=1.0, **fields):
    """A target of 1 operation and 1 byte a nanosecond."""
    return fake_target(peak_gops={"fp32": fp32, "int8": 4 * fp32}, bandwidth_gb_s=bandwidth_gb_s, **fields)


@pytest.mark.parametrize(
    ("precision", "weight_bytes", "activation_bytes"), [("fp32", 4, 4), ("int8", 1, 1), ("w8", 1, 4), ("w4", 0.5, 4)]
)
def test_a_layer_that_waits_for_memory_takes_its_bytes(precision, weight_bytes, activation_bytes):
    found = roofline_us(nn.Linear(4, 3), ROW, target(fp32=1e6), precision)
    # 15 weights and biases, 4 values in and 3 out; 1 byte a ns.
    assert found == pytest.approx((15 * weight_bytes + 7 * activation_bytes) / 1000)


@pytest.mark.parametrize(("precision", "gops"), [("fp32", 1.0), ("int8", 4.0), ("w8", 1.0), ("w4", 1.0)])
def test_a_layer_that_computes_takes_its_operations(precision, gops):
    found = roofline_us(nn.Linear(4, 3), ROW, target(bandwidth_gb_s=1e6), precision)
    assert found == pytest.approx(2 * 12 / gops / 1000)


def test_each_layer_is_bound_by_its_own_limit_and_layers_add_up():
    wide, narrow = nn.Linear(4, 300), nn.Linear(300, 1)
    both = roofline_us(nn.Sequential(wide, nn.ReLU(), narrow), ROW, target(bandwidth_gb_s=2.5), "fp32")
    parts = roofline_us(wide, ROW, target(bandwidth_gb_s=2.5), "fp32") + roofline_us(
        narrow, {"input": torch.rand(1, 300)}, target(bandwidth_gb_s=2.5), "fp32"
    )
    assert both == pytest.approx(parts)


@pytest.mark.parametrize(
    ("fields", "precision", "found"),
    [
        ({"peak_gops": {"fp32": 1.0}}, "fp32", "no bandwidth_gb_s"),
        ({"peak_gops": {"fp32": 1.0}, "bandwidth_gb_s": 1.0}, "int8", "no peak_gops.int8"),
        ({"peak_gops": {}, "bandwidth_gb_s": 1.0}, "w4", "no peak_gops.fp32"),
        ({"peak_gops": {}, "bandwidth_gb_s": None}, "int8", "no peak_gops.int8 and no bandwidth_gb_s"),
        ({"peak_gops": {}, "bandwidth_gb_s": None}, "int3", "int3\n  allowed: fp32, fp16"),
    ],
)
def test_a_target_without_a_figure_is_refused_before_anything_runs(fields, precision, found):
    class Never(nn.Module):
        def forward(self, x):
            raise AssertionError("it ran")

    fields = {"bandwidth_gb_s": None} | fields
    with pytest.raises(SpecError, match=f"found:   {found}"):
        estimate_table(Never(), ROW, [], fake_target(**fields), precision, "openvino")


def test_what_helps_against_a_missing_figure_is_said():
    with pytest.raises(SpecError, match=r"`edgekit prune RECIPE --table-only` on the device.*both figures into"):
        roofline_us(nn.Linear(4, 3), ROW, fake_target(peak_gops={}, bandwidth_gb_s=None), "fp32")


def test_what_a_move_saves_is_the_difference_over_its_members():
    torch.manual_seed(0)
    module, groups = Stack(3).eval(), [block_group(i, widths=(4,)) for i in range(3)]
    told = []
    found = estimate_table(
        module, INPUTS, groups, target(bandwidth_gb_s=1e6), "fp32", "openvino", progress=lambda *a: told.append(a)
    )
    block_us, head_us = 2 * 2 * 4 * 8 / 1000, 2 * 4 * 3 / 1000
    assert found.whole_us == pytest.approx(3 * block_us + head_us)
    assert [(row.move, row.members) for row in found.rows] == [("removed", 3), ("4 of 8 channels", 3)]
    assert [row.saved_us for row in found.rows] == pytest.approx([block_us, block_us / 2])
    assert all(row.low_us == row.saved_us == row.high_us for row in found.rows)
    assert (found.source, found.host, found.estimated) == ("estimate: roofline", None, True)
    assert [done for _, done, *_ in told] == [0, 1, 2]
    assert len(module.stages["s0"]) == 3


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_a_query_has_as_many_samples_as_the_load(batch):
    one = estimate_table(Stack(1).eval(), INPUTS, [], target(bandwidth_gb_s=1e6), "fp32", "openvino")
    many = estimate_table(Stack(1).eval(), INPUTS, [], target(bandwidth_gb_s=1e6), "fp32", "openvino", batch=batch)
    assert many.whole_us == pytest.approx(batch * one.whole_us)
    assert (one.batch, many.batch) == (1, batch)


def test_a_move_that_cannot_be_made_is_a_note():
    wrong = Move(name="removed", change=Change(blocks={"stages.s9": (0,)}))
    groups = [MoveGroup(name="stages.s9.0", kind="block", alike="ghost", moves=(wrong,)), block_group(0)]
    found = estimate_table(Stack(2).eval(), INPUTS, groups, target(), "fp32", "openvino")
    assert [row.group for row in found.rows] == ["stages.s0.0"]
    (note,) = found.notes
    assert note.startswith("stages.s9.0, removed: left out, for it cannot be made: ")
    assert found.classes == ("ghost", "block")


def test_a_module_that_does_not_run_is_an_error():
    with pytest.raises(ModelError, match="Linear does not run while its operations are counted"):
        roofline_us(nn.Linear(5, 3), ROW, target(), "fp32")


def test_a_residual_block_takes_its_two_convolutions():
    module, images = ResNet(2).eval(), {"input": torch.rand(1, 3, 8, 8)}
    group = block_group(1, path="layer1", alike="narrow")
    found = estimate_table(module, images, [group], target(bandwidth_gb_s=1e9), "int8", "openvino")
    assert found.rows[0].saved_us == pytest.approx(2 * 2 * 8 * 8 * 9 * 8 * 8 / 4 / 1000)
    assert notes_of(found, [group]) == []
    assert math.isfinite(found.seconds)
