"""``deploy``, ``distill`` and ``export``: commands that run a recipe."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from edgekit.cli._devices import check_wheels, device_option, wheels_option

RECIPE = click.argument("recipe", type=click.Path(path_type=Path))
OUT = click.option(
    "--out", metavar="DIR", type=click.Path(path_type=Path), help="Folder of the run; default: runs/<recipe name>."
)
PRECISION = click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "fp16", "bf16", "fp8", "int8", "w8", "w4"]),
    help="auto: the fastest that meets every limit; w8, w4: weights alone.",
)
ENGINE = click.option("--engine", metavar="NAME", help="Try only this engine of the target.")
PROFILE = click.option("--profile", metavar="NAME", help="What must be met: a profile, or a .toml file.")
SET = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Override a key of the recipe, e.g. distillation.epochs=5; may be given again.",
)

INPUT = click.option(
    "--input",
    "inputs",
    metavar="NAME=f32[1,3,224,224]",
    multiple=True,
    help="Shape of an input, for a model without data; may be given again.",
)


@click.command()
@RECIPE
@click.option(
    "--target",
    "targets",
    metavar="NAME",
    multiple=True,
    help="Deploy on this target (or .toml file) instead of the recipe's; may be given again.",
)
@ENGINE
@PROFILE
@PRECISION
@device_option
@wheels_option
@SET
@OUT
def deploy(
    recipe: Path,
    targets: tuple[str, ...],
    engine: str | None,
    profile: str | None,
    precision: str | None,
    devices: tuple[str, ...],
    wheels: bool,
    overrides: tuple[str, ...],
    out: Path | None,
) -> int:
    """Run RECIPE (a file, or a folder with an edgekit.toml) from the teacher to a proven bundle.

    Bundles go to DIR/<target>, the report to DIR/report.json and DIR/report.md. A run that was stopped goes on where
    it was, and what is unchanged since an earlier run in DIR is not done again.

    With --device latencies are measured there, after the golden samples of each candidate have run there, and the
    verdict is the device's: each target takes the first device that is what its file says.
    """
    from edgekit.cli._output import console, show_progress
    from edgekit.pipeline import Choices
    from edgekit.pipeline import deploy as run
    from edgekit.recipe import load_recipe, recipe_file
    from edgekit.reporting.terminal import print_report

    yield_cores()
    alone("deploy")
    check_wheels(devices, wheels)
    loaded = load_recipe(recipe, overrides)
    folder = out or Path("runs") / loaded.name
    choices = Choices(
        targets=targets, engine=engine, profile=profile, precision=precision, devices=devices, wheels=wheels
    )
    with show_progress() as progress:
        report = run(
            loaded, recipe_file(recipe).resolve().parent, folder, choices, progress=progress, command=command_line()
        )
    print_report(report, console())
    click.echo(f"report: {folder / 'report.md'}")
    return ended(report)


@click.command()
@RECIPE
@SET
@OUT
def distill(recipe: Path, overrides: tuple[str, ...], out: Path | None) -> int:
    """Train the teacher of RECIPE where it asks for it, and distil its student.

    Weights go to DIR/teacher.safetensors and DIR/student.safetensors; where there is a labelled test set, what the
    student kept of its teacher, class by class, goes to DIR/kept.json. A later deploy into the same DIR trains nothing
    again. A training that was killed goes on from its last checkpoint. On several GPUs or machines:

    torchrun --nproc_per_node 4 -m edgekit distill RECIPE
    """
    from edgekit.cli._output import print_table, show_progress
    from edgekit.distilling import distill_recipe
    from edgekit.keeping import KEPT_JSON, read_kept
    from edgekit.ranks import is_main
    from edgekit.recipe import load_recipe, recipe_file
    from edgekit.reporting.kept import kept_table

    yield_cores()
    loaded = load_recipe(recipe, overrides)
    folder = out or Path("runs") / loaded.name
    base = recipe_file(recipe).resolve().parent
    if not is_main():  # the first process writes and speaks for all
        distill_recipe(loaded, base, folder)
        return 0
    with show_progress() as progress:
        rows = distill_recipe(loaded, base, folder, progress)
    print_table(("", "model", "parameters", "score", "drop, points"), [row[:5] for row in rows])
    kept = read_kept(folder)
    if kept is not None:
        header, lines = kept_table(kept)
        print_table(header, [tuple(line) for line in lines])
    for row in rows:
        for text in row[5:]:
            click.echo(f"{row[0]}: {text}")
    if kept is not None:
        click.echo(f"kept: {folder / KEPT_JSON}")
    out_option = f" --out {shlex.quote(str(out))}" if out else ""
    later = " and ".join(f"[{key}]" for key in ("pruning", "qat") if getattr(loaded, key) is not None)
    also = f"  # does {later} too, which distilling leaves out" if later else ""
    click.echo(f"next: edgekit deploy {shlex.quote(str(recipe))}{out_option}{also}")
    return 0


@click.command()
@click.argument("model")
@click.option("--target", metavar="NAME", required=True, help="What it is for: a target, or a .toml file.")
@ENGINE
@PROFILE
@PRECISION
@click.option("--calibration", metavar="DATA", help="Samples for int8: .npz, images by class, or module:attr.")
@click.option("--test", metavar="DATA", help="Held-out samples to judge accuracy on.")
@click.option("--weights", metavar="FILE", help=".safetensors, or .pt read with weights only; or `factory`: its own.")
@INPUT
@SET
@click.option(
    "--out", metavar="BUNDLE", type=click.Path(path_type=Path), help="The bundle's folder; default: bundles/<target>."
)
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

    MODEL is package.module:factory (also of the working folder), timm:NAME, or an .onnx file. Without --calibration
    only fp32 is made, and nothing is known of its accuracy; without --test agreement with MODEL is shown, not judged.
    The report lies beside the bundle.
    """
    from edgekit.cli._output import console, show_progress
    from edgekit.pipeline import Choices
    from edgekit.pipeline import deploy as run
    from edgekit.recipe import recipe_for_model
    from edgekit.reporting.terminal import print_report

    yield_cores()
    recipe = recipe_for_model(
        model, weights=weights, calibration=calibration, test=test, inputs=inputs, overrides=overrides
    )
    bundle = out or Path("bundles") / Path(target).stem
    choices = Choices(targets=(target,), engine=engine, profile=profile, precision=precision)
    with show_progress() as progress:
        report = run(
            recipe, Path.cwd(), bundle.parent, choices, progress=progress, command=command_line(), bundle=bundle.name
        )
    print_report(report, console())
    click.echo(f"report: {bundle}.report.md")
    return ended(report)


