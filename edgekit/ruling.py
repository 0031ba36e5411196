"""A model, or the one in a bundle, against the rules of an engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.errors import BundleError, ModelError, UnknownName
from edgekit.inspecting import bundle_manifest

if TYPE_CHECKING:
    import onnx

    from edgekit.backends.tensorrt_rules import Violation


def broken_rules(path: Path, rules: str) -> list[Violation]:
    """Every place where an ``.onnx`` file, or the one in a bundle's folder, breaks the rules of an engine.

    Weights are not read: a model is judged also where the files that hold them are missing, which is told.

    Args:
        path: The file, or the folder.
        rules: Their name; see :data:`edgekit.backends.tensorrt_rules.NAMES`.

    Raises:
        UnknownName: There are no rules of that name.
        ModelError: The file is missing or is no ONNX model.
        BundleError: The folder is no bundle, or its engine's file is no ONNX.
    """
    from edgekit.backends.tensorrt_rules import NAMES, violations

    if rules not in NAMES:
        raise UnknownName("rules", rules, NAMES, where="--rules")
    file = _model_file(path)
    return violations(_read(file), rules=rules, folder=file.parent)


def _read(file: Path) -> onnx.ModelProto:
    """The graph of an ONNX file, whatever rules of the standard it breaks, without external data."""
    import onnx
    from google.protobuf.message import DecodeError

    found = "a file without a graph"
    try:
        proto = onnx.load(str(file), format="protobuf", load_external_data=False)
    except (DecodeError, ValueError) as exc:
        found, cause = str(exc) or type(exc).__name__, exc
    else:
        if proto.graph.node or proto.graph.output:
            return proto
        cause = None
    raise ModelError(
        f"{file}: not an ONNX model", found=found, allowed="an .onnx file", fix="export the model again"
    ) from cause


def _model_file(path: Path) -> Path:
    if not path.is_dir():
        if not path.exists():
            raise ModelError(f"{path}: no such file", fix="check the path")
        return path
    manifest = bundle_manifest(path)
    if not manifest.model.endswith(".onnx"):
        raise BundleError(
            f"{path}: no ONNX model is in this bundle",
            found=f"{manifest.model}, for engine {manifest.engine}",
            allowed="an .onnx file, or a bundle that holds one",
            fix="give the ONNX model that it was made of",
        )
    return path / manifest.model
