"""Tensors inside each form of one network: the same values under the same names."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edgekit.conversion.onnx_export import to_onnx
from edgekit.drift.of_onnx import OnnxTensors, tensors_of
from edgekit.drift.of_openvino import OpenVinoTensors
from edgekit.drift.of_torch import TorchTensors
from edgekit.errors import EngineError
from edgekit.runtime.numbers import snr_db


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv2d(3, 16, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(16)
        self.second = torch.nn.Conv2d(16, 8, 3)
        self.head = torch.nn.Linear(8, 4)
        self.register_buffer("shift", torch.ones(16, 1, 1), persistent=False)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x))) + self.shift
        return self.head(torch.relu(self.second(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    module = Net().eval()
    example = {"x": np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)}
    return module, example, to_onnx(module, example, tmp_path_factory.mktemp("net"))


@pytest.fixture(scope="module")
def by_letter(exported):
    """Every tensor of the ONNX file."""
    _, example, artifact = exported
    names = [tensor.name for tensor in tensors_of(artifact.path)]
    return OnnxTensors(artifact.path, {"x": example["x"][:1]}, optimise=False).read(names)


def test_the_tensors_of_a_file_are_in_order_with_what_is_made_of_them(exported):
    tensors = tensors_of(exported[2].path)
    assert (tensors[0].name, tensors[0].op) == ("x", "input")
    assert (tensors[-1].name, tensors[-1].op, tensors[-1].users) == ("output", "Gemm", ())
    place = {tensor.name: i for i, tensor in enumerate(tensors)}
    assert all(place[user] > place[tensor.name] for tensor in tensors for user in tensor.users)
    assert tensors[0].users == (tensors[1].name,)


def test_by_the_letter_everything_is_there(exported, by_letter):
    assert set(by_letter) == {tensor.name for tensor in tensors_of(exported[2].path)}
    assert by_letter["output"].shape == (1, 4)


def test_torch_has_them_under_the_same_names(exported, by_letter):
    module, example, _ = exported
    found = TorchTensors(module, example, {"x": example["x"][:1]}, ["output"]).read([*by_letter, "no such tensor"])
    assert len(found) >= 7
    assert {"x", "output", "relu"} <= set(found) <= set(by_letter)
    assert all(snr_db(by_letter[name], found[name]) > 100 for name in found)
    assert module.training is False


def test_the_engines_have_what_they_do_not_fuse(exported, by_letter):
    _, example, artifact = exported
    feeds = {"x": example["x"][:1]}
    for reader in (
        OnnxTensors(artifact.path, feeds, optimise=True, options={"intra_op_num_threads": 1}),
        OpenVinoTensors(artifact.path, feeds, compiled=True, options={"device": "CPU"}),
        OpenVinoTensors(artifact.path, feeds, compiled=False),
    ):
        found = reader.read(list(by_letter))
        assert {"x", "output", "relu_1"} <= set(found) <= set(by_letter)
        assert all(snr_db(by_letter[name], found[name]) > 100 for name in found)
        assert reader.read(["x"])["x"] is feeds["x"]
        assert reader.read([]) == {}
    # A convolution and its activation are one node in both.
    conv = next(t.name for t in tensors_of(artifact.path) if t.op == "Conv")
    assert conv not in OnnxTensors(artifact.path, feeds, optimise=True).read([conv])


@pytest.fixture
def quantised(tiny_onnx, tmp_path):
    path = tmp_path / "chain.onnx"
    onnx.save(tiny_onnx("chain_uint8"), path)
    return path, {"input": np.random.default_rng(0).uniform(0, 3, (1, 8, 8, 8)).astype(np.float32)}


def test_a_quantised_tensor_is_read_as_its_users_see_it(quantised):
    path, feeds = quantised
    letter, whole = (OnnxTensors(path, feeds, optimise=optimise) for optimise in (False, True))
    expected = np.clip(np.round(feeds["input"] / np.float32(0.02)), 0, 255) * np.float32(0.02)
    for reader in (letter, whole):
        found = reader.read(["input", "r0", "r1", "r2"])
        assert snr_db(expected, found["input"]) > 100
        assert set(found) >= {"input", "r0", "r1"}
        assert found["r1"].dtype == np.float32
        assert found["r1"].max() <= 255 * 0.02 + 1e-6
    assert snr_db(letter.read(["r1"])["r1"], whole.read(["r1"])["r1"]) > 30


def test_reading_leaves_the_engines_int8_kernels(quantised):
    from edgekit.drift import of_onnx

    path, feeds = quantised
    reader = OnnxTensors(path, feeds, optimise=True)
    reader.read(["input", "r0", "r1"])
    names = {reader._source(name) for name in ("input", "r0", "r1")}
    # Integers between the kernels, and no float tensor that would keep them apart.
    assert all(reader._makers[name].op_type == of_onnx._QUANTISE for name in names)


def test_openvino_reads_behind_its_fake_quantisers(quantised, tmp_path):
    import openvino

    path, feeds = quantised
    openvino.save_model(openvino.Core().read_model(str(path)), str(tmp_path / "chain.xml"), compress_to_fp16=False)
    letter = OnnxTensors(path, feeds, optimise=False).read(["input", "r0", "r1"])
    for compiled in (False, True):
        found = OpenVinoTensors(tmp_path / "chain.xml", feeds, compiled=compiled).read(["input", "r0", "r1"])
        assert found, "nothing can be read"
        assert all(snr_db(letter[name], array) > 25 for name, array in found.items())


def test_a_model_that_the_engine_refuses_is_told(tiny_onnx, tmp_path):
    path = tmp_path / "model.onnx"
    proto = tiny_onnx("conv")
    weights = numpy_helper.to_array(proto.graph.initializer[0])[:, :2]
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights.copy(), "w"))
    onnx.save(proto, path)
    with pytest.raises(EngineError, match="onnxruntime could not"):
        OnnxTensors(path, {"input": np.ones((1, 3, 8, 8), np.float32)}, optimise=False).read(["output"])
    with pytest.raises(EngineError, match="openvino could not"):
        OpenVinoTensors(path, {"input": np.ones((1, 3, 8, 8), np.float32)}, compiled=False).read(["output"])
