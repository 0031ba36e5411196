"""Small float networks as ONNX text with random weights, and running them on ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
from onnx.parser import parse_model

HEAD = '<ir_version: 9, opset_import: ["" : {opset}]>\n'


def net(text: str, weights: dict[str, tuple[int, ...]], *, opset: int = 20, seed: int = 0) -> onnx.ModelProto:
    """A model of ONNX text; weights are normal, by shape."""
    proto = parse_model(HEAD.format(opset=opset) + text)
    rng = np.random.default_rng(seed)
    for name, shape in weights.items():
        values = rng.normal(0, 0.5, shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return proto


def run(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    import onnxruntime as ort

    onnx.checker.check_model(proto)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def initial(proto: onnx.ModelProto, name: str) -> np.ndarray:
    return onnx.numpy_helper.to_array(next(tensor for tensor in proto.graph.initializer if tensor.name == name))


def uneven(proto: onnx.ModelProto, name: str, factors: np.ndarray, axis: int = 0) -> None:
    """Scales a constant along an axis."""
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    values = onnx.numpy_helper.to_array(tensor)
    shape = [-1 if place == axis else 1 for place in range(values.ndim)]
    tensor.CopyFrom(onnx.numpy_helper.from_array((values * factors.reshape(shape)).astype(np.float32), name))
