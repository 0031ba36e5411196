"""The engine inspector's JSON read as placed nodes; samples written after NVIDIA's documentation of the format."""

import pytest

from edgekit.runtime.placement import Placement
from edgekit.runtime.tensorrt_record import placed_nodes


def tensor(name, dims, kind, *, split=False):
    """A tensor as TensorRT 10 tells it, or with its type in a field of its own, as 11 does."""
    told = (
        {"DataType": kind, "Format": "Row major linear"} if split else {"Format/Datatype": f"Row major linear {kind}"}
    )
    return {"Name": name, "Location": "Device", "Dimensions": dims, **told}


def layers(split):
    conv = {
        "Name": "conv1 + relu1",
        "LayerType": "CaskConvolution",
        "Inputs": [tensor("q0", [1, 3, 32, 32], "Int8", split=split)],
        "Outputs": [tensor("r1", [1, 16, 32, 32], "Int8", split=split)],
        "ParameterType": "Convolution",
        "Kernel": [3, 3],
        "OutMaps": 16,
        "Groups": 1,
        "Weights": {"Type": "Int8", "Count": 432},
        "Bias": {"Type": "Float", "Count": 16},
        "Activation": "RELU",
        "TacticName": "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw_vect_c_32kcrs_vect_c_32",
        "Metadata": "[ONNX Layer: conv1]\x1e[ONNX Layer: relu1]",
    }
    last = conv | {
        "Name": "conv2 + relu2",
        "Inputs": conv["Outputs"],
        "Outputs": [tensor("r2", [1, 16, 16, 16], "FP32" if not split else "Float", split=split)],
        "Weights": {"Type": "Int8", "Count": 2304},
        "Metadata": "[ONNX Layer: conv2]\x1e[ONNX Layer: relu2]",
    }
    reformat = {
        "Name": "Reformatting CopyNode for Input Tensor 0 to conv1 + relu1",
        "LayerType": "Reformat",
        "Inputs": [tensor("input", [1, 3, 32, 32], "FP32" if not split else "Float", split=split)],
        "Outputs": [tensor("q0", [1, 3, 32, 32], "Int8", split=split)],
        "ParameterType": "Reformat",
        "Origin": "REFORMAT",
        "Metadata": "",
    }
    pool = {
        "Name": "pool",
        "LayerType": "CaskPooling",
        "Inputs": [tensor("r2", [1, 16, 16, 16], "FP16" if not split else "Half", split=split)],
        "Outputs": [tensor("p", [1, 16, 1, 1], "FP16" if not split else "Half", split=split)],
        "TacticName": "sm50_xmma_pooling_fw_4d_FP16FP32NHWC_Average",
        "Metadata": "[ONNX Layer: pool]",
    }
    fused = {
        "Name": "__myl_FcAdd_myl0_1",
        "LayerType": "gemm",
        "Inputs": [tensor("p", [1, 16], "FP16" if not split else "Half", split=split)],
        "Outputs": [tensor("output", [1, 10], "FP16" if not split else "Half", split=split)],
        "TacticName": "sm80_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize32x32x64",
        "Metadata": "[ONNX Layer: fc]",
    }
    return [reformat, conv, last, pool, fused]


@pytest.mark.parametrize("split", [False, True], ids=["TensorRT 10", "TensorRT 11"])
def test_layers_are_read_with_precision_and_origins(split):
    nodes = placed_nodes({"Layers": layers(split), "Bindings": ["input", "output"]})
    told = [(node.op, node.precision, node.compute, node.origins) for node in nodes]
    assert told == [
        ("Reformat", "int8", False, ()),
        ("CaskConvolution", "int8", True, ("conv1", "relu1")),
        ("CaskConvolution", "int8", True, ("conv2", "relu2")),  # int8 that writes floats
        ("CaskPooling", "fp16", False, ("pool",)),
        ("gemm", "fp16", True, ("fc",)),
    ]
    assert [node.weights for node in nodes] == [None, "int8", "int8", None, None]
    placement = Placement(device="Orin", nodes=nodes)
    assert placement.share("int8") == pytest.approx(2 / 3)


def test_multiply_accumulates_of_convolutions_are_told():
    nodes = placed_nodes({"Layers": layers(False)})
    assert nodes[1].macs == 32 * 32 * 16 * 3 * 9
    assert nodes[2].macs == 16 * 16 * 16 * 16 * 9
    assert nodes[4].macs is None  # the record does not tell which side is transposed
    pooled = layers(False)[1] | {"LayerType": "CaskConvActPool"}
    open_shape = layers(False)[1] | {"Outputs": [tensor("r1", [-1, 16, 32, 32], "Int8")]}
    assert [node.macs for node in placed_nodes({"Layers": [pooled, open_shape]})] == [None, None]


@pytest.mark.parametrize(
    ("text", "precision"),
    [
        ("Thirty-two wide channel vectorized row major Int8 format.", "int8"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("Row major linear BFloat16 format", "bf16"),
        ("Row major linear INT32", "int32"),
        ("Row major linear FP8", "fp8"),
        ("N/A due to dynamic shapes", "unknown"),
        ("", "unknown"),
    ],
)
def test_formats_are_read_as_precisions(text, precision):
    layer = {"Name": "a", "LayerType": "PointWise", "Outputs": [{"Name": "x", "Format/Datatype": text}]}
    assert placed_nodes({"Layers": [layer]})[0].precision == precision


def test_times_are_matched_by_name():
    nodes = placed_nodes({"Layers": layers(False)}, {"pool": 12.5})
    assert [node.time_us for node in nodes] == [None, None, None, 12.5, None]


def test_a_plan_without_details_gives_names_only():
    (node,) = placed_nodes({"Layers": ["conv1 + relu1"]}, {"conv1 + relu1": 3.0})
    assert (node.name, node.op, node.precision, node.compute, node.time_us) == (
        *("conv1 + relu1", "unknown", "unknown"),
        *(False, 3.0),
    )
    assert placed_nodes({}) == ()


def test_a_strange_record_is_read_as_far_as_it_goes():
    odd = [{"Name": 5, "Inputs": None, "Outputs": ["x"], "Weights": "none", "Metadata": None}, 7]
    assert [node.precision for node in placed_nodes({"Layers": odd})] == ["unknown", "unknown"]
