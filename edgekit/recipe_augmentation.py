"""What a recipe says of how training samples are varied: ``augmentation``, ``adversarial`` and groups."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from edgekit.specs import Strict

Probability = Annotated[float, Field(ge=0, le=1)]


class Augmentation(Strict):
    """How training samples are varied; teacher and student see the same view of a sample.

    Attributes:
        flip: Half of the images are mirrored, left to right.
        crop: Pixels of zeros around an image, of which a part of the old size is cut at random.
        erase: Share of the samples in which one rectangle is blanked: set to 0 in the model's tensor.
        noise: Standard deviation of Gaussian noise, in units of the model's tensor.
        mixup: ``alpha`` of the Beta distribution that pairs of samples are blended by; 0: none are.
        cutmix: Likewise for pairs that swap a rectangle; with both, each batch takes one of them.
        own: ``module:attr`` of a callable of the user's own, called before the rest as
            ``own(inputs, labels, generator)``: inputs by name, labels or None, and the ``torch.Generator`` on the CPU
            that it must draw from. It returns the inputs, or them and the labels (numbers, or shares of classes).
        views: How many different views of a sample there are; None: a new one each epoch.
    """

    flip: bool = False
    crop: NonNegativeInt = 0
    erase: Probability = 0.0
    noise: NonNegativeFloat = 0.0
    mixup: NonNegativeFloat = 0.0
    cutmix: NonNegativeFloat = 0.0
    own: str | None = None
    views: PositiveInt | None = None

    @property
    def varies(self) -> bool:
        """Whether it does anything."""
        return any((self.flip, self.crop, self.erase, self.noise, self.mixup, self.cutmix, self.own))


class Adversarial(Strict):
    """Training on inputs that are moved against the model.

    Attributes:
        attack: ``fgsm`` (one step) or ``pgd``.
        epsilon: How far each value may move, in units of the model's tensor.
        steps: Of ``pgd``.
        step: Size of a step of ``pgd``; None: a quarter of ``epsilon``.
        share: Share of each batch that is attacked.
    """

    attack: Literal["fgsm", "pgd"] = "fgsm"
    epsilon: PositiveFloat
    steps: PositiveInt = 7
    step: PositiveFloat | None = None
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
