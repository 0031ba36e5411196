"""TensorRT's rules on what the usual tools write: ONNX Runtime's and NNCF's defaults break them, modelopt's do not."""

import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime.quantization as ort
import pytest
from small_nets import conv_net

from edgekit.backends.tensorrt_rules import violations

SAMPLES = [np.random.default_rng(i).normal(size=(1, 3, 16, 16)).astype(np.float32) for i in range(4)]
SYMMETRIC = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}


class Reader(ort.CalibrationDataReader):
    def __init__(self):
        self.left = iter([{"image": sample} for sample in SAMPLES])

    def get_next(self):
        return next(self.left, None)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("float") / "model.onnx"
    onnx.save(conv_net(channels=32, batch=1), path)
    return path


def static(model, out, **how):
    # ONNX Runtime advises preparation steps by warnings of the root logger, which are no Python warnings.
    ort.quantize_static(str(model), str(out), Reader(), **how)
    return {one.rule for one in violations(onnx.load(out))}


def test_onnx_runtimes_default_is_asymmetric_with_an_integer_bias(model, tmp_path):
    found = static(model, tmp_path / "model.onnx")
    assert found == {"zero-point", "int32-bias", "residual-add"}


def test_the_dialect_of_x86_is_uint8(model, tmp_path):
    kinds = {"activation_type": ort.QuantType.QUInt8, "weight_type": ort.QuantType.QInt8, "per_channel": True}
    assert "uint8" in static(model, tmp_path / "model.onnx", **kinds)
    assert "uint8" in static(model, tmp_path / "zero.onnx", **kinds, extra_options=SYMMETRIC)


def test_onnx_runtimes_symmetric_int8_stands_between_convolution_and_relu(model, tmp_path):
    kinds = {"activation_type": ort.QuantType.QInt8, "weight_type": ort.QuantType.QInt8, "per_channel": True}
    assert static(model, tmp_path / "model.onnx", **kinds, extra_options=SYMMETRIC) == {"split-fusion"}


def test_integer_operators_are_not_parsed(model, tmp_path):
    assert "operator" in static(model, tmp_path / "model.onnx", quant_format=ort.QuantFormat.QOperator)
    ort.quantize_dynamic(str(model), str(tmp_path / "dynamic.onnx"))
    found = violations(onnx.load(tmp_path / "dynamic.onnx"))
    assert {one.rule for one in found} == {"operator"}
    assert {one.found for one in found} == {"DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"}


def test_nncfs_default_is_uint8(model):
    nncf = pytest.importorskip("nncf")
    made = nncf.quantize(onnx.load(model), nncf.Dataset([{"image": s} for s in SAMPLES]), subset_size=len(SAMPLES))
    found = violations(made)
    assert "uint8" in {one.rule for one in found}


MODELOPT = """
import sys
import numpy as np
from modelopt.onnx.quantization import quantize

model, mode, precision, out = sys.argv[1:]
samples = np.load(model.replace(".onnx", ".npy"))
quantize(model, quantize_mode=mode, calibration_data={"image": samples}, calibration_eps=["cpu"], output_path=out,
         high_precision_dtype=precision, log_level="ERROR")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "precision"), [("int8", "fp32"), ("int8", "fp16"), ("fp8", "fp16"), ("int4", "fp32")])
def test_modelopts_graphs_are_clean(model, tmp_path, mode, precision):
    """In a process of its own: the tool patches ONNX Runtime, and its folder holds other versions of packages."""
    np.save(model.with_suffix(".npy"), np.concatenate(SAMPLES))
    command = [sys.executable, "-c", "import modelopt.onnx.quantization"]
    environment = os.environ | {"PYTHONPATH": os.environ.get("EDGEKIT_MODELOPT", "")}
    known = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if known.returncode:
        reason = (known.stderr.strip().splitlines() or ["no reason given"])[-1]
        pytest.skip(f"nvidia-modelopt is not installed (EDGEKIT_MODELOPT names the folder it is in): {reason}")
    out = tmp_path / "model.onnx"
    command = [sys.executable, "-c", MODELOPT, str(model), mode, precision, str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = onnx.load(out)
    assert any(node.op_type == "DequantizeLinear" for node in made.graph.node)
    assert violations(made) == []


def test_a_graph_as_modelopt_writes_it_is_clean():
    """Its residual block by hand: weights stored in int8 a channel, the skip branch quantised, a float bias."""
    proto = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]>
    net (float[1, 32, 8, 8] image) => (float[1, 32, 8, 8] y) {
        [image_QuantizeLinear] iq = QuantizeLinear(image, image_s, zero)
        [image_DequantizeLinear] i = DequantizeLinear(iq, image_s, zero)
        [w_DequantizeLinear] w = DequantizeLinear<axis = 0>(w_quantized, w_s, w_zero)
        [conv0] c = Conv<pads = [1, 1, 1, 1]>(i, w, b)
        [relu0] r = Relu(c)
        [r_QuantizeLinear] rq = QuantizeLinear(r, r_s, zero)
        [r_DequantizeLinear] rd = DequantizeLinear(rq, r_s, zero)
        [conv1] e = Conv<pads = [1, 1, 1, 1]>(rd, w, b)
        [add] a = Add(e, i)
        [relu1] y = Relu(a)
    }""")
    values = {
        "image_s": np.float32(0.03),
        "r_s": np.float32(0.05),
        "zero": np.int8(0),
        "w_quantized": np.ones((32, 32, 3, 3), np.int8),
        "w_s": np.full(32, 0.01, np.float32),
        "w_zero": np.zeros(32, np.int8),
        "b": np.zeros(32, np.float32),
    }
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in values.items())
    onnx.checker.check_model(proto, full_check=True)
    assert violations(proto) == []
