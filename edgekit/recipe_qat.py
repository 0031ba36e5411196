"""What a recipe says of training in int8: ``[qat]``."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import PositiveFloat, model_validator

from edgekit.recipe_training import Distillation


class Qat(Distillation):
    """How the student goes on learning as it will compute in int8, before it is quantised for good.

    What is trained is a traced copy of the student with fake-quantisers, taught by the student as it was in float. The
    other keys are those of ``[distillation]``, but for those that name or change layers, or bring in more models.

    Attributes:
        learning_rate: Peak rate; a tenth of what training in float takes is usual.
        weight_bits: 8; or 4: weights on 16 levels, stored two a byte and computed with as int8.
        method: How the first ranges of activations are found, as for static int8; then they are learned.
        teacher: Who teaches it: the float ``student`` itself, or the recipe's ``teacher``.
    """

    learning_rate: PositiveFloat = 1e-4
    weight_bits: Literal[8, 4] = 8
    method: str = "minmax"
    teacher: Literal["student", "teacher"] = "student"

    REFUSED: ClassVar[dict[str, str]] = {
        "features": "the traced copy calls layers, and no blocks that could be looked at",
        "teachers": "one model teaches it: qat.teacher",
        "teacher_share": "one model teaches it: qat.teacher",
        "combine": "one model teaches it: qat.teacher",
        "assistants": "it begins as the student itself",
        "generations": "it begins as the student itself",
        "stages": "it is one training",
        "peers": "it learns alone",
        "peer_weight": "it learns alone",
        "head": "a new layer would have no ranges",
        "sparse": "zeros are made in float, and those that the student has stay",
        "bn_sparsity": "BatchNorms are folded into their layers",
    }

    @model_validator(mode="before")
    @classmethod
    def _can_be_done(cls, raw: Any) -> Any:
        for key, why in cls.REFUSED.items() if isinstance(raw, dict) else ():
            default = cls.model_fields[key].default
            if key in raw and raw[key] not in (default, [] if default == () else default):
                raise ValueError(f"no {key}: {why}")
        return raw
