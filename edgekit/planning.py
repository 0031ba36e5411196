"""Which plans are tried: the one that was asked for, or those that ``--precision auto`` begins with and goes on to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgekit.backends import load_backend
from edgekit.backends.methods import ENGINES, refusal
from edgekit.errors import SpecError, UnknownName
from edgekit.places import Place, host_of
from edgekit.quantization.schemes import CORRECTIONS, STATIC_METHODS, Plan, Scheme, plan_of
from edgekit.recipe import Quantization
from edgekit.specs import Target, mismatch

if TYPE_CHECKING:
    import onnx

# In the order in which they are tried where the usual one loses too much: what mends most often comes first.
METHODS_TO_TRY = ("mse", "percentile", "average", "entropy", "minmax")
_RECURRENT = ("LSTM", "GRU", "RNN")


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What of a model decides which plans are worth trying.

    Attributes:
        convolutions: How many convolutions it has.
        products: How many matrix products.
        recurrent: How many recurrent layers.
    """

    convolutions: int
    products: int
    recurrent: int

    @property
    def mostly_products(self) -> bool:
        """Whether dynamic int8 may pay: it speeds up matrix products and recurrent layers only."""
        return self.products + self.recurrent > self.convolutions


def traits_of(proto: onnx.ModelProto) -> Traits:
    """Counts a model's compute nodes."""
    kinds = Counter(node.op_type for node in proto.graph.node)
    return Traits(
        convolutions=kinds["Conv"] + kinds["ConvTranspose"],
        products=kinds["MatMul"] + kinds["Gemm"],
        recurrent=sum(kinds[op] for op in _RECURRENT),
    )


def plans_for(target: Target, engines: Sequence[str], settings: Quantization, place: Place | None = None) -> list[Plan]:
    """The plans of a named precision, one an engine; for ``auto`` fp32 and the usual int8 where they can be measured.

    Args:
        target: The target.
        engines: Candidate engines.
        settings: The recipe's.
        place: The device that measures; None: this machine does.

    Raises:
        SpecError: The target does not run the precision.
        UnknownName: No engine has the method or correction.
    """
    check_precision(target, settings.precision)
    check_names(settings)
    if settings.precision != "auto":
        return [asked_for(engine, settings.precision, target, settings) for engine in engines]
    floats = [plan_of(engine, "fp32") for engine in engines]
    if mismatch(target, host_of(place)) is not None or "int8" not in target.precisions:
        return floats
    return [
        plan
        for engine, fp32 in zip(engines, floats, strict=True)
        for plan in (
            fp32,
            *([asked_for(engine, "int8", target, settings)] if "int8" in load_backend(engine).METHODS else []),
        )
    ]


def first_plans(engine: str, target: Target, settings: Quantization, traits: Traits) -> list[Plan]:
    """What ``auto`` tries on an engine whatever comes of it: every float precision it runs, and int8."""
    has = load_backend(engine).METHODS
    plans = [plan_of(engine, "fp32")]
    floats = [plan_of(engine, p) for p in ("bf16", "fp16", "fp8") if p in has and p in target.precisions]
    plans += [plan for plan in floats if refusal(plan, target) is None]
    if "int8" in has and "int8" in target.precisions:
        plans.append(asked_for(engine, "int8", target, settings))
        if traits.mostly_products and "dynamic" in has["int8"] and settings.method is None:
            plans.append(Plan(engine=engine, precision="int8", method="dynamic", scheme=plans[-1].scheme))
    return plans


def other_methods(plan: Plan, settings: Quantization) -> list[Plan]:
    """The same plan with each other range method that its engine has; none where the method was named."""
    if settings.method is not None:
        return []
    has = load_backend(plan.engine).METHODS["int8"]
    return [replace(plan, method=method) for method in METHODS_TO_TRY if method in has and method != plan.method]


def more_corrections(plan: Plan, settings: Quantization, traits: Traits) -> Iterator[str]:
    """Corrections that a plan lacks, its engine has and the model has a use for; none where they were named."""
    if settings.corrections is not None:
        return
    useful = {"equalize": traits.convolutions > 1, "smooth-quant": traits.products > 0, "bias-correction": True}
    for name in ("bias-correction", "equalize", "smooth-quant"):
        if useful[name] and name not in plan.corrections and name in load_backend(plan.engine).CORRECTIONS:
            yield name


def asked_for(engine: str, precision: str, target: Target, settings: Quantization) -> Plan:
    """The usual plan of a precision with what the recipe says otherwise."""
    plan = plan_of(engine, precision)
    if precision == "fp32":
        return plan
    if settings.method is not None:
        plan = replace(plan, method=settings.method)
    if precision == "int8":
        if settings.method is not None and settings.method not in STATIC_METHODS:
            plan = replace(plan, corrections=())
        if settings.corrections is not None:
            plan = replace(plan, corrections=settings.corrections)
        plan = replace(plan, scheme=scheme_of(engine, target, settings))
    return replace(plan, float_groups=settings.float_nodes)


def scheme_of(engine: str, target: Target, settings: Quantization) -> Scheme | None:
    """The engine's dialect with fields set by hand; None: the engine's own, taken when the plan is made."""
    fields = {name: value for name, value in settings.scheme if value is not None}
    if not fields:
        return None
    scheme = load_backend(engine).scheme(target)
    return replace(scheme, **fields, name=f"{scheme.name}, set by hand")


def check_precision(target: Target, precision: str) -> None:
    """Refuses a precision that a target does not run; ``auto`` is always right.

    Raises:
        SpecError: The target does not run it.
    """
    runs = ("auto", *target.precisions)
    if precision not in runs:
        raise SpecError(
            f"target {target.name!r} does not run {precision}",
            found=precision,
            allowed=", ".join(runs),
            fix="choose another --precision",
        )


def check_names(settings: Quantization) -> None:
    """Refuses methods and corrections that no engine has.

    Raises:
        UnknownName: There is one.
    """
    methods = {m for engine in ENGINES for names in load_backend(engine).METHODS.values() for m in names}
    if settings.method is not None and settings.method not in methods:
        raise UnknownName("method", settings.method, sorted(methods), where="quantization.method")
    for name in settings.corrections or ():
        if name not in CORRECTIONS:
            raise UnknownName("correction", name, CORRECTIONS, where="quantization.corrections")
