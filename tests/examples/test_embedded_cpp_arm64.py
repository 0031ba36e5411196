"""One bundle computes the same on x86-64 and on an (emulated) aarch64 device, from Python and from C++."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from embedded_builds import SOURCE, build, need

from edgekit.runtime import verify_bundle

TOOLCHAIN = f"-DCMAKE_TOOLCHAIN_FILE={SOURCE}/cmake/aarch64-linux-gnu.cmake"
LIBRARY = "$(ls /usr/local/lib/python3*/dist-packages/onnxruntime/capi/libonnxruntime.so.*)"
PYTHON = """
import json, sys
from pathlib import Path
from edgekit.runtime import verify_bundle
found = verify_bundle(Path(sys.argv[1]))
print(json.dumps([found.reference_db, found.floor_db, found.passed, found.own_db, list(found.messages)]))
"""

pytestmark = pytest.mark.timeout(900)  # a compiler and an emulated machine, on a host that may be busy


@dataclass(frozen=True)
class Device:
    """The emulated device behind its sshd."""

    config: Path

    def __call__(self, command: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Runs a line of shell there."""
        line = ["ssh", "-F", str(self.config), "arm64", command]
        return subprocess.run(line, input=stdin, capture_output=True, check=False, timeout=240)

    def put(self, folder: Path, *names: str) -> None:
        """Copies files and folders to its home."""
        packed = subprocess.run(["tar", "-C", str(folder), "-c", *names], capture_output=True, check=True)
        assert self("tar x", packed.stdout).returncode == 0


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    """An aarch64 device of Debian's qemu, with Python, numpy and ONNX Runtime; 10 s until it is up."""
    script = os.environ.get("EDGEKIT_ARM64_DEVICE")
    if not script:
        pytest.skip("needs EDGEKIT_ARM64_DEVICE, a script that starts an emulated aarch64 device: SCRIPT DIR PORT")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("arm64")
    with (folder / "log").open("wb") as log:  # not a pipe: the sshd that stays would hold it open
        subprocess.run([script, str(folder), str(port)], check=True, stdout=log, stderr=log)
    device = Device(folder / "ssh_config")
    device.put(Path(__file__).parents[2], "edgekit")
    yield device
    os.kill(int((folder / "sshd.pid").read_text()), signal.SIGTERM)
    shutil.rmtree(folder / "root", ignore_errors=True)


@pytest.fixture(scope="module")
def cross_built(device, tmp_path_factory):
    """The program, built for aarch64 here and copied there."""
    need("cmake", "aarch64-linux-gnu-g++")
    built = build(tmp_path_factory.mktemp("aarch64"), TOOLCHAIN, "-DCMAKE_BUILD_TYPE=Debug")
    device.put(built.parent, built.name)
    return built


def there(device, command):
    ended = device(command)
    assert ended.returncode in (0, 3), ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_bundle_of_x86_is_within_its_floor_on_aarch64(device, cross_built, exports, precision):
    bundle = exports["onnxruntime", precision]
    device.put(bundle.parent, bundle.name)
    here = verify_bundle(bundle)
    python = there(device, f"python3 -c '{PYTHON}' {bundle.name}")
    cpp = there(device, f"./edgekit_embedded verify {bundle.name} --json --onnxruntime {LIBRARY}")
    assert [cpp["floor_db"], cpp["passed"], cpp["own_db"], cpp["messages"]] == python[1:]
    assert cpp["reference_db"] == pytest.approx(python[0], abs=1e-6)
    assert (here.passed, cpp["passed"], cpp["own_db"]) == (True, True, None)
    assert min(cpp["reference_db"], here.reference_db) >= cpp["floor_db"]
    print(f"\n{precision}: x86-64 {here.reference_db:.2f}, aarch64 {cpp['reference_db']:.2f}, asked {cpp['floor_db']}")


def test_the_cross_built_program_refuses_a_damaged_bundle(device, cross_built, exports):
    bundle = exports["onnxruntime", "int8"]
    device.put(bundle.parent, bundle.name)
    assert device(f"cp -r {bundle.name} damaged && printf x >> damaged/golden.npz").returncode == 0
    ended = device(f"./edgekit_embedded verify damaged --onnxruntime {LIBRARY}")
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert b"'golden.npz' is damaged or was changed" in ended.stderr


def test_it_runs_on_systems_as_old_as_ubuntu_22(cross_built):
    """JetPack 6 is Ubuntu 22.04: glibc 2.35, and libstdc++ up to GLIBCXX_3.4.30."""
    listed = subprocess.run(
        ["aarch64-linux-gnu-objdump", "-T", str(cross_built)], capture_output=True, text=True, check=True
    )
    asked = {
        (kind, tuple(map(int, v.split(".")))) for kind, v in re.findall(r"(GLIBCXX|GLIBC)_([0-9.]+)", listed.stdout)
    }
    newest = {kind: max(version for k, version in asked if k == kind) for kind in ("GLIBC", "GLIBCXX")}
    assert newest["GLIBC"] <= (2, 34)
    assert newest["GLIBCXX"] <= (3, 4, 29)
