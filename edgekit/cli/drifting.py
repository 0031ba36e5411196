"""``inspect --drift``: where a model parts from itself on its way to the engine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgekit.drift.line import Drift
    from edgekit.drift.walking import Step

AROUND = 4  # steps shown before and after one that parts
MARK = "<-"
HEADINGS = ("tensor", "stage", "dB", "in all", "range before", "range", "")


def show_drift(
    model: Path,
    target: str | None,
    *,
    engine: str | None,
    precision: str | None,
    weights: str | None,
    calibration: str | None,
    test: str | None,
    inputs: tuple[str, ...],
    overrides: tuple[str, ...],
    out: Path | None,
    as_json: bool,
) -> int:
    """Walks a model of a recipe, or one that ``export`` takes, through its stages, and prints what parts where.

    Raises:
        EdgeKitError: See :func:`edgekit.drift.line.find_drift`.
    """
    from edgekit.cli._output import print_json, show_progress
    from edgekit.drift.line import find_drift
    from edgekit.recipe import load_recipe, recipe_file, recipe_for_model

    if recipe_file(model).suffix == ".toml" and recipe_file(model).is_file():
        recipe, base = load_recipe(model, overrides), recipe_file(model).resolve().parent
    else:
        if target is None:
            raise click.UsageError("--drift needs --target NAME: what the model is quantised and compiled for")
        base = Path.cwd()
        recipe = recipe_for_model(
            str(model), weights=weights, calibration=calibration, test=test, inputs=inputs, overrides=overrides
        )
    name = target or recipe.targets[0]
    with show_progress() as progress:
        found = find_drift(recipe, base, name, engine=engine, precision=precision, out=out, progress=progress)
    if as_json:
        print_json({"model": str(model), "target": name, "drifts": found})
        return 0
    for drift in found:
        _print(drift)
    return 0


def _print(drift: Drift) -> None:
    from edgekit.cli._output import print_table, wrapped

    if drift.failure is not None:
        click.echo(f"{drift.plan} failed: {drift.failure}\n")
        return
    click.echo(f"{drift.plan}: {' -> '.join(drift.stages)}")
    told = [f"{stage}: {_told(drift, stage, floor)}" for stage, floor in drift.floors_db.items()]
    for line in (*told, *(f"note: {note}" for note in drift.notes)):
        click.echo("\n".join(wrapped(line, "  ", "    ")))
    kept = shown(drift.steps, drift.first.values())
    print_table(HEADINGS, [_row(step, drift) for step in kept])
    if len(kept) < len(drift.steps):
        click.echo(f"{len(drift.steps) - len(kept)} more steps are in --json\n")


def shown(steps: Sequence[Step], parting: Iterable[Step]) -> list[Step]:
    """The steps around those that part, the lowest of each stage, and the last ones: those of the outputs."""
    first = list(parting)
    keep: set[int] = set()
    for stage in dict.fromkeys(step.stage for step in steps):
        own = [i for i, step in enumerate(steps) if step.stage == stage]
        places = [own.index(i) for i in own if steps[i] in first]
        for place in places:
            keep.update(own[max(0, place - AROUND) : place + AROUND + 1])
        keep.add(min(own, key=lambda i: steps[i].db))
        keep.add(own[-1])
    return [step for i, step in enumerate(steps) if i in keep]


def _told(drift: Drift, stage: str, floor: float) -> str:
    step = drift.first.get(stage)
    own = [s for s in drift.steps if s.stage == stage]
    if step is None:
        lowest = min(own, key=lambda s: s.db, default=None)
        best = f"; the lowest, {lowest.tensor!r}, has {lowest.db:.1f} dB" if lowest is not None else ""
        return f"none of {len(own)} tensors parts (floor {floor:.0f} dB){best}"
    return (
        f"{step.tensor!r} ({step.op}) is the first of {len(own)} tensors to part from {step.before}: {step.db:.1f} dB "
        f"(floor {floor:.0f} dB), range {_range(step.before_range)} before, {_range(step.range)} after"
    )


def _row(step: Step, drift: Drift) -> tuple[str, ...]:
    first = drift.first.get(step.stage) == step
    return (
        step.tensor,
        step.stage,
        f"{step.db:.1f}",
        f"{step.reference_db:.1f}",
        _range(step.before_range),
        _range(step.range),
        MARK if first else "",
    )


def _range(ends: tuple[float, float]) -> str:
    low, high = (f"{end:.3g}" if math.isfinite(end) else "?" for end in ends)
    return f"{low}…{high}"
