"""``--device`` and ``--wheels``, and what every command does with several devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgekit.cli._output import ERROR, MET, MISSED, UNDECIDED

if TYPE_CHECKING:
    from rich.console import Console

    from edgekit.devices.address import Address
    from edgekit.devices.several import Outcome
    from edgekit.progress import Progress

ResultT = TypeVar("ResultT")

device_option = click.option(
    "--device",
    "devices",
    metavar="NAME",
    multiple=True,
    help="There, not here: ssh://user@host[:port], or a name of ~/.config/edgekit/devices.toml. May be given again.",
)
wheels_option = click.option(
    "--wheels", is_flag=True, help="With --device: send numpy and the engines, where a device has none."
)
_WORST_FIRST = (ERROR, MISSED, UNDECIDED)


def check_wheels(devices: Sequence[str], wheels: bool) -> None:
    """Refuses ``--wheels`` without a device."""
    if wheels and not devices:
        raise click.UsageError("--wheels goes with --device")


def each_device(devices: Iterable[str], work: Callable[[Address, Progress], ResultT]) -> list[Outcome[ResultT]]:
    """Does some work on the devices of a command line, all at once; one that fails says so and the others go on.

    Raises:
        SpecError: A name or the file of devices is wrong; nothing was done.
        UnknownName: There is no such device; nothing was done.
    """
    from edgekit.cli._output import print_error, show_progress
    from edgekit.devices.address import find_device
    from edgekit.devices.several import on_each

    addresses = [find_device(text) for text in dict.fromkeys(devices)]
    with show_progress() as progress:
        outcomes = on_each(addresses, work, progress)
    for outcome in outcomes:
        if outcome.error is not None:
            print_error(outcome.error)
    return outcomes


def worst(codes: Iterable[int]) -> int:
    """The exit code of several: an error before a miss, a miss before what is undecided."""
    found = set(codes)
    return next((code for code in _WORST_FIRST if code in found), MET)


def json_outcome(outcome: Outcome[Any]) -> dict[str, Any]:
    """What came of one device, as JSON."""
    from edgekit.devices.several import told

    error = told(outcome)
    found = outcome.result if error is None else {"error": error}
    return {"device": outcome.address.name, **(found or {})}


def show_each(
    outcomes: Sequence[Outcome[dict[str, Any]]],
    show: Callable[[dict[str, Any], Console], None],
    json_file: Path | None,
) -> int:
    """Shows what came of each device, writes it as a list, and gives the worst of their exit codes."""
    from edgekit.artifact import write_json
    from edgekit.cli._output import console
    from edgekit.disk import whole

    for outcome in outcomes:
        if outcome.result is not None:
            console().print(f"{outcome.address.name}:", style="bold")
            show(outcome.result, console())
    if json_file is not None:
        found = [json_outcome(outcome) if outcome.result is None else outcome.result for outcome in outcomes]
        with whole(json_file) as path:
            write_json(path, found)
    return worst(ERROR if outcome.result is None else int(outcome.result["exit_code"]) for outcome in outcomes)
