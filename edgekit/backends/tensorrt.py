"""TensorRT: ONNX whose types are those that run, and build settings; the device builds its own plan from them.

A TensorRT plan is tied to one TensorRT version, GPU architecture and operating system, so it is never made on the
workstation. From TensorRT 11 on networks are strongly typed: calibrators and precision flags are gone, and precision
lies in the graph, as Q/DQ pairs and fp16 tensors. The same graph is right for TensorRT 10.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgekit.artifact import Artifact, Option, TensorSpec
from edgekit.data import Batches
from edgekit.errors import EngineError
from edgekit.quantization.schemes import STATIC_METHODS, Plan, Scheme
from edgekit.runtime.affinity import OPTION as CPUS
from edgekit.runtime.affinity import spell_cpus
from edgekit.specs import Target

NAME = "tensorrt"
METHODS: Mapping[str, tuple[str, ...]] = {
    "fp16": (),
    "fp8": ("minmax", "average", "percentile"),  # the others weigh what a grid of even steps loses
    "int8": STATIC_METHODS,
    "w8": ("round",),
    "w4": ("round",),
}
CORRECTIONS: tuple[str, ...] = ("smooth-quant", "equalize", "bias-correction")
SCHEMED: tuple[str, ...] = ("fp8", "int8", "w8", "w4")  # what stays in float beside small weights has a type too
TRAINED: tuple[str, ...] = ()
OPERATORS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), (0, 1)),
    "Add": (0, 1),  # one of them: the skip branch
}
OPTIONS: Mapping[str, type] = {
    "precision": str,
    "optimization_level": int,
    "workspace_mb": int,
    "hardware_compatible": bool,
    "dla_core": int,
    "profile_min": str,
    "profile_opt": str,
    "profile_max": str,
}
_PROFILES = ("profile_min", "profile_opt", "profile_max")
# What a scheme set by hand cannot change: TensorRT takes no other pair.
_FIXED = {
    "activation_signed": True,
    "activation_symmetric": True,
    "weight_symmetric": True,
    "quantize_bias": False,
    "reduce_range": False,
}


def missing(target: Target) -> str | None:
    """Why it cannot prepare here: writing ONNX needs no NVIDIA software."""
    for module in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed: pip install 'edgekit[compress]'"
    return None


def scheme(target: Target) -> Scheme:
    """Symmetric int8, one scale a channel of weights, float bias; what stays in float is fp16 where the target has it.

    A strongly typed network runs its float in the type that the graph has, so fp32 would be paid for.
    """
    return Scheme(
        name="s8s8-tensorrt",
        activation_signed=True,
        activation_symmetric=True,
        quantize_bias=False,
        operators=OPERATORS,
        float_type="fp16" if "fp16" in target.precisions else "fp32",
    )


def refuses(plan: Plan, target: Target) -> str | None:
    """Why a plan of its methods cannot be made: corrections without int8, or a scheme that TensorRT does not read."""
    if plan.corrections and plan.precision != "int8":
        return f"corrections are for static int8, and this is {plan.precision}"
    for name, value in _FIXED.items():
        if plan.scheme is not None and getattr(plan.scheme, name) != value:
            return f"TensorRT takes symmetric int8 with a float bias only, and the scheme has {name} = {not value}"
    if plan.scheme is not None and (more := sorted(set(plan.scheme.operators) - set(OPERATORS))):
        return f"Q/DQ stands before {', '.join(OPERATORS)} only, and the scheme names {', '.join(more)}"
    return None


def quantize(fp32: Artifact, data: Batches | None, plan: Plan, out: Path, cache: Path | None = None) -> Artifact:
    """Symmetric static int8 or fp8, weights of 8 or 4 bits, or fp16, all of it in the graph.

    Returns:
        An ONNX artifact of opset 19 or 20 (21 for weights of 4 bits); its notes name what stayed in float, and why.

    Raises:
        ModelError: Its opset does not fit TensorRT, or there is nothing to do.
    """
    from edgekit.backends import tensorrt_static, tensorrt_weights

    if plan.precision == "fp16":
        return tensorrt_weights.to_half(fp32, data, plan, out)
    if plan.precision in ("w8", "w4"):
        return tensorrt_weights.quantize(fp32, data, plan, out)
    return tensorrt_static.quantize(fp32, data, plan, out, cache)


def compile(model: Artifact, target: Target, batch: int, out: Path) -> Artifact:
    """Writes the ONNX with a fixed batch, and the build settings as options.

    Raises:
        EngineError: An option is not one of :data:`OPTIONS`, or asks for what the target or TensorRT has not.
        ModelError: Its batch is fixed to something else, or it breaks one of TensorRT's rules.
    """
    from edgekit.backends.tensorrt_rules import check_rules
    from edgekit.conversion.clean import describe_onnx, fix_batch, input_specs, load_onnx, save_onnx, strip_metadata
    from edgekit.runtime.options import check_options

    own = target.options.get("tensorrt", {})
    check_options(NAME, own, OPTIONS)
    options: dict[str, Option] = {"precision": model.precision, "optimization_level": 3, **own}
    if target.memory_mb:
        # A quarter of a shared memory is what NVIDIA's own tools leave to the workspace on Jetson.
        most = target.memory_mb // 4
        options["workspace_mb"] = min(int(own.get("workspace_mb", most)), most)
    _check_settings(model, options)
    proto = load_onnx(model.path)
    fix_batch(proto, batch)
    _check_profiles(input_specs(proto), options)
    check_rules(proto, model.model)
    strip_metadata(proto)
    out.mkdir(parents=True, exist_ok=True)
    save_onnx(proto, out / "model.onnx")
    written = describe_onnx(out / "model.onnx", precision=model.precision, parent=model.sha256)
    if target.cpus:
        options[CPUS] = spell_cpus(target.cpus)
    return replace(written, engine=NAME, options=options, notes=model.notes)


def _check_settings(model: Artifact, options: Mapping[str, Option]) -> None:
    """Refuses settings that TensorRT would refuse on the device."""
    level = int(options["optimization_level"])
    if not 0 <= level <= 5:
        raise EngineError("TensorRT option 'optimization_level' is out of range", found=str(level), allowed="0 to 5")
    if options["precision"] != model.precision:
        raise EngineError(
            "TensorRT's precision lies in the graph and cannot be set by an option",
            found=f"precision {options['precision']}, and a model in {model.precision}",
            fix="remove the option, and choose with --precision",
        )
    if "dla_core" in options and model.precision != "fp16":
        why = "it takes implicit quantisation, which TensorRT 11 has no more, and no Q/DQ"
        raise EngineError(
            f"the DLA does not run a model in {model.precision}",
            found=f"option dla_core {options['dla_core']}; {why}" if model.precision == "int8" else "option dla_core",
            allowed="fp16",
            fix="use --precision fp16 for the DLA, or remove dla_core to run on the GPU",
        )


def _check_profiles(inputs: tuple[TensorSpec, ...], options: Mapping[str, Option]) -> None:
    """Asks for optimisation profiles where a dimension stays open, and that they fit.

    Raises:
        EngineError: A dimension is open and the target does not say how far, or the profiles do not fit the model.
    """
    told = {name: str(options[name]) for name in _PROFILES if name in options}
    open_ = [spec for spec in inputs if not all(isinstance(size, int) for size in spec.shape)]
    example = ",".join(
        f"{spec.name}:{'x'.join(str(size if isinstance(size, int) else 128) for size in spec.shape)}" for spec in open_
    )
    if open_ and len(told) < len(_PROFILES):
        raise EngineError(
            "TensorRT must know how far open dimensions go",
            found=f"open in {', '.join(map(str, open_))}; "
            + (f"only {', '.join(told)} given" if told else "no profile given"),
            allowed="profile_min, profile_opt and profile_max",
            fix=f'in the target\'s file, under [options.tensorrt]: profile_min = "{example}", and likewise the others',
        )
    sizes = [_parsed(name, text) for name, text in told.items()]
    for spec in open_:
        ends = [one.get(spec.name, ()) for one in sizes]
        fits = all(
            len(end) == len(spec.shape)
            and all(not isinstance(want, int) or want == size for want, size in zip(spec.shape, end, strict=True))
            for end in ends
        )
        if not fits or any(list(column) != sorted(column) for column in zip(*ends, strict=True)):
            raise EngineError(
                f"TensorRT's profiles do not fit input {spec}",
                found=", ".join(f"{name} {text}" for name, text in told.items()),
                allowed="the input's own sizes, and for open ones min <= opt <= max",
                fix=f"write them as {example}",
            )
    if told and not open_:
        raise EngineError(
            "TensorRT profiles are for open dimensions, and this model has none",
            found=", ".join(told),
            fix="remove them from [options.tensorrt]",
        )


def _parsed(name: str, text: str) -> dict[str, tuple[int, ...]]:
    """Sizes by input of ``input:1x3x224x224,other:1x8``."""
    found = {}
    for part in text.split(","):
        key, _, sizes = part.strip().rpartition(":")
        if not key or not all(size.isdigit() and int(size) > 0 for size in sizes.split("x")):
            raise EngineError(
                f"TensorRT option {name!r} cannot be read",
                found=repr(part),
                allowed="input:1x3x224x224, several of them with commas between",
            )
        found[key] = tuple(int(size) for size in sizes.split("x"))
    return found
