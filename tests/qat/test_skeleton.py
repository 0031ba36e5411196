"""Which ONNX operator a traced node is, held against what the exporter writes."""

from __future__ import annotations

import math

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.conversion.onnx_export import to_onnx
from edgekit.distillation.forward import to_torch
from edgekit.qat.folding import folded, shapes_of
from edgekit.qat.skeleton import OTHER, ends_of, skeleton_of


class Many(nn.Module):
    """One of each operator that is known, whose results all count."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool, self.average = nn.Conv2d(4, 4, 1), nn.MaxPool2d(2), nn.AvgPool2d(2)
        self.leaky, self.six, self.drop, self.up = (
            nn.LeakyReLU(),
            nn.ReLU6(),
            nn.Dropout(0.1),
            nn.Upsample(scale_factor=2),
        )
        self.three, self.two = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = self.up(self.average(self.leaky(self.conv(x)))) * torch.sigmoid(x)
        b = torch.cat([self.pool(self.six(a)), functional.relu(a)[:, :, 2:, 2:]], dim=1)
        b = functional.pad(b, (0, 0, 0, 0, 1, 1)).clamp(-1.0, 2.0)
        c = self.three(self.drop(b).flatten(2).transpose(1, 2).reshape(b.shape[0], -1, 4) + 1.0)
        return self.two(c.mean(1).unsqueeze(1).squeeze(1))


def skeleton(module: nn.Module, x: Tensor):
    traced = folded(module.eval(), {"x": x.numpy()})
    return traced, skeleton_of(traced, shapes_of(traced, to_torch({"x": x.numpy()}, torch.device("cpu"))))


def test_the_operators_are_those_of_the_exported_graph(tmp_path):
    x = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    _, found = skeleton(Many(), x)
    kinds = [node.op_type for node in found.proto.graph.node if node.op_type != OTHER]
    exported = onnx.load(str(to_onnx(Many(), {"x": x.numpy()}, tmp_path).path))
    written = [node.op_type for node in exported.graph.node]
    # A bias beside a MatMul is an Add of its own, and a slice of two axes two; sizes are computed, too.
    assert sorted(set(kinds)) == sorted(set(written) & set(kinds))
    assert {"Conv", "Gemm", "MatMul", "LeakyRelu", "AveragePool", "Resize", "Clip", "Concat", "Slice", "Pad"} < set(
        kinds
    )
    assert kinds.count("MatMul") == written.count("MatMul") == 1
    assert found.alias["drop"] == "clamp"
    assert [value.name for value in found.proto.graph.output] == ["two"]


@pytest.mark.parametrize(
    ("forward", "kind"),
    [
        (lambda x: torch.add(x, x, alpha=2), OTHER),
        (lambda x: functional.pad(x, (1, 1), mode="circular"), OTHER),
        (lambda x: x.chunk(2, 1)[0], OTHER),
        (lambda x: x.add(x), "Add"),
        (lambda x: x.view(2, -1), "Reshape"),
        (lambda x: functional.gelu(x), OTHER),
    ],
)
def test_what_is_not_just_that_operator_is_none(forward, kind):
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return forward(x)

    _, found = skeleton(Net(), torch.randn(2, 4, 4))
    assert found.proto.graph.node[-1].op_type == kind


def test_a_convolution_that_pads_otherwise_is_none():
    _, found = skeleton(nn.Sequential(nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular")), torch.randn(2, 4, 9))
    assert [node.op_type for node in found.proto.graph.node] == [OTHER]


@pytest.mark.parametrize(
    ("clip", "ends"),
    [
        (nn.ReLU(), (0.0, math.inf)),
        (nn.ReLU6(), (0.0, 6.0)),
        (nn.Hardtanh(-2.0, 3.0), (-2.0, 3.0)),
        (functional.relu6, (0.0, 6.0)),
        (functional.hardtanh, (-1.0, 1.0)),
        (lambda x: functional.hardtanh(x, 0.0, 4.0), (0.0, 4.0)),
        (lambda x: torch.clamp(x, min=0.0), (0.0, math.inf)),
        (lambda x: x.clamp(0, 5), (0.0, 5.0)),
        (torch.sigmoid, None),
        (nn.Tanh(), None),
    ],
)
def test_ends_of_what_clips(clip, ends):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.clip = clip

        def forward(self, x: Tensor) -> Tensor:
            return self.clip(x)

    traced, _ = skeleton(Net(), torch.randn(2, 4))
    assert ends_of(traced, list(traced.graph.nodes)[1]) == ends
