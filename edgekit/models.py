"""Models as recipes name them: modules made by a factory, their weights, and what identifies them."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit._lookup import importable, resolve
from edgekit._paths import expand_path
from edgekit._weights import NOT_MODULES, check_finite, load_weights, save_weights
from edgekit.artifact import hash_json
from edgekit.errors import EdgeKitError, ModelError, did_you_mean

if TYPE_CHECKING:
    from torch.nn import Module

    from edgekit.recipe_training import ModelSpec

TIMM = "timm:"
__all__ = [
    "class_sources",
    "count_parameters",
    "is_onnx",
    "load_module",
    "load_weights",
    "module_identity",
    "replace_head",
    "save_weights",
    "sources_of",
    "state_hash",
]

KINDS = "package.module:factory, timm:NAME, or an .onnx file"
SHOWN = 5


def is_onnx(model: str) -> bool:
    """Whether a recipe's ``model`` is an ONNX file rather than something that makes a module."""
    return model.lower().endswith(".onnx")


def is_stored(model: str) -> bool:
    """Whether a recipe's ``model`` is a folder of stored outputs: it ends in a slash."""
    return model.endswith("/")


def load_module(spec: ModelSpec, *, base: Path, seed: int, where: str) -> Module:
    """Makes a module and loads its weights; no code from a weights file runs and nothing is downloaded.

    Args:
        spec: The factory, its arguments and the weights.
        base: The recipe's folder: its modules are importable, and weights are relative to it.
        seed: Of the initial weights; torch's global random state is left as it was.
        where: Where it was named, e.g. ``edgekit.toml: teacher``, for messages.

    Returns:
        The module in evaluation mode, on the CPU.

    Raises:
        ModelError: It cannot be made, or its weights are missing, unsafe, do not fit, or hold NaN.
        EdgeKitError: The factory cannot be found.
    """
    factory = _factory(spec.model, base, where)
    module = _make(factory, spec, base, seed, where)
    if spec.weights == "factory" and spec.model.startswith(TIMM):
        raise ModelError(
            f"{where}: timm gives {spec.model} random weights, because nothing is downloaded",
            found='weights = "factory"',
            fix="give a file of weights, or train it",
        )
    if spec.weights_file is not None:
        path = expand_path(spec.weights_file, base=base, where=f"{where}.weights", error=ModelError)
        load_weights(module, path, where=f"{where}.weights")
    check_finite(module, f"{where}: {spec.weights or spec.model}")
    return module.eval()


def _factory(model: str, base: Path, where: str) -> Callable[..., Any]:
    suffix = Path(model).suffix.lower()
    if is_onnx(model) or suffix in NOT_MODULES:
        raise ModelError(
            f"{where}: {model} is not something that makes a torch module",
            found=NOT_MODULES.get(suffix, "ONNX: it can be deployed as it is, but not trained or distilled into"),
            allowed=KINDS,
            fix='name the Python function or class that builds the network: model = "package.module:factory"',
        )
    if model.startswith(TIMM):
        return _timm_factory(model.removeprefix(TIMM), where)
    factory = resolve(model, {}, kind="model", base=base, where=where)
    if not callable(factory):
        raise ModelError(
            f"{where}: {model} cannot be called",
            found=type(factory).__name__,
            allowed="a function or class that returns a torch.nn.Module",
        )
    return factory  # type: ignore[no-any-return]  # resolve hands over whatever the name stands for


def _timm_factory(name: str, where: str) -> Callable[..., Any]:
    try:
        import timm
    except ImportError as exc:
        raise ModelError(
            f"{where}: timm:{name} needs timm, which is not installed",
            found=str(exc),
            fix='pip install "edgekit[vision]"',
        ) from exc
    if not timm.is_model(name):
        raise ModelError(
            f"{where}: timm has no model {name!r}",
            found=repr(name),
            allowed="a name of timm.list_models()",
            fix=did_you_mean(name, timm.list_models()),
        )

    def create(**args: Any) -> Any:
        refused = sorted({"pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay"} & set(args))
        if refused:
            raise ModelError(
                f"{where}: argument {refused[0]!r} of timm is not used: nothing is downloaded",
                found=f"{refused[0]} = {args[refused[0]]!r}",
                fix='download the weights yourself, and name the file: weights = "model.safetensors"',
            )
        return timm.create_model(name, pretrained=False, **args)

    return create


