"""What can be wrong with a device: each is named, and the device is left clean."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from device_bundles import linear_bundle
from loopback_sshd import SHELL, SSHD, loopback_device, new_key, write_known_hosts
from tiny_recipe import edgekit

from edgekit.devices import dialling
from edgekit.devices.ssh import connect
from edgekit.errors import ConnectionLost, DeviceError

pytestmark = pytest.mark.skipif(SSHD is None, reason="sshd is not installed (Debian: openssh-server)")
TOOLS = ("sh", "tar", "uname", "df", "tail", "sed", "dirname", "env", "mkdir", "rm", "mv", "wc", "cat", "cut", "sleep")


@pytest.fixture
def verify(named, linear):
    """Verifies a bundle on a device: the exit code, standard output and standard error."""

    def run(device, bundle=linear, *more):
        named(board=device.address)
        done = edgekit(*(more or ("verify",)), bundle, "--device", "board")
        return done.exit_code, done.stdout, done.stderr

    return run


@contextmanager
def changed(file: Path, text: str):
    before = file.read_text()
    file.write_text(text)
    try:
        yield
    finally:
        file.write_text(before)


def refused(found, *words):
    code, out, err = found
    assert (code, out) == (1, "")
    for word in words:
        assert word in err, err
    assert "Traceback" not in err


def programs(folder: Path, *names: str, **scripts: str) -> str:
    """A PATH with some of the system's programs and some of one's own."""
    folder.mkdir()
    for name in {*TOOLS, *names} - {*scripts}:  # a script that were written to a link would be written to the system
        (folder / name).symlink_to(shutil.which(name))
    for name, text in scripts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return str(folder)


def test_an_unknown_host_key_is_refused_with_its_fingerprint(loopback, verify):
    with changed(loopback.folder / "known_hosts", ""):
        key = subprocess.run(
            ["ssh-keygen", "-lf", loopback.folder / "host_key.pub"], capture_output=True, text=True, check=True
        )
        refused(verify(loopback), "board: the host key is not known", key.stdout.split()[1])


def test_a_changed_host_key_is_refused_as_changed(loopback, verify):
    new_key(loopback.folder / "other_key")
    before = (loopback.folder / "known_hosts").read_text()
    write_known_hosts(loopback.folder, loopback.port, "other_key.pub")
    with changed(loopback.folder / "known_hosts", (loopback.folder / "known_hosts").read_text()):
        refused(verify(loopback), "the host key has changed", f"ssh-keygen -R '[127.0.0.1]:{loopback.port}'")
    (loopback.folder / "known_hosts").write_text(before)


@pytest.mark.parametrize("line", ["UserKnownHostsFile none", "StrictHostKeyChecking no"])
def test_no_configuration_turns_the_check_of_host_keys_off(loopback, verify, line):
    config = loopback.folder / "ssh_config"
    known = config.read_text().replace("known_hosts\n", "no-such-file\n")
    with changed(config, f"{line}\n{known}"):
        refused(verify(loopback), "the host key is not known")


def test_a_key_that_the_device_does_not_know(loopback, verify):
    config = loopback.folder / "ssh_config"
    new_key(loopback.folder / "other_key")
    with changed(config, config.read_text().replace("client_key", "other_key")):
        refused(verify(loopback), "board: no key of ours logs in", "ssh-copy-id")


def test_a_device_that_is_not_there(loopback, verify):
    config = loopback.folder / "ssh_config"
    with changed(config, config.read_text().replace(f"Port {loopback.port}", "Port 1")):
        refused(verify(loopback), "board: it cannot be reached", "Connect call failed")
    with changed(config, config.read_text().replace("127.0.0.1", "no-such-host.invalid")):
        refused(verify(loopback), "board: no such host")


def test_a_device_that_takes_the_connection_and_says_nothing(loopback, monkeypatch):
    import socket

    monkeypatch.setattr(dialling, "CONNECT_S", 0.3)
    config = loopback.folder / "ssh_config"
    with socket.create_server(("127.0.0.1", 0)) as dumb:
        text = config.read_text().replace(f"Port {loopback.port}", f"Port {dumb.getsockname()[1]}")
        with changed(config, text), pytest.raises(DeviceError, match="loopback: it does not answer"):
            connect(loopback.address)


def test_a_device_that_hangs_is_told(loopback, monkeypatch):
    monkeypatch.setattr(dialling, "ALIVE_S", 0.1)
    with connect(loopback.address) as connection:
        parent = int(connection.run(["sh", "-c", "cut -d' ' -f4 /proc/$PPID/stat"]).stdout)
        os.kill(parent, 19)  # stops
        try:
            with pytest.raises(ConnectionLost, match="loopback: the connection was lost"):
                connection.run(["true"])
        finally:
            os.kill(parent, 9)


def test_a_bundle_for_another_architecture_is_not_timed(loopback, verify, tmp_path):
    bundle = linear_bundle(tmp_path / "bundle", arch="aarch64" if os.uname().machine == "x86_64" else "x86_64")
    found = verify(loopback, bundle, "profile")
    refused(found, "board: this device is not what 'any' means", os.uname().machine)
    assert loopback.left() == []


def test_a_bundle_for_another_board_gets_no_verdict(loopback, verify, tmp_path):
    code, out, err = verify(loopback, linear_bundle(tmp_path / "bundle", board="Raspberry Pi 5"), "profile")
    assert (code, err.count("error")) == (4, 0), err
    assert "board is not a known board, the target is Raspberry Pi 5" in " ".join(out.split())


def test_an_architecture_that_nothing_is_made_for(tmp_path, verify):
    path = programs(tmp_path / "bin", "python3", uname="#!/bin/sh\n[ $1 = -s ] && echo Linux || echo riscv64\n")
    with loopback_device(tmp_path / "device", path=path) as device:
        refused(verify(device), "EdgeKit's runtime is not made for this device", "Linux on riscv64")
        assert not device.root.exists()


def test_a_device_with_the_tools_of_busybox_only(tmp_path, verify):
    if shutil.which("busybox") is None:
        pytest.skip("busybox is not installed")
    folder = tmp_path / "bin"
    folder.mkdir()
    subprocess.run(["busybox", "--install", "-s", folder], check=True)
    (folder / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (folder / "python3").chmod(0o755)
    shell = SHELL.replace("/bin/sh -c", f"{folder}/sh -c").format(
        home=tmp_path / "device/home", path=folder, command="", locks=tmp_path / "device"
    )
    with loopback_device(tmp_path / "device", shell=shell) as device:
        for _ in range(2):
            code, _, err = verify(device)
            assert code == 0, err
        assert device.left() == []


def test_without_asyncssh_the_command_that_installs_it_is_told(loopback, verify, monkeypatch):
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    refused(verify(loopback), "asyncssh, which is not installed", "pip install 'edgekit[devices]'")


def test_no_python(tmp_path, verify):
    with loopback_device(tmp_path / "device", path=programs(tmp_path / "bin")) as device:
        refused(verify(device), "board: there is no Python", "no python3", "python = …")
        assert not device.root.exists()


# The probe asks the Python it finds how old it is; this one is of today and says that it is of 2023.
OLD = f"""#!/bin/sh
{{ echo 'import sys; sys.version_info = (3, 8, 18, "final", 0)'; cat; }} | exec {sys.executable} "$@"
"""


def test_python_3_8(tmp_path, verify):
    with loopback_device(tmp_path / "device", path=programs(tmp_path / "bin", python3=OLD)) as device:
        refused(verify(device), "its Python is too old", "Python 3.8.18", "Python 3.10 or newer")
        assert not device.root.exists()


def test_a_new_python_beside_an_old_one_is_found(tmp_path, verify):
    path = programs(tmp_path / "bin", python3=OLD)
    (tmp_path / "bin/python3.11").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / "bin/python3.11").chmod(0o755)
    with loopback_device(tmp_path / "device", path=path) as device:
        assert verify(device)[0] == 0


def test_an_engine_that_is_not_there(tmp_path, verify, linear):
    bare = subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    assert bare.returncode == 0
    path = f"{tmp_path / 'venv/bin'}:/usr/bin:/bin"
    with loopback_device(tmp_path / "device", path=path) as device:
        refused(verify(device), "board: numpy and onnxruntime cannot be imported there", "--wheels")
        assert not device.root.exists()


@pytest.mark.parametrize("engine", ["tensorrt"])
def test_a_bundle_for_an_engine_of_another_device(loopback, verify, tmp_path, engine):
    refused(verify(loopback, linear_bundle(tmp_path / "bundle", engine=engine)), "tensorrt cannot be imported there")
    assert loopback.left() == []


def test_too_little_memory_left(tmp_path, verify):
    (tmp_path / "meminfo").write_text("MemTotal: 512000 kB\nMemFree: 9000 kB\nMemAvailable: 40000 kB\n")
    command = f"""unshare -Urm sh -c 'mount --bind {tmp_path}/meminfo /proc/meminfo && exec "$@"' sh"""
    with loopback_device(tmp_path / "device", command=command) as device:
        refused(verify(device), "board: too little memory is left", "41 MB")
        assert not device.root.exists()


@contextmanager
def small_disk(folder: Path, kilobytes: int):
    """A device whose home is on a disk of its own: a namespace that lives as long as the test."""
    home = folder / "home"
    home.mkdir(parents=True)
    script = f"mount -t tmpfs -o size={kilobytes}k none {home} && echo mounted && exec sleep 600"
    holder = subprocess.Popen(["unshare", "-Urm", "sh", "-c", script], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    try:
        if holder.stdout.readline() != b"mounted\n":
            pytest.skip("needs a host with user namespaces")
        inside = f"nsenter -t {holder.pid} -U -m --preserve-credentials"
        with loopback_device(
            folder,
            command="",
            shell=f"#!/bin/sh\nexec {inside} /bin/sh {folder}/inside\n",
        ) as device:
            (folder / "inside").write_text(
                SHELL.format(home=home, path=f"{Path(sys.executable).parent}:/usr/bin:/bin", command="", locks=folder)
            )
            yield device, inside
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def listing(device, inside):
    found = subprocess.run([*inside.split(), "find", device.home], capture_output=True, text=True, check=True)
    return found.stdout.split()


def test_a_full_disk(tmp_path, verify):
    with small_disk(tmp_path / "device", 400) as (device, inside):
        refused(verify(device), "board: the disk is full, or cannot be written", "MB free", "16 MB or more")
        assert listing(device, inside) == [str(device.home)]


def test_a_bundle_that_there_is_no_room_for(tmp_path, verify):
    bundle = linear_bundle(tmp_path / "bundle", ballast=30_000_000)
    with small_disk(tmp_path / "device", 24_000) as (device, inside):
        refused(verify(device, bundle), "the disk is full: there is no room for bundle", "MB free")
        files = listing(device, inside)
        assert not [name for name in files if "part" in Path(name).name or "bundles/" in name or name.endswith("lock")]


def test_an_old_bundle_makes_way_for_a_new_one(tmp_path, verify):
    old, new = (linear_bundle(tmp_path / name, ballast=20_000_000) for name in ("old", "new"))
    with small_disk(tmp_path / "device", 35_000) as (device, inside):
        assert [verify(device, bundle)[0] for bundle in (old, new)] == [0, 0]
        assert len([name for name in listing(device, inside) if name.endswith("ballast.bin")]) == 1


def test_a_full_disk_is_cleaned(tmp_path, verify):
    bundle = linear_bundle(tmp_path / "bundle", ballast=10_000_000)
    with small_disk(tmp_path / "device", 24_000) as (device, inside):
        assert verify(device, bundle)[0] == 0
        fill = f"cat /dev/zero > {device.home}/full"
        assert subprocess.run([*inside.split(), "sh", "-c", fill], capture_output=True, check=False).returncode == 1
        refused(verify(device, bundle), "the disk is full, or cannot be written", "--clean` removes what EdgeKit keeps")
        done = edgekit("doctor", "--device", "board", "--clean")
        assert (done.exit_code, "board: removed 1" in done.stdout) == (0, True), done.stderr
        assert [name for name in listing(device, inside) if "edgekit" in name] == []


def test_a_disk_that_fills_while_we_send(tmp_path):
    (tmp_path / "big").write_bytes(bytes(5_000_000))
    with small_disk(tmp_path / "device", 2_000) as (device, inside), connect(device.address) as connection:
        with pytest.raises(DeviceError, match="the disk is full: the files could not be written there"):
            connection.put({"big": tmp_path / "big"}, f"{device.home}/folder")
        assert listing(device, inside) == [str(device.home)]


# Executes an instruction that no x86 CPU has (ud2), or no ARM CPU (udf).
ILLEGAL = """
import ctypes, mmap, platform
code = bytes.fromhex("0f0b" if platform.machine() == "x86_64" else "00000000")
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(code)
ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
"""


def test_an_engine_that_crashes_on_an_illegal_instruction(tmp_path, verify):
    (tmp_path / "site/onnxruntime").mkdir(parents=True)
    (tmp_path / "site/onnxruntime/__init__.py").write_text(ILLEGAL)
    python = f'#!/bin/sh\nPYTHONPATH=$PYTHONPATH:{tmp_path}/site exec {sys.executable} "$@"\n'
    with loopback_device(tmp_path / "device", path=programs(tmp_path / "bin", python3=python)) as device:
        refused(verify(device), "onnxruntime crashed on an instruction that this CPU does not have", "SIGILL")
        assert device.left() == []


@pytest.mark.parametrize(("days", "word"), [(-9000, "behind"), (9000, "ahead")])
def test_a_clock_that_is_off_by_years_does_not_matter(tmp_path, verify, days, word):
    if shutil.which("faketime") is None:
        pytest.skip("faketime is not installed")
    with loopback_device(tmp_path / "device", command=f"faketime -f '{days:+}d'") as device:
        for _ in range(2):
            code, out, err = verify(device)
            assert (code, "board" in out) == (0, True), err
        assert device.left() == []
        done = edgekit("doctor", "--device", "board")
        assert done.exit_code == 0, done.stderr
        out = " ".join(done.stdout.split())
        assert f"its clock is 9000 days {word}; nothing here depends on it" in out


# Ends the sshd that serves the command whose number is in `cut`: before it, or after it.
CUTTING = """\
#!/bin/sh
cd {folder}; n=$(($(cat count) + 1)); echo $n > count
[ "$n before" = "$(cat cut)" ] && kill -9 $PPID && exit
cd home; env -i HOME={folder}/home PATH={path} EDGEKIT_LOCKS={folder} /bin/sh -c "$SSH_ORIGINAL_COMMAND"; status=$?
[ "$n after" = "$(cat ../cut)" ] && kill -9 $PPID
exit $status
"""
STEPS = ("look", "kit", "keeper", "sizes", "send", "verify")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_connection_that_is_cut_at_a_step(tmp_path, verify, step, when):
    folder = tmp_path / "device"
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    with loopback_device(folder, shell=CUTTING.format(folder=folder, path=path)) as device:
        (folder / "count").write_text("0")
        (folder / "cut").write_text(f"{STEPS.index(step) + 1} {when}")
        code, out, err = verify(device)
        if (step, when) == ("keeper", "after"):  # all was done by then; the keeper is asked again to clear up
            assert (code, "verified" in out) == (0, True)
        else:
            assert (code, out) == (1, "")
            assert "error: board: the connection was lost while" in err
        until = time.monotonic() + 20
        while device.left() and time.monotonic() < until:
            time.sleep(0.05)
        assert device.left() == []
        (folder / "cut").write_text("")
        assert verify(device)[0] == 0
