"""A stream of frames over opened bundles: a bounded queue, one worker a bundle, batches gathered within a time.

::

    with open_stream("bundle", when_full="newest") as stream:
        for result in stream.over(enumerate(camera())):
            print(result.key, result.outputs)

A frame is one sample: arrays as a bundle takes them, without the batch's axis; so are its outputs. It is read by a
worker later on: do not write into it before its result is there.
"""

from __future__ import annotations

import atexit
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, perf_counter
from types import TracebackType
from typing import Any

from edgekit.artifact import Array
from edgekit.errors import EdgeKitError, StreamError
from edgekit.runtime.bundle import Bundle, open_bundle
from edgekit.runtime.feeding import feed
from edgekit.runtime.gathering import Gathering, gathering_of, prepared, run_frames
from edgekit.runtime.results import Counters, Frame, OnResult, Result, WhenFull

_NEWER = "this frame was dropped for a newer one"


@dataclass(slots=True, kw_only=True, eq=False)
class _Waiting:
    key: Any
    frame: Frame
    given_s: float
    future: Future[Result] = field(default_factory=Future)


class Stream:
    """Runs frames on bundles, in threads of its own; a context manager. Any thread may use it.

    Args:
        bundles: Opened bundles of one model, each used by one worker alone and closed with the stream.
        when_full: What happens to a frame when the queue is full: ``newest`` drops the oldest that waits, ``block``
            waits for room.
        capacity: Frames that may wait; None: a batch of them.
        gather_s: How long a worker waits for a batch to fill, from the first frame that it sees.
        model_tensors: Frames are model tensors: nothing is preprocessed.
        on_result: Told of every query that gave outputs, by the worker: its seconds (pre- and postprocessing and the
            engine), the model tensors and the model's outputs, the batch's axis first and without padding. What it
            raises becomes the error of these frames.

    Raises:
        StreamError: There are no bundles, a setting is out of range, or outputs cannot be told apart by frame.
    """

    def __init__(
        self,
        bundles: Sequence[Bundle],
        *,
        when_full: WhenFull = "newest",
        capacity: int | None = None,
        gather_s: float = 0.0,
        model_tensors: bool = False,
        on_result: OnResult | None = None,
    ) -> None:
        self._gathering = gathering_of(bundles)
        self._capacity = self._gathering.most if capacity is None else capacity
        _check_settings(when_full, self._capacity, gather_s, self._gathering)
        self._newest = when_full == "newest"
        self._gather_s = gather_s
        self._raw = not model_tensors
        self._on_result = on_result
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._room_wanted: list[Callable[[], object]] = []
        self._counts: dict[str, Any] = {name: 0 for name in Counters.__slots__ if name != "waiting"}
        self._closed = False
        names = (f"edgekit-stream-{i}" for i in range(len(bundles)))
        self._workers = [
            threading.Thread(target=self._work, args=(bundle,), name=name, daemon=True)
            for bundle, name in zip(bundles, names, strict=True)
        ]
        atexit.register(self.close)  # a daemon that runs into the interpreter's end crashes it
        for worker in self._workers:
            worker.start()

    def submit(self, frame: Frame, *, key: Any = None) -> Future[Result]:
        """Gives a frame; with ``block``, waits for room in the queue.

        Args:
            frame: One raw sample (a model tensor with ``model_tensors``), or one by input name.
            key: What its result bears.

        Returns:
            Its result, once it is there. A future that is cancelled in time never runs.

        Raises:
            StreamError: The stream is closed.
        """
        waiting = _Waiting(key=key, frame=frame, given_s=perf_counter())
        with self._changed:
            while (old := self._offer(waiting)) is None:
                self._changed.wait()
        self._drop(old, _NEWER)
        return waiting.future

    async def run(self, frame: Frame, *, key: Any = None) -> Mapping[str, Array]:
        """Gives a frame and awaits its outputs; with ``block``, room in the queue is awaited too.

        Raises:
            StreamError: The stream is closed, or the frame was dropped for a newer one.
            FeedError: The frame does not fit the model.
            EngineError: The engine failed.
        """
        import asyncio  # a tenth of a second that a plain loop does without

        waiting = _Waiting(key=key, frame=frame, given_s=perf_counter())
        loop, room = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(room.set)

        while True:
            with self._changed:
                old = self._offer(waiting)
                if old is None:
                    room.clear()
                    self._room_wanted.append(wake)
            if old is not None:
                break
            await room.wait()
        self._drop(old, _NEWER)
        return (await asyncio.wrap_future(waiting.future)).outputs

    def over(self, frames: Iterable[tuple[Any, Frame]]) -> Iterator[Result]:
        """Runs frames as they come and gives results in their order; see :func:`edgekit.runtime.feeding.feed`.

        Args:
            frames: Keys and frames, e.g. ``enumerate(camera())``; read in a thread of its own.

        Returns:
            A result of every frame that was not dropped; of the reader's own error, that error.
        """
        held = self._capacity + len(self._workers) * self._gathering.most
        return feed(frames, self.submit, held=held, newest=self._newest, on_unread=self._count_unread)

    @property
    def counters(self) -> Counters:
        """The figures of this moment."""
        with self._changed:
            return Counters(**self._counts, waiting=len(self._queue))

    def close(self, *, finish: bool = False) -> None:
        """Ends the workers and closes the bundles; what runs is waited for.

        Args:
            finish: What waits still runs; otherwise it is dropped.
        """
        with self._changed:
            self._closed = True
            left = [] if finish else list(self._queue)
            if not finish:
                self._queue.clear()
            self._changed.notify_all()
            wanted = self._wanted()
        for wake in wanted:
            wake()
        self._drop(left, "the stream was closed before this frame's turn")
        for worker in self._workers:
            if worker is not threading.current_thread():
                worker.join()
        atexit.unregister(self.close)

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _offer(self, waiting: _Waiting) -> list[_Waiting] | None:
        """Puts a frame into the queue and gives what had to go; None: there is no room. The lock is held."""
        if self._closed:
            raise StreamError("this stream is closed", fix="open another")
        full = len(self._queue) >= self._capacity
        if full and not self._newest:
            return None
        old = [self._queue.popleft()] if full else []
        self._queue.append(waiting)
        self._count(taken=1)
        self._changed.notify_all()
        return old

    def _wanted(self) -> list[Callable[[], object]]:
        wanted, self._room_wanted = self._room_wanted, []
        return wanted

    def _work(self, bundle: Bundle) -> None:
        try:
            while frames := self._take():
                self._answer(bundle, frames)
        finally:
            bundle.close()

    def _take(self) -> list[_Waiting]:
        """The next frames for a worker; none: the stream is closed."""
        with self._changed:
            while not self._gathered():
                if self._closed:
                    return []
                self._changed.wait()
            found = [self._queue.popleft() for _ in range(min(self._gathering.most, len(self._queue)))]
            self._count(running=len(found))
            self._changed.notify_all()
            wanted = self._wanted()
        for wake in wanted:
            wake()
        return found

    def _gathered(self) -> bool:
        """Waits, from the first frame on, for a whole batch or until the time is up; whether there is any frame."""
        until = monotonic() + self._gather_s
        while 0 < len(self._queue) < self._gathering.most and not self._closed:
            left = until - monotonic()
            if left <= 0:
                break
            self._changed.wait(left)
        return bool(self._queue)

    def _answer(self, bundle: Bundle, frames: list[_Waiting]) -> None:
        live = [frame for frame in frames if frame.future.set_running_or_notify_cancel()]
        with self._changed:
            self._count(running=len(live) - len(frames), dropped=len(frames) - len(live))
        began = perf_counter()
        results: list[Mapping[str, Array] | BaseException]
        try:
            results = self._run(bundle, live, began)
        except BaseException as exc:  # noqa: BLE001  # handed to the callers, whom a dead worker would leave waiting
            results = [exc] * len(live)
        ended = perf_counter()
        made = [_result(frame, found, ended) for frame, found in zip(live, results, strict=True)]
        with self._changed:
            self._count_results(made)
        for frame, result in zip(live, made, strict=True):
            frame.future.set_result(result)

    def _run(self, bundle: Bundle, frames: list[_Waiting], began: float) -> list[Mapping[str, Array] | BaseException]:
        """Outputs of every frame, or its error."""
        found: list[Mapping[str, Array] | BaseException] = []
        for frame in frames:
            try:
                found.append(prepared(bundle, frame.frame, self._gathering, raw=self._raw))
            except EdgeKitError as exc:
                found.append(exc)
        good = [feeds for feeds in found if not isinstance(feeds, BaseException)]
        if not good:
            return found
        query = run_frames(bundle, good, self._gathering)
        if self._on_result is not None:
            self._on_result(perf_counter() - began, query.feeds, query.outputs)
        answers = iter(query.answers)
        return [feeds if isinstance(feeds, BaseException) else next(answers) for feeds in found]

    def _count(self, **more: float) -> None:
        """Adds to the figures; the lock is held."""
        for name, by in more.items():
            self._counts[name] += by

    def _count_results(self, results: Sequence[Result]) -> None:
        good = [result.seconds for result in results if result.error is None]
        self._count(running=-len(results), done=len(good), failed=len(results) - len(good))
        if good:
            self._count(queries=1, total_s=sum(good))
            self._counts["last_s"] = good[-1]
            self._counts["longest_s"] = max(self._counts["longest_s"], *good)

    def _count_unread(self) -> None:
        with self._changed:
            self._count(unread=1)

    def _drop(self, frames: Sequence[_Waiting], why: str) -> None:
        if not frames:
            return
        with self._changed:
            self._count(dropped=len(frames))
        for frame in frames:
            if frame.future.set_running_or_notify_cancel():
                frame.future.set_result(_result(frame, StreamError(why), perf_counter()))


