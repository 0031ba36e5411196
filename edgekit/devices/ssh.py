"""SSH with plain calls: asyncssh works in a thread of the connection's own, and its errors end here.

Host keys are always verified, ``~/.ssh/config`` and ``ProxyJump`` hold, and only keys log in: nobody is asked for a
password in the middle of a measurement.
"""

from __future__ import annotations

import asyncio
import shlex
import signal as signals
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from edgekit.devices.address import Address
from edgekit.devices.archives import PUT, packed, unpack, used_stamp
from edgekit.devices.dialling import dialled
from edgekit.devices.ssh_errors import connecting, using
from edgekit.errors import ConnectionLost, DeviceError
from edgekit.progress import Progress, silent

BEAT_S = 5.0  # a held process hears from us as often
CLOSE_S = 5.0

ResultT = TypeVar("ResultT")
OnLine = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command on a device ended.

    Attributes:
        status: Its exit status; None where a signal ended it.
        signal: The signal that ended it, without ``SIG``; None where none did.
        stdout: What it printed.
        stderr: What it said of errors.
    """

    status: int | None
    signal: str | None
    stdout: str
    stderr: str


class Connection:
    """A connection to a device, from :func:`connect`; a context manager, used by one thread at a time."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._way: list[Any] = []  # the hosts on the way there, itself last
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"ssh {address.name}", daemon=True)
        self._thread.start()

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float = 60.0,
        on_line: OnLine | None = None,
    ) -> Ended:
        """Runs a command and waits until it has ended; one that fails is the caller's to judge.

        Args:
            argv: The command and its arguments, as they are: no shell looks at them.
            stdin: What it reads.
            timeout_s: The longest that it may take, in seconds.
            on_line: Told every line of its standard output as it comes.

        Raises:
            ConnectionLost: The connection went; the command may run on.
            DeviceError: It took longer than its time, or the device runs no commands.
        """
        return self._wait(self._run(argv, [stdin] if stdin else [], timeout_s, on_line), "running a command")

    def start(self, argv: Sequence[str], *, timeout_s: float = 60.0) -> tuple[str, Running]:
        """Starts a command that runs until it is told to end; it hears from us every few seconds.

        Returns:
            The first line it printed (empty where it ended without one), and the running command.

        Raises:
            ConnectionLost: The connection went.
            DeviceError: It printed no line within ``timeout_s`` seconds.
        """
        return self._wait(self._start(argv, timeout_s), "starting a command")

    def put(self, files: Mapping[str, Path], folder: str, progress: Progress = silent) -> int:
        """Sends files into a new folder, whole or not at all; a folder that is there already is kept as it is.

        Args:
            files: Local files by their names in the folder.
            folder: The folder there, absolute; folders above it are made.
            progress: Told the megabytes that were sent.

        Returns:
            Bytes of the files.

        Raises:
            ConnectionLost: The connection went; nothing is left of the folder.
            DeviceError: The device has no room, or cannot write there.
        """
        argv = ["sh", "-c", PUT, "sh", folder, used_stamp()]
        ended = self._wait(self._run(argv, packed(files, progress), None, None), f"sending files to {folder}")
        total = sum(path.stat().st_size for path in files.values())
        if ended.status != 0:
            raise self.refused("the files could not be written there", ended, folder)
        return total

    def get(self, folder: str, names: Sequence[str], out: Path) -> None:
        """Fetches files of a folder into a local one, each whole or not at all.

        Args:
            folder: The folder there, absolute.
            names: Names in the folder; they cannot leave it.
            out: The local folder; files of the same names are replaced.

        Raises:
            ConnectionLost: The connection went.
            DeviceError: A file is not there, or something else came.
        """
        chunks: list[bytes] = []
        argv = ["tar", "-cf", "-", "-C", folder, *(f"./{name}" for name in names)]
        ended = self._wait(self._run(argv, [], None, None, chunks), f"fetching files of {folder}")
        if ended.status != 0:
            raise self.refused("the files could not be fetched", ended, folder)
        unpack(b"".join(chunks), names, out)

    def refused(self, problem: str, ended: Ended, where: str | None = None) -> DeviceError:
        """What a command that failed on the device comes to."""
        said = ended.stderr.strip().splitlines()
        status = f"signal {ended.signal}" if ended.signal else f"exit status {ended.status}"
        place = f" ({where})" if where else ""
        full = any("No space left" in line or "Disk quota exceeded" in line for line in said)
        return DeviceError(
            f"{self.address.name}: {'the disk is full: ' if full else ''}{problem}{place}",
            found=said[-1] if said else status,
            fix="make room on the device and give the same command again" if full else None,
        )

    def reconnect(self) -> None:
        """Connects again in place of a connection that went.

        Raises:
            DeviceError: The device does not let us in.
        """
        self._hang_up()
        self._dial()

    def close(self) -> None:
        """Ends the connection; what was started and not ended on the device loses its standard input."""
        if self._loop.is_closed():
            return
        self._hang_up()
        asyncio.run_coroutine_threadsafe(_wound_up(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _dial(self) -> None:
        self._way = self._wait(dialled(self.address), None)

    def _hang_up(self) -> None:
        way, self._way = self._way, []
        asyncio.run_coroutine_threadsafe(_hung_up(way), self._loop).result()

    def _wait(self, work: Coroutine[Any, Any, ResultT], doing: str | None) -> ResultT:
        """Has the thread do some work, and translates what it raises; None: it connects."""
        if self._loop.is_closed():
            work.close()
            raise ConnectionLost(f"{self.address.name}: the connection is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            with connecting(self.address) if doing is None else using(self.address, doing):
                return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _run(
        self,
        argv: Sequence[str],
        chunks: Iterable[bytes],
        timeout_s: float | None,
        on_line: OnLine | None,
        raw: list[bytes] | None = None,
    ) -> Ended:
        process = await self._started(argv)
        out: list[bytes] = [] if raw is None else raw
        err: list[bytes] = []
        lines = _lines(process.stdout, out, on_line) if on_line is not None else _all(process.stdout, out)
        try:
            talk = _together(_feed(process.stdin, chunks), lines, _all(process.stderr, err))
            await asyncio.wait_for(talk, timeout_s)
            await asyncio.wait_for(process.wait_closed(), CLOSE_S)
        except asyncio.TimeoutError as exc:
            raise self._too_long(argv, timeout_s or CLOSE_S) from exc
        finally:
            process.close()
        return _ended(process, b"" if raw is not None else b"".join(out), b"".join(err))

    async def _start(self, argv: Sequence[str], timeout_s: float) -> tuple[str, Running]:
        process = await self._started(argv)
        try:
            line = await asyncio.wait_for(process.stdout.readline(), timeout_s)
        except asyncio.TimeoutError as exc:
            process.close()
            raise self._too_long(argv, timeout_s) from exc
        return line.decode(errors="replace").strip(), Running(
            self, process, asyncio.ensure_future(_beat(process.stdin))
        )

    async def _started(self, argv: Sequence[str]) -> Any:
        if not self._way:
            raise ConnectionLost(f"{self.address.name}: the connection is closed")
        return await self._way[-1].create_process(shlex.join(argv), encoding=None)

    def _too_long(self, argv: Sequence[str], timeout_s: float) -> DeviceError:
        return DeviceError(
            f"{self.address.name}: a command took too long", found=argv[0], allowed=f"at most {timeout_s:g} s"
        )


class Running:
    """A command that was started and runs until it is told to end."""

    def __init__(self, connection: Connection, process: Any, beat: asyncio.Future[None]) -> None:
        self._connection = connection
        self._process = process
        self._beat = beat

    def end(self, word: str, *, timeout_s: float = 60.0) -> Ended:
        """Says a last word to the command, and waits until it has ended.

        Raises:
            ConnectionLost: The connection went.
            DeviceError: It did not end within ``timeout_s`` seconds.
        """
        return self._connection._wait(self._end(word, timeout_s), "ending a command")

    async def _end(self, word: str, timeout_s: float) -> Ended:
        self._beat.cancel()
        process = self._process
        out: list[bytes] = []
        err: list[bytes] = []
        try:
            talk = _together(
                _feed(process.stdin, [f"{word}\n".encode()]), _all(process.stdout, out), _all(process.stderr, err)
            )
            await asyncio.wait_for(talk, timeout_s)
            await asyncio.wait_for(process.wait_closed(), CLOSE_S)
        except asyncio.TimeoutError as exc:
            raise self._connection._too_long([word], timeout_s) from exc
        finally:
            process.close()
        return _ended(process, b"".join(out), b"".join(err))


def one_line(python: str) -> str:
    """A Python program as one line: csh, as a login shell, passes on no other."""
    return f"exec({python!r})"


def connect(address: Address) -> Connection:
    """Connects to a device.

    Raises:
        DeviceError: It does not answer, its host key is unknown or has changed, no key of ours logs in, or asyncssh is
            not installed.
    """
    connection = Connection(address)
    try:
        connection._dial()
    except BaseException:
        connection.close()
        raise
    return connection


async def _hung_up(way: list[Any]) -> None:
    for ssh in reversed(way):
        ssh.close()
        try:
            await asyncio.wait_for(ssh.wait_closed(), CLOSE_S)
        except asyncio.TimeoutError:
            ssh.abort()


async def _wound_up() -> None:
    """Ends what still runs in the loop of a connection."""
    loop = asyncio.get_running_loop()
    tasks = [task for task in asyncio.all_tasks(loop) if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await loop.shutdown_default_executor()


def _together(*work: Coroutine[Any, Any, None]) -> asyncio.Future[Any]:
    """Does all of it at once. Who is interrupted asks no more what came of it: asyncio shall not complain of that."""
    talk = asyncio.gather(*work)
    talk.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    return talk


async def _feed(stdin: Any, chunks: Iterable[bytes]) -> None:
    """Writes what a command reads; one that stops reading tells why by its own status."""
    try:
        for chunk in chunks:
            stdin.write(chunk)
            await stdin.drain()
        stdin.write_eof()
    except (BrokenPipeError, ConnectionResetError):
        return


async def _beat(stdin: Any) -> None:
    """Lets a held command know now and then that we are there."""
    try:
        while True:
            await asyncio.sleep(BEAT_S)
            stdin.write(b"\n")
            await stdin.drain()
    except (BrokenPipeError, ConnectionResetError, OSError):
        return


async def _lines(stream: Any, out: list[bytes], on_line: OnLine) -> None:
    while line := await stream.readline():
        out.append(line)
        on_line(line.decode(errors="replace").rstrip("\n"))


async def _all(stream: Any, out: list[bytes]) -> None:
    while chunk := await stream.read(1 << 16):
        out.append(chunk)


def _ended(process: Any, out: bytes, err: bytes) -> Ended:
    status, signal = process.exit_status, process.exit_signal
    if status in (None, -1) and not signal:
        raise ConnectionResetError("it ended without an exit status")
    name = str(signal[0]) if signal else _by_shell(status)
    return Ended(
        status=None if name else status,
        signal=name,
        stdout=out.decode(errors="replace"),
        stderr=err.decode(errors="replace"),
    )


def _by_shell(status: int) -> str | None:
    """The signal that a shell in between tells as 128 and its number, as shells do."""
    try:
        return signals.Signals(status - 128).name.removeprefix("SIG") if status > 128 else None
    except ValueError:
        return None
