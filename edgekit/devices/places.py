"""Devices as places that measure for targets: looked at before any work, opened again whenever they measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from edgekit.devices.address import Address, find_device
from edgekit.devices.device import Device, opened
from edgekit.devices.measuring import measure_at, measure_on
from edgekit.errors import DeviceError
from edgekit.places import Place
from edgekit.progress import Progress, silent
from edgekit.runtime import ENGINES, engine_version
from edgekit.specs import Target, mismatch


def places_for(
    targets: Sequence[Target],
    devices: Sequence[str],
    *,
    engine: str | None = None,
    wheels: Sequence[str] = (),
    progress: Progress = silent,
) -> Mapping[str, Place]:
    """The device that measures for each target: one that is what the target asks for, and each has one at least.

    Args:
        targets: The targets.
        devices: Devices as they are named on the command line.
        engine: The only engine that is wanted there; None: several may be.
        wheels: Engines whose wheels are sent to a device that has none, with numpy's.
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
    wheels: Sequence[str] = (),
    progress: Progress = silent,
) -> Place:
    """Looks at a device and gives it as a place that measures.

    Args:
        address: Where it is.
        target: What it should be: the wrong architecture is told before anything is sent.
        engine: The only engine that is wanted there; None: several may be, and one that is missing there is told later.
        wheels: Engines whose wheels are sent where it has none, with numpy's; of several, where there are any.
        progress: Told what is sent.

    Raises:
        DeviceError: It cannot be used.
        EngineMissing: It lacks the engine, and no wheels are to be sent.
    """
    with opened(address, target, engine, wheels=wheels, grace_s=1.0, progress=progress) as device:
        place = place_on(device)
        there = [name for name in wheels if name in place.builds]  # of the others nobody need be asked again
        return replace(place, measure=partial(measure_at, address, wheels=there))


def place_on(device: Device) -> Place:
    """An opened device as a place that measures, as long as it is open."""
    builds = {name: version for name, version in device.look.packages.items() if name in ENGINES}
    builds |= {"null": engine_version("null")}
    sent = device.sites.folders.items()
    builds |= {name: f"of wheels {folder.rpartition('/')[2][:16]}" for name, folder in sent if name in ENGINES}
    fix = f"it is not installed on {device.name}: install it there, or give --wheels where the command has it"
    return Place(
        name=device.name,
        host=device.host,
        builds=builds,
        lacking={engine: device.sites.lacking.get(engine, fix) for engine in ENGINES if engine not in builds},
        measure=partial(measure_on, device),
    )