def open_stream(
    path: str | Path,
    *,
    workers: int = 1,
    when_full: WhenFull = "newest",
    capacity: int | None = None,
    gather_s: float = 0.0,
    model_tensors: bool = False,
    on_result: OnResult | None = None,
) -> Stream:
    """Opens a bundle once for every worker, and a stream over them.

    Args:
        path: The bundle's folder; its files are checked once.
        workers: How many frames run at a time. Every one has the engine's threads for itself.
        when_full: As for :class:`Stream`, and so are those that follow.
        capacity: Frames that may wait.
        gather_s: How long a worker waits for a batch to fill.
        model_tensors: Nothing is preprocessed.
        on_result: Told of every query.

    Raises:
        BundleError: The bundle is damaged, foreign, newer, or points outside itself.
        EngineError: The engine is missing or refuses it.
        StreamError: A setting is out of range.
    """
    if workers < 1:
        raise StreamError("a stream needs a worker", found=workers, allowed="1 or more")
    bundles: list[Bundle] = []
    try:
        for _ in range(workers):
            bundles.append(open_bundle(Path(path), check=not bundles))
        return Stream(
            bundles,
            when_full=when_full,
            capacity=capacity,
            gather_s=gather_s,
            model_tensors=model_tensors,
            on_result=on_result,
        )
    except BaseException:
        for bundle in bundles:
            bundle.close()
        raise


def _check_settings(when_full: str, capacity: int, gather_s: float, gathering: Gathering) -> None:
    if when_full not in ("newest", "block"):
        raise StreamError("unknown rule for a full queue", found=repr(when_full), allowed="newest, block")
    if not 0 <= gather_s <= threading.TIMEOUT_MAX:  # nor NaN: what cannot be waited for would end the worker
        raise StreamError("a batch cannot be gathered in this time", found=gather_s, allowed="seconds, 0 or more")
    least = gathering.most if gather_s > 0 else 1
    if capacity < least:
        raise StreamError(
            "the queue is too short", found=f"a capacity of {capacity}", allowed=f"{least} or more frames that wait"
        )


def _result(frame: _Waiting, found: Mapping[str, Array] | BaseException, now_s: float) -> Result:
    seconds = now_s - frame.given_s
    if isinstance(found, BaseException):
        return Result(key=frame.key, seconds=seconds, error=found)
    return Result(key=frame.key, seconds=seconds, found=found)
