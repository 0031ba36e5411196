"""``quantize``: one model in the precision that pays, or what each part of it loses and gains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekit.cli._devices import check_wheels, device_option, wheels_option
from edgekit.cli.deploying import (
    ENGINE,
    INPUT,
    PRECISION,
    PROFILE,
    SET,
    command_line,
    ended,
    yield_cores,
)


def _print_methods(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Prints which engine has which method, and ends."""
    if not value or ctx.resilient_parsing:
        return
    from edgekit.backends.methods import ENGINES, method_table
    from edgekit.cli._output import print_table

    print_table(("precision", "method", *ENGINES), method_table())
    ctx.exit(0)


@click.command()
@click.argument("model")
@click.option("--target", metavar="NAME", required=True, help="What it is for: a target, or a .toml file.")
@click.option("--calibration", metavar="DATA", help="Samples: .npz, images by class, or module:attr.")
@click.option("--test", metavar="DATA", help="Held-out samples to judge accuracy on.")
@PRECISION
@click.option(
    "--method", metavar="NAME", help="int8: how ranges are found, or dynamic; w8, w4: round or codebook; see --methods."
)
@click.option("--correction", "corrections", metavar="NAME", multiple=True, help="Of static int8; may be given again.")
@click.option("--float", "float_nodes", metavar="NODE", multiple=True, help="Leave a node in float; again for more.")
@click.option("--trials", metavar="N", type=click.IntRange(1), help="Most plans that auto tries on one engine.")
@ENGINE
@PROFILE
@device_option
@wheels_option
@click.option("--weights", metavar="FILE", help=".safetensors, or .pt read with weights only; or `factory`: its own.")
@INPUT
@SET
@click.option("--sensitivity", is_flag=True, help="Make no bundle: show what each operator group loses and gains.")
@click.option("--groups", metavar="N", type=click.IntRange(2), help="With --sensitivity: most groups; default 12.")
@click.option("--methods", is_flag=True, is_eager=True, expose_value=False, callback=_print_methods,
              help="Show which engine has which method, and exit.")  # fmt: skip
@click.option(
    "--out", metavar="BUNDLE", type=click.Path(path_type=Path), help="The bundle's folder; default: bundles/<target>."
)
def quantize(
    model: str,
    target: str,
    calibration: str | None,
    test: str | None,
    weights: str | None,
    inputs: tuple[str, ...],
    overrides: tuple[str, ...],
    sensitivity: bool,
    groups: int | None,
    out: Path | None,
    **narrowed: Any,
) -> int:
    """Make a bundle from MODEL in the precision that pays on the target.

    MODEL is an .onnx file, package.module:factory (also of the working folder), or timm:NAME. `--precision auto`, the
    default, tries what the target's engines have, measures in turns (with --device on that device), and ships the
    fastest plan whose loss stays within the profile's limit: int8 only where it is shown to be faster than fp32. A run
    that was stopped goes on where it was.
    """
    from edgekit.recipe import recipe_for_model

    yield_cores()
    check_wheels(narrowed["devices"], narrowed["wheels"])
    settings = {
        "quantization.trials": narrowed.pop("trials"),
        "quantization.float_nodes": list(narrowed.pop("float_nodes")) or None,
    }
    given = [f"{key}={value!r}" for key, value in settings.items() if value is not None]
    recipe = recipe_for_model(
        model, weights=weights, calibration=calibration, test=test, inputs=inputs, overrides=(*given, *overrides)
    )
    bundle = out or Path("bundles") / Path(target).stem
    narrowed["corrections"] = narrowed["corrections"] or None
    if sensitivity:
        return _show_sensitivity(recipe, target, bundle, groups, narrowed)
    if groups is not None:
        raise click.UsageError("--groups goes with --sensitivity")
    return _make_bundle(recipe, target, bundle, narrowed)


def _make_bundle(recipe: Any, target: str, bundle: Path, narrowed: dict[str, Any]) -> int:
    from edgekit.cli._output import console, show_progress
    from edgekit.errors import DataError
    from edgekit.making import CALIBRATION_FIX
    from edgekit.pipeline import Choices, deploy
    from edgekit.reporting.terminal import print_report

    choices = Choices(targets=(target,), **narrowed)
    precision = choices.precision or recipe.quantization.precision
    if recipe.data is None and precision == "auto":
        raise DataError(
            "auto chooses by samples, and there are none",
            found="no --calibration",
            allowed="--calibration DATA, or a precision that needs none: w8, w4, fp16, bf16, int8 --method dynamic",
            fix=CALIBRATION_FIX,
        )
    with show_progress() as progress:
        report = deploy(
            recipe, Path.cwd(), bundle.parent, choices, progress=progress, command=command_line(), bundle=bundle.name
        )
    print_report(report, console())
    click.echo(f"report: {bundle}.report.md")
    return ended(report)


def _show_sensitivity(recipe: Any, target: str, bundle: Path, groups: int | None, narrowed: dict[str, Any]) -> int:
    from edgekit.artifact import write_json
    from edgekit.cli._output import console, show_progress
    from edgekit.disk import whole
    from edgekit.pipeline import Choices
    from edgekit.quantization.groups import MOST_GROUPS
    from edgekit.reporting.sensitivity import print_sensitivity, sensitivity_html, sensitivity_report
    from edgekit.sensitivities import find_sensitivity

    narrowed.pop("precision")
    choices = Choices(targets=(target,), precision="int8", **narrowed)
    with show_progress() as progress:
        found = find_sensitivity(
            recipe, Path.cwd(), bundle.parent, choices, most_groups=groups or MOST_GROUPS, progress=progress
        )
    for one in found:
        if one.failure:
            click.echo(f"{one.plan}: {one.failure}")
            continue
        report = sensitivity_report(
            one.groups, one.plan, one.task, name=recipe.name, model=one.model, command=command_line()
        )
        stem = f"{bundle}.sensitivity-{one.plan.engine}"
        with whole(Path(f"{stem}.json")) as path:
            write_json(path, report)
        with whole(Path(f"{stem}.html")) as path:
            path.write_text(sensitivity_html(report), encoding="utf-8")
        print_sensitivity(report, console())
        click.echo(f"picture: {stem}.html\n")
    return 0
