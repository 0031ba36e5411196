"""``compare``: which of several is faster, and whether a change made it slower than is allowed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli._devices import device_option, each_device, show_each

if TYPE_CHECKING:
    from edgekit.comparing import Settings
    from edgekit.devices.address import Address
    from edgekit.progress import Progress


def _share(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """A share that people write as ``5%``, ``5 %`` or ``0.05``."""
    if value is None:
        return None
    number, percent, rest = value.strip().partition("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        share = math.nan
    if rest or not 0 <= share < (math.inf if percent else 1):
        raise click.BadParameter(f"{value!r} is no share; write 5% or 0.05", ctx, param)
    return share


@click.command()
@click.argument("paths", metavar="A [B]...", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    metavar="REPORT",
    help="Compare with this report, run or bundle. A report's bundle is measured anew, if it still lies beside it.",
)
@click.option(
    "--max-regression",
    callback=_share,
    metavar="5%",
    help="Exit with 3 where a side is slower than this: the lower end of its ratio's interval is above it.",
)
@click.option(
    "--percentile",
    "percentiles",
    type=click.FloatRange(0, 100, min_open=True, max_open=True),
    metavar="99",
    multiple=True,
    help="Judge this percentile too, beside the median; may be given again.",
)
@click.option("--no-turns", is_flag=True, help="Use the numbers of the baseline's report, not its bundle.")
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), metavar="S", help="Time under load a side; default: 15."
)
@click.option(
    "--engine",
    type=click.Choice(["onnxruntime", "openvino"]),
    default="onnxruntime",
    show_default=True,
    help="What ONNX files run on.",
)
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Threads for ONNX files; default: the engine's.")
@click.option("--batch", type=click.IntRange(1), metavar="N", help="Samples a query; default: the bundles', else 1.")
@click.option("--input", "samples", type=click.Path(path_type=Path), metavar="X.npz", help="Samples to feed, stacked.")
@click.option("--target", metavar="NAME", help="Which target of a report that has several.")
@device_option
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write the result here too.")
def compare(
    paths: tuple[Path, ...],
    baseline: Path | None,
    json_file: Path | None,
    no_turns: bool,
    seconds: float | None,
    devices: tuple[str, ...],
    **given: Any,
) -> int:
    """Compare the latency of B and more with A, or of all with a --baseline.

    Each is a bundle, an .onnx file, a run's folder or a report. Bundles and ONNX files are measured here in turns of
    20 ms or 10 queries, 15 s a side by default: enough to find a 3% slowdown on a noisy machine. Reports are taken as
    they are, which is marked "not in turns". Intervals are of 99.5%; accuracy is not compared.

    Bundles of the same [input] and [output] are timed from raw samples to answers, whether numpy or their graphs do it;
    other sides are fed model tensors, and what is not timed is told.

    With --device they are measured there, after the golden samples of each bundle have run there: one that computes
    something else is not timed. Several devices are measured at the same time, and --json writes a list.

    Exit codes: 0 compared, no regression shown; 1 an error, or nothing could be compared; 3 a regression;
    4 inconclusive: other load spoiled a run, the sides drift apart, or one of several sides did not run. Of several
    devices the worst counts.
    """
    from edgekit.artifact import write_json
    from edgekit.cli._output import console, show_progress
    from edgekit.comparing import DEFAULT_SECONDS, Settings
    from edgekit.comparing import compare as run
    from edgekit.disk import whole
    from edgekit.reporting.comparison import print_comparison
    from edgekit.runtime.files import check_sink

    if len(paths) + (baseline is not None) < 2:
        raise click.UsageError("there is nothing to compare with: give two or more, or one and a --baseline")
    if json_file is not None:
        check_sink(json_file)
    settings = Settings(in_turns=not no_turns, seconds=seconds or DEFAULT_SECONDS, **given)
    if devices:
        return _compare_there(paths, baseline, settings, devices, json_file)
    with show_progress() as progress:
        found = run(paths, baseline=baseline, settings=settings, progress=progress)
    print_comparison(found, console())
    if json_file is not None:
        with whole(json_file) as path:
            write_json(path, found)
    return int(found["exit_code"])


def _compare_there(
    paths: Sequence[Path],
    baseline: Path | None,
    settings: Settings,
    devices: Sequence[str],
    json_file: Path | None,
) -> int:
    """Compares on devices, says what was found on each, and returns the exit code."""
    from edgekit.comparing import compare as run
    from edgekit.devices.device import opened
    from edgekit.devices.measuring import GRACE_S
    from edgekit.devices.places import place_on
    from edgekit.reporting.comparison import print_comparison

    def compare_on(address: Address, progress: Progress) -> dict[str, Any]:
        with opened(address, grace_s=GRACE_S, progress=progress) as device:
            return run(paths, baseline=baseline, settings=settings, place=place_on(device), progress=progress)

    return show_each(each_device(devices, compare_on), print_comparison, json_file)
