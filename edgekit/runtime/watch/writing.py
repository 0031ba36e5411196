"""Watches a bundle while it runs on a device: what it costs, and whether its inputs are still those it was made for.

::

    with open_bundle("bundle") as bundle, start_watch(bundle) as watch:
        for raw in camera():
            outputs = watch.run(bundle.preprocess(raw))

With a stream of frames, which opens the bundle itself::

    with start_watch("bundle") as watch, open_stream("bundle", on_result=watch.record) as stream:
        watch.follow(lambda: stream.counters)
        ...

Every few seconds a thread of its own writes one JSON line and the page for Prometheus; ``edgekit watch`` reads them.

The last line says how it ended. SIGTERM, which ``systemctl stop`` and ``docker stop`` send, ends a Python program on
the spot, and nothing is written then: it looks as if it was killed. A program that is stopped that way asks for an
exit::

    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from edgekit.artifact import MANIFEST_FILE, Array, Manifest
from edgekit.disk import whole
from edgekit.errors import EdgeKitError
from edgekit.runtime.bundle import Bundle
from edgekit.runtime.files import check_sink
from edgekit.runtime.manifest import read_manifest
from edgekit.runtime.system import (
    boot_id,
    memory_available_mb,
    peak_resident_mb,
    resident_mb,
    temperature_c,
    this_system,
)
from edgekit.runtime.watch.counters import Counters, Taken
from edgekit.runtime.watch.files import PROMETHEUS, SCHEMA_VERSION, append_line, default_folder, take_folder
from edgekit.runtime.watch.judging import judge, recent
from edgekit.runtime.watch.latency import edges_with
from edgekit.runtime.watch.prometheus import prometheus_text
from edgekit.runtime.watch.settings import PERCENTILES, WatchSettings, parse_settings
from edgekit.runtime.watch.tensors import Statistics, parse_statistics

if TYPE_CHECKING:
    from http.server import ThreadingHTTPServer

_KEPT_STATES = 64  # of the last window, however short the period


class Watch:
    """Counters of one running bundle; a context manager. Any thread may use it.

    Made by :func:`start_watch`.

    Attributes:
        folder: Where it writes.
        problem: Why it cannot write now, or None; the bundle runs on meanwhile.
        address: Where the page is served, as ``HOST:PORT``; None: nowhere.
    """

    def __init__(
        self, manifest: Manifest, where: Path, bundle: Bundle | None, folder: Path, prometheus: Path, lock: IO[str]
    ) -> None:
        self.folder = folder
        self.problem: str | None = None
        self.address: str | None = None
        self._bundle, self._prometheus, self._lock_file = bundle, prometheus, lock
        self._settings = parse_settings(manifest.watch, where)
        statistics = None if manifest.statistics is None else parse_statistics(manifest.statistics, where)
        self._start = _start_line(manifest, self._settings, statistics)
        self._edges = tuple(self._start["edges"])
        self._counters = Counters(manifest, statistics, edges=self._edges, every=self._settings.every)
        self._write_failures = 0
        self._error: str | None = None
        self._writing = threading.Lock()
        self._recent: deque[dict[str, Any]] = deque(maxlen=_KEPT_STATES + 2)
        self._sequence = 0
        self._began_s = time.monotonic()
        self._stop = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._thread = threading.Thread(target=self._write_on, name="edgekit-watch", daemon=True)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs one batch of model tensors and counts it; see :meth:`edgekit.runtime.bundle.Bundle.run`.

        The time counted is the engine's alone: give :meth:`record` your own, to have preprocessing in it.

        Raises:
            EdgeKitError: The watch was given no opened bundle.
        """
        if self._bundle is None:
            raise EdgeKitError("this watch was given a bundle's folder, and runs nothing", fix="give it an open bundle")
        start = time.perf_counter()
        try:
            outputs = self._bundle.run(feeds)
        except BaseException:
            self.failed()
            raise
        self.record(time.perf_counter() - start, feeds, outputs)
        return outputs

    def record(self, seconds: float, feeds: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Counts a query that was answered; a stream's ``on_result``.

        Args:
            seconds: How long it took, by a clock that is never set back; less than 0 is counted as not timed.
            feeds: Model tensors by input name.
            outputs: The model's outputs by name.

        Raises:
            FeedError: A tensor of the model is not among them; only told when the values are looked at.
        """
        self._counters.record(seconds, feeds, outputs)

    def failed(self, queries: int = 1) -> None:
        """Counts queries that were not answered; those of a stream are counted there."""
        self._counters.failed(queries)

    def follow(self, counters: Callable[[], Taken]) -> None:
        """Takes over what a stream counts: frames taken, dropped and failed.

        Args:
            counters: Asked at every line.
        """
        self._counters.follow(counters)

    def write(self) -> None:
        """Writes a line and the page now, as the watch's own thread does every period."""
        self._write("state")

    def page(self) -> str:
        """The page for Prometheus as of now."""
        with self._writing:
            return self._page(self._state("state"))

    def close(self) -> None:
        """Writes the last line, which says that it ended as it should, and gives the folder free."""
        self._finish(None)

    def _finish(self, failure: type[BaseException] | None) -> None:
        """Ends it; by the last line a program that was told to end is told apart from one that failed."""
        if self._stop.is_set():
            return
        self._stop.set()
        atexit.unregister(self._at_exit)
        if self._thread.is_alive():
            self._thread.join()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        failed = failure is not None and issubclass(failure, Exception)  # SystemExit and Ctrl-C are none
        self._error = failure.__name__ if failed and failure is not None else None
        self._write("failed" if failed else "end")
        self._lock_file.close()

    def _at_exit(self) -> None:
        """Ends what was not closed: as it should, unless an error that nobody caught ends the program."""
        at_a_prompt = hasattr(sys, "ps1")  # which outlives its errors
        self._finish(None if at_a_prompt else getattr(sys, "last_type", None))

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish(kind)

    def begin(self, http: str | None) -> None:
        """Writes the first lines and starts the threads; :func:`start_watch` does it."""
        if http is not None:
            from edgekit.runtime.watch.http import serve  # 30 ms of imports that are rarely wanted

            self._server = serve(self.page, http)
            self.address = f"{http.rpartition(':')[0]}:{self._server.server_address[1]}"
        self._write("state")
        self._thread.start()
        atexit.register(self._at_exit)  # a program that ends without closing it has ended as it should all the same

    def _write_on(self) -> None:
        while not self._stop.wait(self._settings.period_s):
            self._write("state")

    def _write(self, kind: str) -> None:
        with self._writing:
            head = [] if self._sequence else [self._start]
            self._sequence += 1
            state = self._state(kind)
            text = self._page(state)
            apart_s = self._settings.window_s / _KEPT_STATES
            if not self._recent or state["at_s"] - self._recent[-1]["at_s"] >= apart_s:
                self._recent.append(state)
            tried = [_why_not(append_line, self.folder, line, self._start) for line in (*head, state)]
            tried.append(_why_not(_put, self._prometheus, text))
            problem = next((why for why in tried if why is not None), None)
            self._write_failures += sum(why is not None for why in tried)
            if problem is not None and self.problem is None:
                print(f"edgekit: {self.folder}: the watch cannot write: {problem}", file=sys.stderr, flush=True)
            self.problem = problem

    def _state(self, kind: str) -> dict[str, Any]:
        system = this_system()
        now_s = time.monotonic()
        return {
            "kind": kind,
            **({} if self._error is None else {"error": self._error}),
            "run": self._start["run"],
            "seq": self._sequence,
            "time": time.time(),
            "at_s": now_s,
            "up_s": round(now_s - self._began_s, 3),
            "boot": boot_id(system),
            **self._counters.state(),
            "write_failures": self._write_failures,
            "memory_mb": resident_mb(system),
            "memory_peak_mb": peak_resident_mb(system),
            "memory_available_mb": memory_available_mb(system),
            "temperature_c": temperature_c(system),
        }

    def _page(self, state: dict[str, Any]) -> str:
        seen = recent([*self._recent, state], self._settings.window_s)
        limits = {name: value for name, value in self._settings.limits.items() if name not in _OF_READERS}
        return prometheus_text(self._start, state, judge(limits, self._edges, state, seen))


_OF_READERS = ("silence_s", "restarts")  # who is silent or began anew cannot tell


def start_watch(
    bundle: Bundle | str | Path,
    folder: str | Path | None = None,
    *,
    prometheus: str | Path | None = None,
    http: str | None = None,
) -> Watch:
    """Starts to watch a bundle.

    Args:
        bundle: What runs, or its folder where something else opens it (then :meth:`Watch.run` is not to be had); how it
            is watched, and what its inputs were like, is in its manifest.
        folder: Where lines are written; None: a folder of the bundle's below ``~/.local/state/edgekit/watch``, where
            ``edgekit watch BUNDLE`` looks.
        prometheus: The file for node_exporter's textfile collector, whose name must end in ``.prom`` for it; None:
            ``watch.prom`` in the folder.
        http: ``HOST:PORT`` to serve the same page on, at ``/metrics``; None: it is not served.

    Raises:
        EdgeKitError: The folder cannot be written, another process writes there, or the address cannot be served on.
        BundleError: It is no bundle, is damaged, or what its manifest says of this cannot be read.
    """
    opened = bundle if isinstance(bundle, Bundle) else None
    path = Path(bundle) if not isinstance(bundle, Bundle) else bundle.path
    manifest = read_manifest(path, check=False) if opened is None else opened.manifest
    place = default_folder(manifest.id) if folder is None else Path(folder)
    if path.resolve() in (place.resolve(), *place.resolve().parents):
        raise EdgeKitError(
            f"{place}: a watch cannot write into its bundle", allowed="a bundle holds what its manifest lists only"
        )
    page = place / PROMETHEUS if prometheus is None else Path(prometheus)
    if prometheus is not None:
        check_sink(page)
    lock = take_folder(place)
    try:
        watch = Watch(manifest, path / MANIFEST_FILE, opened, place, page, lock)
        watch.begin(http)
    except BaseException:
        lock.close()
        raise
    return watch


def _start_line(manifest: Manifest, settings: WatchSettings, statistics: Statistics | None) -> dict[str, Any]:
    limits_s = [limit / 1000 for name, limit in settings.limits.items() if name in PERCENTILES]
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "start",
        "run": os.urandom(6).hex(),
        "seq": 0,
        "time": time.time(),
        "bundle": {
            "id": manifest.id,
            "name": manifest.name,
            "target": manifest.target,
            "engine": manifest.engine,
            "precision": manifest.precision,
        },
        "statistics": None
        if statistics is None
        else {"source": statistics.source, "samples": statistics.samples, "window": statistics.window},
        "every": settings.every,
        "period_s": settings.period_s,
        "window_s": settings.window_s,
        "limits": dict(settings.limits),
        "edges": list(edges_with(limits_s)),
    }


def _why_not(writing: Callable[..., None], *arguments: object) -> str | None:
    """Why a file could not be written, or None: what is watched runs on without."""
    try:
        writing(*arguments)
    except OSError as exc:
        return str(exc.strerror or exc).splitlines()[0]
    return None


def _put(path: Path, text: str) -> None:
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")
