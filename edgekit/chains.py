"""From the teacher to the student through others: assistants between them, earlier generations, stages in order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekit.beginning import begin_student
from edgekit.ingredients import Ingredients, stage_data
from edgekit.lessons import train_student
from edgekit.progress import Progress
from edgekit.recipe import Recipe
from edgekit.teaching import TrainedModel, load_student, torch_model


def train_chain(
    recipe: Recipe,
    student: TrainedModel,
    teachers: Sequence[TrainedModel],
    data: Ingredients,
    base: Path,
    steps: Path,
    progress: Progress,
) -> TrainedModel:
    """Distils the student, through assistants and earlier generations of itself where the recipe has them.

    Assistants: S. Mirzadeh et al., "Improved Knowledge Distillation via Teacher Assistant", AAAI 2020: a student learns
    less from a teacher that is far ahead of it. Generations: T. Furlanello et al., "Born-Again Neural Networks", ICML
    2018: each begins anew, from other first weights, and learns from the one before. Stages go on with the weights.
    What a student begins with of its teacher is of the first one.
    """
    assert recipe.student is not None  # there is something to distil
    settings, first = recipe.distillation, teachers[0]
    for number, spec in enumerate(settings.assistants, start=1):
        model = torch_model(f"distillation.assistants[{number - 1}]", spec, recipe.seed, base)
        link = recipe.model_copy(update={"distillation": settings.model_copy(update={"head": None})})
        name = f"assistant-{number}"
        teachers = [train_student(link, model, teachers, data, base, steps, progress, name)]
    for number in range(1, settings.generations):
        seed = recipe.seed + number
        model = begin_student(recipe, load_student(recipe, base, seed), first, data, seed)
        name = f"generation-{number}"
        teachers = [_train_stages(recipe, model, teachers, data, base, steps, progress, name)]
    return _train_stages(recipe, student, teachers, data, base, steps, progress, "student")


def _train_stages(
    recipe: Recipe,
    student: TrainedModel,
    teachers: Sequence[TrainedModel],
    data: Ingredients,
    base: Path,
    steps: Path,
    progress: Progress,
    name: str,
) -> TrainedModel:
    """One training, or one for each stage, each going on from the weights of the one before."""
    settings = recipe.distillation
    if not settings.stages:
        return train_student(recipe, student, teachers, data, base, steps, progress, name)
    for number, table in enumerate(settings.stages):
        link = recipe.model_copy(update={"distillation": settings.stage(number)})
        own = stage_data(recipe, data, str(table["data"]), base, number) if "data" in table else data
        student = train_student(link, student, teachers, own, base, steps, progress, f"{name}-stage-{number + 1}")
    return student
