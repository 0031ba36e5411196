"""``edgekit`` run in forks of a process that has imported everything, each disturbed at a moment that is named.

A moment is a file operation below a folder of interest that is about to happen (told by Python's audit events), or a
line of progress, always as text: ``mkdir .edgekit-partial-teacher-#``, ``progress train teacher 1/44``. Right before
it the fork is killed with -9, or a disk is filled to its last byte.

Run as a script, it reads a request a line, forks, runs the command line there, and answers with the exit status.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a fork ended: exit status (below zero: the signal), its moments in order, what it printed on stderr."""

    status: int
    moments: list[str]
    stderr: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """The parent's end: runs commands in forks of the process."""

    process: subprocess.Popen[str] = field(repr=False)
    log: Path

    def run(self, *args: object, under: Path, at: str | None = None, nth: int = 1, fill: Path | None = None) -> Ended:
        """Runs a command; right before the ``nth`` moment that matches ``at`` kills it, or fills a disk with a file."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = {"args": [str(arg) for arg in args], "under": str(under), "at": at, "nth": nth}
        request |= {"log": str(self.log), "fill": str(fill) if fill else None}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the process that forks is gone"
        status, stderr = json.loads(answer), Path(f"{self.log}.stderr").read_text()
        return Ended(status=status, moments=self.log.read_text().splitlines(), stderr=stderr)


def started(log: Path, command: list[str] | None = None, **environment: str) -> subprocess.Popen[str]:
    """Starts the process that forks."""
    here = Path(__file__)
    path = [str(here.parent), str(here.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [*(command or []), sys.executable, str(here)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ)
        | {"PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
        | environment,
    )


class Killer:
    """Writes down every moment, and does its deed right before the one that is asked for."""

    def __init__(self, under: str, at: str | None, nth: int, log: str, fill: str | None) -> None:
        self.under, self.at, self.left, self.fill = under, re.compile(at) if at else None, nth, fill
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def moment(self, text: str) -> None:
        os.write(self.log, text.encode() + b"\n")
        if self.at is not None and self.at.search(text):
            self.left -= 1
            if not self.left and self.fill is None:
                os.kill(os.getpid(), signal.SIGKILL)
            if not self.left and self.fill is not None:
                fill_disk(Path(self.fill))

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        paths = [str(arg) for arg in args[:2] if isinstance(arg, (str, os.PathLike))]
        if not paths or not paths[0].startswith(self.under):
            return
        if event == "open" and args[2] & WRITES:
            self.moment(f"write {short(paths[0])}")
        elif event in ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "shutil.rmtree"):
            self.moment(f"{event.split('.')[1]} {' to '.join(map(short, paths))}")

    def progress(self, step: str, done: int, total: int, note: str = "") -> None:
        self.moment(f"progress {step} {done}/{total}")


def fill_disk(filler: Path) -> None:
    """Writes a file until nothing more goes on its disk."""
    with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(4096))


def short(path: str) -> str:
    """The last part of a path, its folder where that is partial, without hashes."""
    parts = path.rstrip("/").split("/")
    names = [parts[-1]] if not parts[-2].startswith(".edgekit-") else parts[-2:]
    return "/".join(re.sub(r"-[0-9a-f]{16}$", "-#", name) for name in names)


def in_a_fork(request: dict[str, Any]) -> None:
    """The fork's whole life."""
    from edgekit.cli import _output
    from edgekit.cli.main import cli

    killer = Killer(request["under"], request["at"], request["nth"], request["log"], request["fill"])
    stderr = os.open(request["log"] + ".stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(stderr, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    _output.show_progress = lambda: contextlib.nullcontext(killer.progress)
    sys.addaudithook(killer.hook)
    sys.argv = ["edgekit", *request["args"]]
    cli(request["args"], prog_name="edgekit")


def main() -> None:
    """Imports what every run imports, then forks for each request."""
    for module in ("backends.openvino", "distillation.students", "pipeline", "reporting.terminal"):
        importlib.import_module(f"edgekit.{module}")
    for module in ("nncf", "torch.onnx._internal.exporter._core"):
        importlib.import_module(module)
    # As in the tests' own process: artifacts are loaded once, and a step's gain is measured briefly.
    importlib.import_module("edgekit.profiling.loads").MOST_S = 0.0
    importlib.import_module("edgekit.gains").SECONDS = 0.01
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if not pid:
            try:
                in_a_fork(request)
            except SystemExit as exc:
                sys.stderr.flush()
                os._exit(exc.code if isinstance(exc.code, int) else 1)
            finally:
                traceback.print_exc()
                os._exit(99)
        print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])), flush=True)


if __name__ == "__main__":
    main()
