"""What static int8 shares on the engines whose dialect is ONNX: a float model to quantise, its ranges, corrections."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import version_converter

from edgekit.artifact import hash_files
from edgekit.backends.calibration import CalibrationBatches
from edgekit.conversion.clean import free_constants, is_large, save_onnx
from edgekit.errors import ModelError
from edgekit.quantization.collect import channel_maxima, collect, load_statistics, open_probe, save_statistics
from edgekit.quantization.equalization import equalize
from edgekit.quantization.groups import name_nodes
from edgekit.quantization.ranges import NEEDS_HISTOGRAM, TensorStatistics, why_unfit
from edgekit.quantization.schemes import Plan
from edgekit.quantization.smooth_quant import smooth, smoothed_tensors
from edgekit.runtime.external_data import external_files
from edgekit.steps import run_step

FLOAT, OPTIMISED = "float.onnx", "optimised.onnx"


def opset_of(proto: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that a model is written in; 0 where it has none of them."""
    return next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)


def with_opset(proto: onnx.ModelProto, least: int, name: str, lacks: str) -> onnx.ModelProto:
    """Moves an older model up to an opset; takes its initialisers off the list of inputs, in place.

    Args:
        proto: The model.
        least: The opset that it must have, or a newer one.
        name: The model's, for the error.
        lacks: What older opsets have not, for the error.

    Raises:
        ModelError: It cannot be moved up.
    """
    free_constants(proto)
    opset = opset_of(proto) or least
    if opset >= least:
        return proto
    try:
        return version_converter.convert_version(proto, least)
    except (RuntimeError, onnx.checker.ValidationError) as exc:
        raise ModelError(
            f"{name}: opset {opset} has no {lacks}, and the model cannot be moved up",
            found=str(exc).strip().splitlines()[-1],
            allowed=f"opset {least} or newer",
            fix=f"export the model at opset {least} or newer",
        ) from exc


def optimised(proto: onnx.ModelProto, folder: Path, off: Sequence[str] = (), *, apart: bool = False) -> onnx.ModelProto:
    """Folds BatchNorms and constants with ONNX Runtime's portable rewrites, so that no quantiser stands between.

    Args:
        proto: The float model, its nodes named.
        folder: Temporary files; the model is to be saved there, as ``optimised.onnx``.
        off: Rewrites that are left out, by ONNX Runtime's names.
        apart: Weights lie in files of that folder throughout, and the protos hold none: the given one loses its own.

    Returns:
        The model; every node has a name, fused ones that by which a plan knows them.
    """
    import onnxruntime as ort

    settings = ort.SessionOptions()
    if apart or is_large(proto):
        settings.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", f"{OPTIMISED}.data"
        )
    if apart:
        onnx.save(proto, str(folder / FLOAT), save_as_external_data=True, location=f"{FLOAT}.data")
        settings.add_session_config_entry("session.disable_prepacking", "1")
    else:
        save_onnx(proto, folder / FLOAT)
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    settings.optimized_model_filepath = str(folder / OPTIMISED)
    ort.InferenceSession(
        folder / FLOAT, settings, providers=["CPUExecutionProvider"], disabled_optimizers=list(off) or None
    )
    found = onnx.load(folder / OPTIMISED, load_external_data=not apart)
    _keep_names(found, {node.name for node in proto.graph.node})
    name_nodes(found)
    return found


def _keep_names(proto: onnx.ModelProto, known: set[str]) -> None:
    """Gives nodes that the optimiser fused, e.g. ``name/MatMulAddFusion``, the name a plan knows them by; in place."""
    left = known - {node.name for node in proto.graph.node}
    for node in proto.graph.node:
        name = node.name.rpartition("/")[0]
        if node.name not in known and name in left:
            left.remove(name)
            node.name = name


def move_ranges(model: Path, plan: Plan, batches: CalibrationBatches) -> dict[str, str]:
    """Corrections that leave the float function as it is, made in the file.

    Returns:
        Nodes that must stay in float for them, and why.
    """
    if not plan.corrections:
        return {}
    given, in_float = onnx.load(model), {}
    if "equalize" in plan.corrections:
        equalize(given)
    if "smooth-quant" in plan.corrections:
        save_onnx(given, model)
        maxima = channel_maxima(open_probe(model, smoothed_tensors(given)), batches)
        in_float = dict.fromkeys(smooth(given, maxima), "SmoothQuant scales there")
    save_onnx(given, model)
    return in_float


def statistics_of(
    model: Path,
    method: str | None,
    batches: CalibrationBatches,
    names: Sequence[str],
    cache: Path | None,
    *,
    light: bool = False,
) -> tuple[dict[str, TensorStatistics], dict[str, str]]:
    """What activations are like, and their dtypes; from the cache where model and samples are the same.

    Args:
        model: The float model.
        method: The range method; some need histograms.
        batches: Calibration samples.
        names: The activations.
        cache: Folder of what is kept for the next plan, or None.
        light: As of :func:`edgekit.quantization.collect.open_probe`.
    """
    import onnxruntime

    probe = open_probe(model, names, light=light)
    histograms = method in NEEDS_HISTOGRAM
    dtypes = {**probe.given, **probe.fed}
    if cache is None:
        return collect(probe, batches, histograms=histograms), dtypes
    key = {
        "model": hash_files(model.parent, [model.name, *external_files(model)]),
        "tensors": list(names),
        "histograms": histograms,
        "samples": _hash_batches(batches),
        "onnxruntime": onnxruntime.__version__,
    }
    cache.mkdir(parents=True, exist_ok=True)
    folder = run_step(
        cache, "ranges", key, lambda folder: save_statistics(collect(probe, batches, histograms=histograms), folder)
    )
    return load_statistics(folder), dtypes


def unfit_of(statistics: Mapping[str, TensorStatistics]) -> dict[str, str]:
    """Activations that int8 cannot hold, each with the reason."""
    return {name: why for name, one in statistics.items() if (why := why_unfit(one)) is not None}


def _hash_batches(batches: CalibrationBatches) -> str:
    """sha256 of all batches, as 64 hex digits; a batch is held at a time."""
    digest = hashlib.sha256()
    for feeds in batches:
        for name in sorted(feeds):
            digest.update(f"{name}:{feeds[name].dtype.str}{feeds[name].shape};".encode())
            digest.update(np.ascontiguousarray(feeds[name]).data)
    return digest.hexdigest()
