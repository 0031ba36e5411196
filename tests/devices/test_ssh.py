"""The connection itself, against a real sshd."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
from dataclasses import replace

import pytest
from loopback_sshd import loopback_device

from edgekit.devices.ssh import connect
from edgekit.errors import ConnectionLost, DeviceError


@pytest.fixture
def connection(loopback):
    with connect(loopback.address) as connection:
        yield connection


def test_a_command_gets_its_arguments_as_they_are(connection):
    words = ["a b", "$HOME", "'", '"', "*", "", "ä", "-n", "\\"]
    ended = connection.run(["printf", "[%s]", *words])
    assert (ended.status, ended.signal, ended.stderr) == (0, None, "")
    assert ended.stdout == "".join(f"[{word}]" for word in words)


def test_a_command_reads_its_input_and_tells_lines_as_they_come(connection):
    lines = []
    ended = connection.run(["cat"], stdin=b"one\ntwo\n", on_line=lines.append)
    assert (lines, ended.stdout) == (["one", "two"], "one\ntwo\n")


def test_much_output_on_both_streams_does_not_block(connection):
    script = "import sys; sys.stdout.write('o' * 3000000); sys.stderr.write('e' * 3000000)"
    ended = connection.run(["python3", "-c", script])
    assert (len(ended.stdout), len(ended.stderr)) == (3_000_000, 3_000_000)


def test_a_status_a_signal_and_a_missing_command_are_told_apart(connection):
    assert connection.run(["sh", "-c", "echo no >&2; exit 7"]).status == 7
    ended = connection.run(["sh", "-c", "kill -ILL $$"])
    assert (ended.status, ended.signal) == (None, "ILL")
    assert connection.run(["no-such-command"]).status == 127


def test_a_command_that_takes_too_long_is_given_up(connection):
    with pytest.raises(DeviceError, match="took too long"):
        connection.run(["sleep", "60"], timeout_s=0.3)
    assert connection.run(["echo", "on"]).stdout == "on\n"


@pytest.mark.parametrize("on_line", [None, print])
def test_who_interrupts_a_command_hears_nothing_of_asyncio(loopback, caplog, on_line):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with connect(loopback.address) as connection, pytest.raises(KeyboardInterrupt):
            connection.run(["sleep", "30"], on_line=on_line)
    finally:
        signal.signal(signal.SIGALRM, before)
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


def test_a_connection_that_is_cut_is_told_as_lost_and_comes_back(loopback):
    with connect(loopback.address) as connection:
        parent = int(connection.run(["sh", "-c", "cut -d' ' -f4 /proc/$PPID/stat"]).stdout)
        with pytest.raises(ConnectionLost, match="loopback: the connection was lost while running a command"):
            connection.run(["sh", "-c", f"kill -9 {parent}; sleep 1"])
        with pytest.raises(ConnectionLost):
            connection.run(["true"])
        connection.reconnect()
        assert connection.run(["echo", "back"]).stdout == "back\n"


def test_the_way_leads_over_another_host(loopback, tmp_path):
    with loopback_device(tmp_path / "jump", "jump", config="LogLevel DEBUG1\n") as jump:
        config = tmp_path / "ssh_config"
        texts = [(device.folder / "ssh_config").read_text() for device in (loopback, jump)]
        config.write_text(texts[0] + "  ProxyJump jump\n" + texts[1])
        address = replace(loopback.address, config=config)
        with connect(address) as connection:
            assert connection.run(["echo", "there"]).stdout == "there\n"
        assert "direct-tcpip" in (jump.folder / "sshd.log").read_text()
        (jump.folder / "known_hosts").write_text("")
        with pytest.raises(DeviceError, match="loopback, on the way, jump: the host key is not known"):
            connect(address)


def test_files_are_sent_whole_and_come_back(connection, loopback, tmp_path):
    content = {"a": b"", "b/c": os.urandom(300_000), "b/d e": b"x" * 512}
    for name, data in content.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    folder = f"{loopback.home}/sent/one"
    told = []
    sent = connection.put({name: tmp_path / name for name in content}, folder, lambda *step: told.append(step))
    assert sent == 300_512
    assert told[-1][:3] == ("send", 1, 1)
    there = loopback.home / "sent/one"
    assert {p.relative_to(there).as_posix(): p.read_bytes() for p in there.rglob("*") if p.is_file()} == content
    connection.get(folder, list(content), tmp_path / "back")
    assert {name: (tmp_path / "back" / name).read_bytes() for name in content} == content


def test_files_that_cannot_be_written_leave_nothing(connection, loopback, tmp_path):
    (tmp_path / "f").write_bytes(b"x")
    (loopback.home / "file").write_text("in the way")
    with pytest.raises(DeviceError, match="could not be written there"):
        connection.put({"f": tmp_path / "f"}, f"{loopback.home}/file/folder")
    assert (loopback.home / "file").read_text() == "in the way"


def test_a_cut_while_sending_leaves_nothing(loopback, tmp_path):
    big = tmp_path / "big"
    big.write_bytes(os.urandom(20_000_000))
    with connect(loopback.address) as connection:
        parent = int(connection.run(["sh", "-c", "cut -d' ' -f4 /proc/$PPID/stat"]).stdout)

        def cut(step, done, total, note=""):
            if done == 10:
                with contextlib.suppress(ProcessLookupError):  # the second time
                    os.kill(parent, signal.SIGKILL)

        with pytest.raises(ConnectionLost, match="while sending files"):
            connection.put({"big": big}, f"{loopback.home}/cut/big", cut)
    until = time.monotonic() + 10
    while list((loopback.home / "cut").glob("*")) and time.monotonic() < until:
        time.sleep(0.05)
    assert list((loopback.home / "cut").glob("*")) == []


def test_a_file_that_is_not_there_is_an_error_and_nothing_is_fetched(connection, loopback, tmp_path):
    with pytest.raises(DeviceError, match="could not be fetched"):
        connection.get(str(loopback.home), ["no-such-file"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
