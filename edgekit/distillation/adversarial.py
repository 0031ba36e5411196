"""Inputs that are moved against a module, and how it fares on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.data import Samples
from edgekit.distillation.forward import device_of, evaluating, logits_of, taken, to_torch
from edgekit.distillation.mixing import describe
from edgekit.errors import DataError, TrainingError
from edgekit.recipe_augmentation import Adversarial

AttackLoss = Callable[[Tensor, Any], Tensor]
"""From logits ``[n, classes]`` and the labels that were given to a scalar, which the attack makes large."""


def perturbed(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    labels: Any,
    settings: Adversarial,
    *,
    loss: AttackLoss | None = None,
    generator: torch.Generator | None = None,
    clip: bool = False,
) -> dict[str, Tensor]:
    """Moves a batch against a module, every value of a float input by at most ``settings.epsilon``.

    ``fgsm`` (Goodfellow, Shlens and Szegedy, "Explaining and Harnessing Adversarial Examples", ICLR 2015) takes one
    step of ``epsilon`` along the sign of the loss's gradient. ``pgd`` (Madry et al., "Towards Deep Learning Models
    Resistant to Adversarial Attacks", ICLR 2018) takes several small ones from a random point and stays in the box of
    ``epsilon`` around the sample.

    The module is attacked in evaluation mode and comes out as it was: its modes, its gradients and its BatchNorms'
    statistics. Inputs of whole numbers stay.

    Args:
        module: Its first output is logits.
        inputs: Model tensors ``[n, …]`` by name; they stay as they are.
        labels: Class numbers int64 ``[n]`` or shares float ``[n, classes]``. Samples without one (-1, or None for
            all) are attacked on the module's own answer (Kurakin, Goodfellow and Bengio, ICLR 2017). With a ``loss``
            of the caller's: whatever that takes.
        settings: Attack, ``epsilon`` and steps.
        loss: What is made large; None: the cross-entropy.
        generator: Decides where ``pgd`` starts; None: at the samples themselves.
        clip: Values stay between the batch's least and largest of that input, for inputs that have bounds.

    Returns:
        The moved inputs, detached.

    Raises:
        TrainingError: No input is of floats, the module has no gradient for them, or it is not finite.
    """
    floats = [name for name, tensor in taken(module, inputs).items() if tensor.is_floating_point()]
    if not floats:
        raise TrainingError(
            "adversarial: the samples have no input that could be moved a little",
            found=", ".join(describe(name, tensor) for name, tensor in inputs.items()),
            allowed="an input of floats",
            fix="remove the adversarial table",
        )
    once = settings.attack == "fgsm"
    step = settings.epsilon if once else settings.step or settings.epsilon / 4
    points = {name: inputs[name].detach() for name in floats}
    if not once and generator is not None:
        points = {name: point + _start(point, settings.epsilon, generator) for name, point in points.items()}
    with _attackable(module):
        if loss is None:
            labels = _all_labelled(module, inputs, labels)
        for _ in range(1 if once else settings.steps):
            slopes = _slopes(module, {**inputs, **points}, floats, labels, loss or _cross_entropy)
            for name in floats:
                moved = points[name] + step * slopes[name].sign()
                points[name] = _held(moved, inputs[name].detach(), settings.epsilon, clip)
    return {**inputs, **points}


def partly_perturbed(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    labels: Any,
    settings: Adversarial,
    *,
    loss: AttackLoss | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Moves the first ``settings.share`` of a batch, at least one sample: which those are the shuffle decides.

    Arguments and errors are those of :func:`perturbed`; labels are cut like the inputs.
    """
    count = len(next(iter(inputs.values())))
    some = min(count, max(1, round(settings.share * count)))
    first = {name: tensor[:some] for name, tensor in inputs.items()}
    some_labels = None if labels is None else labels[:some]
    moved = perturbed(module, first, some_labels, settings, loss=loss, generator=generator)
    return {name: torch.cat([moved[name], tensor[some:]]) for name, tensor in inputs.items()}


