"""``edgekit watch``: what a running bundle tells of itself."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli._devices import device_option, each_device, json_outcome, worst
from edgekit.cli._output import ERROR

if TYPE_CHECKING:
    from edgekit.runtime.watch.judging import JudgedLimit
    from edgekit.runtime.watch.reading import Reading

_UNITS = {"ms": " ms", "mb": " MB", "c": " °C", "s": " s"}
_LEAST_S, _MOST_S = 1.0, 10.0


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--once", is_flag=True, help="Show it once and exit with its code.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one line a time; with --once indented.")
@device_option
def watch(path: Path, once: bool, as_json: bool, devices: tuple[str, ...]) -> int:
    """Show how the bundle at PATH does where it runs, again and again until Ctrl-C.

    PATH is a bundle that a program watches with `start_watch`, or the folder where such a watch writes; with --device,
    a bundle here or an absolute path there. The limits are the bundle's, from [watch] of its recipe. Drift and
    saturation are against the samples that calibrated it.

    With --once exits with 0 when every limit is met, 3 when one is not, 4 when one is not known yet.
    """
    while True:
        code, pause_s = _there(path, devices, once, as_json) if devices else _here(path, once, as_json)
        if once:
            return code
        time.sleep(pause_s)


def _here(path: Path, once: bool, as_json: bool) -> tuple[int, float]:
    """Shows a watch of this machine; gives its exit code, and how long to wait for news."""
    from edgekit.cli._output import print_json
    from edgekit.runtime.watch.reading import find_folder, read_watch

    reading = read_watch(find_folder(path))
    if not as_json:
        _clear(once)
        _show(reading)
    elif once:
        print_json(reading)
    else:
        _print_line(reading)
    return reading.exit_code, _LEAST_S if reading.state == "running" else _MOST_S


def _there(path: Path, devices: Sequence[str], once: bool, as_json: bool) -> tuple[int, float]:
    """Shows watches on devices, likewise; one that fails does not stop the others."""
    from edgekit.artifact import to_json
    from edgekit.cli._output import print_json
    from edgekit.devices.watching import watch_on

    outcomes = each_device(devices, lambda address, progress: watch_on(address, path, progress))
    if as_json:
        found = [json_outcome(replace(one, result=one.result and to_json(one.result))) for one in outcomes]
        print_json(found) if once else _print_line(found)
    else:
        _clear(once)
        for outcome in outcomes:
            if outcome.result is not None:
                click.echo(f"{outcome.address.name}:")
                _show(outcome.result)
    return worst(ERROR if one.result is None else one.result.exit_code for one in outcomes), _MOST_S


def _clear(once: bool) -> None:
    if not once:
        click.clear()  # does nothing but on a terminal


def _print_line(value: Any) -> None:
    import json

    from edgekit.artifact import to_json

    click.echo(json.dumps(to_json(value), allow_nan=False))


def _show(reading: Reading) -> None:
    from edgekit.cli._output import print_table, wrapped

    for line in _headline(reading):
        indent = " " * (len(line) - len(line.lstrip()))
        click.echo("\n".join(wrapped(line.lstrip(), indent, indent + "  ")))
    rows = [_limit_row(limit) for limit in reading.limits]
    print_table(("limit", "verdict", "found", "allowed", "note"), rows)


def _headline(reading: Reading) -> list[str]:
    from edgekit.runtime.watch.settings import PERCENTILES

    bundle, seen, last = reading.bundle, reading.recent, reading.last
    age = "" if reading.age_s is None else f", last line {reading.age_s:.0f} s ago"
    lines = [
        f"{bundle['name']} ({bundle['engine']} {bundle['precision']}, {bundle['id'][:16]}): {reading.state}{age}",
        f"  up {last['up_s']:.0f} s; {last['queries']} queries, {last['failed']} failed; "
        f"{last['taken']} frames, {last['dropped']} dropped",
    ]
    percentiles = [(name, ms) for name, ms in reading.latency_ms.items() if ms is not None]
    if percentiles:
        told = ", ".join(f"p{100 * PERCENTILES[name]:g} {ms:.3g}" for name, ms in percentiles)
        lines.append(f"  last {seen.seconds:.0f} s: {sum(seen.latency.values())} queries, ms: {told}")
    lines.append(f"  {_machine(last)}")
    statistics = reading.statistics
    if statistics is None:
        lines.append("  drift and saturation are not judged: the bundle has no statistics")
    else:
        lines.append(f"  values against {statistics['samples']} {statistics['source']} samples:")
        lines += [f"    {line}" for line in _tensors(last, statistics)]
    if last["write_failures"]:
        lines.append(f"  {_counted(last['write_failures'], 'file')} could not be written")
    if reading.broken_lines:
        lines.append(f"  {_counted(reading.broken_lines, 'line')} cannot be read: cut off by a kill or a full disk")
    return lines


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _machine(last: Any) -> str:
    def told(key: str, unit: str) -> str:
        return "unknown" if last[key] is None else f"{last[key]:.0f} {unit}"

    return (
        f"memory {told('memory_mb', 'MB')}, peak {told('memory_peak_mb', 'MB')}; "
        f"left on the machine {told('memory_available_mb', 'MB')}; temperature {told('temperature_c', '°C')}"
    )


def _tensors(last: Any, statistics: Mapping[str, Any]) -> list[str]:
    lines = []
    needed = f" of {statistics['window']}" if "window" in statistics else ""
    for side in ("inputs", "outputs"):
        for name, state in last[side].items():
            if state["drift"] is None:
                lines.append(f"{side[:-1]} {name!r}: {state['samples']}{needed} samples, not enough for drift yet")
                continue
            worst = max(range(len(state["drift"])), key=state["drift"].__getitem__)
            lines.append(
                f"{side[:-1]} {name!r}: drift {state['drift'][worst]:.3f} (channel {worst}), "
                f"{100 * max(state['saturated']):.2g}% out of range, {state['not_finite']} not finite"
            )
    return lines


def _limit_row(limit: JudgedLimit) -> tuple[str, str, str, str, str]:
    unit = _UNITS.get(limit.name.rpartition("_")[2], "")
    found = "-" if limit.found is None else f"{limit.found:.4g}{unit}"
    return limit.name, limit.status, found, f"{limit.limit:.4g}{unit}", limit.note
