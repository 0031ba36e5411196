"""Several teachers: what they answer together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.distillation.forward import logits_of
from edgekit.errors import TrainingError


def mean(logits: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """The geometric mean of the teachers' distributions.

    G. Hinton, O. Vinyals, J. Dean, "Distilling the knowledge in a neural network", 2015, section 2, names the
    arithmetic or geometric mean of an ensemble's predictive distributions; the geometric one is the same at every
    temperature: the mean of the logits.

    Args:
        logits: ``[n, classes]`` of each teacher.
        shares: Of each teacher; they sum to 1.

    Returns:
        Logits ``[n, classes]``.
    """
    return torch.stack([share * each.log_softmax(1) for share, each in zip(shares, logits, strict=True)]).sum(0)


def confidence(logits: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """The same with each sample's shares multiplied by how sure a teacher is of it.

    The factor is ``exp(-H)``, H being the entropy of the teacher's answer in nats; one that knows nothing of a sample
    has a factor of one over the number of classes. As in H. Zhang, D. Chen, C. Wang, "Confidence-Aware Multi-Teacher
    Knowledge Distillation", ICASSP 2022, but by entropy instead of the error on the label, so that labels are not
    needed.

    Args:
        logits: ``[n, classes]`` of each teacher.
        shares: Of each teacher; they sum to 1.

    Returns:
        Logits ``[n, classes]``.
    """
    stacked = torch.stack([each.log_softmax(1) for each in logits])
    entropy = -(stacked.exp() * stacked).sum(2, keepdim=True)
    weights = torch.tensor(list(shares), dtype=stacked.dtype, device=stacked.device)[:, None, None] * torch.exp(
        -entropy
    )
    return (stacked * functional.normalize(weights, p=1.0, dim=0)).sum(0)


COMBINE = {"mean": mean, "confidence": confidence}


def normalised(shares: Sequence[float]) -> tuple[float, ...]:
    """Shares that sum to 1.

    Raises:
        TrainingError: They sum to 0.
    """
    total = sum(shares)
    if total <= 0:
        raise TrainingError(
            "no teacher has a share in what is taught",
            found=f"shares {', '.join(f'{share:g}' for share in shares)}",
            allowed="at least one above 0",
            fix="set distillation.teacher_share, or the share of one of distillation.teachers",
        )
    return tuple(share / total for share in shares)


class Panel(nn.Module):
    """Several teachers as one module, which gives the logits they agree on.

    Args:
        teachers: Modules that tell the same classes apart, in evaluation mode.
        shares: Of each teacher, 0 or more.
        combine: A key of :data:`COMBINE`.

    Raises:
        TrainingError: All shares are 0.
    """

    def __init__(self, teachers: Sequence[nn.Module], shares: Sequence[float], combine: str) -> None:
        super().__init__()
        self.teachers = nn.ModuleList(teachers)
        self.shares = normalised(shares)
        self.combine = COMBINE[combine]

    def forward(self, *values: Tensor, **named: Tensor) -> Tensor:
        """Logits ``[n, classes]`` for one batch."""
        inputs: Mapping[str, Tensor] = named or {str(i): value for i, value in enumerate(values)}
        return self.combine([logits_of(teacher, inputs) for teacher in self.teachers], self.shares)
