"""Devices as places that measure for targets: looked at before any work, opened again whenever they measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from edgekit.devices.address import Address, find_device
from edgekit.devices.device import Device, opened
from edgekit.devices.measuring import measure_at, measure_on
from edgekit.errors import DeviceError, SpecError
from edgekit.places import Place
from edgekit.progress import Progress, silent
from edgekit.runtime import ENGINES, engine_version
from edgekit.specs import Target, mismatch


def places_for(
    targets: Sequence[Target],
    devices: Sequence[str],
    *,
    engine: str | None = None,
    wheels: bool = False,
    progress: Progress = silent,
) -> Mapping[str, Place]:
    """The device that measures for each target: one that is what the target asks for, and each has one at least.

    Args:
        targets: The targets.
        devices: Devices as they are named on the command line.
        engine: The only engine that is wanted there; None: several may be.
        wheels: Whether to send numpy and that engine to a device that has none.
        progress: Told what is sent.

    Returns:
        Places by the target's name; targets that no device is are not in it.

    Raises:
        DeviceError: A device cannot be used, or is none of the targets.
        SpecError: A name is no device's.
    """
    only = targets[0] if len(targets) == 1 else None
    fits: list[tuple[Place, list[str]]] = []
    for text in devices:
        place = place_at(find_device(text), only, engine, wheels=wheels, progress=progress)
        fits.append((place, [target.name for target in targets if mismatch(target, place.host) is None]))
    found: dict[str, Place] = {}
    for place, names in sorted(fits, key=lambda fit: len(fit[1])):  # who has least choice comes first
        if not names:
            raise _stranger(place, targets)
        left = [name for name in names if name not in found]
        if not left:
            raise DeviceError(
                f"no target is left for the device {place.name}",
                found=", ".join(f"{name}: {found[name].name}" for name in names),
                allowed="as many devices as there are targets, or fewer",
            )
        found[left[0]] = place
    others = {name: place for place, names in reversed(fits) for name in names}
    return others | found


def _stranger(place: Place, targets: Sequence[Target]) -> DeviceError:
    whys = [f"{target.name}: {mismatch(target, place.host)}" for target in targets]
    return DeviceError(
        f"{place.name} is {'none of the targets' if len(targets) > 1 else 'not the target'}",
        found="; ".join(whys).replace("this host", "the device"),
        allowed="a device that is what the target's file says",
        fix="name another --target, or another device: `edgekit doctor --device` says what one is",
    )


def place_at(
    address: Address,
    target: Target | None = None,
    engine: str | None = None,
    *,
    wheels: bool = False,
    progress: Progress = silent,
) -> Place:
    """Looks at a device and gives it as a place that measures.

    Args:
        address: Where it is.
        target: What it should be: the wrong architecture is told before anything is sent.
        engine: The only engine that is wanted there; None: several may be, and one that is missing there is told later.
        wheels: Whether to send numpy and that engine where it has none.
        progress: Told what is sent.

    Raises:
        DeviceError: It cannot be used.
        EngineMissing: It lacks the engine, and no wheels are to be sent.
        SpecError: Wheels are wanted, and of no single engine.
    """
    if wheels and engine is None:
        raise SpecError("wheels are sent of one engine", found="several are wanted", fix="name one with --engine")
    with opened(address, target, engine, wheels=wheels, grace_s=1.0, progress=progress) as device:
        measure = partial(measure_at, address, engine=engine if wheels else None, wheels=wheels)
        return replace(place_on(device, engine), measure=measure)


def place_on(device: Device, engine: str | None = None) -> Place:
    """An opened device as a place that measures, as long as it is open.

    Args:
        device: The device.
        engine: The engine whose wheels were sent there, where any were.
    """
    builds = {name: version for name, version in device.look.packages.items() if name in ENGINES}
    builds |= {"null": engine_version("null")}
    if device.site is not None and engine is not None:
        builds |= {engine: f"of wheels {device.site.rpartition('/')[2][:16]}"}
    fix = f"it is not installed on {device.name}: install it there, or give --wheels where the command has it"
    return Place(
        name=device.name,
        host=device.host,
        builds=builds,
        lacking={engine: fix for engine in ENGINES if engine not in builds},
        measure=partial(measure_on, device),
    )
