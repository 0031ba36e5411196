"""``--device`` and ``--wheels``, and what every command does with several devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgekit.cli._output import ERROR, MET, MISSED, UNDECIDED

if TYPE_CHECKING:
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
    "--wheels", is_flag=True, help="With --device: send numpy and the engine, where a device has none."
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
    from edgekit.cli._output import show_progress
    from edgekit.devices.address import find_device
    from edgekit.devices.several import on_each

    addresses = [find_device(text) for text in dict.fromkeys(devices)]
    with show_progress() as progress:
        outcomes = on_each(addresses, work, progress)
    for outcome in outcomes:
        if outcome.error is not None:
            click.echo(f"error: {outcome.error}", err=True)
    return outcomes


def worst(codes: Iterable[int]) -> int:
    """The exit code of several: an error before a miss, a miss before what is undecided."""
    found = set(codes)
    return next((code for code in _WORST_FIRST if code in found), MET)


def json_outcome(outcome: Outcome[Any]) -> dict[str, Any]:
    """What came of one device, as JSON."""
    from edgekit.devices.several import told

    named = {"device": outcome.address.name}
    error = told(outcome)
    return named | ({"error": error} if error is not None else outcome.result)
