"""What a stream of frames takes, gives and counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from edgekit.artifact import Array
from edgekit.errors import StreamError

WhenFull = Literal["newest", "block"]
Frame = Array | Mapping[str, Array]
OnResult = Callable[[float, Mapping[str, Array], Mapping[str, Array]], None]


class Submit(Protocol):
    """What gives one frame to a stream."""

    def __call__(self, frame: Frame, *, key: Any = None) -> Future[Result]:
        """As :meth:`Stream.submit`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """What became of one frame.

    Attributes:
        key: The frame's own, as it was given.
        seconds: From when it was given to when this was known.
        error: What went wrong, or None.
        found: Its outputs by name, each without the batch's axis; empty where it went wrong.
    """

    key: Any
    seconds: float
    error: BaseException | None = None
    found: Mapping[str, Array] = field(default_factory=dict)

    @property
    def outputs(self) -> Mapping[str, Array]:
        """The outputs by name.

        Raises:
            StreamError: The frame was dropped, or the stream closed before its turn.
            FeedError: The frame does not fit the model.
            EngineError: The engine failed.
        """
        if self.error is not None:
            raise self.error
        return self.found

    @property
    def dropped(self) -> bool:
        """Whether it never ran: it was dropped for a newer frame, or the stream was closed."""
        return isinstance(self.error, StreamError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """A stream's figures at one moment.

    Attributes:
        taken: Frames that were given.
        dropped: Of those, the ones that never ran: older than newer ones, cancelled, or left when the stream closed.
        done: Those with outputs.
        failed: Those with an error.
        unread: Results that ``over`` dropped, for its caller asked too slowly.
        waiting: Those in the queue.
        running: Those that workers have.
        queries: Batches that ran.
        last_s: Latest time from giving a frame to its outputs, in seconds; 0 before the first.
        longest_s: Longest.
        total_s: Sum.
    """

    taken: int = 0
    dropped: int = 0
    done: int = 0
    failed: int = 0
    unread: int = 0
    waiting: int = 0
    running: int = 0
    queries: int = 0
    last_s: float = 0.0
    longest_s: float = 0.0
    total_s: float = 0.0
