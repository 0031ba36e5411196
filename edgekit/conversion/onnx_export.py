"""The one crossing from torch to files: an nn.Module becomes an ONNX artifact with a dynamic batch."""

from __future__ import annotations

import copy
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from edgekit.artifact import Array, Artifact
from edgekit.conversion.clean import all_nodes, describe_onnx, save_onnx, strip_metadata
from edgekit.conversion.export_errors import untraceable, untranslated
from edgekit.conversion.quiet import quiet
from edgekit.distillation.forward import call, device_of, evaluating, to_torch
from edgekit.errors import ExportError, ParityError, TrainingError
from edgekit.runtime.numbers import run_batched, snr_db

OPSET = 20
PARITY_DB = 90.0
OWN_MARGIN_DB = 6.0  # an engine rounds in an order of its own: its error and torch's add up
BATCH = "batch"


def to_onnx(
    module: torch.nn.Module,
    example: Mapping[str, Array],
    out: Path,
    *,
    precision: str = "fp32",
    parity_db: float = PARITY_DB,
) -> Artifact:
    """Exports a module with ``torch.onnx.export(dynamo=True)`` at opset 20 and checks its numbers.

    The batch (axis 0 of every input) stays dynamic and is named ``batch``; BatchNorms are folded by the exporter;
    no path of this machine and no source text stays in the file.

    Args:
        module: The module; a single input is given by position, several by keyword.
        example: At least two real samples per input, stacked: arrays ``[n, …]`` by input name.
        out: Folder to write ``model.onnx`` into; nothing is left there when it fails.
        precision: What the artifact is said to be: a module that holds quantisers is ``int8``.
        parity_db: What the file must reach against the module.

    Returns:
        The artifact, engine ``onnx``; its outputs are named as by :func:`edgekit.distillation.forward.call`.

    Raises:
        ExportError: torch cannot trace or translate it; names the operator and the user's line.
        TrainingError: The module does not take the example, or does not return tensors.
        ParityError: The ONNX file computes something else (under ``parity_db`` on the example).
    """
    _check_example(example)
    tensors = to_torch(example, device_of(module))
    with evaluating(module):
        with torch.no_grad():
            expected = {name: output.cpu().numpy() for name, output in call(module, tensors).items()}
        _check_names(tensors, expected)
        program = _trace(module, tensors)
    proto = _translate(program, list(tensors), list(expected))
    _check_inputs_used(proto)
    strip_metadata(proto)
    _name_batch(proto)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=out) as folder:
        path = Path(folder) / "model.onnx"
        save_onnx(proto, path)
        artifact = describe_onnx(path, precision=precision)
        _check_parity(artifact, example, expected, parity_db, lambda: _own_rounding_db(module, tensors, expected))
        for name in artifact.files:
            os.replace(artifact.folder / name, out / name)
    return replace(artifact, folder=out)


def _check_example(example: Mapping[str, Array]) -> None:
    fewest = min((len(array) if array.ndim else 0 for array in example.values()), default=0)
    if fewest < 2:
        raise ExportError(
            "the example has too few samples",
            found=f"{fewest} of an input",
            allowed="2 or more of every input: with one, torch takes the batch for a constant",
        )


def _check_names(inputs: Iterable[str], outputs: Iterable[str]) -> None:
    both = sorted(set(inputs) & set(outputs))
    if both:
        raise ExportError(
            f"an input and an output are both named {both[0]!r}",
            allowed="different names: in ONNX a name stands for one tensor",
            fix="return it under another key",
        )


def _trace(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> torch.export.ExportedProgram:
    batch = {0: torch.export.Dim(BATCH)}
    # As in distillation.forward.call: a single input by position, several by keyword.
    single = len(tensors) == 1
    args = tuple(tensors.values()) if single else ()
    kwargs = {} if single else dict(tensors)
    dynamic: Any = (batch,) if single else dict.fromkeys(tensors, batch)
    try:
        with quiet(), _frozen(module):
            return torch.export.export(module, args, kwargs, dynamic_shapes=dynamic)
    except Exception as exc:  # torch.export raises dozens of unrelated types; all mean "not traceable"
        raise untraceable(module, exc) from exc


@contextmanager
def _frozen(module: torch.nn.Module) -> Iterator[None]:
    """Parameters that ask for no gradient: with one, attention is traced as a kernel that torch cannot decompose."""
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)


def decomposed(module: torch.nn.Module, example: Mapping[str, Array]) -> torch.export.ExportedProgram:
    """The program that the ONNX file is translated from, operator by operator: its nodes bear the same names.

    Args:
        module: As for :func:`to_onnx`.
        example: Likewise.

    Raises:
        ExportError: torch cannot trace or translate it.
    """
    _check_example(example)
    tensors = to_torch(example, device_of(module))
    with evaluating(module):
        program = _trace(module, tensors)
    return _exported(program, list(tensors), [])[0]


