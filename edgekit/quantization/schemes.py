"""Quantisation schemes as plain data, and the plan that says how one candidate is made."""

from __future__ import annotations

from dataclasses import dataclass


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
        preset: NNCF's preset where the engine's own tool places the quantisers, else None.
    """

    name: str
    activation_signed: bool
    activation_symmetric: bool
    weight_symmetric: bool = True
    per_channel: bool = True
    quantize_bias: bool = True
    reduce_range: bool = False
    preset: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How one candidate is made; its hash is a cache key.

    Attributes:
        engine: The engine that runs it.
        precision: ``fp32`` or ``int8``.
        method: Range method of the calibration (``minmax``), or None in float.
        scheme: The engine's dialect, or None in float.
        float_groups: Node names left in float.
    """

    engine: str
    precision: str
    method: str | None = None
    scheme: Scheme | None = None
    float_groups: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}"
