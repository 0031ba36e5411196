"""Why a module cannot be exported, in terms of the user's own code."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

from edgekit.errors import ExportError

_TORCH = str(Path(torch.__file__).parent)
_HERE = str(Path(__file__).parent)
_EXECUTING = "While executing %"  # torch.fx names the node at which running a graph failed
_TRANSLATING = "translat"


def untraceable(module: torch.nn.Module, exc: Exception) -> ExportError:
    """The error of a module that ``torch.export`` cannot trace."""
    fixed = re.search(r"specialized it to be a constant \((\d+)\)", str(exc))
    if fixed:
        return ExportError(
            f"{type(module).__name__} works only with the batch of the example",
            found=f"its code makes the batch a constant, {fixed.group(1)}",
            allowed="code that takes any batch size",
            fix="use x.shape[0] or -1 where a shape names the batch, and no Python loops or lists over samples",
        )
    place = _user_line(exc)
    return ExportError(
        f"torch.export cannot trace {type(module).__name__}",
        found=_first_line(exc) + (f"; {place}" if place else ""),
        allowed="code without control flow on tensor values, and operators torch.export knows, with any batch size",
        fix="rewrite that line (e.g. torch.where instead of if), or export to .onnx yourself and give the file",
    )


def untranslated(program: torch.export.ExportedProgram, exc: Exception, opset: int) -> ExportError:
    """The error of a traced module that ``torch.onnx`` cannot translate."""
    causes = list(_chain(exc))
    broken = next((cause for cause in causes if _EXECUTING in str(cause) and _TRANSLATING not in str(cause)), None)
    if broken is not None:
        return _undecomposed(broken)
    match = re.search(r"target=torch\.ops\.(\w+\.\w+)", "\n".join(map(str, causes)))
    if match is None:
        return ExportError("torch.onnx.export cannot translate the model", found=_first_line(causes[-1]))
    operator = match.group(1)
    return ExportError(
        f"operator {operator} has no ONNX translation",
        found=_operator_line(program, operator) or _first_line(causes[-1]),
        allowed=f"operators of ONNX opset {opset}",
        fix="replace the operator in the model, or move it out of the model into pre- or post-processing",
    )


def _undecomposed(cause: BaseException) -> ExportError:
    """The model was traced, and torch could not run its own decompositions over the trace."""
    said = str(cause)
    place = _last_own(_quoted_frames(said))
    first = next(line.strip() for line in said.partition(_EXECUTING)[0].splitlines()[::-1] if line.strip())
    first = re.sub(r"^<class '(\w+)'>", r"\1", first)
    return ExportError(
        "torch cannot break the traced model down into operators of ONNX",
        found=first + (f"; {place}" if place else ""),
        allowed="code that torch decomposes for any batch size",
        fix="write that line another way (e.g. .contiguous() before .view(), or, for a network of transformers, "
        'attn_implementation="eager"), or export to .onnx yourself and give the file',
    )


def _operator_line(program: torch.export.ExportedProgram, operator: str) -> str | None:
    """Where an operator stands in the user's code.

    The exporter saw it after torch's own decompositions, which may rename it and lose its place; then the operator
    of a like name that was decomposed is it, e.g. ``aten.special_bessel_j0`` for ``prims.bessel_j0``.
    """
    decomposed = program.run_decompositions()
    base = operator.partition(".")[2].strip("_")
    for graph, name in ((program.graph, f"{operator}."), (decomposed.graph, f"{operator}."), (program.graph, base)):
        for node in graph.nodes:
            if name in str(node.target) and node.meta.get("stack_trace"):
                return _last_own(_quoted_frames(node.meta["stack_trace"]))
    return None


def _user_line(exc: Exception) -> str | None:
    """The user's line behind a failed trace: forward() ran inside it, or torch quotes the frames in its message."""
    frames = [(f.filename, f.lineno or 0, f.name, f.line or "") for f in traceback.extract_tb(exc.__traceback__)]
    return _last_own([*frames, *_quoted_frames(str(exc))])


def _quoted_frames(text: str) -> list[tuple[str, int, str, str]]:
    frames = re.findall(r'File "([^"]+)", line (\d+), in (\S+)\n\s*(.+)', text)
    return [(file, int(line), function, code) for file, line, function, code in frames]


def _last_own(frames: list[tuple[str, int, str, str]]) -> str | None:
    """The last frame that is neither torch's nor ours, as ``file:line in function: code``."""
    for file, line, function, code in reversed(frames):
        if not file.startswith((_TORCH, _HERE, "<")):
            return f"{file}:{line} in {function}: {code.strip()}"
    return None


def _first_line(exc: BaseException) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return f"{type(exc).__name__}: {lines[0]}" if lines else type(exc).__name__


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__
