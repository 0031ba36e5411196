"""The way out: Q/DQ of the dialect of post-training int8, on ONNX Runtime, with the numbers of torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx.numpy_helper import to_array
from qat_nets import SCHEME, Residual, Tokens, made, pictures, sequences
from torch import Tensor, nn
from torch.nn import functional

from edgekit.backends import onnxruntime as backend
from edgekit.backends import openvino
from edgekit.catalog import load_target
from edgekit.conversion.onnx_export import to_onnx
from edgekit.data import Samples
from edgekit.distillation.trainer import train
from edgekit.errors import ParityError, TrainingError
from edgekit.qat import exporting
from edgekit.qat.exporting import FixedLayer, FixedPair, export_qat, for_export
from edgekit.qat.preparing import RANGES, prepare_qat
from edgekit.quantization.schemes import Plan
from edgekit.recipe_training import Training
from edgekit.runtime import open_artifact
from edgekit.runtime.numbers import run_batched, snr_db

COUNT = 16
NETS = [(Residual, pictures(COUNT)), (Tokens, sequences(COUNT))]
IDS = ["convolutions", "tokens"]


def on_the_engine(artifact, data: Samples, folder):
    """The output on ONNX Runtime, and each node with what it ran in."""
    session = open_artifact(backend.compile(artifact, load_target("x86-vnni"), COUNT, folder))
    try:
        (output,) = run_batched(session, data.tensors(range(COUNT))).values()
        return output, [(node.op, node.precision) for node in session.placement().nodes]
    finally:
        session.close()


def post_training(module: nn.Module, data: Samples, folder):
    fp32 = to_onnx(module, data.tensors(range(COUNT)), folder / "float")
    plan = Plan(engine="onnxruntime", precision="int8", method="minmax", scheme=SCHEME)
    return backend.quantize(fp32, data.batches(8), plan, folder / "int8")


def in_torch(module: nn.Module, data: Samples) -> np.ndarray:
    with torch.no_grad():
        return module.eval()(torch.tensor(next(iter(data.tensors(range(len(data))).values())))).numpy()


def cross_entropy(logits: np.ndarray, data: Samples) -> float:
    return float(functional.cross_entropy(torch.tensor(logits), torch.tensor(data.targets)))


@pytest.fixture(scope="module", params=NETS, ids=IDS)
def made_both(request, tmp_path_factory):
    """A network untrained and trained in int8, and its post-training int8 on the engine."""
    (net, data), folder = request.param, tmp_path_factory.mktemp("both")
    untrained, trained = (prepare_qat(made(net), SCHEME, data.batches(8)) for _ in range(2))
    train(trained, data, data, Training(epochs=3, batch_size=4, learning_rate=0.01), seed=0)
    artifacts = [export_qat(m, data.tensors(range(COUNT)), folder / n) for n, m in (("0", untrained), ("1", trained))]
    post = on_the_engine(post_training(made(net), data, folder), data, folder / "post")
    return data, (untrained, trained), artifacts, post


def test_untrained_it_is_post_training_int8(made_both, tmp_path):
    data, _, (artifact, _), (post, expected) = made_both
    actual, nodes = on_the_engine(artifact, data, tmp_path)
    assert (artifact.precision, artifact.notes) == ("int8", ())
    assert snr_db(post, actual) > 120.0  # the same integers; scales are products in another order
    assert nodes == expected
    assert sum(precision == "int8" for _, precision in nodes) >= 3


def test_trained_it_gives_torchs_numbers_and_runs_as_much_in_int8(made_both, tmp_path):
    data, (untrained, trained), (_, artifact), (_, expected) = made_both
    assert snr_db(in_torch(untrained, data), in_torch(trained, data)) < 30.0
    actual, nodes = on_the_engine(artifact, data, tmp_path)
    assert snr_db(in_torch(trained, data), actual) >= 40.0
    assert nodes == expected


def test_openvino_runs_the_same_file_in_int8(made_both, tmp_path):
    data, (_, trained), (_, artifact), _ = made_both
    session = open_artifact(openvino.compile(artifact, load_target("x86-vnni"), COUNT, tmp_path))
    (actual,) = run_batched(session, data.tensors(range(COUNT))).values()
    compute = [node.precision for node in session.placement().nodes if node.compute]
    session.close()
    assert set(compute) == {"int8"}
    assert snr_db(in_torch(trained, data), actual) >= 30.0  # it rounds between layers where ONNX Runtime does not


def test_what_is_written_is_integers(made_both):
    graph = onnx.load(str(made_both[2][1].path)).graph
    tensors = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    made_by = {node.output[0]: node for node in graph.node}
    products = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert len(products) in (3, 5)
    for node in products:
        read = [made_by[name] for name in node.input]
        assert {one.op_type for one in read} == {"DequantizeLinear"}
        assert [tensors[one.input[0]].dtype for one in read[1:]] == [np.int8, np.int32][: len(read) - 1]
    assert not any(array.dtype == np.float32 and array.size > 16 for array in tensors.values())
    assert not any(node.op_type in ("Relu", "Clip") for node in graph.node)


def trained_float(seed: int = 0) -> nn.Module:
    module = made(Residual, seed)
    train(module, pictures(192), pictures(48, seed=1), Training(epochs=6, batch_size=16, learning_rate=0.01), seed=0)
    return module


def test_a_few_steps_are_no_worse_than_post_training_int8(tmp_path):
    module, data = trained_float(), pictures(192)
    few = Training(epochs=2, batch_size=32, learning_rate=0.0005)
    trained, coarse = (prepare_qat(module, SCHEME, data.batches(32), weight_bits=bits) for bits in (8, 4))
    begun = cross_entropy(in_torch(coarse, data), data)
    train(trained, data, pictures(48, seed=1), few, seed=0)
    train(coarse, data, pictures(48, seed=1), few, seed=0)
    fp32 = cross_entropy(in_torch(module, data), data)
    first = data.subset(range(COUNT))
    post = post_training(module, first, tmp_path)
    session = open_artifact(replace(post, engine="onnxruntime"))
    (logits,) = run_batched(session, data.tensors(range(len(data)))).values()
    session.close()
    assert cross_entropy(in_torch(for_export(trained), data), data) <= cross_entropy(logits, data)
    assert cross_entropy(in_torch(for_export(coarse), data), data) < begun
    assert fp32 < 0.9


@pytest.mark.parametrize(
    "changes",
    [
        {"activation_signed": True, "activation_symmetric": True},
        {"activation_symmetric": True, "per_channel": False, "quantize_bias": False, "reduce_range": True},
    ],
    ids=str,
)
def test_other_dialects_give_torchs_numbers_too(changes, tmp_path):
    data = pictures(COUNT)
    module = prepare_qat(made(Residual), replace(SCHEME, **changes), data.batches(8))
    artifact = export_qat(module, data.tensors(range(COUNT)), tmp_path / "qat")
    session = open_artifact(replace(artifact, engine="onnxruntime"))
    (actual,) = run_batched(session, data.tensors(range(COUNT))).values()
    session.close()
    assert snr_db(in_torch(module, data), actual) >= 40.0
    tensors = [to_array(tensor) for tensor in onnx.load(str(artifact.path)).graph.initializer]
    widest = max(int(np.abs(array.astype(int)).max()) for array in tensors if array.dtype == np.int8)
    assert widest == (64 if "reduce_range" in changes else 127)


def test_scales_are_buffers_and_nothing_learns_any_more():
    module = prepare_qat(made(Residual), SCHEME, pictures(COUNT).batches(8))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    exported = for_export(module)
    assert {f"{RANGES}.image.scale", "stem.0.weight", "stem.0.bias", "head.scale"} <= dict(
        exported.named_buffers()
    ).keys()
    assert not any("ratio" in name or name.endswith("weight") for name, _ in exported.named_parameters())
    assert sum(isinstance(part, FixedPair) for part in exported.modules()) == 7
    assert sum(isinstance(part, FixedLayer) for part in exported.modules()) == 5
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert snr_db(in_torch(module, pictures(COUNT)), in_torch(exported, pictures(COUNT))) > 40.0


class Forward(nn.Module):
    def __init__(self, forward, **layers: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, image: Tensor) -> Tensor:
        return self.function(self, image)


def prepared(module: nn.Module, data: Samples):
    return prepare_qat(module.eval(), SCHEME, data.batches(8))


def test_a_clip_that_the_grid_does_not_make_stays():
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        return functional.hardtanh(s.a(x)) + functional.relu6(s.b(x))

    module = prepared(Forward(forward, a=nn.Conv2d(2, 3, 1), b=nn.Conv2d(2, 3, 1)), pictures(COUNT))
    assert {"hardtanh", "relu6"} <= {node.name for node in module.graph.nodes}
    exported = for_export(module)
    assert "hardtanh" in {node.name for node in exported.graph.nodes}
    assert "relu6" not in {node.name for node in exported.graph.nodes}
    assert snr_db(in_torch(module, pictures(COUNT)), in_torch(exported, pictures(COUNT))) > 40.0


def test_a_layer_of_two_inputs_keeps_its_bias_in_float():
    data = pictures(COUNT)
    module = prepared(Forward(lambda s, x: s.a(torch.relu(s.a(x) * 3.0)), a=nn.Conv2d(2, 2, 1)), data)
    exported = for_export(module)
    assert not exported.a.whole_bias
    assert isinstance(exported.a.layer.bias, nn.Parameter)
    assert snr_db(in_torch(module, data), in_torch(exported, data)) > 100.0


def test_a_bias_beyond_int32_has_a_coarser_channel():
    data, layer = pictures(COUNT), nn.Conv2d(2, 3, 1)
    with torch.no_grad():
        layer.weight[1] = 0.0
        layer.bias.copy_(torch.tensor([0.5, 40.0, -0.5]))
    module = prepared(Forward(lambda s, x: s.a(x), a=layer), data)
    exported = for_export(module)
    assert 2**29 < exported.a.bias.abs().max() <= 2**30
    assert snr_db(in_torch(module, data), in_torch(exported, data)) > 40.0


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.drop = nn.Linear(4, 6), nn.Linear(5, 6), nn.Dropout(0.5)
        self.mix = nn.Parameter(torch.eye(12) + 0.1)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        both = torch.cat([self.drop(functional.relu(self.a(left))), self.b(right)], dim=1) @ self.mix
        return {"logits": both, "sum": both.sum(1)}


def test_several_inputs_and_outputs_and_what_is_no_layer(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"left": rng.normal(size=(8, 4)).astype("float32"), "right": rng.normal(size=(8, 5)).astype("float32")}
    data = Samples(name="two", count=8, fetch=lambda i: {name: array[i] for name, array in arrays.items()})
    artifact = export_qat(prepare_qat(Two().eval(), SCHEME, data.batches(4)), arrays, tmp_path)
    assert [spec.name for spec in artifact.inputs] == ["left", "right"]
    assert [spec.name for spec in artifact.outputs] == ["logits", "sum"]
    (note,) = artifact.notes
    assert note.startswith("left in float: node_matmul")
    assert note.endswith("(no layer in int8 when it was prepared)")


def test_a_float_network_is_told():
    with pytest.raises(TrainingError, match=r"(?s)Residual has no fake-quantisers.*prepare_qat"):
        for_export(made(Residual))


def test_other_numbers_do_not_pass(tmp_path, monkeypatch):
    data = pictures(COUNT)
    monkeypatch.setattr(exporting, "QAT_PARITY_DB", 400.0)
    with pytest.raises(ParityError, match=r"(?s)computes something else.*at least 400 dB"):
        export_qat(prepared(nn.Sequential(nn.Conv2d(2, 2, 1)), data), data.tensors(range(COUNT)), tmp_path)
    assert not list(tmp_path.iterdir())
