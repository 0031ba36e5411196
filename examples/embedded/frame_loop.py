"""A service that runs a bundle on the frames of a camera, as they come.

    python frame_loop.py BUNDLE --fps 30 --verify

Frames that come while the engine is busy are dropped, so that an answer is about what is there now. Once a second a
line of JSON says how it goes. Under systemd it tells when it is ready, and gives a sign of life for frames that were
answered: a camera that stands still, an engine that hangs or frames that all fail end in a restart.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from sd_notify import Watchdog, notify, watchdog_s

from edgekit.artifact import GOLDEN_FILE, Array, Manifest
from edgekit.errors import EdgeKitError
from edgekit.runtime import verify_bundle
from edgekit.runtime.files import read_npz
from edgekit.runtime.golden import INPUT, RAW, load_golden
from edgekit.runtime.manifest import read_manifest
from edgekit.runtime.postprocessing import CLASSES, LABELS
from edgekit.runtime.results import Frame
from edgekit.runtime.stream import Stream, open_stream
from edgekit.runtime.watch import start_watch

NOT_VERIFIED = 3
EVERY_S = 1.0


def main(arguments: list[str] | None = None) -> int:
    """Runs until it is told to stop; the exit codes are EdgeKit's."""
    options = _options(arguments)
    try:
        return _serve(options)
    except EdgeKitError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return exc.exit_code


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Runs a bundle on the frames of a camera, as they come.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument(
        "--frames", type=Path, metavar="FILE.npz", help="raw frames, shown over and over; default: golden"
    )
    parser.add_argument("--fps", type=float, default=30.0, help="frames a second that the camera gives")
    parser.add_argument("--count", type=int, metavar="N", help="stop after N frames")
    parser.add_argument("--when-full", choices=("newest", "block"), default="newest", help="what a busy engine means")
    parser.add_argument("--watch", type=Path, metavar="FOLDER", help="keep counters and drift here, for edgekit watch")
    parser.add_argument(
        "--verify", action="store_true", help="check the golden samples first; exits with 3 where they fail"
    )
    options = parser.parse_args(arguments)
    for name in ("fps", "count"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            parser.error(f"--{name} must be above 0, found {value}")
    return options


def _serve(options: argparse.Namespace) -> int:
    if options.verify:
        found = verify_bundle(options.bundle)
        print("\n".join(found.messages), file=sys.stderr)
        if not found.passed:
            return NOT_VERIFIED
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    manifest = read_manifest(options.bundle)
    frames = recorded(options.bundle, manifest, options.frames)
    with contextlib.ExitStack() as open_now:
        watch = None if options.watch is None else open_now.enter_context(start_watch(options.bundle, options.watch))
        told = None if watch is None else watch.record
        stream = open_now.enter_context(open_stream(options.bundle, when_full=options.when_full, on_result=told))
        if watch is not None:
            watch.follow(lambda: stream.counters)
        notify("READY=1", f"STATUS=runs {manifest.name!r}")
        run(stream, camera(frames, options.fps, options.count, stopped), manifest, Watchdog(watchdog_s()))
        notify("STOPPING=1")
    return 0


def run(stream: Stream, frames: Iterator[Frame], manifest: Manifest, watchdog: Watchdog) -> None:
    """Answers frames until there are no more, and reports once a second and at the end."""
    latest: dict[str, Any] = {}
    told_s = time.monotonic()
    for result in stream.over(enumerate(frames)):
        if result.error is None:
            latest = {"frame": result.key, "answer": answer(result.outputs, manifest), "error": None}
            watchdog.alive()
        else:
            latest = {"frame": result.key, "answer": None, "error": str(result.error)}
        if time.monotonic() - told_s >= EVERY_S:
            told_s = time.monotonic()
            report(stream, latest)
    report(stream, latest)


def answer(outputs: Mapping[str, Array], manifest: Manifest) -> str | int | list[int]:
    """What the first output says: the best class of a classifier, by its label; the shape of anything else."""
    name = manifest.outputs[0].name
    scores = outputs[name]
    if scores.ndim != 1:
        return list(scores.shape)
    if name + CLASSES in outputs:  # the bundle sorted them already: the best comes first
        found = outputs.get(name + LABELS, outputs[name + CLASSES])[0].item()
        return found if isinstance(found, str) else int(found)
    best = int(np.argmax(scores))
    return manifest.labels[best] if len(manifest.labels) == len(scores) else best


def report(stream: Stream, latest: Mapping[str, Any]) -> None:
    """One line of JSON: the stream's counters and the latest answer."""
    counters = {name: round(value, 6) for name, value in asdict(stream.counters).items()}
    print(json.dumps({**counters, **latest}), flush=True)


def recorded(bundle: Path, manifest: Manifest, file: Path | None) -> list[Frame]:
    """Frames of a file, or the bundle's own golden samples: raw as a camera gives them, where it preprocesses.

    Raises:
        DataError: The file holds no arrays.
        BundleError: The golden file is damaged.
    """
    if file is not None:
        arrays = read_npz(file)
    else:
        golden = load_golden(bundle / GOLDEN_FILE, manifest, raw=True)
        arrays = {spec.name: golden.get(RAW + spec.name, golden[INPUT + spec.name]) for spec in manifest.inputs}
    if len(arrays) == 1:
        return list(next(iter(arrays.values())))
    return [dict(zip(arrays, samples, strict=True)) for samples in zip(*arrays.values(), strict=True)]


def camera(frames: list[Frame], fps: float, count: int | None, stopped: threading.Event) -> Iterator[Frame]:
    """Shows frames over and over at a camera's pace, until it is stopped. Put your own camera in its place.

    A stop (SIGTERM, Ctrl-C) ends it here, so that frames in flight are answered and the watch says that it ended: your
    camera must not wait for a frame without end.

    Args:
        frames: What it sees.
        fps: Frames a second.
        count: How many it gives; None: without end.
        stopped: Ends it at once.
    """
    due_s = time.monotonic()
    for shown in itertools.islice(itertools.cycle(frames), count):
        if stopped.wait(max(0.0, due_s - time.monotonic())):
            return
        due_s = max(due_s + 1 / fps, time.monotonic() - 1.0)  # after a pause it does not catch up for long
        yield shown


if __name__ == "__main__":
    sys.exit(main())