def ended(report: dict[str, Any]) -> int:
    """The exit code of a run; where every candidate of a target failed, their reasons are an error.

    Raises:
        EdgeKitError: Nothing ships for a target because no candidate came through.
    """
    from edgekit.errors import EdgeKitError

    for target in report["targets"]:
        if target["exit_code"] == EdgeKitError.exit_code:
            reasons: dict[str, list[str]] = {}
            for candidate in target["candidates"]:
                if candidate["failure"]:
                    reasons.setdefault(candidate["failure"], []).append(candidate["plan"])
            tried = [f"{', '.join(plans)}: {reason}" for reason, plans in reasons.items()]
            if len(tried) == 1:
                raise EdgeKitError(f"nothing ships for {target['target']}: {tried[0]}")
            raise EdgeKitError(f"nothing ships for {target['target']}: every candidate failed", found="\n".join(tried))
    return int(report["exit_code"])


def alone(command: str) -> None:
    """Refuses to measure in several processes at once.

    Raises:
        EdgeKitError: This is one of several.
    """
    from edgekit.errors import EdgeKitError
    from edgekit.ranks import processes

    if processes() > 1:
        raise EdgeKitError(
            f"{command} measures latency, so it runs in one process",
            found=f"WORLD_SIZE={processes()}",
            fix=f"torchrun … -m edgekit distill RECIPE trains in several; then run edgekit {command} without torchrun",
        )


def yield_cores() -> None:
    """Lets torch's threads sleep while they wait, unless the user says otherwise; before torch is imported.

    Spinning threads are a little faster on idle cores, and several times slower where anything else runs.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def command_line() -> str:
    """The command line as typed, for the report."""
    arguments: list[Any] = ["edgekit", *sys.argv[1:]]
    return shlex.join(arguments)
