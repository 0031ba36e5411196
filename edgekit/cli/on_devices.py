"""``verify``, ``profile`` and ``doctor`` with ``--device``: the same, there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli._devices import each_device, json_outcome, show_each, worst
from edgekit.cli._output import ERROR, MET, MISSED, console, print_json, print_verified
from edgekit.cli.catalogue import host_line

if TYPE_CHECKING:
    from edgekit.devices.address import Address
    from edgekit.progress import Progress


def verify_there(bundle: Path, devices: Sequence[str], *, wheels: bool, as_json: bool) -> int:
    """Verifies a bundle on devices, says what was found on each, and returns the exit code."""
    from edgekit.artifact import to_json
    from edgekit.devices.device import opened
    from edgekit.devices.verifying import needed_mb, verify_on
    from edgekit.runtime.manifest import read_manifest

    manifest = read_manifest(bundle)  # what is damaged here need not be sent
    memory_mb = needed_mb(bundle, manifest)

    def verify(address: Address, progress: Progress) -> dict[str, Any]:
        sent = [manifest.engine] if wheels else ()
        opening = opened(
            address, engine=manifest.engine, wheels=sent, memory_mb=memory_mb, grace_s=1.0, progress=progress
        )
        with opening as device:
            found = verify_on(device, bundle, progress)
            return {"host": to_json(device.host), **to_json(found)}

    outcomes = each_device(devices, verify)
    if as_json:
        print_json([json_outcome(outcome) for outcome in outcomes])
    for outcome in outcomes if not as_json else ():
        if outcome.result is not None:
            found = outcome.result
            print_verified(f"{outcome.address.name}: {bundle}", found["passed"], found["messages"])
    return worst(
        ERROR if outcome.result is None else MET if outcome.result["passed"] else MISSED for outcome in outcomes
    )


def profile_there(
    bundle: Path,
    name: str | None,
    folders: Sequence[Path],
    devices: Sequence[str],
    *,
    wheels: bool,
    json_file: Path | None,
) -> int:
    """Measures a bundle on devices, shows what came of each, and returns the exit code."""
    from edgekit.reporting.terminal import print_profile
    from edgekit.runtime.manifest import read_manifest
    from edgekit.timing import profile_bundle_on

    read_manifest(bundle)  # what is damaged here need not be sent

    def measure(address: Address, progress: Progress) -> dict[str, Any]:
        return profile_bundle_on(address, bundle, name, folders, wheels=wheels, progress=progress)

    return show_each(each_device(devices, measure), print_profile, json_file)


def examine_there(devices: Sequence[str], folders: Sequence[Path], *, as_json: bool) -> int:
    """Says what devices are, which engines run there and which targets they are; returns the exit code."""
    from edgekit.devices.examining import examine

    outcomes = each_device(devices, lambda address, progress: examine(address, folders, progress))
    if as_json:
        print_json([json_outcome(outcome) for outcome in outcomes])
    for outcome in outcomes if not as_json else ():
        if outcome.result is not None:
            _show_device(outcome.address.name, outcome.result)
    return worst(ERROR if outcome.result is None or not outcome.result["runs"] else MET for outcome in outcomes)


def clean_there(devices: Sequence[str], *, as_json: bool) -> int:
    """Removes from devices what EdgeKit keeps there and nobody uses; returns the exit code."""
    from edgekit.devices.clearing import clean_on

    outcomes = each_device(devices, clean_on)
    if as_json:
        print_json([json_outcome(outcome) for outcome in outcomes])
    for outcome in outcomes if not as_json else ():
        if outcome.result is not None:
            found = outcome.result
            click.echo(f"{outcome.address.name}: removed {found['removed_mb']:.1f} MB of {found['root']}")
            for why, folders in (("in use", found["kept"]), ("cannot be removed", found["left"])):
                for folder in folders:
                    click.echo(f"  stays, {why}: {folder}")
            if found["plans"]["mb"]:
                click.echo(f"  stay, for programs there: {_plans(found['plans'])}")
    failed = any(outcome.result is None or outcome.result["left"] for outcome in outcomes)
    return ERROR if failed else MET


def _keeps(found: dict[str, Any]) -> str:
    """What EdgeKit keeps on a device, in words."""
    kinds = (("kit", "runtimes"), ("wheels", "wheels"), ("bundles", "bundles and samples"))
    parts = [f"{word} {found[kind]['mb']:.1f} MB ({found[kind]['count']})" for kind, word in kinds]
    plans = f"; {_plans(found['plans'])}" if found["plans"]["mb"] else ""
    return f"{found['mb']:.1f} MB in {found['root']}: {', '.join(parts)}; --clean removes them{plans}"


def _plans(found: dict[str, Any]) -> str:
    return f"{found['mb']:.1f} MB of TensorRT plans in {found['folder']}"


def _show_device(name: str, found: dict[str, Any]) -> None:
    from edgekit.cli.doctor import labelled, timing_facts
    from edgekit.profiling.conditions import parse_conditions
    from edgekit.profiling.measured import parse_host

    host, python, timing = parse_host(found["host"]), found["python"], found["timing"]
    conditions = parse_conditions(timing["conditions"])
    packages = ", ".join(f"{package} {version}" for package, version in found["packages"].items())
    lines = [
        *labelled("device", f"{name}: {host_line(host)}, {host.os}"),
        *labelled("python", f"{python['version']} at {python['path']}, {python['libc']}; {packages or 'no packages'}"),
        *labelled("left", f"{found['memory_left_mb']:.0f} MB of memory, {found['free_mb']:.0f} MB of disk"),
        *labelled("timing", ", ".join(timing_facts(conditions, timing["clock_source"]))),
    ]
    advice = [*timing["advice"], *(note for note in (found["clock"], found["alone"]) if note)]
    for line in advice:
        lines += labelled("", f"- {line}", hanging="  ")
    runs = [engine for engine, why in found["engines"].items() if why is None]
    lines += labelled("engines", ", ".join(runs) or "none runs there: give --wheels to send one")
    for engine, why in found["engines"].items():
        lines += [] if why is None else labelled("", f"- {engine} does not run there: {why}", hanging="  ")
    targets = [target["name"] for target in found["targets"] if target["mismatch"] is None]
    lines += labelled("targets", ", ".join(targets) or "it is none of the targets (`edgekit targets`)")
    lines += labelled("kept", _keeps(found["keeps"]))
    for line in lines:
        console().print(line, soft_wrap=True)