def robust_accuracy(
    module: nn.Module, samples: Samples, settings: Adversarial, batch_size: int = 256, *, seed: int = 0
) -> float:
    """The share of labelled samples that a module still gets right when each is moved against it.

    Args:
        module: Its first output is logits.
        samples: Labelled with class numbers; those of -1 are left out.
        settings: Attack, ``epsilon`` and steps; all samples are attacked, whatever ``share`` is.
        batch_size: Samples a call.
        seed: Decides where ``pgd`` starts.

    Returns:
        0 to 1; an upper bound of what remains under the worst attack of that ``epsilon``.

    Raises:
        DataError: No sample is labelled.
        TrainingError: As of :func:`perturbed`.
    """
    targets = samples.targets
    known = np.empty(0, np.int64) if targets is None or targets.ndim != 1 else np.flatnonzero(targets >= 0)
    if targets is None or not len(known):
        raise DataError(
            f"{samples.name}: robust accuracy needs labels", found="no labelled sample", allowed="one or more"
        )
    device, generator = device_of(module), torch.Generator().manual_seed(seed)
    right = 0
    for start in range(0, len(known), batch_size):
        indices = known[start : start + batch_size]
        inputs = to_torch(samples.tensors(indices), device)
        labels = torch.tensor(targets[indices], dtype=torch.int64, device=device)
        moved = perturbed(module, inputs, labels, settings, generator=generator)
        right += int((_answers(module, moved) == labels).sum())
    return right / len(known)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Summed, so that a sample's gradient does not shrink with the batch."""
    return functional.cross_entropy(logits, labels, reduction="sum")


def _answers(module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    with evaluating(module), torch.no_grad():
        return logits_of(module, inputs).argmax(dim=1)


def _all_labelled(module: nn.Module, inputs: Mapping[str, Tensor], labels: Tensor | None) -> Tensor:
    """Labels, with the module's own answers where there are none."""
    if labels is None:
        return _answers(module, inputs)
    if labels.is_floating_point():
        return labels
    unlabelled = labels < 0
    return torch.where(unlabelled, _answers(module, inputs), labels) if unlabelled.any() else labels


def _start(point: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
    """Evenly within ``epsilon``, on the generator's device first: so CPU and GPU start alike."""
    drawn = torch.rand(point.shape, generator=generator, device=generator.device)
    return ((2 * drawn - 1) * epsilon).to(point)


def _held(moved: Tensor, source: Tensor, epsilon: float, clip: bool) -> Tensor:
    """Within ``epsilon`` of the source, and within its range where that is wanted."""
    near = source + (moved - source).clamp(-epsilon, epsilon)
    return near.clamp(source.min(), source.max()) if clip else near


def _slopes(
    module: nn.Module, inputs: Mapping[str, Tensor], floats: list[str], labels: Any, loss: AttackLoss
) -> dict[str, Tensor]:
    """The loss's gradient with respect to every float input."""
    leaves = {name: inputs[name].detach().requires_grad_() for name in floats}
    value = loss(logits_of(module, {**inputs, **leaves}), labels)
    slopes = (
        torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
        if value.requires_grad
        else [None] * len(leaves)
    )
    if all(slope is None for slope in slopes):
        raise TrainingError(
            f"adversarial: {type(module).__name__} cannot be attacked: no gradient reaches its inputs",
            found=f"a loss that does not depend on {', '.join(floats)}",
            allowed="a torch module that is differentiable from its inputs to its logits",
            fix="remove the adversarial table",
        )
    found = {}
    for (name, leaf), slope in zip(leaves.items(), slopes, strict=True):
        found[name] = torch.zeros_like(leaf) if slope is None else slope
        if not torch.isfinite(found[name]).all():
            raise TrainingError(
                f"adversarial: the gradient with respect to input {name!r} has NaN or infinity",
                allowed="finite numbers",
                fix="lower learning_rate, and check the weights",
            )
    return found


@contextmanager
def _attackable(module: nn.Module) -> Iterator[None]:
    """Evaluation mode with gradients; without cuDNN for recurrent layers, of which it has none in that mode."""
    recurrent = any(isinstance(part, nn.RNNBase) for part in module.modules())
    stopped = recurrent and device_of(module).type == "cuda"
    with evaluating(module), torch.enable_grad(), torch.backends.cudnn.flags(False) if stopped else nullcontext():
        yield
