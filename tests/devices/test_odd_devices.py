"""Devices that are unlike others and all right, and those whose shell or way there is not."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import pytest
from loopback_sshd import SHELL, SSHD, loopback_device
from test_bad_devices import changed, programs, refused
from tiny_recipe import edgekit

pytestmark = pytest.mark.skipif(SSHD is None, reason="sshd is not installed (Debian: openssh-server)")
PATH = f"{Path(sys.executable).parent}:/usr/bin:/bin"


def verified(*more):
    """Verifies a bundle on the device `board`: the exit code, standard output and standard error."""
    done = edgekit("verify", *more, "--device", "board")
    return done.exit_code, done.stdout, done.stderr


def shell_of(folder: Path, words: str, before: str = "") -> str:
    """The script that runs a command with a login shell of one's own."""
    text = SHELL.replace("/bin/sh -c", words).replace("cd ", f"{before}\ncd ", 1)
    return text.format(home=folder / "home", path=PATH, command="", locks=folder)


@pytest.mark.parametrize("words", ["tcsh -c", "fish -c", "busybox ash -c"])
def test_any_login_shell_passes_our_commands_on(tmp_path, named, linear, words):
    program = shutil.which(words.split()[0])
    if program is None:
        pytest.skip(f"{words.split()[0]} is not installed")
    with loopback_device(tmp_path / "device", shell=shell_of(tmp_path / "device", f"/usr/bin/{words}")) as device:
        named(board=device.address)
        code, _, err = verified(linear)
        assert code == 0, err
        assert device.left() == []


def test_a_shell_that_prints_words_of_its_own_is_named(tmp_path, named, linear):
    noise = "echo Welcome to the board; echo root=/evil"
    with loopback_device(tmp_path / "device", shell=shell_of(tmp_path / "device", "/bin/sh -c", noise)) as device:
        named(board=device.address)
        refused(verified(linear), "prints something of its own", "'Welcome to the board'", "interactive shells only")
        assert not device.root.exists()


@pytest.mark.parametrize(
    "shell", ["exec /usr/lib/openssh/sftp-server", "echo This account is not available; exit 1", "exit 0"]
)
def test_an_account_that_runs_no_command_is_named(tmp_path, named, linear, shell):
    with loopback_device(tmp_path / "device", shell=f"#!/bin/sh\n{shell} </dev/null\n") as device:
        named(board=device.address)
        refused(verified(linear), "board: it lets us in and runs no command", "an account with a shell")


def test_a_home_and_a_python_whose_paths_have_spaces(tmp_path, named, linear):
    home = tmp_path / "home of Größe $x"
    home.mkdir()
    (home / "my venv").symlink_to(Path(sys.prefix))
    shell = SHELL.format(home=shlex.quote(str(home)), path=programs(tmp_path / "bin"), command="", locks=tmp_path)
    with loopback_device(tmp_path / "device", shell=shell) as device:
        named(board=device.address)
        refused(verified(linear), "there is no Python")
        toml = tmp_path / "edgekit/devices.toml"
        toml.write_text(f'{toml.read_text()}\npython = "~/my venv/bin/python"\nroot = "~/of EdgeKit"')
        code, _, err = verified(linear)
        assert code == 0, err
        assert (home / "of EdgeKit/kit").is_dir()
        assert not (home / ".cache").exists()


def test_a_host_on_the_way_that_is_down_is_named_and_not_the_device(loopback, named, linear):
    named(board=loopback.address)
    config = loopback.folder / "ssh_config"
    with changed(config, config.read_text().replace("  HostName", "  ProxyJump me@127.0.0.1:1\n  HostName", 1)):
        refused(verified(linear), "board, on the way, 127.0.0.1: it cannot be reached", "Connect call failed")


def test_a_key_file_that_is_not_there_is_named(loopback, named, linear):
    named(board=loopback.address)
    config = loopback.folder / "ssh_config"
    with changed(config, config.read_text().replace("client_key", "no_such_key")):
        refused(verified(linear), "cannot be read", "no_such_key: No such file or directory", "IdentityFile")
