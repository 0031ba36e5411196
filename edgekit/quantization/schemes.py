"""Quantisation schemes as plain data, and the plan that says how one candidate is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

STATIC_METHODS = ("minmax", "average", "percentile", "entropy", "mse")
CODEBOOK = "codebook"
WEIGHT_METHODS = ("round", CODEBOOK)
TRAINED_METHODS = ("qat", "qat-w4")  # int8 that a training ends in: it is exported, and not made of a float model
CORRECTIONS = ("smooth-quant", "equalize", "bias-correction")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """One engine's Q/DQ dialect.

    Attributes:
        name: Short name for reports, e.g. ``u8s8-per-channel``.
        activation_signed: Activations in int8 rather than uint8.
        activation_symmetric: Activation zero points fixed (0 when signed, 0 or 128 otherwise).
        weight_symmetric: Weight zero points fixed at 0; weights are always int8.
        per_channel: One weight scale an output channel.
        quantize_bias: Bias as int32 with the product of the scales, else left in float.
        reduce_range: 7-bit weights, for x86 without VNNI whose int16 accumulation saturates.
        operators: Operator types that are quantised, each with the indices of the inputs that are; empty: those the
            engine's own tool quantises.
        preset: NNCF's preset where the engine's own tool places the quantisers, else None.
        float_type: Precision of what is not quantised, ``fp32`` or ``fp16``; scales are of it too.
        model_type: ``transformer`` where that tool is told so, empty where it is told not to; None: as it looks.
    """

    name: str
    activation_signed: bool
    activation_symmetric: bool
    weight_symmetric: bool = True
    per_channel: bool = True
    quantize_bias: bool = True
    reduce_range: bool = False
    operators: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    preset: str | None = None
    model_type: str | None = None
    float_type: str = "fp32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """What an engine's int8 is unless a plan says otherwise."""

    method: str
    corrections: tuple[str, ...] = ()


USUAL = {
    "onnxruntime": Usual(method="minmax"),
    # What NNCF does of its own accord; it smooths transformers only.
    "openvino": Usual(method="average", corrections=("smooth-quant", "bias-correction")),
    "tensorrt": Usual(method="minmax"),
    "null": Usual(method="minmax"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How one candidate is made; its hash is a cache key.

    Attributes:
        engine: The engine that runs it.
        precision: ``fp32``, ``fp16``, ``bf16``, ``fp8``, ``int8``, or ``w8`` and ``w4``: weights alone.
        method: int8: range method of the calibration (``minmax``, ``average``, ``percentile``, ``entropy``, ``mse``) or
            ``dynamic``, or ``qat`` and ``qat-w4``: trained so, with weights of 8 and 4 bits; w8 and w4: ``round``, or
            ``codebook``: k-means, decoded when the model is opened; None in float.
        scheme: The engine's dialect, or None in float.
        corrections: What is done about the loss: ``smooth-quant``, ``equalize``, ``bias-correction``.
        float_groups: Names of the nodes left in float.
    """

    engine: str
    precision: str
    method: str | None = None
    scheme: Scheme | None = None
    corrections: tuple[str, ...] = ()
    float_groups: tuple[str, ...] = ()

    @property
    def trained(self) -> bool:
        """Whether it was trained in int8, so that there is nothing left to quantise."""
        return self.method in TRAINED_METHODS

    @property
    def needs_samples(self) -> bool:
        """Whether it is made with calibration samples."""
        return self.method in STATIC_METHODS or bool(self.corrections)

    def __str__(self) -> str:
        parts = [f"{self.engine} {self.precision}"]
        usual = USUAL.get(self.engine, Usual(method=""))
        if self.method not in (None, usual.method, "round"):
            parts.append(str(self.method))
        if self.precision == "int8" and self.corrections != usual.corrections and not self.trained:
            parts += [f"+{name}" for name in self.corrections if name not in usual.corrections]
            lacks = [name for name in usual.corrections if self.method != "dynamic" and name not in self.corrections]
            parts += ["plain"] if lacks and not self.corrections else [f"-{name}" for name in lacks]
        if self.float_groups:
            parts.append(f"({len(self.float_groups)} nodes in float)")
        return " ".join(parts)


def plan_of(engine: str, precision: str) -> Plan:
    """The usual plan of a precision on an engine, without a scheme: the backend's own is taken."""
    if precision == "int8":
        usual = USUAL[engine]
        return Plan(engine=engine, precision=precision, method=usual.method, corrections=usual.corrections)
    if precision == "fp8":
        return Plan(engine=engine, precision=precision, method="minmax")
    return Plan(engine=engine, precision=precision, method="round" if precision in ("w8", "w4") else None)
