"""What every quantiser needs first: a known method, a float model, sound calibration batches."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekit.artifact import Array, Artifact, TensorSpec
from edgekit.data import Batches
from edgekit.errors import DataError, EngineError, ModelError, UnknownName
from edgekit.quantization.schemes import Plan, Scheme
from edgekit.runtime.session import explain_feeds

if TYPE_CHECKING:
    import onnx

# Of ONNX itself and of ONNX Runtime: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
_QUANTISED = re.compile(
    r"Q(uantize|Linear|Gemm|Attention|MoE|EmbedLayer|Ordered)\w*|DequantizeLinear|DynamicQuantize\w*"
    r"|(Conv|MatMul)Integer\w*|MatMulNBits|MatMulBnb4|MatMulFpQ4|GatherBlockQuantized"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationBatches:
    """Calibration batches that were looked at before a quantiser sees them; walked through again and again.

    Where the model's batch is fixed, a smaller last batch is filled up with its last sample.
    """

    data: Batches
    inputs: tuple[TensorSpec, ...]

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        _refuse_constant(self._batches(), len(self.data.samples))
        yield from self._batches()

    def _batches(self) -> Iterator[dict[str, Array]]:
        for number, batch in enumerate(self.data):
            yield self._checked(batch, f"calibration batch {number}")

    def _checked(self, batch: dict[str, Array], where: str) -> dict[str, Array]:
        fixed = {spec.name: spec.shape[0] for spec in self.inputs if spec.shape and isinstance(spec.shape[0], int)}
        batch = {name: _filled_up(array, fixed.get(name, 0)) for name, array in batch.items()}
        wrong = explain_feeds(batch, self.inputs)
        if wrong is not None:
            raise DataError(f"{where}: {wrong.problem}", found=wrong.found, allowed=wrong.allowed, fix=wrong.fix)
        for name, array in batch.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise DataError(
                    f"{where}: NaN or infinity in input {name!r}",
                    allowed="finite values",
                    fix="remove or mend those samples: a range with NaN in it breaks every layer after it",
                )
        return batch


def calibration_batches(data: Batches | None, model: Artifact) -> CalibrationBatches:
    """Calibration batches for a model.

    Raises:
        DataError: There are none. Samples that are all alike, do not fit or are not finite raise it when they are read.
    """
    if data is None or not len(data):
        raise DataError("no calibration samples", found="0 samples", allowed="at least 1; 100 to 300 are usual")
    return CalibrationBatches(data=data, inputs=model.inputs)


def _refuse_constant(batches: Iterator[dict[str, Array]], count: int) -> None:
    """Refuses samples that say nothing of what a model will see; reads no further than to the first that differ."""
    first: dict[str, Array] = {}
    differ = False
    flat: Mapping[str, float] = {}
    for batch in batches:
        if not first:
            first = {name: array[:1] for name, array in batch.items()}
            flat = {name: float(array.flat[0]) for name, array in batch.items() if array.dtype.kind == "f"}
        differ = differ or any((array != first[name]).any() for name, array in batch.items())
        flat = {name: value for name, value in flat.items() if (batch[name] == value).all()}
        if differ and not flat:
            return
    for name, value in flat.items():
        # One number a sample may well be a setting that is always the same.
        if first[name].size > 1 or value == 0.0:
            raise DataError(
                f"calibration samples of input {name!r} are constant",
                found=f"{value:g} everywhere, in all {count} samples",
                allowed="samples as they occur in use: the range of a tensor that never changes is no range",
                fix="give real samples; of a recurrent state, those that the float model gives on a recording",
            )
    if not differ and count > 1:
        raise DataError(
            f"calibration samples of {', '.join(map(repr, first))} are all the same",
            found=f"{count} equal samples",
            allowed="samples that differ as those in use do",
            fix="give real samples; 100 to 300 are usual",
        )


def scheme_of(plan: Plan) -> Scheme:
    """The plan's scheme.

    Raises:
        EngineError: It has none.
    """
    if plan.scheme is None:
        raise EngineError(f"{plan}: an int8 plan needs a scheme", fix="take it from the backend's scheme(target)")
    return plan.scheme


def require_float(proto: onnx.ModelProto, name: str) -> None:
    """Refuses a model that is quantised already.

    Raises:
        ModelError: It is.
    """
    from edgekit.conversion.clean import all_nodes

    kinds = Counter(node.op_type for node in all_nodes(proto.graph))
    found = {op: count for op, count in kinds.items() if _QUANTISED.fullmatch(op)}
    if found:
        raise ModelError(
            f"{name} is quantised already",
            found=", ".join(f"{count} {op}" for op, count in sorted(found.items())),
            allowed="a float model",
            fix="give the float model it was made from, or deploy it as it is with --precision fp32",
        )


def check_float_groups(plan: Plan, proto: onnx.ModelProto) -> None:
    """Refuses a plan that leaves nodes in float which the model does not have.

    Raises:
        UnknownName: It does.
    """
    known = {node.name for node in proto.graph.node if node.name}
    for name in plan.float_groups:
        if name not in known:
            raise UnknownName("node", name, known, where=f"{plan}: float groups")


def _filled_up(array: Array, size: int) -> Array:
    lack = size - len(array) if array.ndim else 0
    return np.concatenate([array, np.repeat(array[-1:], lack, axis=0)]) if 0 < lack < size else array
