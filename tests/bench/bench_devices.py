"""What a device costs: ``--device`` on a loopback device against the same command here, and what is sent.

By hand: ``PYTHONPATH=tests python tests/bench/bench_devices.py [TURNS]``. The figures to keep: with everything sent
before, ``--device`` adds at most 2 s; a second send of a bundle of 100 MB takes at most 1 s; the kit, without numpy and
the engine, is at most 300 kB.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, sleep

from device_bundles import linear_bundle
from loopback_sshd import LoopbackDevice, loopback_device

from edgekit.devices.device import opened
from edgekit.devices.kit import make_kit
from edgekit.devices.verifying import send_bundle
from edgekit.runtime.manifest import read_manifest

BIG = 100_000_000


def seconds(command: list[str], environment: dict[str, str], device: LoopbackDevice) -> tuple[float, float]:
    """Seconds that a command takes by the clock, and of CPU on both ends."""
    cpu, began = cpu_seconds(device), perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, env=environment)
    took = perf_counter() - began
    sleep(0.1)  # until sshd has counted what it ran
    return took, cpu_seconds(device) - cpu


def cpu_seconds(device: LoopbackDevice) -> float:
    """CPU seconds so far of what this process ran, and of what the device did (proc(5): cutime and cstime)."""
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    fields = Path(f"/proc/{device.process.pid}/stat").read_text().rpartition(")")[2].split()
    return own.ru_utime + own.ru_stime + (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def bench_command(device: LoopbackDevice, folder: Path, turns: int) -> None:
    """The whole command, here and there, in turns; the first turn sends and is not counted."""
    bundle = linear_bundle(folder / "bundle")
    here = [sys.executable, "-m", "edgekit", "verify", str(bundle)]
    there = [*here, "--device", "board"]
    environment = os.environ | {"XDG_CONFIG_HOME": str(folder)}
    pairs = [[seconds(command, environment, device) for command in (here, there)] for _ in range(turns + 1)][1:]
    print(f"{'verify, s':<30}{'here':>8}{'there':>8}{'--device adds':>16}")
    for index, clock in enumerate(("by the clock", "of CPU, both ends")):
        ours, theirs = ([pair[side][index] for pair in pairs] for side in (0, 1))
        added = sorted(b - a for a, b in zip(ours, theirs, strict=True))
        print(
            f"{clock:<30}{statistics.median(ours):>8.2f}{statistics.median(theirs):>8.2f}"
            f"{statistics.median(added):>16.2f}   {added[0]:.2f} to {added[-1]:.2f}, keep <= 2"
        )


def bench_sending(device: LoopbackDevice, folder: Path, turns: int) -> None:
    """A bundle of 100 MB, sent once and again."""
    bundle = linear_bundle(folder / "big", ballast=BIG)
    manifest = read_manifest(bundle)
    with opened(device.address) as connected:
        times = []
        for _ in range(turns + 1):
            began = perf_counter()
            send_bundle(connected, bundle, manifest)
            times.append(perf_counter() - began)
    print(f"first send of 100 MB, s        {times[0]:8.2f}")
    print(
        f"second send, s                 {statistics.median(times[1:]):8.2f}   at most {max(times[1:]):.2f}, keep <= 1"
    )


def main(turns: int) -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with loopback_device(folder / "device") as device:
            (folder / "edgekit").mkdir()
            table = f'[board]\nhost = "loopback"\nconfig = "{device.address.config}"\n'
            (folder / "edgekit/devices.toml").write_text(table)
            print(f"kit, kB                        {len(make_kit().content) / 1e3:8.1f}   keep <= 300")
            bench_command(device, folder, turns)
            bench_sending(device, folder, turns)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
