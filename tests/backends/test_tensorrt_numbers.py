"""TensorRT's int8 graphs compute what ONNX Runtime's own writer would have written of the same placement."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx.numpy_helper import to_array
from product_nets import attention
from small_nets import conv_net, quantise, samples_for, save
from tensorrt_nets import SIZES, ZOO, net

from edgekit.backends import load_backend
from edgekit.catalog import load_target
from edgekit.checking import runnable
from edgekit.conversion.clean import describe_onnx, sort_nodes
from edgekit.quantization.schemes import STATIC_METHODS, Plan
from edgekit.runtime import open_artifact
from edgekit.runtime.numbers import run_batched, snr_db

ENGINE, TARGET = "tensorrt", "jetson-orin-nano"
SMOOTHED = """smoothed (float["n", 6, 16] x) => (float["n", 6, 24] y) {
    [gain] g = Mul(x, s) [first] y = MatMul(g, w0) }"""
UNEVEN = np.geomspace(0.1, 10, 16).astype("float32")
SIZES[SMOOTHED] = {"w0": (16, 24)}
NETS = {name: net(text) for name, text in ZOO.items()} | {
    "convolutions": conv_net(channels=16),
    "attention": attention(),
}


def outputs_of(artifact, out):
    """What an artifact gives where there is no TensorRT: as it is written, on ONNX Runtime's CPU."""
    built = load_backend(ENGINE).compile(artifact, load_target(TARGET), samples_of(artifact)[1], out)
    session = open_artifact(runnable(built))
    try:
        (output,) = run_batched(session, samples_of(artifact)[0]).values()
        return output
    finally:
        session.close()


def samples_of(artifact):
    batch = artifact.inputs[0].shape[0]
    size = batch if isinstance(batch, int) else 1
    return samples_for(artifact.inputs, 8).tensors(range(8)), size


