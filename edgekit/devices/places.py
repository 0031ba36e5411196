"""Devices as places that measure for targets: looked at before any work, opened again whenever they measure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial

from edgekit.devices.address import find_device
from edgekit.devices.device import call, opened
from edgekit.devices.measuring import measure_at
from edgekit.errors import DeviceError, SpecError
from edgekit.places import Place
from edgekit.progress import Progress, silent
from edgekit.specs import Target, mismatch


def places_for(
    targets: Sequence[Target],
    devices: Sequence[str],
    *,
    engine: str | None = None,
    wheels: bool = False,
    progress: Progress = silent,
) -> Mapping[str, Place]:
    """The device that measures for each target: the first that is what the target asks for.

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
    found: dict[str, Place] = {}
    for text in devices:
        place = place_at(text, only, engine, wheels=wheels, progress=progress)
        fits = [target.name for target in targets if mismatch(target, place.host) is None]
        if not fits:
            raise _stranger(place, targets)
        left = [name for name in fits if name not in found]
        if not left:
            raise DeviceError(
                f"no target is left for the device {place.name}",
                found=", ".join(f"{name}: {found[name].name}" for name in fits),
                allowed="one device a target",
            )
        found |= dict.fromkeys(left, place)
    return found


def _stranger(place: Place, targets: Sequence[Target]) -> DeviceError:
    whys = [f"{target.name}: {mismatch(target, place.host)}" for target in targets]
    return DeviceError(
        f"{place.name} is {'none of the targets' if len(targets) > 1 else 'not the target'}",
        found="; ".join(whys).replace("this host", "the device"),
        allowed="a device that is what the target's file says",
        fix="name another --target, or another device: `edgekit doctor --device` says what one is",
    )


def place_at(
    text: str,
    target: Target | None = None,
    engine: str | None = None,
    *,
    wheels: bool = False,
    progress: Progress = silent,
) -> Place:
    """Looks at a device and gives it as a place that measures.

    Args:
        text: ``ssh://user@host[:port]``, or a name.
        target: What it should be: the wrong architecture is told before anything is sent.
        engine: The only engine that is wanted there; None: several may be, and one that is missing there is told later.
        wheels: Whether to send numpy and that engine where it has none.
        progress: Told what is sent.

    Raises:
        DeviceError: It cannot be used.
        EngineMissing: It lacks the engine, and no wheels are to be sent.
        SpecError: The name is no device's.
    """
    if wheels and engine is None:
        raise SpecError("wheels are sent of one engine", found="several are wanted", fix="name one with --engine")
    address = find_device(text)
    with opened(address, target, engine, wheels=wheels, progress=progress) as device:
        ended = call(device, ["profiling.facts"])
        try:
            facts = json.loads(ended.stdout)
            lacking: Mapping[str, str | None] = facts["execute"]
            versions: Mapping[str, str] = facts["versions"]
        except (ValueError, KeyError, TypeError) as exc:
            raise device.connection.refused("it does not say what it is", ended) from exc
    return Place(
        name=address.name,
        host=device.host,
        builds={engine: versions[engine] for engine, why in lacking.items() if why is None},
        lacking={engine: why for engine, why in lacking.items() if why is not None},
        measure=partial(measure_at, address, engine=engine if wheels else None, wheels=wheels),
    )
