"""Tensors inside an ONNX file, as ONNX Runtime computes them: by the letter, or with all its optimisations."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.artifact import Array, Option
from edgekit.drift.walking import Tensor

if TYPE_CHECKING:
    import onnx

_QUANTISE, _DEQUANTISE = "QuantizeLinear", "DequantizeLinear"


def tensors_of(path: Path) -> list[Tensor]:
    """The tensors that an ONNX model computes, in topological order, its inputs first; none from inside branches."""
    import onnx

    from edgekit.conversion.clean import input_specs

    proto = onnx.load(str(path), load_external_data=False)
    users: dict[str, list[str]] = {}
    for node in proto.graph.node:
        for name in node.input:
            users.setdefault(name, []).extend(node.output)
    named = [(spec.name, "input") for spec in input_specs(proto)]
    named += [(name, node.op_type) for node in proto.graph.node for name in node.output if name]
    return [Tensor(name=name, op=op, users=tuple(dict.fromkeys(users.get(name, ())))) for name, op in named]


class OnnxTensors:
    """Reads tensors of an ONNX file by the names of the model it was made from.

    A tensor that is quantised and dequantised again is read as those who use it see it.

    Args:
        path: The file.
        feeds: The input.
        optimise: With all of the engine's optimisations, and then only what they leave; else node by node.
        options: Session options, as an artifact has them.
    """

    def __init__(
        self, path: Path, feeds: Mapping[str, Array], *, optimise: bool, options: Mapping[str, Option] | None = None
    ) -> None:
        from edgekit.conversion.clean import load_onnx

        self._proto = load_onnx(path)
        self._feeds = feeds
        self._optimise = optimise
        self._options = dict(options or {})
        self._makers = {name: node for node in self._proto.graph.node for name in node.output}
        self._round_trips = _round_trips(self._proto)
        self._constants = {tensor.name: tensor for tensor in self._proto.graph.initializer}
        self._left = self._left_by_the_engine() if optimise else None

    def read(self, names: Sequence[str]) -> dict[str, Array]:
        """Runs the input and gives those of the tensors that there are."""
        sources = {name: source for name in names if (source := self._source(name)) is not None}
        given = {name: self._feeds[name] for name in names if name in self._feeds and name not in sources}
        if not sources:
            return given
        arrays = self._run(sorted(set(sources.values())))
        return given | {name: self._in_float(arrays[source], source) for name, source in sources.items()}

    def _source(self, name: str) -> str | None:
        """The tensor of this file that stands for one of the model."""
        quantised, dequantised = self._round_trips.get(name, (None, None))
        if self._left is None:
            return dequantised or (name if name in self._makers else None)
        # Integers are where int8 kernels meet: reading there keeps them whole.
        options = [quantised, name, dequantised]
        return next((o for o in options if o is not None and o in self._left and o in self._makers), None)

    def _in_float(self, array: Array, source: str) -> Array:
        node = self._makers[source]
        if node.op_type != _QUANTISE or array.dtype.kind == "f":
            return array
        from onnx import numpy_helper

        scale, zero = (
            np.asarray(numpy_helper.to_array(self._constants[name]), np.float32) if name in self._constants else None
            for name in [*node.input[1:3], ""][:2]
        )
        if scale is None or scale.size != 1:
            return array
        return np.asarray((array.astype(np.float32) - (0.0 if zero is None else zero)) * scale, np.float32)

    def _left_by_the_engine(self) -> set[str]:
        """Names of the tensors between the nodes that the engine leaves after fusing, before it lays them out."""
        import onnx

        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "optimised.onnx"
            _session(self._proto, Path(folder), self._options, level="ORT_ENABLE_EXTENDED", write_to=target)
            graph = onnx.load(str(target), load_external_data=False).graph
        return {name for node in graph.node for name in node.output}

    def _run(self, names: Sequence[str]) -> dict[str, Array]:
        import onnx

        from edgekit.runtime.onnxruntime import engine_errors

        outputs = self._proto.graph.output
        declared = len(outputs)
        known = {value.name for value in outputs}
        outputs.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
        try:
            with tempfile.TemporaryDirectory() as folder:
                level = "ORT_ENABLE_ALL" if self._optimise else "ORT_DISABLE_ALL"
                session = _session(self._proto, Path(folder), self._options, level=level)
                with engine_errors("run the model with its tensors as outputs"):
                    return dict(zip(names, session.run(list(names), dict(self._feeds)), strict=True))
        finally:
            del outputs[declared:]


def _round_trips(proto: onnx.ModelProto) -> dict[str, tuple[str, str]]:
    """By tensor, what it is quantised to and what that is dequantised to."""
    back = {node.input[0]: node.output[0] for node in proto.graph.node if node.op_type == _DEQUANTISE}
    return {
        node.input[0]: (node.output[0], back[node.output[0]])
        for node in proto.graph.node
        if node.op_type == _QUANTISE and node.output[0] in back
    }


def _session(
    proto: onnx.ModelProto, folder: Path, options: Mapping[str, Option], *, level: str, write_to: Path | None = None
) -> Any:
    import onnxruntime as ort

    from edgekit.conversion.clean import is_large, save_onnx
    from edgekit.runtime.onnxruntime import engine_errors
    from edgekit.runtime.quiet import silence_telemetry

    silence_telemetry()
    save_onnx(proto, folder / "model.onnx")
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    for key, value in options.items():
        if "." in key:
            settings.add_session_config_entry(key, str(int(value)) if isinstance(value, bool) else str(value))
        elif key != "provider":
            setattr(settings, key, value)
    if write_to is not None:
        settings.optimized_model_filepath = str(write_to)
        if is_large(proto):
            settings.add_session_config_entry(
                "session.optimized_model_external_initializers_file_name", f"{write_to.name}.data"
            )
    with engine_errors("open the model with its tensors as outputs"):
        return ort.InferenceSession(folder / "model.onnx", settings, providers=["CPUExecutionProvider"])