def of_onnx_runtime(fp32, ours, folder):
    """The symmetric int8 graph of ONNX Runtime's writer with our placement and our ranges of activations."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    mine, given = onnx.load(ours.path), onnx.load(fp32.path)
    makers = {name: node for node in mine.graph.node for name in node.output}
    constants = {tensor.name: to_array(tensor) for tensor in mine.graph.initializer}
    scales = {n.input[0]: float(constants[n.input[1]]) * 127 for n in mine.graph.node if n.op_type == "QuantizeLinear"}
    names = {node.name for node in mine.graph.node if any(pairs(makers, node))}
    data = {
        name: TensorData(lowest=np.array(-most, "float32"), highest=np.array(most, "float32"))
        for name, most in scales.items()
    }
    kinds = sorted({node.op_type for node in given.graph.node if node.name in names})
    options = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
    options |= {
        "OpTypesToExcludeOutputQuantization": kinds,
        "DedicatedQDQPair": False,
        "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
    }
    data |= {
        name: TensorData(lowest=np.array(-1, "float32"), highest=np.array(1, "float32"))
        for node in given.graph.node
        for name in (*node.input, *node.output)
        if name not in data
    }
    quantizer = QDQQuantizer(
        *(onnx.shape_inference.infer_shapes(given), True, False, QuantType.QInt8, QuantType.QInt8),
        *(TensorsData(CalibrationMethod.MinMax, data), sorted(names), [], kinds, options),
    )
    quantizer.quantize_model()
    made = quantizer.model.model
    before = {n.output[0]: n.input[0] for n in made.graph.node if n.op_type == "QuantizeLinear"}
    floats = {n.output[0]: before.get(n.input[0]) for n in made.graph.node if n.op_type == "DequantizeLinear"}
    own = {node.name: pairs(makers, node) for node in mine.graph.node}
    for node in made.graph.node:
        for at, dequantised in enumerate(own.get(node.name, ())):
            if not dequantised:
                node.input[at] = floats.get(node.input[at]) or node.input[at]
    drop_unread(made.graph)
    sort_nodes(made.graph)
    folder.mkdir()
    onnx.save(made, folder / "model.onnx")
    return describe_onnx(folder / "model.onnx", precision="int8")


def drop_unread(graph):
    """Removes pairs that nobody reads any more: a branch that they hang on would not look bare."""
    while True:
        read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        unread = [node for node in graph.node if read.isdisjoint(node.output)]
        if not unread:
            return
        for node in unread:
            graph.node.remove(node)


def pairs(makers, node):
    """For each input of a node, whether it is dequantised."""
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return []
    return [name in makers and makers[name].op_type == "DequantizeLinear" for name in node.input]


@pytest.mark.parametrize("name", NETS)
def test_a_graph_is_within_1_db_of_onnx_runtimes_own_of_the_same_placement(name, tmp_path):
    fp32 = save(NETS[name], tmp_path / "float")
    full = load_target(TARGET).model_copy(update={"precisions": ("fp32", "int8")})
    scheme = load_backend(ENGINE).scheme(full)
    ours = quantise(ENGINE, TARGET, fp32, tmp_path / "ours", scheme=scheme, batch=samples_of(fp32)[1])
    half = quantise(ENGINE, TARGET, fp32, tmp_path / "half", batch=samples_of(fp32)[1])
    peer = of_onnx_runtime(fp32, ours, tmp_path / "peer")
    reference = outputs_of(fp32, tmp_path / "a")
    told = {n: snr_db(reference, outputs_of(one, tmp_path / n))
            for n, one in (("ours", ours), ("half", half), ("peer", peer))}  # fmt: skip
    assert told["ours"] > 20.0
    assert abs(told["ours"] - told["peer"]) < 1.0, told
    assert told["half"] > told["peer"] - 1.0, told


@pytest.mark.parametrize("method", STATIC_METHODS)
def test_every_range_method_is_near_the_float_model(method, tmp_path):
    fp32 = save(NETS["residual"], tmp_path / "float")
    artifact = quantise(ENGINE, TARGET, fp32, tmp_path / "int8", method=method)
    assert snr_db(outputs_of(fp32, tmp_path / "a"), outputs_of(artifact, tmp_path / "b")) > 20.0
    again = quantise(ENGINE, TARGET, fp32, tmp_path / "again", method=method)
    assert again.sha256 == artifact.sha256


def test_the_ranges_are_the_methods(tmp_path):
    fp32 = save(NETS["residual"], tmp_path / "float")
    # A share of 99.99% of so few values is all of them, and minmax's.
    methods = [method for method in STATIC_METHODS if method != "percentile"]
    made = {method: quantise(ENGINE, TARGET, fp32, tmp_path / method, method=method) for method in methods}
    assert len({artifact.sha256 for artifact in made.values()}) == len(made)


@pytest.mark.parametrize("correction", load_backend(ENGINE).CORRECTIONS)
def test_every_correction_changes_the_model_and_keeps_it_near(correction, tmp_path):
    fp32 = save(net(SMOOTHED, s=UNEVEN) if correction == "smooth-quant" else NETS["residual"], tmp_path / "float")
    plain = quantise(ENGINE, TARGET, fp32, tmp_path / "plain")
    artifact = quantise(ENGINE, TARGET, fp32, tmp_path / "int8", corrections=(correction,))
    assert artifact.sha256 != plain.sha256
    assert snr_db(outputs_of(fp32, tmp_path / "a"), outputs_of(artifact, tmp_path / "b")) > 20.0


def test_ranges_serve_the_next_plan(tmp_path):
    fp32 = save(NETS["residual"], tmp_path / "float")
    backend, cache = load_backend(ENGINE), tmp_path / "cache"
    scheme = backend.scheme(load_target(TARGET))
    read = []
    samples = samples_for(fp32.inputs)

    def fetch(indices):
        read.extend(indices.tolist())
        return samples.fetch(indices)

    counts = []
    for method in ("mse", "entropy"):
        plan = Plan(engine=ENGINE, precision="int8", method=method, scheme=scheme)
        backend.quantize(fp32, replace(samples, fetch=fetch).batches(1), plan, tmp_path / method, cache=cache)
        counts.append(len(read))
        read.clear()
    assert len(list(cache.glob("**/statistics.json"))) == 1
    assert counts[1] < counts[0]
