"""ONNX Runtime: static Q/DQ in the dialect its CPU kernels run in int8, and a fixed batch.

Dialects: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html. On x86 only unsigned
activations with signed weights reach the int8 kernels; without VNNI their int16 accumulation saturates, so
weights are kept to 7 bits; on ARM both are signed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgekit.artifact import Artifact, Option
from edgekit.backends.refusals import refusals, require_opens
from edgekit.backends.threads import placed_on
from edgekit.data import Batches
from edgekit.quantization.schemes import CODEBOOK, STATIC_METHODS, TRAINED_METHODS, WEIGHT_METHODS, Plan, Scheme
from edgekit.runtime.onnxruntime import DEFAULT_PROVIDER
from edgekit.specs import Target

NAME = "onnxruntime"
COMPUTE = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN")
VNNI_TIERS = ("avx2-vnni", "avx512-vnni", "amx")
METHODS: Mapping[str, tuple[str, ...]] = {
    "int8": (*STATIC_METHODS, "dynamic"),
    "w8": WEIGHT_METHODS,
    "w4": WEIGHT_METHODS,
}
CORRECTIONS: tuple[str, ...] = ("smooth-quant", "equalize", "bias-correction")
SCHEMED: tuple[str, ...] = ("int8",)
TRAINED: tuple[str, ...] = TRAINED_METHODS
# Which inputs of which operators are in int8: those that its CPU kernels take; no more, as a Q/DQ pair around any other
# operator costs time and digits. (): all its inputs.
_FIRST = (
    *("Relu", "Clip", "LeakyRelu", "Sigmoid", "AveragePool", "GlobalAveragePool", "MaxPool", "Resize", "Slice", "Pad"),
    *("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Split"),
)
OPERATORS: Mapping[str, tuple[int, ...]] = {
    "Conv": (0, 1, 2),
    "Gemm": (0, 1, 2),
    "MatMul": (0, 1),
    "Add": (0, 1),
    "Mul": (0, 1),
    "Concat": (),
    **dict.fromkeys(_FIRST, (0,)),
}


# ONNX Runtime's fused Add and LayerNormalization takes 26 to 1,088 µs on a CPU where the two operators take 7 to 135
# (1.31.1, 32×384 to 512×1024, two threads): its kernel computes numbers one by one.
_NO_SKIP_NORM = {"optimization.disable_specified_optimizers": "SkipLayerNormFusion"}


def missing(target: Target) -> str | None:
    """Why it cannot prepare here."""
    for module in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed: pip install 'edgekit[compress]'"
    return None


def scheme(target: Target) -> Scheme:
    """ARM: signed. x86: unsigned activations, 7-bit weights unless the target has VNNI."""
    if target.arch == "aarch64":
        return Scheme(name="s8s8-per-channel", activation_signed=True, activation_symmetric=False, operators=OPERATORS)
    reduce = target.isa not in VNNI_TIERS
    name = "u8s8-per-channel" + ("-7bit" if reduce else "")
    return Scheme(
        name=name, activation_signed=False, activation_symmetric=False, reduce_range=reduce, operators=OPERATORS
    )


def refuses(plan: Plan, target: Target) -> str | None:
    """Corrections of a plan that has nothing to correct, and all but fp32 on another provider than the CPU's."""
    provider = target.options.get("onnxruntime", {}).get("provider", DEFAULT_PROVIDER)
    if provider != DEFAULT_PROVIDER:
        return (
            f"ONNX Runtime runs target {target.name!r} on its {provider}, and this engine's {plan.precision} is made "
            "for the CPU's kernels: use engine tensorrt"
        )
    if plan.method in STATIC_METHODS or not plan.corrections:
        return None
    if plan.method != "dynamic":
        return f"corrections are for int8, and this is {plan.precision}"
    if plan.corrections != ("smooth-quant",):
        return f"dynamic int8 takes no correction but smooth-quant, and this has {', '.join(plan.corrections)}"
    return None


def quantize(fp32: Artifact, data: Batches | None, plan: Plan, out: Path, cache: Path | None = None) -> Artifact:
    """Static or dynamic int8, or small weights.

    Returns:
        An ONNX artifact; its notes name the compute nodes that stayed in float, and why.
    """
    from edgekit.backends import codebooks, onnxruntime_dynamic, onnxruntime_static, onnxruntime_weights

    if plan.method == CODEBOOK:
        return codebooks.quantize(fp32, plan, out)
    if plan.precision in ("w8", "w4"):
        return onnxruntime_weights.quantize(fp32, plan, out)
    if plan.method == "dynamic":
        return onnxruntime_dynamic.quantize(fp32, data, plan, out)
    return onnxruntime_static.quantize(fp32, data, plan, out, cache)


def compile(model: Artifact, target: Target, batch: int, out: Path) -> Artifact:
    """Fixes the batch; the ONNX itself ships, because an optimised one is tied to the CPU that wrote it."""
    from edgekit.conversion.clean import with_fixed_batch

    options: dict[str, Option] = {"provider": DEFAULT_PROVIDER, "inter_op_num_threads": 1}
    options |= placed_on(target, "intra_op_num_threads")
    if not target.keep_memory:
        options |= {"enable_cpu_mem_arena": False, "enable_mem_pattern": False}
    fixed = with_fixed_batch(model, batch, out)
    built = replace(fixed, engine=NAME, options=options | target.options.get("onnxruntime", {}))
    if _has_norms(built):
        built = replace(built, options=_NO_SKIP_NORM | dict(built.options))
    with refusals(NAME, model):
        require_opens(built)
    return built


def _has_norms(model: Artifact) -> bool:
    """Whether layers are normalised on the CPU, by the operator or by those it was made of before opset 17."""
    import onnx

    if model.options.get("provider") != DEFAULT_PROVIDER:
        return False
    graph = onnx.load(str(model.path), load_external_data=False).graph
    kinds = {node.op_type for node in graph.node}
    return "LayerNormalization" in kinds or {"ReduceMean", "Sqrt"} <= kinds
