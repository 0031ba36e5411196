"""What a recipe says of the student: a model of its own, or a copy of the teacher that is cut down."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from edgekit.recipe_training import ModelSpec

COPY = "teacher"  # what ``student.model`` is called where it is a copy of the teacher

Share = Annotated[float, Field(gt=0, lt=1)]
Numbers = Annotated[tuple[NonNegativeInt, ...], Field(strict=False, min_length=1)]


class StudentSpec(ModelSpec):
    """The small model: where it comes from, and what it begins with of the teacher.

    Attributes:
        model: As for the teacher; or ``teacher``: a copy of the recipe's teacher as it stands before it teaches, cut
            by what follows.
        depth: Share of the blocks that is kept in every list of them, evenly spread.
        keep: Blocks that are kept, by number from 0, by module path of their list; ``depth`` is for the other lists.
        width: Share of the channels that is kept in every layer; inputs and outputs stay.
        embeddings: Rank that embedding tables are cut to.
        initial: The copy's weights: the ``teacher``'s, or fresh ``random`` ones.
        take: For a model of its own: teacher's weights that it begins with, ``{ "student.path" = "teacher.path" }``.
        larger: Whether it may have more parameters than its teacher.
    """

    model: str = COPY
    depth: Share | None = None
    keep: dict[str, Numbers] = Field(default_factory=dict)
    width: Share | None = None
    embeddings: PositiveInt | None = None
    initial: Literal["teacher", "random"] = "teacher"
    take: dict[str, str] = Field(default_factory=dict)
    larger: bool = False

    @property
    def is_copy(self) -> bool:
        """Whether it is a copy of the teacher."""
        return self.model == COPY

    @property
    def cuts(self) -> dict[str, object]:
        """What is done to a copy of the teacher, by key."""
        keys: dict[str, object] = {"depth": None, "keep": {}, "width": None, "embeddings": None, "initial": "teacher"}
        return {key: getattr(self, key) for key, default in keys.items() if getattr(self, key) != default}
