"""``deploy``, ``distill``, ``export`` and ``report``: commands that run a recipe or show a finished run."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

RECIPE = click.argument("recipe", type=click.Path(path_type=Path))
OUT = click.option("--out", type=click.Path(path_type=Path), help="Folder for bundles, report and steps.")
PRECISION = click.option("--precision", type=click.Choice(["auto", "fp32", "int8"]), help="What ships.")
ENGINE = click.option("--engine", metavar="NAME", help="Try only this engine.")
PROFILE = click.option("--profile", metavar="NAME", help="What must be met.")
SET = click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Override a key of the recipe.")


@click.command()
@RECIPE
@click.option("--target", "targets", metavar="NAME", multiple=True, help="Deploy on this target (repeatable).")
@ENGINE
@PROFILE
@PRECISION
@SET
@OUT
def deploy(
    recipe: Path,
    targets: tuple[str, ...],
    engine: str | None,
    profile: str | None,
    precision: str | None,
    overrides: tuple[str, ...],
    out: Path | None,
) -> int:
    """Run RECIPE (a file, or a folder with an edgekit.toml) from the teacher to a proven bundle.

    Bundles go to OUT/<target>, the report to OUT/report.json and OUT/report.md; OUT is runs/<recipe name> unless
    given. A run that was stopped goes on where it was.
    """
    from edgekit.cli._output import console, show_progress
    from edgekit.pipeline import Choices
    from edgekit.pipeline import deploy as run
    from edgekit.recipe import load_recipe, recipe_file
    from edgekit.reporting.terminal import print_report

    loaded = load_recipe(recipe, overrides)
    folder = out or Path("runs") / loaded.name
    choices = Choices(targets=targets, engine=engine, profile=profile, precision=precision)
    with show_progress() as progress:
        report = run(
            loaded, recipe_file(recipe).resolve().parent, folder, choices, progress=progress, command=_command()
        )
    print_report(report, console())
    click.echo(f"report: {folder / 'report.md'}")
    return int(report["exit_code"])


@click.command()
@RECIPE
@SET
@OUT
def distill(recipe: Path, overrides: tuple[str, ...], out: Path | None) -> int:
    """Train the teacher of RECIPE where it asks for it, and distil its student.

    Weights go to OUT/teacher.safetensors and OUT/student.safetensors; a later deploy into the same OUT uses them.
    """
    from edgekit.cli._output import console, print_table, show_progress
    from edgekit.pipeline import distill_recipe
    from edgekit.recipe import load_recipe, recipe_file

    loaded = load_recipe(recipe, overrides)
    folder = out or Path("runs") / loaded.name
    with show_progress() as progress:
        rows = distill_recipe(loaded, recipe_file(recipe).resolve().parent, folder, progress)
    print_table(("", "model", "parameters", "score", "drop, points", "weights"), rows)
    console().print(f"steps are kept in {folder}; `edgekit deploy {recipe}` goes on from here")
    return 0


@click.command()
@click.argument("model")
@click.option("--target", "target", metavar="NAME", required=True, help="Deploy on this target.")
@ENGINE
@PROFILE
@PRECISION
@click.option("--calibration", metavar="DATA", help="Samples: .npz, images by class, or module:attr.")
@click.option("--test", metavar="DATA", help="Held-out samples to judge accuracy on.")
@click.option("--weights", metavar="FILE", help=".safetensors, or .pt read with weights only.")
@click.option("--input", "inputs", metavar="NAME=f32[1,3,224,224]", multiple=True, help="Shape of an input.")
@SET
@click.option("--out", type=click.Path(path_type=Path), help="Where the bundle goes (bundles/<target>).")
def export(
    model: str,
    target: str,
    engine: str | None,
    profile: str | None,
    precision: str | None,
    calibration: str | None,
    test: str | None,
    weights: str | None,
    inputs: tuple[str, ...],
    overrides: tuple[str, ...],
    out: Path | None,
) -> int:
    """Make a bundle from MODEL without a recipe.

    MODEL is package.module:factory, timm:NAME or an .onnx file. Without --calibration only fp32 can be made, and
    nothing is known of its accuracy.
    """
    from edgekit.cli._output import console, show_progress
    from edgekit.pipeline import Choices
    from edgekit.pipeline import deploy as run
    from edgekit.recipe import recipe_for_model
    from edgekit.reporting.terminal import print_report

    recipe = recipe_for_model(
        model, weights=weights, calibration=calibration, test=test, inputs=inputs, overrides=overrides
    )
    bundle = out or Path("bundles") / target
    choices = Choices(targets=(target,), engine=engine, profile=profile, precision=precision)
    with show_progress() as progress:
        report = run(
            recipe, Path.cwd(), bundle.parent, choices, progress=progress, command=_command(), bundle=bundle.name
        )
    print_report(report, console())
    return int(report["exit_code"])


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
@click.option("--md", "as_markdown", is_flag=True, help="The report as Markdown.")
def report(run: Path, as_json: bool, as_markdown: bool) -> int:
    """Print the report of a finished RUN (its folder or report.json) again, and exit as the run did."""
    from edgekit.cli._output import console, print_json
    from edgekit.reporting.report import load_report

    found = load_report(run)
    if as_json:
        print_json(found)
    elif as_markdown:
        from edgekit.reporting.markdown import to_markdown

        click.echo(to_markdown(found), nl=False)
    else:
        from edgekit.reporting.terminal import print_report

        print_report(found, console())
    return int(found["exit_code"])


def _command() -> str:
    """The command line as typed, for the report."""
    arguments: list[Any] = ["edgekit", *sys.argv[1:]]
    return shlex.join(arguments)
