"""Which engine makes which precision, and how: one table, generated from the backends themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgekit.backends import BACKENDS, Backend, load_backend
from edgekit.errors import EngineError, did_you_mean
from edgekit.quantization.schemes import CORRECTIONS, USUAL, Plan
from edgekit.specs import Target

ENGINES = tuple(name for name in BACKENDS if name != "null")


def method_table() -> list[tuple[str, ...]]:
    """Rows of precision, method, and for every engine ``yes``, ``usual`` or nothing; corrections of int8 come last."""
    backends = {name: load_backend(name) for name in ENGINES}
    rows: list[tuple[str, ...]] = [("fp32", "", *("yes" for _ in ENGINES))]
    for precision in ("fp16", "bf16", "fp8", "int8", "w8", "w4"):
        methods = dict.fromkeys(m for b in backends.values() for m in b.METHODS.get(precision, ()) or ())
        for method in methods or {"": None}:
            marks = []
            for name, backend in backends.items():
                has = precision in backend.METHODS and (not method or method in backend.METHODS[precision])
                usual = precision == "int8" and has and USUAL[name].method == method
                marks.append("usual" if usual else "yes" if has else "")
            rows.append((precision, method, *marks))
    for correction in CORRECTIONS:
        marks = []
        for name, backend in backends.items():
            usual = correction in USUAL[name].corrections and correction in backend.CORRECTIONS
            marks.append("usual" if usual else "yes" if correction in backend.CORRECTIONS else "")
        rows.append(("int8", f"+ {correction}", *marks))
    return rows


def check_plan(plan: Plan, target: Target) -> None:
    """Refuses a plan that its engine does not make, naming what it has and who has it.

    Raises:
        EngineError: The engine lacks the precision, method or correction, or cannot make it for this target.
    """
    if plan.precision == "fp32":
        return
    backend = load_backend(plan.engine)
    if plan.trained:
        if plan.method not in backend.TRAINED:
            raise _lacks(plan, f"method {plan.method!r}", backend.TRAINED, _who_has(lambda b: plan.method in b.TRAINED))
        return
    if plan.precision not in backend.METHODS:
        has = ("fp32", *backend.METHODS)
        raise _lacks(plan, plan.precision, has, _who_has(lambda b: plan.precision in b.METHODS))
    methods = backend.METHODS[plan.precision]
    if methods and plan.method not in methods:
        others = _who_has(lambda b: plan.method in b.METHODS.get(plan.precision, ()))
        raise _lacks(plan, f"method {plan.method!r} for {plan.precision}", methods, others)
    for correction in plan.corrections:
        if correction not in backend.CORRECTIONS:
            others = [name for name in ENGINES if correction in load_backend(name).CORRECTIONS]
            raise _lacks(plan, f"correction {correction!r}", backend.CORRECTIONS, others)
    reason = backend.refuses(plan, target)
    if reason is not None:
        raise EngineError(f"{plan} cannot be made for target {target.name!r}", found=reason)


def refusal(plan: Plan, target: Target) -> str | None:
    """Why a plan cannot be made for a target, in one line; None when it can."""
    try:
        check_plan(plan, target)
    except EngineError as exc:
        return f"{exc.problem}: {exc.found}"
    return None


def _who_has(has: Callable[[Backend], bool]) -> list[str]:
    return [name for name in ENGINES if has(load_backend(name))]


def _lacks(plan: Plan, what: str, has: Sequence[str], others: Sequence[str]) -> EngineError:
    near = did_you_mean(what.split("'")[1], has) if "'" in what else None
    elsewhere = f"{' and '.join(others)} {'has' if len(others) == 1 else 'have'} it" if others else None
    return EngineError(
        f"engine {plan.engine!r} has no {what}",
        found=str(plan),
        allowed=", ".join(has) or "none",
        fix=near or elsewhere,
    )
