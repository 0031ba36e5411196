"""Weights of 8 and 4 bits in codebooks, for every engine that opens ONNX or is built from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgekit.artifact import Artifact
from edgekit.backends.calibration import check_float_groups, require_float
from edgekit.errors import ModelError
from edgekit.quantization.groups import name_nodes
from edgekit.quantization.schemes import Plan


def quantize(fp32: Artifact, plan: Plan, out: Path) -> Artifact:
    """Puts the weights of layers and embeddings into k-means codebooks of 256 (w8) or 16 (w4) values.

    Returns:
        An ONNX artifact that every engine decodes when it opens it; its notes name what stayed in float.

    Raises:
        ModelError: There are no constant weights large enough, or the model is quantised already.
        UnknownName: The plan names a node that there is not.
    """
    from edgekit.conversion.clean import describe_onnx, free_constants, load_onnx, save_onnx, strip_metadata
    from edgekit.quantization.codebooks import store_codebooks

    proto = load_onnx(fp32.path)
    require_float(proto, fp32.model)
    name_nodes(proto)
    check_float_groups(plan, proto)
    free_constants(proto)
    bits = int(plan.precision.removeprefix("w"))
    coded = store_codebooks(proto, bits, plan.float_groups)
    if not coded.tensors:
        too_few = "no constant weights that codebooks would halve"
        raise ModelError(
            f"{fp32.model}: no weights to put into codebooks",
            found="the plan leaves all of them in float" if coded.kept else too_few,
            allowed="constant weights of convolutions, matrix products, recurrent layers and embeddings",
            fix="leave fewer nodes in float" if coded.kept else "use --precision fp32: the model is small as it is",
        )
    strip_metadata(proto)
    out.mkdir(parents=True, exist_ok=True)
    save_onnx(proto, out / "model.onnx")
    written = describe_onnx(out / "model.onnx", precision=plan.precision, parent=fp32.sha256)
    before, after = coded.bytes_before / 1e6, coded.bytes_after / 1e6
    notes = [
        f"{len(coded.tensors)} weights in codebooks of {2**bits} values: {before:.2f} MB became {after:.2f} MB; decoded"
        " when the model is opened, computed in float",
        *([f"left in float: {', '.join(coded.kept)} (as the plan says)"] if coded.kept else []),
    ]
    return replace(written, inputs=fp32.inputs, outputs=fp32.outputs, notes=(*fp32.notes, *notes))
