"""An artifact opened in a process of its own, so that an engine that crashes or hangs takes nothing else with it.

Parent and child talk over a socket: a line of JSON, then the bytes of the arrays it names. The child opens the
artifact, says so, answers samples with outputs (after a sign of life a batch), and ends when the
socket closes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgekit import errors
from edgekit.artifact import Array, Artifact, tensor_specs, to_json
from edgekit.errors import EdgeKitError, EngineError
from edgekit.profiling.environment import child_environment
from edgekit.runtime import first_silence_s, open_artifact
from edgekit.runtime.numbers import run_batched
from edgekit.runtime.placement import Placement, parse_placement
from edgekit.runtime.session import Session, one_query

SILENCE_S = 120.0
PARENT_GONE = 3  # exit status
_TAIL_CHARS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """The parent's end of an artifact that is open in another process."""

    engine: str
    stream: BufferedIOBase

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs any number of samples; see :func:`edgekit.runtime.numbers.run_batched`.

        Raises:
            EngineError: The engine failed, crashed or hung.
            FeedError: A name, dtype or shape is wrong.
        """
        return self._ask({"do": "run"}, feeds)[1]

    def placement(self, samples: Mapping[str, Array] | None = None) -> Placement:
        """What the engine really ran; see :meth:`edgekit.runtime.session.Session.placement`.

        Args:
            samples: Of which the first make a query; none, or where they do not fit: zeros.
        """
        return parse_placement(self._ask({"do": "placement"}, samples or {})[0]["placement"])

    def _ask(self, message: Mapping[str, Any], arrays: Mapping[str, Array]) -> tuple[dict[str, Any], dict[str, Array]]:
        _send(self.stream, message, arrays)
        return _answer(self.stream)


@contextlib.contextmanager
def opened_apart(artifact: Artifact, *, silence_s: float = SILENCE_S) -> Iterator[Apart]:
    """Opens an artifact on its engine in a fresh process, which never outlives the block.

    Args:
        artifact: The artifact.
        silence_s: Longest wait for an answer before the process is called hung.

    Raises:
        EngineError: The engine refuses the artifact; or, here or inside the block, it crashes or hangs.
        EngineMissing: Its engine cannot execute here.
    """
    ours, theirs = socket.socketpair()
    with ours, tempfile.TemporaryFile() as output:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "edgekit.apart", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.PIPE,  # closes with this process, however it ends
                stdout=output,
                stderr=output,
                cwd=artifact.folder,  # python -m looks here first: a user's random.py must not be found
                env=child_environment(),
                start_new_session=True,  # a Ctrl-C reaches the parent, which ends its child in order
            )
        waited_s = first_silence_s(artifact.engine, silence_s)
        ours.settimeout(waited_s)
        try:
            with ours.makefile("rwb") as stream:
                _send(stream, {"artifact": to_json(replace(artifact, folder=artifact.folder.resolve()))}, {})
                _answer(stream)
                waited_s = silence_s
                ours.settimeout(waited_s)
                yield Apart(engine=artifact.engine, stream=stream)
        except (TimeoutError, ConnectionError, EOFError) as exc:
            hung = isinstance(exc, TimeoutError)
            how = f"gave no answer for {waited_s:g} s" if hung else _how_it_ended(process, silence_s)
            raise EngineError(
                f"{artifact.engine} {how} while running the samples", found=_tail(output) or None
            ) from exc
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdin is not None
            process.stdin.close()


def _how_it_ended(process: subprocess.Popen[bytes], silence_s: float) -> str:
    try:
        status = process.wait(timeout=silence_s)
    except subprocess.TimeoutExpired:
        return "closed its answers"
    if status >= 0:
        return f"ended with exit status {status}"
    with contextlib.suppress(ValueError):  # real-time signals have no name
        return f"died of {signal.Signals(-status).name}"
    return f"died of signal {-status}"


def _tail(output: IO[bytes]) -> str:
    """The end of what the process printed."""
    output.seek(0)
    return output.read().decode("utf-8", errors="replace")[-_TAIL_CHARS:].strip()


def _send(stream: BufferedIOBase, message: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    shapes = [[name, array.dtype.str, list(np.shape(arrays[name]))] for name, array in plain.items()]
    stream.write(json.dumps({**message, "arrays": shapes}).encode() + b"\n")
    for array in plain.values():
        stream.write(array.tobytes())
    stream.flush()


def _receive(stream: BufferedIOBase) -> tuple[dict[str, Any], dict[str, Array]]:
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError("the other end is gone")
    message: dict[str, Any] = json.loads(line)
    arrays = {}
    for name, dtype, shape in message.pop("arrays"):
        array = np.empty(shape, np.dtype(dtype))
        content = stream.read(array.nbytes)
        if len(content) != array.nbytes:
            raise EOFError("the other end is gone")
        arrays[name] = np.frombuffer(content, array.dtype).reshape(shape)
    return message, arrays


def _answer(stream: BufferedIOBase) -> tuple[dict[str, Any], dict[str, Array]]:
    """What the child answers; its errors are raised here as the class they had there."""
    message, arrays = _receive(stream)
    while message.get("alive"):
        message, arrays = _receive(stream)
    told = message.get("error")
    if told is not None:
        kind: type[EdgeKitError] = getattr(errors, told.pop("class"), EngineError)
        error = kind.__new__(kind)
        EdgeKitError.__init__(error, **told)  # a class may have another constructor than the base
        raise error
    return message, arrays


def serve(descriptor: int) -> None:
    """The child's whole life: opens what it is told to, then answers until the socket closes."""
    with socket.socket(fileno=descriptor) as connection, connection.makefile("rwb") as stream:
        session = None
        while True:
            try:
                message, arrays = _receive(stream)
            except (EOFError, ConnectionError):
                return
            answer: dict[str, Any] = {}
            outputs: dict[str, Array] = {}
            try:
                if session is None:
                    session = open_artifact(_artifact(message["artifact"]))
                elif message["do"] == "run":
                    outputs = run_batched(_Beating(session, stream), arrays)
                else:
                    answer["placement"] = to_json(session.placement(one_query(arrays, session.inputs)))
            except EdgeKitError as exc:
                answer["error"] = _told(exc)
            _send(stream, answer, outputs)


def _end_with_parent() -> None:
    """Ends this process when the parent is gone, also while an engine hangs."""
    # Unbuffered, since a buffered stdin that a daemon thread reads is a fatal error when the process ends.
    with open(0, "rb", buffering=0, closefd=False) as stream:
        stream.read()
    os._exit(PARENT_GONE)


class _Beating:
    """A session that gives a sign of life after every batch, so that a long row of slow ones is not called a hang."""

    def __init__(self, session: Session, stream: BufferedIOBase) -> None:
        self.inputs, self.outputs = session.inputs, session.outputs
        self.placement, self.close = session.placement, session.close
        self._session, self._stream = session, stream

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        outputs = self._session.run(feeds)
        _send(self._stream, {"alive": True}, {})
        return outputs


def _artifact(raw: Mapping[str, Any]) -> Artifact:
    specs = {kind: tensor_specs(raw[kind]) for kind in ("inputs", "outputs")}
    return Artifact(**dict(raw) | specs | {"folder": Path(raw["folder"]), "notes": tuple(raw["notes"])})


def _told(exc: EdgeKitError) -> dict[str, str | None]:
    parts = {name: getattr(exc, name) for name in ("problem", "found", "allowed", "fix")}
    return {"class": type(exc).__name__} | {name: None if part is None else str(part) for name, part in parts.items()}


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    serve(int(sys.argv[1]))
