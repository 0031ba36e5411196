"""The one crossing from torch to ONNX: what is kept, what is left behind, and how failures are told."""

from __future__ import annotations

import os
import site
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgekit.conversion import onnx_export
from edgekit.conversion.export_errors import untranslated
from edgekit.conversion.onnx_export import to_onnx
from edgekit.distillation.forward import forward
from edgekit.errors import EngineError, ExportError, ParityError, TrainingError
from edgekit.runtime import open_artifact
from edgekit.runtime.numbers import run_batched, snr_db


class Classifier(nn.Module):
    """Convolution, batch normalisation and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.linear = nn.Linear(16, 4)

    def forward(self, image):
        return self.linear(torch.relu(self.norm(self.conv(image))).mean((2, 3)))


class TwoInTwoOut(nn.Module):
    """Inputs and outputs by name, neither in alphabetical order; a product of the batch inside."""

    def forward(self, right, left):
        return {"total": left - right, "folded": (left * right).reshape(-1, 3).sum(1).reshape(-1, 2)}


class Triple(nn.Module):
    """A tuple with one tensor twice and the input itself."""

    def forward(self, x):
        doubled = x * 2
        return doubled, doubled, x


class Branch(nn.Module):
    """Reads one of its inputs only inside the branches of a condition."""

    def forward(self, flag, value):
        return torch.cond(flag.sum() > 0, lambda v: v + 1, lambda v: v - 1, (value,))


def images(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 3, 8, 8)).astype(np.float32)


def rows(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def trained_net():
    torch.manual_seed(0)
    net = Classifier()
    net(torch.tensor(images(32)))  # the running statistics are not the identity
    return net


@pytest.fixture(scope="module")
def exported(trained_net, tmp_path_factory):
    return to_onnx(trained_net, {"image": images(2)}, tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def two_in_two_out(tmp_path_factory):
    example = {"right": rows(2), "left": rows(2, seed=1)}
    return to_onnx(TwoInTwoOut(), example, tmp_path_factory.mktemp("two"))


def run(artifact, feeds):
    session = open_artifact(replace(artifact, engine="onnxruntime"))
    try:
        return run_batched(session, feeds)
    finally:
        session.close()


def test_an_export_is_opset_20_with_a_dynamic_batch_and_folded_norms(exported):
    proto = onnx.load(exported.path)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 20)]
    assert [str(spec) for spec in exported.inputs] == ["image: float32[batch, 3, 8, 8]"]
    assert [str(spec) for spec in exported.outputs] == ["output: float32[batch, 4]"]
    assert "BatchNormalization" not in {node.op_type for node in proto.graph.node}
    assert (exported.engine, exported.precision, exported.files.keys()) == ("onnx", "fp32", {"model.onnx"})


def test_an_export_computes_the_same_at_another_batch(exported, trained_net, as_samples):
    samples = as_samples(image=images(7, seed=3))
    expected = forward(trained_net, samples)["output"]
    assert snr_db(expected, run(exported, samples.tensors(range(7)))["output"]) > 90.0


def test_inputs_and_outputs_keep_their_names_and_order(two_in_two_out):
    assert [str(spec) for spec in two_in_two_out.inputs] == ["right: float32[batch, 6]", "left: float32[batch, 6]"]
    assert [str(spec) for spec in two_in_two_out.outputs] == ["total: float32[batch, 6]", "folded: float32[batch, 2]"]
    right, left = rows(5, seed=4), rows(5, seed=5)
    outputs = run(two_in_two_out, {"right": right, "left": left})
    assert snr_db(left - right, outputs["total"]) > 90.0
    assert snr_db((left * right).reshape(5, 2, 3).sum(2), outputs["folded"]) > 90.0


def test_every_dimension_is_in_terms_of_the_batch(two_in_two_out):
    graph = onnx.load(two_in_two_out.path).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    names = {d.dim_param for v in values for d in v.type.tensor_type.shape.dim if d.dim_param}
    assert "batch" in names
    assert all("batch" in name for name in names), names


def test_a_tensor_may_be_returned_twice_and_an_input_passed_through(tmp_path):
    artifact = to_onnx(Triple(), {"x": rows(2)}, tmp_path)
    outputs = run(artifact, {"x": rows(3)})
    assert [spec.name for spec in artifact.outputs] == ["output_0", "output_1", "output_2"]
    np.testing.assert_array_equal(outputs["output_1"], 2 * rows(3))
    np.testing.assert_array_equal(outputs["output_2"], rows(3))


def test_an_input_read_only_in_a_branch_is_used(tmp_path):
    artifact = to_onnx(Branch(), {"flag": np.ones_like(rows(2)), "value": rows(2)}, tmp_path)
    assert [spec.name for spec in artifact.inputs] == ["flag", "value"]


def test_nothing_of_the_build_machine_is_in_the_file(exported, two_in_two_out):
    folders = [str(Path.home()), os.getcwd(), sys.prefix, str(exported.folder), *site.getsitepackages()]
    for artifact in (exported, two_in_two_out):
        data = artifact.path.read_bytes()
        found = [text for text in (*folders, Path(__file__).name, "forward", "self.") if text.encode() in data]
        assert found == []


def test_two_exports_have_the_same_bytes(exported, trained_net, tmp_path):
    again = to_onnx(trained_net, {"image": images(2)}, tmp_path)
    assert again.sha256 == exported.sha256


def test_weights_too_large_for_one_file_lie_beside_it(trained_net, exported, tmp_path, monkeypatch):
    monkeypatch.setattr("edgekit.conversion.clean.EXTERNAL_DATA_BYTES", 100)
    artifact = to_onnx(trained_net, {"image": images(2)}, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert artifact.files.keys() == {"model.onnx", "model.onnx.data"}
    feeds = {"image": images(2)}
    np.testing.assert_array_equal(run(artifact, feeds)["output"], run(exported, feeds)["output"])


def test_the_module_keeps_its_mode(trained_net, exported):
    assert trained_net.training
    assert trained_net.norm.training


# Failures. Their lines are found by the text of the line, in this file.


class DataDependent(nn.Module):
    def forward(self, x):
        if x.sum() > 0:  # on a value
            return x + 1
        return x


class LeavesTorch(nn.Module):
    def forward(self, x):
        return torch.from_numpy(np.sin(x.numpy()))  # leaves torch


class NoTranslation(nn.Module):
    def forward(self, x):
        scaled = x * 2
        return torch.linalg.svdvals(scaled.reshape(-1, 2, 3))  # no translation


class Decomposed(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)  # decomposed first


class FixedBatch(nn.Module):
    def forward(self, x):
        return x.reshape(2, -1)


class Dropout(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.5, training=True)


class Amplifies(nn.Module):
    def forward(self, x):
        for _ in range(8):
            x = torch.sin(9 * x)
        return x


class DropsAnAddend(nn.Module):
    def forward(self, x):
        return torch.log(torch.relu(x) + 1e-8)


class Unused(nn.Module):
    def forward(self, left, right):
        return left + 1


class SameName(nn.Module):
    def forward(self, x):
        return {"x": x + 1}


class Constant(nn.Module):
    def forward(self, x):
        return x + 1, torch.ones(3)


class Raises(nn.Module):
    def forward(self, x):
        raise ValueError("not today")


@pytest.mark.parametrize(
    ("module", "inputs", "error", "words"),
    [
        (DataDependent, ["x"], ExportError, ["cannot trace DataDependent", "if x.sum() > 0:  # on a value"]),
        (LeavesTorch, ["x"], ExportError, ["cannot trace LeavesTorch", "np.sin(x.numpy()))  # leaves torch"]),
        (NoTranslation, ["x"], ExportError, ["operator aten._linalg_svd has no ONNX", "3))  # no translation"]),
        (Decomposed, ["x"], ExportError, ["operator prims.bessel_j0 has no ONNX", "# decomposed first"]),
        (FixedBatch, ["x"], ExportError, ["FixedBatch works only with the batch", "a constant, 2"]),
        (Dropout, ["x"], ParityError, ["computes something else", "at output 'output'", "look for randomness"]),
        (Amplifies, ["x"], ParityError, ["torch's own float32 is", "amplifies rounding, as untrained"]),
        (DropsAnAddend, ["x"], ParityError, ["gives NaN or infinity at output 'output'", "use x.clamp(min=1e-8)"]),
        (Unused, ["left", "right"], ExportError, ["input 'right' does not reach any output"]),
        (SameName, ["x"], ExportError, ["an input and an output are both named 'x'"]),
        (Constant, ["x"], EngineError, ["output 'output_1' has no batch axis"]),
        (Raises, ["x"], TrainingError, ["Raises failed on a batch of the data: ValueError: not today"]),
    ],
)
def test_a_failure_is_told_in_terms_of_the_users_code(module, inputs, error, words, tmp_path, capfd):
    with pytest.raises(error) as caught:
        to_onnx(module(), {name: rows(2, seed=i) for i, name in enumerate(inputs)}, tmp_path / "out")
    message = str(caught.value)
    assert [word for word in words if word not in message] == []
    if any("#" in word for word in words):
        assert f"{__file__}:{_line_of(words[-1])} in forward" in message
    assert capfd.readouterr() == ("", "")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


class Biased(nn.Module):
    """As T5: attention with a learned bias for every pair of places."""

    def __init__(self):
        super().__init__()
        self.mix, self.bias = nn.Linear(6, 48), nn.Parameter(torch.ones(1, 2, 6, 6))

    def forward(self, x):
        heads = self.mix(x).reshape(-1, 6, 2, 4).transpose(1, 2)
        bias = self.bias.expand(x.shape[0], -1, -1, -1)
        mixed = nn.functional.scaled_dot_product_attention(heads, heads, heads, attn_mask=bias)
        return mixed.transpose(1, 2).reshape(x.shape[0], -1)  # laid out otherwise


def test_attention_with_a_learned_bias_is_exported_and_stays_trainable(tmp_path):
    module = Biased()
    to_onnx(module, {"x": rows(3)}, tmp_path)
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_a_trace_that_torch_cannot_decompose_is_told_with_the_line():
    program = torch.export.export(Biased(), (torch.ones(3, 6),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    with pytest.raises(torch.onnx.OnnxExporterError) as caught:
        torch.onnx.export(program, (), dynamo=True, verbose=False)
    message = str(untranslated(program, caught.value, 20))
    line = _line_of("x.shape[0], -1)  # laid out otherwise")
    for part in ("cannot break the traced model", "ValueError: Cannot view", f"{__file__}:{line} in forward"):
        assert part in message


def _line_of(text):
    """Number of the first line of this file with the comment that ends ``text``."""
    comment = "#" + text.partition("#")[2]
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, start=1) if line.endswith(comment))


@pytest.mark.parametrize(("example", "found"), [({"x": rows(1)}, "1 of an input"), ({}, "0 of an input")])
def test_an_example_needs_two_samples(example, found, tmp_path):
    with pytest.raises(ExportError, match=f"too few samples\n.*{found}"):
        to_onnx(Triple(), example, tmp_path)


def test_an_error_of_the_translation_without_an_operator_is_told(tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("the optimiser fell over")

    monkeypatch.setattr(torch.onnx, "export", broken)
    with pytest.raises(ExportError, match=r"cannot translate the model\n.*RuntimeError: the optimiser fell over"):
        to_onnx(Triple(), {"x": rows(2)}, tmp_path)


def test_another_opset_than_asked_for_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "OPSET", 21)
    real = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", lambda *a, **kw: real(*a, **kw | {"opset_version": 18}))
    with pytest.raises(ExportError, match=r"another opset\n.*found: +18\n.*allowed: +21"):
        to_onnx(Triple(), {"x": rows(2)}, tmp_path)
