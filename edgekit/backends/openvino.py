"""OpenVINO: NNCF quantises the OpenVINO model (best placement, FakeQuantize), and the IR ships.

Precision is a hint to the engine for fp16 and bf16, and lies in the graph for int8, w8 and w4. Hints are read back when
the model is opened: :mod:`edgekit.runtime.openvino` refuses what the engine silently changed.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgekit.artifact import Artifact, Option
from edgekit.backends import codebooks, openvino_static
from edgekit.backends.onnxruntime import VNNI_TIERS
from edgekit.backends.openvino_ir import NAME, fix_graph_batch, read_graph, save_graph
from edgekit.backends.openvino_weights import quantize as store_small
from edgekit.backends.refusals import refusals, require_opens
from edgekit.backends.threads import placed_on
from edgekit.data import Batches
from edgekit.quantization.schemes import CODEBOOK, TRAINED_METHODS, WEIGHT_METHODS, Plan, Scheme
from edgekit.specs import Target

METHODS: Mapping[str, tuple[str, ...]] = {
    "fp16": (),
    "bf16": (),
    "int8": tuple(openvino_static.RANGES),
    "w8": WEIGHT_METHODS,
    "w4": WEIGHT_METHODS,
}
CORRECTIONS: tuple[str, ...] = ("smooth-quant", "equalize", "bias-correction")
SCHEMED: tuple[str, ...] = ("int8",)
TRAINED: tuple[str, ...] = TRAINED_METHODS
_PLANNED = "keep_memory = false changes nothing: OpenVINO plans all memory of a query when it opens the model"
_HINTS = {"fp16": "f16", "bf16": "bf16"}


def missing(target: Target) -> str | None:
    """Why it cannot prepare here."""
    for module in ("openvino", "nncf", "onnx"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed: pip install 'edgekit[compress]'"
    return None


def scheme(target: Target) -> Scheme:
    """NNCF's own for the kind of model; half the weight range on x86 without VNNI (overflow fix).

    Without a preset activations are symmetric, and where they have no negative values unsigned; in a transformer they
    are asymmetric, as NNCF has it (``preset="performance"`` makes them symmetric there too).
    """
    reduce = target.arch != "aarch64" and target.isa not in VNNI_TIERS
    return Scheme(
        name="nncf" + ("-7bit" if reduce else ""),
        activation_signed=False,
        activation_symmetric=True,
        quantize_bias=False,
        reduce_range=reduce,
    )


def refuses(plan: Plan, target: Target) -> str | None:
    """Why a precision would not be computed in on this target, or a field of the plan has no effect."""
    if plan.corrections and plan.precision != "int8":
        return f"corrections are for static int8, and this is {plan.precision}"
    if plan.precision in _HINTS:
        if plan.float_groups:
            return f"OpenVINO runs the whole model in {plan.precision}: single nodes cannot be left in float"
        return _lacks_half(plan.precision, target)
    return None


def quantize(fp32: Artifact, data: Batches | None, plan: Plan, out: Path, cache: Path | None = None) -> Artifact:
    """The float model for fp16 and bf16, whose precision is the engine's; NNCF's quantised graph for the others.

    int8: see :func:`edgekit.backends.openvino_static.quantize`; w8 and w4: see
    :func:`edgekit.backends.openvino_weights.quantize`.
    """
    if plan.method == CODEBOOK:
        return codebooks.quantize(fp32, plan, out)
    if plan.precision in ("w8", "w4"):
        return store_small(fp32, plan, out)
    if plan.precision == "int8":
        return openvino_static.quantize(fp32, data, plan, out)
    for name in fp32.files:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(fp32.folder / name, out / name)
    return replace(fp32, folder=out, precision=plan.precision, parent=fp32.sha256)


def compile(model: Artifact, target: Target, batch: int, out: Path) -> Artifact:
    """Fixes the batch and writes the IR (``model.xml`` and ``model.bin``); constants of an fp16 model are halved."""
    from edgekit.conversion.clean import check_batch
    from edgekit.runtime.openvino import engine_errors

    options: dict[str, Option] = {
        "device": "CPU",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        # OpenVINO's own default is bf16 where the CPU has it: never silently.
        "INFERENCE_PRECISION_HINT": _HINTS.get(model.precision, "f32"),
    }
    options |= placed_on(target, "INFERENCE_NUM_THREADS")
    check_batch(model.inputs, batch)
    with refusals(NAME, model), engine_errors("compile the model"):
        graph = read_graph(model)
        fix_graph_batch(graph, batch)
        options |= target.options.get("openvino", {})
        built = save_graph(graph, out, model.precision, options, model, half=model.precision == "fp16")
        require_opens(built)
    return built if target.keep_memory else replace(built, notes=(*built.notes, _PLANNED))


def _lacks_half(precision: str, target: Target) -> str | None:
    """Why a target does not compute in fp16 or bf16: by its instruction set, or as the engine says of this host."""
    if target.from_host:
        return _lacks_half_here(precision)
    if precision == "bf16" and target.isa != "amx":
        return (
            f"OpenVINO computes in bf16 with AVX512-BF16 or AMX, and {target.isa or 'any CPU'} does not say that it has"
            " them; target 'local' asks this machine"
        )
    if precision == "fp16" and target.arch != "aarch64":
        return "OpenVINO silently runs bf16 or fp32 for an fp16 hint on x86; ARM runs fp16"
    if precision == "fp16" and target.isa == "neon":
        return "fp16 arithmetic came with Armv8.2, and this target's neon tier is older"
    return None


def _lacks_half_here(precision: str) -> str | None:
    from edgekit.runtime import missing as cannot_run
    from edgekit.runtime.quiet import silence_telemetry

    reason = cannot_run(NAME)
    if reason is not None:
        return reason
    silence_telemetry()
    import openvino

    has = [str(name) for name in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")]
    if _FLAGS[precision] in has:
        return None
    return f"OpenVINO says that this CPU computes in {', '.join(sorted({'FP32', 'BF16', 'FP16', 'INT8'} & set(has)))}"


_FLAGS = {"fp16": "FP16", "bf16": "BF16"}
