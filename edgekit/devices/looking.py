"""What a device is, found out with a shell and whatever Python is there, before anything is sent."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgekit.devices.archives import used_stamp
from edgekit.devices.ssh import Connection, Ended
from edgekit.errors import DeviceError, EngineMissing

if TYPE_CHECKING:
    from edgekit.specs import Target

OLDEST_PYTHON = (3, 10)
ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
LEAST_FREE_MB = 16.0  # for the kit, with room to work …
LEAST_WITH_KIT_MB = 1.0  # … and where it is there: old bundles make way for new ones
DAY_S = 86400.0
PACKAGES = ("numpy", "onnxruntime", "openvino", "tensorrt")
_PYTHONS = "python3 python3.14 python3.13 python3.12 python3.11 python3.10"

# Written for any Python, since it is asked how old it is; names no module that a device may lack.
_PYTHON_SIDE = f"""
import sys
version = "%d.%d.%d" % tuple(sys.version_info[:3])
if tuple(sys.version_info[:2]) < {OLDEST_PYTHON}:
    print("old=" + version)
    sys.exit(1)
import importlib.metadata, importlib.util, json, platform, struct, time
def package(name):
    if importlib.util.find_spec(name) is None:
        return None
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
facts = dict(version=version, bits=8 * struct.calcsize("P"), libc=platform.libc_ver(), time=time.time())
facts["packages"] = dict((name, package(name)) for name in {PACKAGES!r})
print("facts=" + json.dumps(facts))
"""
_FIRST = "edgekit looks"
_SHELL_SIDE = f"""
echo "{_FIRST}"
root=$1; asked=$2; kit=$3; stamp=$4
[ -n "$root" ] || root=$HOME/.cache/edgekit-device
case $root in "~/"*) root=$HOME/${{root#"~/"}};; esac
case $asked in "~/"*) asked=$HOME/${{asked#"~/"}};; esac
echo "root=$root"
echo "os=$(uname -s)"
echo "arch=$(uname -m)"
command -v tar >/dev/null || echo "lacks=tar"
[ -z "$kit" ] || TZ=UTC0 touch -c -t "$stamp" "$root/kit/$kit" 2>/dev/null
[ -d "$root/kit/$kit" ] && echo "kit=$root/kit/$kit"
place=$root
while [ ! -d "$place" ]; do place=$(dirname "$place"); done
[ -w "$place" ] || echo "readonly=$place"
set -- $(df -Pk "$place" | tail -n 1)
echo "free_kb=$4"
sed -n 's/^MemAvailable: *\\([0-9]*\\) kB/memory_kb=\\1/p' /proc/meminfo
cd "$place" || exit 1
[ -n "$asked" ] && set -- "$asked" || set -- {_PYTHONS}
for python; do
  path=$(command -v "$python") || continue
  "$path" - <<'PYTHON' && {{ echo "python=$path"; break; }}
{_PYTHON_SIDE}
PYTHON
done
exit 0
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was found on a device.

    Attributes:
        arch: ``x86_64`` or ``aarch64``.
        python: Its Python's path.
        version: Its Python's version.
        libc: The C library and its version, e.g. ``("glibc", "2.36")``; empty where it is another.
        packages: Versions of numpy and the engines that are installed; ``unknown`` where a package tells none.
        root: The folder for what is sent.
        kit: Whether the kit is there already.
        free_mb: Room on its disk, in MB (10^6 bytes).
        memory_mb: Memory that is left, in MB (10^6 bytes).
        clock_off_s: How far its clock is ahead of ours, in seconds.
    """

    arch: str
    python: str
    version: str
    libc: tuple[str, str]
    packages: Mapping[str, str]
    root: str
    kit: bool
    free_mb: float
    memory_mb: float
    clock_off_s: float

    def has(self, *packages: str) -> bool:
        """Whether packages are there, of those that are looked for."""
        return all(package in self.packages for package in packages if package in PACKAGES)

    def with_packages(self, versions: Mapping[str, str]) -> Look:
        """The same device once packages were sent to it."""
        return replace(self, packages={**self.packages, **versions})


def look(connection: Connection, kit: str = "") -> Look:
    """Looks at a device: one command; nothing is written but when a kit that is there was last used.

    Args:
        connection: The way there.
        kit: The hash of the kit; none where none is to be used.

    Raises:
        DeviceError: It runs no command or adds words to what is said, is no 64-bit Linux on x86 or ARM, or has no
            Python that is new enough, or no tar.
        ConnectionLost: The connection went.
    """
    address, name = connection.address, connection.address.name
    began = time.time()
    argv = ["sh", "-s", "--", address.root or "", address.python or "", kit, used_stamp()]
    ended = connection.run(argv, stdin=_SHELL_SIDE.encode())
    told = _told(name, ended)
    facts = dict(told)
    if ended.status != 0 or "arch" not in facts:
        raise connection.refused("it could not be looked at", ended)
    system, arch = facts.get("os", ""), ARCHITECTURES.get(facts["arch"])
    if system != "Linux" or arch is None:
        raise DeviceError(
            f"{name}: EdgeKit's runtime is not made for this device",
            found=f"{system} on {facts['arch']}",
            allowed="Linux on x86_64 or aarch64",
        )
    if "lacks" in facts:
        raise DeviceError(f"{name}: a tool is missing there", found=f"no {facts['lacks']}", fix="install it")
    if "python" not in facts:
        raise _no_python(connection, [value for key, value in told if key == "old"])
    python = json.loads(facts["facts"])
    if python["bits"] != 64:
        raise DeviceError(
            f"{name}: its Python is one of {python['bits']} bits",
            found=facts["python"],
            allowed="64 bits, as engines are",
        )
    return Look(
        arch=arch,
        python=facts["python"],
        version=python["version"],
        libc=(python["libc"][0], python["libc"][1]),
        packages={package: version for package, version in python["packages"].items() if version is not None},
        root=facts["root"],
        kit="kit" in facts,
        free_mb=0.0 if "readonly" in facts else float(facts.get("free_kb") or 0) * 1024 / 1e6,
        memory_mb=float(facts.get("memory_kb") or 0) * 1024 / 1e6,
        clock_off_s=python["time"] - began,
    )


def _told(name: str, ended: Ended) -> list[tuple[str, str]]:
    """What the shell there told; nothing of it is believed where somebody else speaks too."""
    before, begun, after = ended.stdout.rpartition(f"{_FIRST}\n")
    if not begun:
        said = (ended.stderr.strip() or ended.stdout.strip() or f"exit status {ended.status}").splitlines()[-1]
        raise DeviceError(
            f"{name}: it lets us in and runs no command",
            found=said,
            allowed="an account with a shell; sftp alone is not enough",
            fix="`ssh` with the command `uname` must print Linux",
        )
    if before:  # it would be in every file that we fetch, too
        raise DeviceError(
            f"{name}: its login shell prints something of its own before every command",
            found=repr(before.splitlines()[0]),
            allowed="nothing, where nobody sits at a terminal",
            fix="have ~/.bashrc, or what else prints it there, do so in interactive shells only",
        )
    return [(key, value) for key, _, value in (line.partition("=") for line in after.splitlines())]


def check(
    name: str, found: Look, target: Target | None, engine: str | None, *, wheels: Sequence[str], memory_mb: float
) -> None:
    """Refuses a device that cannot do what is asked, before anything is sent.

    Raises:
        DeviceError: Its architecture is not the target's, or it has too little room or memory left.
        EngineMissing: It lacks numpy or the engine, and no wheels are to be sent.
    """
    if target is not None and target.arch is not None and found.arch != target.arch:
        raise DeviceError(
            f"{name}: this device is not what {target.name!r} means",
            found=found.arch,
            allowed=target.arch,
            fix="give a device of that architecture, or a bundle made for this one",
        )
    least_mb = LEAST_WITH_KIT_MB if found.kit else LEAST_FREE_MB
    if found.free_mb < least_mb:
        raise DeviceError(
            f"{name}: the disk is full, or cannot be written",
            found=f"{found.free_mb:.1f} MB free for {found.root}",
            allowed=f"{least_mb:g} MB or more",
            fix="make room there (`edgekit doctor --device … --clean` removes what EdgeKit keeps), "
            f"or name another folder: root = … of [{name}] in devices.toml",
        )
    if found.memory_mb < memory_mb:
        raise DeviceError(
            f"{name}: too little memory is left",
            found=f"{found.memory_mb:.0f} MB",
            allowed=f"{memory_mb:.0f} MB or more for this bundle",
            fix="end what else runs there",
        )
    lacking = [package for package in ("numpy", engine) if package is not None and not found.has(package)]
    if lacking and engine is not None and engine not in wheels:
        raise EngineMissing(
            f"{name}: {' and '.join(lacking)} cannot be imported there",
            found=f"Python {found.version} at {found.python}, without {' and '.join(lacking)}",
            fix="give --wheels to send what is missing, or install it there",
        )


def free_room_mb(connection: Connection, root: str) -> float:
    """Room that is free now on the disk of an existing folder there, in MB (10^6 bytes).

    Raises:
        DeviceError: It does not say.
    """
    ended = connection.run(["df", "-Pk", root])
    fields = (ended.stdout.splitlines() or [""])[-1].split()
    if ended.status != 0 or len(fields) < 4 or not fields[3].isdecimal():
        raise connection.refused("it does not say how much room it has", ended)
    return int(fields[3]) * 1024 / 1e6


def check_room(connection: Connection, root: str, needed_mb: float, what: str) -> None:
    """Refuses to send what there is no room for.

    Raises:
        DeviceError: Less is free than it needs.
    """
    free_mb = free_room_mb(connection, root)
    if free_mb < needed_mb:
        raise DeviceError(
            f"{connection.address.name}: the disk is full: there is no room for {what}",
            found=f"{free_mb:.1f} MB free",
            allowed=f"{needed_mb:.1f} MB or more",
            fix="make room there, or name another folder: root = … in devices.toml",
        )


def clock_note(found: Look) -> str | None:
    """A word on a clock that is off by more than a day; nothing depends on it."""
    if abs(found.clock_off_s) < DAY_S:
        return None
    days = abs(found.clock_off_s) / DAY_S
    return f"its clock is {days:.0f} days {'ahead' if found.clock_off_s > 0 else 'behind'}; nothing here depends on it"


def _no_python(connection: Connection, old: list[str]) -> DeviceError:
    asked = connection.address.python
    where = f" as {shlex.quote(asked)}" if asked else ""
    oldest = ".".join(map(str, OLDEST_PYTHON))
    return DeviceError(
        f"{connection.address.name}: " + ("its Python is too old" if old else f"there is no Python{where}"),
        found=f"Python {', '.join(dict.fromkeys(old))}" if old else f"no {asked or 'python3'}",
        allowed=f"Python {oldest} or newer, with the standard library",
        fix=f"install one there, or name it: python = … of [{connection.address.name}] in devices.toml",
    )
