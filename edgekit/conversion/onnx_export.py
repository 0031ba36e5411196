"""The one crossing from torch to files: an nn.Module becomes an ONNX artifact with a dynamic batch."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import torch

from edgekit.artifact import Array, Artifact
from edgekit.conversion.clean import describe_onnx, strip_metadata
from edgekit.distillation.forward import call, evaluating
from edgekit.errors import ExportError, ParityError
from edgekit.runtime.numbers import run_batched, snr_db

OPSET = 20
PARITY_DB = 90.0
# Protobuf refuses messages of 2 GiB: larger weights go to a file beside the model.
EXTERNAL_DATA_BYTES = 1_500_000_000


def to_onnx(module: torch.nn.Module, example: Mapping[str, Array], out: Path) -> Artifact:
    """Exports a module with ``torch.onnx.export(dynamo=True)`` at opset 20 and checks its numbers.

    The batch (axis 0 of every input) stays dynamic; BatchNorms are folded by the exporter; no path of
    this machine and no source text stays in the file.

    Args:
        module: The module, called with the inputs in the order of ``example``.
        example: At least two real samples per input, stacked: arrays ``[n, …]`` by input name.
        out: Folder to write ``model.onnx`` into.

    Returns:
        The fp32 artifact, engine ``onnx``.

    Raises:
        ExportError: torch cannot trace or translate it; names the operator and the user's line.
        ParityError: The ONNX file computes something else (under 90 dB on the example).
    """
    tensors = {name: torch.tensor(array) for name, array in example.items()}
    with evaluating(module):
        with torch.no_grad():
            expected = {name: output.numpy() for name, output in call(module, tensors).items()}
        program = _trace(module, tensors)
    proto = _translate(program, list(example), list(expected))
    strip_metadata(proto)
    _require_finite_graph(proto)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "model.onnx"
    external = proto.ByteSize() > EXTERNAL_DATA_BYTES
    onnx.save(proto, str(path), save_as_external_data=external, location="model.onnx.data" if external else None)
    artifact = describe_onnx(path, precision="fp32")
    _check_parity(artifact, example, expected)
    return artifact


def _trace(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> torch.export.ExportedProgram:
    batch = {0: torch.export.Dim("batch")}
    # As in distillation.forward.call: a single input by position, several by keyword.
    single = len(tensors) == 1
    args = tuple(tensors.values()) if single else ()
    kwargs = {} if single else dict(tensors)
    dynamic: Any = (batch,) if single else dict.fromkeys(tensors, batch)
    with _quiet_torch():
        try:
            return torch.export.export(module, args, kwargs, dynamic_shapes=dynamic)
        except Exception as exc:  # torch.export raises dozens of unrelated types; all mean "not traceable"
            raise ExportError(
                f"torch.export cannot trace {type(module).__name__}",
                found=_first_line(exc) + _user_line(str(exc)),
                allowed="code without control flow on tensor values, and operators torch.export knows, "
                "with any batch size",
                fix="rewrite that line (e.g. torch.where instead of if), or export to .onnx yourself and give the file",
            ) from exc


def _translate(program: torch.export.ExportedProgram, inputs: list[str], outputs: list[str]) -> onnx.ModelProto:
    with _quiet_torch():
        try:
            exported = torch.onnx.export(
                program,
                (),
                dynamo=True,
                opset_version=OPSET,
                input_names=inputs,
                output_names=outputs,
                external_data=False,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as exc:
            operator, place = _blame(program, exc)
            raise ExportError(
                f"operator {operator} has no ONNX translation",
                found=place or _first_line(exc),
                allowed=f"operators of ONNX opset {OPSET}",
                fix="replace the operator in the model, or move it out of the model into pre- or post-processing",
            ) from exc
    proto = exported.model_proto
    if not isinstance(proto, onnx.ModelProto):
        raise ExportError("torch.onnx.export returned no model", found=type(proto).__name__)
    return proto


def _blame(program: torch.export.ExportedProgram, exc: BaseException) -> tuple[str, str | None]:
    """The operator behind a failed translation, and where it stands in the user's code."""
    text = "\n".join(str(cause) for cause in _chain(exc))
    match = re.search(r"OpOverload\(op='([\w.]+)'", text) or re.search(r"target=torch\.ops\.([\w.]+)", text)
    operator = match.group(1) if match else "unknown"
    base = operator.rsplit(".", 1)[-1].strip("_")
    decomposed = program.run_decompositions()
    for graph in (program.graph, decomposed.graph):
        for node in graph.nodes:
            if base in str(node.target) and node.meta.get("stack_trace"):
                return operator, _user_line(node.meta["stack_trace"]).removeprefix("; ")
    return operator, None


def _user_line(trace: str) -> str:
    """The last frame of a stack trace that is not inside torch, as ``; file:line: code``."""
    frames = re.findall(r'File "([^"]+)", line (\d+), in (\w+)\n\s*(.+)', trace)
    own = [f for f in frames if "/torch/" not in f[0]]
    if not own:
        return ""
    file, line, function, code = own[-1]
    return f"; {file}:{line} in {function}: {code.strip()}"


def _first_line(exc: BaseException) -> str:
    lines = [line for line in str(exc).splitlines() if line.strip()]
    return f"{type(exc).__name__}: {lines[0].strip()}" if lines else type(exc).__name__


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__


@contextlib.contextmanager
def _quiet_torch() -> Iterator[None]:
    """Keeps the exporter's chatter off the terminal: what matters of it is in the exception."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        sink = io.StringIO()
        with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _require_finite_graph(proto: onnx.ModelProto) -> None:
    """Refuses graphs whose inputs were folded away: the example would have become a constant."""
    used = {name for node in proto.graph.node for name in node.input} | {o.name for o in proto.graph.output}
    unused = [i.name for i in proto.graph.input if i.name not in used]
    if unused:
        raise ExportError(
            f"input {unused[0]!r} does not reach any output",
            allowed="every input is used by the model's forward",
            fix="drop the input from the data, or use it",
        )


def _check_parity(artifact: Artifact, example: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    # Imported here: opening a session loads an engine, which exporting alone does not need.
    from dataclasses import replace

    from edgekit.runtime import open_artifact

    session = open_artifact(replace(artifact, engine="onnxruntime"))
    try:
        actual: Mapping[str, Any] = run_batched(session, example)
    finally:
        session.close()
    for name, reference in expected.items():
        db = snr_db(reference, actual[name])
        if db < PARITY_DB:
            raise ParityError(
                f"the exported ONNX computes something else than the torch model at output {name!r}",
                found=f"{db:.1f} dB",
                allowed=f"at least {PARITY_DB:.0f} dB",
                fix="look for randomness, in-place state or data-dependent branches in forward()",
            )
