"""Calibration that streams: what activations are like over all samples, holding one batch of them at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.artifact import Array, read_json, write_json
from edgekit.quantization.histograms import Histogram
from edgekit.quantization.ranges import TensorStatistics

if TYPE_CHECKING:
    import onnx

PROBED = "probed.onnx"
_FLOATS = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
_VALUES, _COUNTS = "statistics.json", "histograms.npy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A model on ONNX Runtime that gives inner tensors too, beside its own outputs.

    Attributes:
        session: ONNX Runtime's own.
        given: The tensors it computes, as asked for and of a float type, with their dtype.
        fed: The tensors asked for that are inputs of the model, with their dtype.
    """

    session: Any
    given: Mapping[str, str]
    fed: Mapping[str, str]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs one batch; gives the tensors asked for by name."""
        names = list(self.given)
        values = self.session.run(names, dict(feeds)) if names else []
        return dict(zip(names, values, strict=True)) | {name: feeds[name] for name in self.fed}


def open_probe(model: Path, tensors: Sequence[str], *, light: bool = False) -> Probe:
    """Opens a model so that it gives inner tensors; writes ``probed.onnx`` beside it, which shares its external data.

    Args:
        model: An ONNX file.
        tensors: Names of inputs and of outputs of nodes of its main graph; those that are no floats are left out.
        light: No second copy of the weights in the engine's own order; slower where samples are many.
    """
    import onnx
    import onnxruntime as ort

    proto = onnx.load(str(model), load_external_data=False)
    made = {name for node in proto.graph.node for name in node.output}
    expose(proto, [name for name in tensors if name in made])
    probed = model.with_name(PROBED)
    onnx.save(proto, str(probed))
    settings = ort.SessionOptions()
    # What an arena keeps for the largest batch of all tensors at once would be most of the peak.
    settings.enable_cpu_mem_arena = False
    if light:
        settings.add_session_config_entry("session.disable_prepacking", "1")
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = ort.InferenceSession(probed, settings, providers=["CPUExecutionProvider"])
    asked = set(tensors)

    def floats(specs: Iterable[Any]) -> dict[str, str]:
        return {spec.name: _FLOATS[spec.type] for spec in specs if spec.name in asked and spec.type in _FLOATS}

    return Probe(session=session, given=floats(session.get_outputs()), fed=floats(session.get_inputs()))


def expose(proto: onnx.ModelProto, tensors: Sequence[str]) -> None:
    """Makes tensors outputs of a model, in place; those that are outputs already stay as they are."""
    import onnx

    outputs = {value.name for value in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in outputs)


def collect(
    probe: Probe, batches: Iterable[Mapping[str, Array]], *, histograms: bool = False
) -> dict[str, TensorStatistics]:
    """What each tensor of a probe is like over all batches; memory does not grow with their number.

    Args:
        probe: The opened model.
        batches: Model tensors by input name.
        histograms: Whether to keep histograms too, which most range methods need.
    """
    names = [*probe.given, *probe.fed]
    found = {name: TensorStatistics(histogram=Histogram() if histograms else None) for name in names}
    for feeds in batches:
        values = probe.run(feeds)
        for name in names:
            found[name].add(values.pop(name))
    return found


def channel_maxima(probe: Probe, batches: Iterable[Mapping[str, Array]], axis: int = -1) -> dict[str, Array]:
    """The greatest magnitude of each channel of a probe's tensors over all batches: ``[channels]`` a tensor."""
    found: dict[str, Array] = {}
    for feeds in batches:
        for name, values in probe.run(feeds).items():
            if values.size:
                flat = np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])
                most = np.maximum(flat.max(axis=0), -flat.min(axis=0))
                found[name] = np.maximum(found[name], most) if name in found else most
    return found


def save_statistics(statistics: Mapping[str, TensorStatistics], folder: Path) -> None:
    """Writes statistics into a folder."""
    rows, counts = [], []
    for name, one in statistics.items():
        row: dict[str, Any] = {
            "name": name,
            "minimum": one.minimum,
            "maximum": one.maximum,
            "sum_of_minima": one.sum_of_minima,
            "sum_of_maxima": one.sum_of_maxima,
            "batches": one.batches,
            "infinite": one.infinite,
        }
        if one.histogram is not None:
            row |= {"low": one.histogram.low, "width": one.histogram.width}
            counts.append(one.histogram.counts)
        rows.append(row)
    write_json(folder / _VALUES, rows)
    if counts:
        np.save(folder / _COUNTS, np.stack(counts))


def load_statistics(folder: Path) -> dict[str, TensorStatistics]:
    """Reads statistics from a folder."""
    counts = np.load(folder / _COUNTS) if (folder / _COUNTS).exists() else None
    found = {}
    for place, row in enumerate(read_json(folder / _VALUES)):
        name, low, width = row.pop("name"), row.pop("low", 0.0), row.pop("width", 0.0)
        histogram = None if counts is None else Histogram(counts=counts[place], low=low, width=width)
        found[name] = TensorStatistics(**row, histogram=histogram)
    return found