def _translate(program: torch.export.ExportedProgram, inputs: list[str], outputs: list[str]) -> onnx.ModelProto:
    proto = _exported(program, inputs, outputs)[1]
    found = next(entry.version for entry in proto.opset_import if not entry.domain)
    if found != OPSET:  # the exporter keeps another one silently where it cannot convert
        raise ExportError("torch.onnx.export gave another opset", found=found, allowed=OPSET)
    return proto


def _exported(
    program: torch.export.ExportedProgram, inputs: list[str], outputs: list[str]
) -> tuple[torch.export.ExportedProgram, onnx.ModelProto]:
    """The program as the exporter decomposed it, and what it was translated to."""
    try:
        with quiet():
            exported = torch.onnx.export(
                program, (), dynamo=True, opset_version=OPSET, input_names=inputs, output_names=outputs, verbose=False
            )
            return exported.exported_program, exported.model_proto
    except Exception as exc:  # likewise: translation runs code of every operator
        raise untranslated(program, exc, OPSET) from exc


def _check_inputs_used(proto: onnx.ModelProto) -> None:
    used = {name for node in all_nodes(proto.graph) for name in node.input} | {o.name for o in proto.graph.output}
    unused = [value.name for value in proto.graph.input if value.name not in used]
    if unused:
        raise ExportError(
            f"input {unused[0]!r} does not reach any output",
            allowed="every input is used by the model's forward",
            fix="drop the input from the data, or use it",
        )


def _name_batch(proto: onnx.ModelProto) -> None:
    """Gives the batch its name: the exporter calls it by an internal symbol, alone or in sums and products."""
    symbol = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(rf"\b{re.escape(symbol)}\b", BATCH, dim.dim_param)


def _check_parity(
    artifact: Artifact,
    example: Mapping[str, Array],
    expected: Mapping[str, Array],
    least_db: float,
    own_rounding_db: Callable[[], float | None],
) -> None:
    # Imported here: opening a session loads an engine, which exporting alone does not need.
    from edgekit.runtime import open_artifact

    session = open_artifact(replace(artifact, engine="onnxruntime"))
    try:
        actual: Mapping[str, Any] = run_batched(session, example)
    finally:
        session.close()
    for name, reference in expected.items():
        if reference.dtype.kind == "f" and not np.isfinite(reference).all():
            raise ParityError(
                f"the torch model itself gives NaN or infinity at output {name!r}",
                found=f"{int((~np.isfinite(reference)).sum())} of {reference.size} values",
                fix="mend the model or its weights: the samples are finite",
            )
        if reference.dtype.kind == "f" and not np.isfinite(actual[name]).all():
            raise ParityError(
                f"the exported ONNX gives NaN or infinity at output {name!r}, where the torch model does not",
                found=f"{int((~np.isfinite(actual[name])).sum())} of {reference.size} values",
                fix="torch's exporter drops an addend as small as 1e-8, as in log(x + 1e-8): use x.clamp(min=1e-8)",
            )
        db = snr_db(reference, actual[name])
        if db < least_db:
            own = own_rounding_db()
            amplifies = own is not None and own < least_db + OWN_MARGIN_DB
            raise ParityError(
                f"the exported ONNX computes something else than the torch model at output {name!r}",
                found=f"{db:.1f} dB" + (f"; torch's own float32 is {own:.1f} dB from its float64" if amplifies else ""),
                allowed=f"at least {least_db:.0f} dB",
                fix="the network amplifies rounding, as untrained ones do: train it, or normalise between its layers"
                if amplifies
                else "look for randomness, in-place state or data-dependent branches in forward()",
            )


def _own_rounding_db(
    module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], expected: Mapping[str, Array]
) -> float | None:
    """What the module's own rounding leaves of its outputs: float32 against float64; None where that tells nothing."""
    with evaluating(module), torch.no_grad():
        again = call(module, tensors)
        if not all(np.array_equal(again[name].cpu().numpy(), array) for name, array in expected.items()):
            return None  # it is random
        double = {name: t.cpu().double() if t.is_floating_point() else t.cpu() for name, t in tensors.items()}
        try:
            exact = call(copy.deepcopy(module).cpu().double(), double)
        except (RuntimeError, TrainingError):  # its code asks for float32 somewhere
            return None
    return min(snr_db(exact[name].numpy(), array.astype(np.float64)) for name, array in expected.items())
