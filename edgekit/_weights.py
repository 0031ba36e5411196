"""Weights files: read without running code, matched to a module, written as safetensors."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import ModelError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

NESTED = ("state_dict", "model_state_dict", "model")  # where training scripts keep the weights in a checkpoint
WRAPPERS = ("module.", "_orig_mod.")  # DataParallel, torch.compile
SHOWN = 5
NOT_MODULES = {
    ".pt2": "a torch.export archive: reading one unpickles, which can run code",
    ".pt": "weights, or TorchScript, whose graph can neither be trained on nor exported",
    ".pth": "weights without the network they belong to",
    ".ckpt": "weights without the network they belong to",
    ".safetensors": "weights without the network they belong to",
    ".pkl": "a pickle: reading one can run code",
}


def load_weights(module: Module, path: Path, *, where: str) -> None:
    """Loads weights into a module.

    Args:
        module: The module, changed in place.
        path: ``.safetensors``; or ``.pt``, ``.pth``, ``.ckpt``, ``.bin`` read with weights only. A checkpoint's nested
            ``state_dict`` is used, and the prefixes of DataParallel and torch.compile are dropped.
        where: Where it was named, for messages.

    Raises:
        ModelError: The file is missing, damaged, holds code, or does not fit the module.
    """
    at = f"{where}: {path}"
    state = _unwrapped(_read_state(path, at), module)
    expected = _tensors(module)
    tied = _tied(expected)
    missing = [
        name
        for name in expected
        if name not in state and not (tied[name] & state.keys()) and not name.endswith("num_batches_tracked")
    ]
    unexpected = [name for name in state if name not in expected]
    shapes = [
        f"{name}: {list(state[name].shape)} in the file, {list(expected[name].shape)} in the model"
        for name in expected
        if name in state and state[name].shape != expected[name].shape
    ]
    if missing or unexpected or shapes:
        raise _mismatch(at, missing, unexpected, shapes)
    module.load_state_dict(state, strict=False)


def _mismatch(at: str, missing: list[str], unexpected: list[str], shapes: list[str]) -> ModelError:
    parts = [
        f"{len(names)} {what}: {', '.join(names[:SHOWN])}{' …' if len(names) > SHOWN else ''}"
        for what, names in (
            ("missing in the file", missing),
            ("not in the model", unexpected),
            ("of another shape", shapes),
        )
        if names
    ]
    hints = ((name, did_you_mean(name, unexpected)) for name in missing[:SHOWN])
    near = next((f"{name}: {hint}" for name, hint in hints if hint), None)
    return ModelError(
        f"{at}: the weights do not fit the model",
        found="; ".join(parts),
        allowed="exactly the model's tensors",
        fix=near or "check the factory's arguments, such as depth and classes",
    )


def _read_state(path: Path, at: str) -> dict[str, Tensor]:
    suffix = path.suffix.lower()
    if not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else None
        raise ModelError(f"{at}: no such file", allowed=".safetensors, .pt or .pth", fix=near)
    if suffix == ".safetensors":
        return _read_safetensors(path, at)
    if suffix in (".pt", ".pth", ".ckpt", ".bin"):
        return _read_pickled(path, at)
    raise ModelError(
        f"{at}: not a kind of weights that is read",
        found=NOT_MODULES.get(suffix, suffix or "no suffix"),
        allowed=".safetensors, .pt or .pth",
        fix="save them with safetensors.torch.save_model(module, path)",
    )


def _read_safetensors(path: Path, at: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, KeyError) as exc:
        raise ModelError(f"{at}: cannot be read", found=str(exc), fix="the file is damaged; get it again") from exc
    return state


def _read_pickled(path: Path, at: str) -> dict[str, Tensor]:
    import torch

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = [name.split("/", 1)[-1] for name in archive.namelist()]
        if "constants.pkl" in members or "archive_format" in members:
            raise ModelError(
                f"{at}: not plain weights",
                found="TorchScript" if "constants.pkl" in members else "a torch.export archive",
                allowed="a state dict",
                fix="save the network's weights: torch.save(module.state_dict(), path)",
            )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle's protocol: what cannot be read is told below
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        raise ModelError(
            f"{at}: holds more than weights, and reading that could run code",
            found=_first_sentence(exc),
            allowed="tensors only",
            fix="whoever trusts the file: torch.save(module.state_dict(), path)",
        ) from exc
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as exc:
        raise ModelError(f"{at}: cannot be read", found=_first_sentence(exc), fix="the file is damaged") from exc
    nested = next((found[key] for key in NESTED if isinstance(found, dict) and isinstance(found.get(key), dict)), found)
    if not isinstance(nested, dict) or not nested or not all(isinstance(v, torch.Tensor) for v in nested.values()):
        raise ModelError(
            f"{at}: not a state dict",
            found=_describe(nested),
            allowed="tensors by name",
            fix="save module.state_dict()",
        )
    return dict(nested)


def _first_sentence(exc: Exception) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    named = [line for line in lines if "GLOBAL" in line or "Unsupported" in line]
    return (named or lines or [type(exc).__name__])[0][:200]


def _describe(found: Any) -> str:
    if isinstance(found, dict):
        return f"a dict with {', '.join(map(str, list(found)[:SHOWN]))}" if found else "an empty dict"
    return type(found).__name__


def _tensors(module: Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, without a module's own extra state."""
    import torch

    return {name: value for name, value in module.state_dict().items() if isinstance(value, torch.Tensor)}


def _unwrapped(state: dict[str, Tensor], module: Module) -> dict[str, Tensor]:
    own = module.state_dict().keys()
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in state) and not all(name.startswith(prefix) for name in own):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _tied(state: Mapping[str, Tensor]) -> dict[str, set[str]]:
    """Names that share memory with each name, so that a file may hold only one of them."""
    groups: dict[Any, set[str]] = {}
    keys = {
        name: (t.untyped_storage().data_ptr(), t.storage_offset(), t.shape, t.stride()) if t.numel() else name
        for name, t in state.items()
    }
    for name, key in keys.items():
        groups.setdefault(key, set()).add(name)
    return {name: groups[key] for name, key in keys.items()}


def check_finite(module: Module, at: str) -> None:
    """Refuses a module with NaN or infinity in a parameter or buffer, naming the first."""
    for name, tensor in _tensors(module).items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ModelError(
                f"{at}: the weights hold NaN or infinity",
                found=f"{int((~tensor.isfinite()).sum())} of {tensor.numel()} values of {name}",
                allowed="finite numbers",
                fix="take an earlier checkpoint: this training diverged",
            )


def save_weights(module: Module, path: Path) -> None:
    """Writes a module's weights as safetensors; of tensors that share memory one is kept, as loading expects."""
    from safetensors.torch import save_model

    save_model(module, str(path))
