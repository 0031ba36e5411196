"""What a bundle or an ONNX file is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit.artifact import MANIFEST_FILE, Manifest, to_json
from edgekit.errors import BundleError
from edgekit.processing_specs import Postprocessing, Preprocessing
from edgekit.runtime.manifest import read_manifest

MOST_LABELS = 20  # that are named to people


def inspect_model(path: Path) -> dict[str, Any]:
    """Describes a bundle (its folder) or an ``.onnx`` file.

    Returns:
        ``facts`` (text by name, for people), ``operators`` (``op``, ``precision``, ``count``) and, for a bundle,
        the whole ``manifest``. A bundle's operators are those the engine really ran when it was checked.

    Raises:
        BundleError: It is neither, or is damaged.
    """
    if path.suffix == ".onnx":
        return _inspect_onnx(path)
    manifest = bundle_manifest(path)
    operators = [
        {"op": o["op"], "precision": o["precision"], "count": o["count"]}
        for o in manifest.accuracy.get("placement", [])
    ]
    return {"facts": _bundle_facts(manifest, path), "operators": operators, "manifest": to_json(manifest)}


def bundle_manifest(path: Path) -> Manifest:
    """The manifest of a bundle that is to be inspected.

    Raises:
        BundleError: The folder is no bundle, or it is damaged.
    """
    if not (path / MANIFEST_FILE).is_file():
        raise BundleError(
            f"{path}: nothing to inspect",
            found="no manifest.json",
            allowed="a bundle's folder or an .onnx file",
            fix="give a folder made by edgekit",
        )
    return read_manifest(path)


def _bundle_facts(manifest: Manifest, path: Path) -> dict[str, str]:
    golden = manifest.golden
    size = sum((path / name).stat().st_size for name in manifest.files if name.startswith("artifact/"))
    facts = {
        "bundle": f"{manifest.name} for {manifest.target}, id {manifest.id[:16]}",
        "engine": f"{manifest.engine} {manifest.engine_version}",
        "precision": manifest.precision,
        "inputs": "\n".join(str(spec) for spec in manifest.inputs),
        "outputs": "\n".join(str(spec) for spec in manifest.outputs),
        "size": f"{size / 1e6:.3f} MB",
        "options": ", ".join(f"{key}={value}" for key, value in manifest.options.items()),
        "golden": f"{golden.samples} {'random' if golden.random else 'real'} samples, {golden.reference_db:.1f} dB",
    }
    if manifest.preprocessing:
        facts["preprocessing"] = _described(manifest.preprocessing)
    if manifest.postprocessing:
        facts["postprocessing"] = _answered(manifest.postprocessing)
    if manifest.in_graph and manifest.in_graph.preprocessing:
        facts["in the graph, before"] = _described(manifest.in_graph.preprocessing)
    if manifest.in_graph and manifest.in_graph.postprocessing:
        facts["in the graph, after"] = _answered(manifest.in_graph.postprocessing)
    if manifest.labels:
        facts["labels"] = _named(manifest.labels)
    if manifest.parents:
        facts["made from"] = "\n".join(f"{p.kind} {p.name} {p.sha256[:16]}" for p in manifest.parents)
    return facts


def _named(labels: Sequence[str]) -> str:
    if len(labels) <= MOST_LABELS:
        return ", ".join(labels)
    return f"{', '.join(labels[:MOST_LABELS])} … {labels[-1]} ({len(labels)} in all: --json has them)"


def _described(steps: Preprocessing) -> str:
    """What happens to a raw sample, in the order in which it happens."""
    resize = f"resize to {steps.resize[0]} x {steps.resize[1]}, " if steps.resize else ""
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (steps.mean, steps.std))
    layout = "" if steps.layout == "any" else f", {steps.layout} to {steps.model_layout}"
    return f"{steps.input}: {resize}scale {steps.scale:g}, mean {mean}, std {std}{layout}"


def _answered(steps: Postprocessing) -> str:
    """What becomes of an output."""
    best = "" if steps.top is None else f", the best {steps.top}"
    activation = "scores as they are" if steps.activation == "none" else steps.activation
    return f"{steps.output}: {activation} along axis {steps.axis}{best}"


def _inspect_onnx(path: Path) -> dict[str, Any]:
    from edgekit.conversion.clean import describe_onnx, load_onnx

    proto = load_onnx(path)
    artifact = describe_onnx(path, precision="fp32")
    opsets = ", ".join(f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in proto.opset_import)
    kinds = Counter(node.op_type if not node.domain else f"{node.domain}.{node.op_type}" for node in proto.graph.node)
    quantised = any(op in kinds for op in ("QuantizeLinear", "DequantizeLinear", "QLinearConv"))
    facts = {
        "model": path.name,
        "opset": opsets,
        "precision": "quantised (Q/DQ)" if quantised else "float",
        "inputs": "\n".join(str(spec) for spec in artifact.inputs),
        "outputs": "\n".join(str(spec) for spec in artifact.outputs),
        "size": f"{artifact.size_bytes / 1e6:.3f} MB",
        "sha256": artifact.sha256[:16],
    }
    operators = [{"op": op, "precision": "", "count": count} for op, count in kinds.most_common()]
    return {"facts": facts, "operators": operators}
