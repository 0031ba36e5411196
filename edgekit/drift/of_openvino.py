"""Tensors inside an OpenVINO graph: with its fake quantisers computed in float, or as the engine compiles it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.artifact import Array, Option
from edgekit.runtime.openvino import engine_errors

# The engine's own switch of what turns fake quantisers into integers.
_IN_FLOAT: dict[str, Option] = {"LP_TRANSFORMS_MODE": "NO", "INFERENCE_PRECISION_HINT": "f32"}


class OpenVinoTensors:
    """Reads tensors of an IR by their names in the ONNX model that it was made from.

    A tensor that goes through a fake quantiser is read behind it, as those who use it see it.

    Args:
        path: The ``.xml`` file.
        feeds: The input.
        compiled: As the engine compiles it, and then only tensors between its fused nodes; else in float throughout.
        options: Engine options, as an artifact has them.
    """

    def __init__(
        self, path: Path, feeds: Mapping[str, Array], *, compiled: bool, options: Mapping[str, Option] | None = None
    ) -> None:
        self._path = path
        self._feeds = feeds
        options = options or {}
        self._device = str(options.get("device", "CPU"))
        own = {key: value for key, value in options.items() if key not in ("device", "CACHE_DIR")}
        self._properties: dict[str, Option] = {"INFERENCE_PRECISION_HINT": "f32", **own} if compiled else _IN_FLOAT
        self._left = self._left_by_the_engine() if compiled else None

    def read(self, names: Sequence[str]) -> dict[str, Array]:
        """Runs the input and gives those of the tensors that there are."""
        with engine_errors("run the model with its tensors as outputs"):
            import openvino

            core = openvino.Core()
            graph = core.read_model(str(self._path))
            if self._left is None:
                # With open sizes and its switch off the engine loses 10 dB in the attention of quantised transformers.
                graph.reshape({name: array.shape for name, array in self._feeds.items()})
            ports = self._ports(graph, set(names))
            unwritten = {name: port for name, port in ports.items() if port.get_node().get_type_name() != "Parameter"}
            results = {name: graph.add_outputs([port])[0] for name, port in unwritten.items()}
            places = {name: graph.outputs.index(result) for name, result in results.items()}
            compiled = core.compile_model(graph, self._device, self._properties)
            values = list(compiled.create_infer_request().infer(dict(self._feeds)).values())
            found = {name: np.asarray(values[place]) for name, place in places.items()}
        return found | {name: self._feeds[name] for name in ports if name not in found and name in self._feeds}

    def _ports(self, graph: Any, names: set[str]) -> dict[str, Any]:
        """The output of the graph that stands for each tensor."""
        found = {}
        for node in graph.get_ordered_ops():
            for output in node.outputs():
                for name in output.get_names() & names:
                    port = _behind_correction(output)
                    seen = _behind_quantiser(port)
                    if self._left is None or seen.get_node().get_friendly_name() in self._left:
                        found[name] = seen
                    elif port.get_node().get_friendly_name() in self._left:
                        found[name] = port
        return found

    def _left_by_the_engine(self) -> set[str]:
        """Names of the nodes that end what the engine fused: their outputs are there without undoing it."""
        with engine_errors("compile the model"):
            import openvino

            compiled = openvino.Core().compile_model(str(self._path), self._device, self._properties)
            chains = [
                str(node.get_rt_info()["originalLayersNames"].astype(str)).split(",")
                for node in compiled.get_runtime_model().get_ordered_ops()
            ]
        return {chain[-1] for chain in chains if chain[-1]}


def _behind_correction(port: Any) -> Any:
    """Behind the bias that a correction gave a node without one: it has no name of its own in the model."""
    users = [user.get_node() for user in port.get_target_inputs()]
    if len(users) != 1 or users[0].get_type_name() != "Add" or users[0].output(0).get_names():
        return port
    kinds = [other.get_source_output().get_node().get_type_name() for other in users[0].inputs()]
    return users[0].output(0) if "Constant" in kinds else port


def _behind_quantiser(port: Any) -> Any:
    """The output of the fake quantiser that a tensor goes through, in the tensor's own scale."""
    for user in port.get_target_inputs():
        node = user.get_node()
        if node.get_type_name() == "FakeQuantize" and user.get_index() == 0:
            return _rescaled(node.output(0))
    return port


def _rescaled(port: Any) -> Any:
    """Behind the conversion to integers and back that a graph made of Q/DQ operators has."""
    last = port
    converted = False
    while len(last.get_target_inputs()) == 1:
        (user,) = last.get_target_inputs()
        kind = user.get_node().get_type_name()
        if kind != "Convert" and not (converted and kind in ("Subtract", "Multiply")):
            break
        converted = True
        last = user.get_node().output(0)
        if kind == "Multiply":
            return last
    return port
