"""Measures artifacts on a device as :func:`edgekit.profiling.measure.measure_in_turns` does here.

What is measured is sent by hash, so that a second time sends nothing. A process on the device does the jobs; it is
asked how far it is, and outlives the connection: where that goes we come back and ask again.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from edgekit.artifact import MANIFEST_FILE, Array, Artifact, hash_file, hash_json
from edgekit.devices.address import Address
from edgekit.devices.device import Device, call, come_back, opened, send_folder
from edgekit.devices.verifying import send_bundle
from edgekit.errors import ConnectionLost, DeviceError
from edgekit.processing_specs import Preprocessing
from edgekit.profiling.following import ENDED
from edgekit.profiling.job import FEEDS_FILE, check_feeds, write_feeds
from edgekit.profiling.jobs import RESULTS, Sent, write_jobs
from edgekit.profiling.load import LoadSpec
from edgekit.profiling.measured import LATENCIES_FILE, MEASURED_FILE, WARM_UP_FILE, Measured, load_measured
from edgekit.progress import Progress, silent
from edgekit.runtime.manifest import read_manifest

LONGEST_S = 24 * 3600.0  # a device that is gone is found out by its silence, long before
GRACE_S = 300.0  # how long, after a cut, we try to come back, and the device keeps what it does for us
MOST_CUTS = 5  # in one step that gets no further in between
_RESULT_FILES = (MEASURED_FILE, LATENCIES_FILE, WARM_UP_FILE)

ResultT = TypeVar("ResultT")


def measure_at(
    address: Address,
    artifacts: Sequence[Artifact],
    load: LoadSpec,
    feeds: Mapping[str, Array],
    *,
    preprocessing: Preprocessing | None = None,
    progress: Progress = silent,
    wheels: Sequence[str] = (),
) -> list[Measured]:
    """Opens a device, sends wheels of engines where they lack, measures, and leaves it; see :func:`measure_on`."""
    with opened(address, wheels=wheels, grace_s=GRACE_S, progress=progress) as device:
        return measure_on(device, artifacts, load, feeds, preprocessing=preprocessing, progress=progress)


def measure_on(
    device: Device,
    artifacts: Sequence[Artifact],
    load: LoadSpec,
    feeds: Mapping[str, Array],
    *,
    preprocessing: Preprocessing | None = None,
    progress: Progress = silent,
) -> list[Measured]:
    """Measures artifacts side by side on a device; of bundles the golden samples are run there first.

    Args:
        device: The device.
        artifacts: What is compared. One that lies in a bundle's folder is sent as that bundle and verified there: one
            that fails is not timed.
        load: The load generator's settings.
        feeds: Raw samples stacked, by input, first axis samples; model tensors where ``preprocessing`` is None.
        preprocessing: From raw samples to model tensors, timed on the application clock.
        progress: Told the megabytes that are sent, then as by :func:`edgekit.profiling.measure.measure_in_turns`.

    Returns:
        One result an artifact, in order, with the device's own facts as its host. One that dies, hangs or gives wrong
        numbers is told in its ``status`` and ``reason``; the others go on.

    Raises:
        DataError: There are no samples, their counts differ, or an array is not of numbers.
        FeedError: An input has no samples, or a name is not an input.
        DeviceError: The device was started anew, is full, or does not let us in again after its connection went.
    """
    for artifact in artifacts:
        check_feeds(artifact, feeds, preprocessing)
    folder = f"{device.jobs}/{uuid.uuid4().hex[:12]}"
    began = datetime.now(timezone.utc).isoformat(timespec="seconds")  # the device's own date may be off by years
    try:
        with tempfile.TemporaryDirectory(prefix="edgekit-device-") as temporary:
            here = Path(temporary)
            sent = [_sent(device, artifact, progress) for artifact in artifacts]
            fed = _send_feeds(device, feeds, here / "feeds", progress)
            names = write_jobs(here / "jobs", sent, fed, load, preprocessing)
            files = {name: here / "jobs" / name for name in names}
            lasting(device, lambda: device.connection.put(files, folder))
            _follow(device, folder, progress)
            return [replace(result, started_at=began) for result in _results(device, folder, len(sent), here)]
    except ConnectionLost:
        raise
    except BaseException:
        with contextlib.suppress(DeviceError):  # what made us end says more
            call(device, ["profiling", "--stop", folder])
        raise


def lasting(device: Device, work: Callable[[], ResultT], *, further: Callable[[], int] = lambda: 0) -> ResultT:
    """Does some work on a device, and does it again when the connection went meanwhile.

    Args:
        device: The device.
        work: What may be done twice.
        further: How far it is; cuts are counted anew where it got further since the last one.

    Raises:
        ConnectionLost: The connection goes time and again.
        DeviceError: The device does not let us in again.
    """
    cuts, reached = 0, further()
    while True:
        try:
            return work()
        except ConnectionLost:
            cuts = 0 if further() > reached else cuts + 1
            reached = further()
            if cuts >= MOST_CUTS:
                raise
            come_back(device, within_s=GRACE_S)


def _sent(device: Device, artifact: Artifact, progress: Progress) -> Sent:
    """Sends an artifact, or the bundle that it lies in, unless it is there."""
    folder = artifact.folder
    if (folder / MANIFEST_FILE).is_file():
        manifest = read_manifest(folder)
        there = lasting(device, lambda: send_bundle(device, folder, manifest, progress))
        return Sent(artifact=artifact, folder=there, bundle=True)
    names, sha256 = sorted(artifact.files), hash_json(dict(artifact.files))
    there = lasting(device, lambda: send_folder(device, folder, names, sha256, progress))
    return Sent(artifact=artifact, folder=there, bundle=False)


def _send_feeds(device: Device, feeds: Mapping[str, Array], out: Path, progress: Progress) -> str:
    out.mkdir()
    write_feeds(out / FEEDS_FILE, feeds)
    sha256 = hash_file(out / FEEDS_FILE)
    return lasting(device, lambda: send_folder(device, out, [FEEDS_FILE], sha256, progress))


@dataclass(slots=True)
class _Heard:
    """What a device said of its jobs so far."""

    progress: Progress
    lines: int = 0
    last: dict[str, Any] = field(default_factory=dict)

    def __call__(self, line: str) -> None:
        if not line:
            return  # it lives
        self.lines += 1
        with contextlib.suppress(ValueError):
            self.last = json.loads(line)
        if "step" in self.last:
            self.progress(self.last["step"], self.last["done"], self.last["total"], self.last["note"])


def _follow(device: Device, folder: str, progress: Progress) -> None:
    """Has the jobs of a folder done, and waits until they are.

    Raises:
        DeviceError: They did not come to their end.
    """
    heard = _Heard(progress)

    def listen() -> None:
        ended = call(device, ["profiling", "--follow", folder, str(heard.lines)], timeout_s=LONGEST_S, on_line=heard)
        if ENDED not in heard.last:
            said = " ".join(ended.stderr.removeprefix("error: ").split())
            raise DeviceError(f"{device.name}: nobody there says how the measuring goes", found=said or ended.signal)

    lasting(device, listen, further=lambda: heard.lines)
    if heard.last[ENDED] != "ok":
        raise DeviceError(f"{device.name}: nothing was measured: it {heard.last[ENDED]}", found=heard.last["reason"])


def _results(device: Device, folder: str, count: int, out: Path) -> list[Measured]:
    names = [f"{RESULTS}/{index}/{name}" for index in range(count) for name in _RESULT_FILES]
    lasting(device, lambda: device.connection.get(folder, names, out))
    return [load_measured(out / RESULTS / str(index)) for index in range(count)]
