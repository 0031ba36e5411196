"""Which parameters of a module are trained, and how fast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from edgekit.errors import TrainingError, did_you_mean
from edgekit.recipe_training import Training

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@contextmanager
def frozen(module: nn.Module, paths: Sequence[str]) -> Iterator[list[nn.Module]]:
    """Freezes the modules at ``paths`` while the block runs, and hands them over.

    Their parameters take no gradient; the caller keeps them in evaluation mode, so that the running statistics of
    their BatchNorms stay too.

    Raises:
        TrainingError: A path names no module, or nothing is left to train.
    """
    parts = [module_at(module, path, "freeze") for path in paths]
    flags = {parameter: parameter.requires_grad for parameter in module.parameters()}
    for part in parts:
        part.requires_grad_(False)
    try:
        if not any(parameter.requires_grad for parameter in module.parameters()):
            raise TrainingError(
                "nothing is left to train: every parameter is frozen",
                found=f"freeze = [{', '.join(paths)}], {len(flags)} parameters",
                allowed="at least one parameter that takes a gradient",
                fix="freeze fewer modules",
            )
        yield parts
    finally:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)


def optimizer_for(module: nn.Module, settings: Training, beside: nn.Module | None = None) -> torch.optim.Optimizer:
    """AdamW or SGD (momentum 0.9) over the parameters that take a gradient, and over those of a module ``beside``.

    Biases and parameters of normalisation layers are not decayed. The factor of the longest path in
    ``settings.rates`` that a parameter lies under multiplies its rate.

    Raises:
        TrainingError: A path in ``settings.rates`` names no module.
    """
    for path in settings.rates:
        module_at(module, path, "rates")
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    others = ((f"beside.{path}", part) for path, part in beside.named_modules()) if beside is not None else ()
    for path, part in (*module.named_modules(), *others):
        for name, parameter in part.named_parameters(recurse=False):
            if parameter in seen or not parameter.requires_grad:
                continue  # a shared parameter belongs to the first module that has it
            seen.add(parameter)
            decayed = parameter.ndim > 1 and name != "bias" and not isinstance(part, NORMS)
            groups.setdefault((_factor(path, settings.rates), decayed), []).append(parameter)
    options = [
        {
            "params": parameters,
            "lr": settings.learning_rate * factor,
            "weight_decay": settings.weight_decay if decayed else 0.0,
        }
        for (factor, decayed), parameters in groups.items()
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(options, lr=settings.learning_rate, momentum=0.9)
    return torch.optim.AdamW(options, lr=settings.learning_rate)


def _factor(path: str, rates: dict[str, float]) -> float:
    under = [prefix for prefix in rates if path == prefix or path.startswith(f"{prefix}.")]
    return rates[max(under, key=len)] if under else 1.0


def module_at(module: nn.Module, path: str, key: str) -> nn.Module:
    """The module at a path inside another.

    Args:
        module: The whole.
        path: E.g. ``layer3.1.conv2``.
        key: What named it, for the message.

    Raises:
        TrainingError: There is none; the nearest is shown.
    """
    known = {name: part for name, part in module.named_modules() if name}
    if path not in known:
        raise TrainingError(
            f"{key}: {type(module).__name__} has no module {path!r}",
            found=repr(path),
            allowed=", ".join(list(known)[:20]) or "it has no submodules",
            fix=did_you_mean(path, known),
        )
    return known[path]
