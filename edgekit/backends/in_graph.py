"""Pre- and postprocessing as a part of the model that ships: it takes raw samples, or gives scores, by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgekit.artifact import Artifact, TensorSpec
from edgekit.backends import in_graph_onnx, in_graph_openvino
from edgekit.backends.refusals import require_opens
from edgekit.errors import EngineError
from edgekit.processing_specs import InGraph

_MAKERS = {"onnxruntime": in_graph_onnx.put_in, "openvino": in_graph_openvino.put_in}


def put_in_graph(built: Artifact, settings: InGraph, raw: TensorSpec | None, out: Path) -> Artifact:
    """Writes a compiled artifact anew, with the steps of ``settings`` in its graph.

    Args:
        built: A compiled artifact of a fixed batch; its folder is another than ``out``.
        settings: What its graph is to do.
        raw: The raw sample that its preprocessed input takes, the batch first; None without preprocessing.
        out: Folder of the files.

    Returns:
        The artifact, whose preprocessed input is ``raw`` and whose postprocessed output holds scores.

    Raises:
        EngineError: The engine has no such step, or refuses the graph; or there is no such input or output.
    """
    if built.engine not in _MAKERS:
        raise EngineError(
            f"engine {built.engine!r} does no pre- or postprocessing in its graph",
            allowed=", ".join(_MAKERS),
            fix="leave in_graph out of [input] and [output], or choose one of these engines",
        )
    _check(built, settings, raw)
    made = _MAKERS[built.engine](built, settings, raw, out)
    inputs = tuple(raw if raw is not None and spec.name == raw.name else spec for spec in built.inputs)
    made = replace(made, inputs=inputs, parent=built.parent, options=built.options, notes=built.notes)
    require_opens(made)
    return made


def _check(built: Artifact, settings: InGraph, raw: TensorSpec | None) -> None:
    pre, post = settings.preprocessing, settings.postprocessing
    names = [spec.name for spec in built.inputs]
    if pre is not None and (raw is None or pre.input not in names):
        raise EngineError(f"there is no input {pre.input!r} to preprocess in the graph", allowed=", ".join(names))
    found = {spec.name: spec for spec in built.outputs}
    if post is not None and post.output not in found:
        raise EngineError(f"there is no output {post.output!r} to postprocess in the graph", allowed=", ".join(found))
    if post is not None and len(found[post.output].shape) <= post.axis:
        raise EngineError(f"output {post.output!r} has no axis {post.axis}", found=str(found[post.output]))