def _make(factory: Callable[..., Any], spec: ModelSpec, base: Path, seed: int, where: str) -> Module:
    import torch

    _check_arguments(factory, spec.args, f"{where}: {spec.model}")
    with torch.random.fork_rng(devices=[]), importable(base):
        torch.manual_seed(seed)
        try:
            module = factory(**spec.args)
        except EdgeKitError:
            raise
        except Exception as exc:
            raise ModelError(
                f"{where}: {spec.model} failed while making the module",
                found=f"{type(exc).__name__}: {exc}",
                fix="--debug shows where in your code",
            ) from exc
    if not isinstance(module, torch.nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise ModelError(
            f"{where}: {spec.model} did not make a torch module",
            found=type(module).__name__,
            allowed="a torch.nn.Module (not TorchScript, whose graph cannot be exported again)",
        )
    return module


def _check_arguments(factory: Callable[..., Any], args: Mapping[str, Any], at: str) -> None:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # some compiled callables have none; the call itself then says what is wrong
        return
    try:
        signature.bind(**args)
    except TypeError as exc:
        stranger = next((name for name in args if name not in signature.parameters), None)
        raise ModelError(
            f"{at}: wrong arguments",
            found=str(exc),
            allowed=str(signature),
            fix=did_you_mean(stranger, signature.parameters) if stranger else None,
        ) from exc


def state_hash(module: Module) -> str:
    """sha256 of a module's structure (its repr) and every parameter and buffer, as 64 hex digits."""
    import torch

    digest = hashlib.sha256(repr(module).encode())
    for name, tensor in module.state_dict().items():
        if not isinstance(tensor, torch.Tensor):  # a module's own extra state
            digest.update(f"{name}={tensor!r};".encode())
            continue
        digest.update(f"{name}:{tensor.dtype}{list(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def module_identity(module: Module, spec: ModelSpec, base: Path) -> str:
    """Hash of all that makes a module what it is: weights, structure, arguments and the recipe's own source.

    Args:
        module: The module.
        spec: What it was made from.
        base: The recipe's folder: the text of every imported module that lies in it counts.
    """
    return hash_json([state_hash(module), spec.model, repr(sorted(spec.args.items())), _sources(base)])


def _sources(base: Path) -> dict[str, str]:
    """sha256 of the source of every imported module under ``base``, by relative path."""
    root = base.resolve()
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        # Not an environment beside the recipe, nor EdgeKit itself in a checkout: its version is keyed elsewhere.
        if not isinstance(file, str) or "site-packages" in file or name.partition(".")[0] == "edgekit":
            continue
        path = Path(file).resolve()
        if path.suffix == ".py" and path.is_relative_to(root) and path.is_file():
            found[path.relative_to(root).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def class_sources(module: Module) -> list[str]:
    """sha256 of every source file that defines a class of the module or its children, torch's own left out."""
    return sources_of(type(part).__module__ for part in module.modules())


def sources_of(homes: Iterable[str]) -> list[str]:
    """sha256 of the source files of imported modules, by module name; torch's own left out."""
    names = (getattr(sys.modules.get(home), "__file__", None) for home in set(homes) if not home.startswith("torch."))
    # A class typed in at a prompt has no file.
    files = {Path(name) for name in names if name is not None and Path(name).is_file()}
    return sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)


def count_parameters(module: Module) -> int:
    """Parameters of a module, shared ones counted once."""
    return sum(parameter.numel() for parameter in module.parameters())


def replace_head(module: Module, path: str, classes: int, seed: int) -> Module:
    """Puts a fresh classification head in the place of a linear layer or a 1x1 convolution.

    Args:
        module: The module, changed in place.
        path: Module path of the layer, e.g. ``fc`` or ``head.0``.
        classes: Outputs of the new layer.
        seed: Of its initial weights.

    Returns:
        The same module.

    Raises:
        ModelError: There is no such layer, or it is of another kind.
    """
    import torch

    layers = dict(module.named_modules())
    heads = [n for n, m in layers.items() if n and (isinstance(m, torch.nn.Linear) or _is_pointwise(m))]
    if not path or path not in layers:
        raise ModelError(
            f"no layer {path!r} in {type(module).__name__}",
            found=repr(path),
            allowed=", ".join(heads[-SHOWN:]) or "a Linear layer or 1x1 convolution; it has none",
            fix=did_you_mean(path, [name for name in layers if name]),
        )
    old = layers[path]
    if path not in heads:
        raise ModelError(
            f"layer {path!r} of {type(module).__name__} cannot be a classification head",
            found=type(old).__name__,
            allowed=f"a Linear layer or 1x1 convolution: {', '.join(heads[-SHOWN:]) or 'it has none'}",
        )
    kind = {"device": old.weight.device, "dtype": old.weight.dtype}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(old, torch.nn.Linear):
            new: Any = torch.nn.Linear(old.in_features, classes, bias=old.bias is not None, **kind)
        else:
            new = torch.nn.Conv2d(old.in_channels, classes, 1, stride=old.stride, bias=old.bias is not None, **kind)
    parent, _, name = path.rpartition(".")
    setattr(layers[parent], name, new.train(old.training))
    return module


def _is_pointwise(module: Any) -> bool:
    import torch

    return isinstance(module, torch.nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
