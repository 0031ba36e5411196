"""``edgekit prune``."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from edgekit.cli._devices import check_wheels, device_option, wheels_option
from edgekit.cli.deploying import ENGINE, OUT, PROFILE, RECIPE, SET, alone, yield_cores


@click.command()
@RECIPE
@click.option("--budget", metavar="MS", type=float, help="Most that the median may be; default: the profile's p50_ms.")
@click.option("--ratio", metavar="SHARE", type=float, help="The same as a share of the unpruned student's, e.g. 0.5.")
@click.option("--target", metavar="NAME", help="Prune for this target instead of the recipe's.")
@ENGINE
@PROFILE
@device_option
@wheels_option
@click.option("--table-only", is_flag=True, help="Only measure what each block and width takes, as on a device.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@SET
@OUT
def prune(
    recipe: Path,
    budget: float | None,
    ratio: float | None,
    target: str | None,
    engine: str | None,
    profile: str | None,
    devices: tuple[str, ...],
    wheels: bool,
    table_only: bool,
    as_json: bool,
    overrides: tuple[str, ...],
    out: Path | None,
) -> int:
    """Leave blocks and channels out of the student of RECIPE (a file, or its folder) until it meets a latency budget.

    What each block and width takes is measured on the target's own engine, with --device on that device; in steps the
    shape that keeps most within the budget is compiled, measured, fine-tuned with distillation from the unpruned
    teacher, and measured again. It ends at the budget, or at the limit of accuracy. Every step's weights go to
    DIR/pruned, accuracy against latency to DIR/pruning.html. A later deploy into the same DIR does nothing of it again;
    one that was killed goes on.

    Exit codes: 0 within the budget, 3 not, 4 where latencies were not measured because this host is not the target.
    """
    from edgekit.cli._output import console, print_json, show_progress
    from edgekit.pipeline import Choices
    from edgekit.recipe import load_recipe, recipe_file
    from edgekit.reporting.terminal import print_pruning
    from edgekit.shrinking.prune_recipe import prune_recipe, with_budget
    from edgekit.shrinking.report import PRUNING_HTML, STEPS, TABLE_JSON

    yield_cores()
    alone("prune")
    check_wheels(devices, wheels)
    if budget is not None and ratio is not None:
        raise click.UsageError("--budget or --ratio, not both")
    loaded = with_budget(load_recipe(recipe, overrides), budget, ratio)
    folder = out or Path("runs") / loaded.name
    targets = (target,) if target else ()
    choices = Choices(targets=targets, engine=engine, profile=profile, devices=devices, wheels=wheels)
    base = recipe_file(recipe).resolve().parent
    with show_progress() as progress:
        report, code = prune_recipe(loaded, base, folder, choices, table_only=table_only, progress=progress)
    if as_json:
        print_json(report)
        return code
    if table_only:
        _print_table(report)
        click.echo(f"table: {folder / TABLE_JSON}")
        return code
    print_pruning(report, console())
    click.echo(f"every step: {folder / STEPS}\npicture: {folder / PRUNING_HTML}")
    device = next(iter(devices), None)  # of one target there is one
    options = {"--target": target, "--engine": engine, "--profile": profile, "--device": device, "--out": out}
    budgets = {"budget_ms": budget, "ratio": ratio}
    given = [f"pruning.{key}={value!r}" for key, value in budgets.items() if value is not None]
    click.echo(_next(recipe, options, (*overrides, *given)))
    return code


def _next(recipe: Path, options: Mapping[str, object], overrides: Iterable[str]) -> str:
    """The deployment of what was pruned: with every choice that was made here, or it would prune anew."""
    words = ["edgekit", "deploy", str(recipe)]
    for name, value in options.items():
        words += [] if value is None else [name, str(value)]
    for override in overrides:
        words += ["--set", override]
    return f"next: {shlex.join(words)}"


def _print_table(table: dict[str, Any]) -> None:
    from edgekit.cli._output import print_table

    click.echo(f"{table['engine']} {table['precision']}: {table['whole_us'] / 1e3:.3f} ms unpruned, {table['source']}")
    print_table(
        ("group", "like it", "move", "saves, µs", "interval"),
        [
            (
                row["group"],
                str(row["members"]),
                row["move"],
                f"{row['saved_us']:.1f}",
                f"[{row['low_us']:.1f}, {row['high_us']:.1f}]",
            )
            for row in table["rows"]
        ],
    )
