"""Small float networks as ONNX text, calibration samples for them, and quantising them for a target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgekit.artifact import Artifact
from edgekit.backends import load_backend
from edgekit.catalog import load_target
from edgekit.conversion.clean import describe_onnx
from edgekit.data import Samples
from edgekit.quantization.schemes import Plan

HEAD = '<ir_version: 9, opset_import: ["" : 20]>\n'
NOTE = "/home/somebody/project/secret.py"


def conv_net(convs: int = 3, channels: int = 8, batch: str = '"batch"', size: int | str = 16) -> onnx.ModelProto:
    """A chain of named convolutions and ReLUs with a residual addition and a linear layer, in ONNX text."""
    rng = np.random.default_rng(0)
    body = "\n".join(
        f"""[conv{i}] c{i} = Conv<pads=[1, 1, 1, 1]>({"image" if i == 0 else f"r{i - 1}"}, w{i}, b{i})
        [relu{i}] r{i} = Relu(c{i})"""
        for i in range(convs)
    )
    proto = onnx.parser.parse_model(
        f"""{HEAD}conv_net (float[{batch}, 3, {size}, {size}] image) => (float[{batch}, 5] logits) {{
            {body}
            [add] a = Add(r0, r{convs - 1})
            [pool] p = GlobalAveragePool(a)
            [flat] f = Flatten(p)
            [linear] logits = Gemm<transB=1>(f, w, b)
        }}"""
    )
    weights = {"w": rng.normal(0, 0.3, (5, channels)), "b": rng.normal(0, 0.3, 5)}
    for i in range(convs):
        weights[f"w{i}"] = rng.normal(0, 0.2, (channels, channels if i else 3, 3, 3))
        weights[f"b{i}"] = rng.normal(0, 0.2, channels)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()
    )
    return proto


def note(proto: onnx.ModelProto) -> None:
    """Writes a path where exporters write them."""
    proto.doc_string = NOTE
    proto.metadata_props.add(key="source", value=NOTE)
    for node in proto.graph.node:
        node.doc_string = NOTE
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=NOTE)


def save(proto: onnx.ModelProto, folder: Path, **external: Any) -> Artifact:
    """Saves a model as an fp32 artifact."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, folder / "model.onnx", **external)
    return describe_onnx(folder / "model.onnx", precision="fp32")


def samples_for(inputs: Any, count: int = 8) -> Samples:
    """Normal random samples for a model's inputs; open dimensions are 1."""
    rng = np.random.default_rng(7)
    arrays = {
        spec.name: rng.normal(size=(count, *(d if isinstance(d, int) else 1 for d in spec.shape[1:]))).astype("float32")
        for spec in inputs
    }
    return Samples(name="normal", count=count, fetch=lambda i: {name: array[i] for name, array in arrays.items()})


def quantise(engine: str, target: str, fp32: Artifact, out: Path, *, batch: int = 1, **changes: Any) -> Artifact:
    """Quantises for a target of the catalogue by name."""
    backend = load_backend(engine)
    plan = Plan(
        **{"engine": engine, "precision": "int8", "method": "minmax", "scheme": backend.scheme(load_target(target))}
        | changes
    )
    return backend.quantize(fp32, samples_for(fp32.inputs).batches(batch), plan, out)
