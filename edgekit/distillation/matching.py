"""What is matched between the layers of teacher and student: a recipe's terms, checked before training begins."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from edgekit._lookup import resolve
from edgekit.distillation.losses import check_arguments
from edgekit.distillation.projectors import Embedding, Projector, Review, Shape
from edgekit.distillation.taps import feature_shapes
from edgekit.errors import TrainingError
from edgekit.recipe_training import Distillation, FeatureMatch

_HERE = "edgekit.distillation.feature_losses"
FEATURE_LOSSES = {
    "hints": f"{_HERE}:hints",
    "attention_transfer": f"{_HERE}:attention_transfer",
    "similarity": f"{_HERE}:similarity",
    "relational": f"{_HERE}:relational",
    "contrastive": f"{_HERE}:contrastive",
    "review": f"{_HERE}:hierarchical_context",
}
_EMBEDDING = 128


class Term(nn.Module):
    """One term: a loss, and what brings the student's features to the teacher's shape, which learns with the student.

    Args:
        spec: What the recipe says.
        students: Shapes of the student's features for a batch.
        teachers: Shapes of the teacher's.
        base: The recipe's folder.

    Raises:
        TrainingError: The features cannot be matched by this loss.
        EdgeKitError: The loss cannot be found.
    """

    def __init__(
        self, spec: FeatureMatch, students: Sequence[Shape], teachers: Sequence[Shape], base: Path | None
    ) -> None:
        super().__init__()
        self.spec = spec
        self.loss: Callable[..., Tensor] = resolve(
            spec.loss, FEATURE_LOSSES, kind="feature loss", base=base, where="distillation.features.loss"
        )
        self.takes_labels = "labels" in inspect.signature(self.loss).parameters
        check_arguments(self.loss, spec.args, f"distillation.features.loss = {spec.loss!r}")
        self.review = Review(students, teachers) if spec.loss == "review" else None
        if self.review is None and (len(students) != 1 or len(teachers) != 1):
            raise TrainingError(
                f"{spec.loss} compares one layer of the student with one of the teacher",
                found=f"{len(students)} of the student, {len(teachers)} of the teacher",
                allowed="one of each; several for review",
            )
        self.ours, self.theirs = _bridges(spec.loss, students[0], teachers[0])

    def forward(self, students: Sequence[Tensor], teachers: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """The weighted loss of a batch's features."""
        if self.review is not None:
            found: Tensor = self.review(students, teachers)
            return self.spec.weight * found
        args = dict(self.spec.args) | ({"labels": labels} if self.takes_labels else {})
        return self.spec.weight * self.loss(self.ours(students[0]), self.theirs(teachers[0]), **args)


class Matches(nn.Module):
    """All terms of a recipe.

    Attributes:
        student_paths: Layers of the student that they look at.
        teacher_paths: Layers of the teacher.
    """

    def __init__(self, terms: Sequence[Term]) -> None:
        super().__init__()
        self.terms = nn.ModuleList(terms)
        self.student_paths = tuple(dict.fromkeys(path for term in terms for path in term.spec.student))
        self.teacher_paths = tuple(dict.fromkeys(path for term in terms for path in term.spec.teacher))

    def forward(self, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], labels: Tensor | None) -> Tensor:
        """The sum of all terms for one batch, from features by layer."""
        parts = [
            term([ours[path] for path in term.spec.student], [theirs[path] for path in term.spec.teacher], labels)
            for term in self.terms
        ]
        return torch.stack(parts).sum()


def make_matches(
    specs: Sequence[FeatureMatch],
    teacher: nn.Module,
    student: nn.Module,
    inputs: Mapping[str, Tensor],
    *,
    seed: int,
    base: Path | None = None,
) -> Matches:
    """Makes the terms of a recipe, sized by a run of both models on one batch that changes neither.

    Args:
        specs: What is matched.
        teacher: The teacher.
        student: The student.
        inputs: A batch of at least two samples.
        seed: Of the projectors' first weights; torch's random state stays.
        base: The recipe's folder, whose modules may hold losses.

    Raises:
        TrainingError: A layer is not there or gives no tensor, or its features cannot be matched.
        EdgeKitError: A loss cannot be found.
    """
    if not specs:
        return Matches(())
    ours = feature_shapes(student, [path for spec in specs for path in spec.student], inputs)
    theirs = feature_shapes(teacher, [path for spec in specs for path in spec.teacher], inputs)
    device = next(iter(inputs.values())).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        terms = [
            Term(spec, [ours[path] for path in spec.student], [theirs[path] for path in spec.teacher], base)
            for spec in specs
        ]
        matches = Matches(terms)
        matches.to(device)
        for term in terms:
            _try(term, [ours[path] for path in term.spec.student], [theirs[path] for path in term.spec.teacher], device)
    return matches


def own_losses(settings: Distillation, base: Path | None) -> list[Callable[..., Tensor]]:
    """The losses of a recipe that are the user's own code."""
    names = [settings.soft, *(spec.loss for spec in settings.features)]
    return [resolve(name, {}, kind="loss", base=base, where="distillation") for name in names if ":" in name]


def _try(term: Term, students: Sequence[Shape], teachers: Sequence[Shape], device: torch.device) -> None:
    """Calls a term on random features, so that what does not fit is told before the first batch."""
    labels = torch.arange(students[0][0], device=device)
    features = [[torch.randn(shape, device=device) for shape in shapes] for shapes in (students, teachers)]
    with torch.no_grad():
        value = term(*features, labels)
    if not isinstance(value, Tensor) or value.ndim:
        raise TrainingError(
            f"loss {term.spec.loss!r} gives no scalar",
            found=f"{type(value).__name__}{list(getattr(value, 'shape', []))}",
            allowed="a tensor without axes",
        )


def _bridges(loss: str, student: Shape, teacher: Shape) -> tuple[nn.Module, nn.Module]:
    """What comes before a loss on either side."""
    if loss == "contrastive":
        return Embedding(student, _EMBEDDING), Embedding(teacher, _EMBEDDING)
    if loss == "hints" and student != teacher:
        return Projector(student, teacher), nn.Identity()
    return nn.Identity(), nn.Identity()
