"""One batch of training, and what a loss is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn import functional

from edgekit.artifact import Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """What a loss may look at.

    Attributes:
        inputs: Model tensors by name, ``[n, …]``, as the augmentation left them.
        labels: Classes ``[n]``, or shares of classes ``[n, classes]`` where samples were mixed; None without labels.
            -1 (a row of zeros) where a sample has none.
        indices: The samples' places in the training data, ``[n]``.
        view: Number of the augmentation's view.
        share: Share of the steps that are done, 0 to 1.
        further: Targets of further tasks by name, ``[n, …]``.
        answers: Logits ``[n, classes]`` of what teaches; None where nothing does.
    """

    inputs: Mapping[str, Tensor]
    labels: Tensor | None
    indices: Array
    view: int
    share: float
    further: Mapping[str, Tensor] = field(default_factory=dict)
    answers: Tensor | None = None


Answers = Callable[[Batch], Tensor]
"""From a batch to its teacher's logits ``[n, classes]``."""

Loss = Callable[[Batch, Tensor], Tensor]
"""From a batch and its logits ``[n, classes]`` to a scalar, a mean over the batch. One that is an ``nn.Module`` has its
parameters trained beside the model's, and its state kept in checkpoints."""


def cross_entropy(batch: Batch, logits: Tensor) -> Tensor:
    """The loss of hard labels; the trainer has checked that there are some."""
    return functional.cross_entropy(logits, batch.labels)


def needs_labels(loss: Loss) -> bool:
    """Whether the first task's loss is that of hard labels alone."""
    return getattr(loss, "first", loss) is cross_entropy


def module_of(loss: Loss) -> nn.Module | None:
    """The loss as a module, where it is one."""
    return loss if isinstance(loss, nn.Module) else None
