"""Reads frames in a thread of its own, and gives their results in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from edgekit.runtime.results import Frame, Result, Submit


def feed(
    frames: Iterable[tuple[Any, Frame]],
    submit: Submit,
    *,
    held: int,
    newest: bool,
    on_unread: Callable[[], None],
) -> Iterator[Result]:
    """Gives frames to a stream as they come, and yields their results in order.

    The reader ends with the frames, or at the first that comes after the caller stopped to ask for results.

    Args:
        frames: Keys and frames.
        submit: What gives one to the stream.
        held: Results that are kept for the caller. When there are more, the reader waits; with ``newest`` the oldest
            that is ready is dropped.
        newest: Old results are dropped.
        on_unread: Told of each of these.

    Yields:
        Results, without those of frames that were dropped before they ran.

    Raises:
        Exception: Whatever reading the frames raised, after the results of those before.
    """
    line = _Line(held=held, newest=newest, on_unread=on_unread)
    threading.Thread(target=_read, args=(frames, submit, line), name="edgekit-frames", daemon=True).start()
    try:
        while (future := line.next()) is not None:
            result = future.result()
            if not result.dropped:
                yield result
        if line.error is not None:
            raise line.error
    finally:
        line.stop()


@dataclass(slots=True, kw_only=True, eq=False)
class _Line:
    """Results to come, in order."""

    held: int
    newest: bool
    on_unread: Callable[[], None]
    futures: deque[Future[Result]] = field(default_factory=deque)
    changed: threading.Condition = field(default_factory=threading.Condition)
    ended: bool = False
    stopped: bool = False
    error: BaseException | None = None

    def add(self, future: Future[Result]) -> None:
        """Adds a result to come, and waits for room where old ones are not dropped."""
        with self.changed:
            self.futures.append(future)
            self.changed.notify_all()
            while len(self.futures) > self.held and not self.stopped:
                if not self.newest:
                    self.changed.wait()
                elif not self._drop_oldest():
                    break  # all are on their way, and of those there are only so many

    def next(self) -> Future[Result] | None:
        """The next result to come; None after the last."""
        with self.changed:
            while not self.futures and not self.ended:
                self.changed.wait()
            found = self.futures.popleft() if self.futures else None
            self.changed.notify_all()
            return found

    def end(self, error: BaseException | None) -> None:
        """No more are added."""
        with self.changed:
            self.ended, self.error = True, error
            self.changed.notify_all()

    def stop(self) -> None:
        """Nobody asks any more."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()

    def _drop_oldest(self) -> bool:
        oldest = next((future for future in self.futures if future.done()), None)
        if oldest is None:
            return False
        self.futures.remove(oldest)
        if not oldest.result().dropped:
            self.on_unread()
        return True


def _read(frames: Iterable[tuple[Any, Frame]], submit: Submit, line: _Line) -> None:
    error: BaseException | None = None
    try:
        for key, frame in frames:
            if line.stopped:
                break
            line.add(submit(frame, key=key))
    except BaseException as exc:  # noqa: BLE001  # handed to who asks for results
        error = exc
    line.end(error)
