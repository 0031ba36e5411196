"""What a recipe says of pruning to a latency budget: the table ``[pruning]``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from edgekit.recipe_training import Distillation
from edgekit.specs import Names, Strict


class Pruning(Strict):
    """Blocks and channels that are left out until the student meets its budget on the target's own engine.

    Attributes:
        budget_ms: What the median of the application clock is to be at most.
        ratio: The same as a share of the unpruned student's; of both the smaller one counts, and without both it is
            the profile's ``p50_ms``.
        max_drop_points: What may be lost against the teacher, on the samples kept for validation; None: the profile's.
        target: Where it is measured; None: the first of the recipe's.
        engine: On which engine; None: on the one that ships the unpruned student.
        steps: In how many steps the budget is neared, each by the same factor.
        blocks: Whether whole blocks may go.
        channels: Whether channels may go.
        multiple: Widths that are cut become a multiple of it; None: the target's ``channel_multiple``.
        keep: Paths of layers, or of modules with layers, that keep their channels.
        criterion: Which channels of a layer go: see :data:`edgekit.pruning.criteria.CRITERIA`.
        importance: What a move costs: the rise of the ``loss`` when it alone is made, what the ``criterion`` says, or
            what ``share`` of its stage's blocks or of its channels goes (and of equals the one the loss misses least).
        samples: Training samples that losses and criteria are computed on.
        table: A table of latencies that was measured on the device, where the target is not this host.
        last_epochs: Epochs of the last step, which meets the budget, and of one that would else break the accuracy
            limit; None: as many as of every step.
        train: How the student learns from the teacher after each step.
    """

    budget_ms: PositiveFloat | None = None
    ratio: Annotated[float, Field(gt=0, lt=1)] | None = None
    max_drop_points: NonNegativeFloat | None = None
    target: str | None = None
    engine: str | None = None
    steps: PositiveInt = 4
    blocks: bool = True
    channels: bool = True
    multiple: PositiveInt | None = None
    keep: Names = ()
    criterion: str = "taylor"
    importance: Literal["loss", "criterion", "share"] = "loss"
    samples: PositiveInt = 512
    table: str | None = None
    last_epochs: PositiveInt | None = None
    train: Distillation = Distillation()

    @model_validator(mode="after")
    def _possible(self) -> Pruning:
        if not (self.blocks or self.channels):
            raise ValueError("blocks or channels, or both: else there is nothing to leave out")
        for key in ("generations", "assistants", "stages", "head"):
            if getattr(self.train, key) != getattr(Distillation(), key):
                raise ValueError(f"no train.{key}: what was pruned is fine-tuned as it is")
        if self.train.teachers:
            raise ValueError("no train.teachers: the recipe's own teacher alone teaches what was pruned")
        return self
