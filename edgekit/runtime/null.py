"""A complete fake engine: zeros for outputs and scripted latencies, so that everything tests without hardware."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgekit.artifact import Array, Option, StrPath, TensorSpec
from edgekit.errors import EngineError
from edgekit.runtime.boundary import closed
from edgekit.runtime.options import check_options
from edgekit.runtime.placement import PlacedNode, Placement
from edgekit.runtime.session import feed_checker

NAME = "null"
OPTIONS: dict[str, type] = {
    "latency_us": float,
    "script": str,
    "crash_at": int,
    "hang_at": int,
    "nan_at": int,
    "precision": str,
}


def missing() -> str | None:
    """Nothing is needed, so nothing is missing."""
    return None


def version() -> str:
    """The fake's build."""
    return "1.0"


def load(
    model: StrPath, options: Mapping[str, Option], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> NullSession:
    """Opens any file.

    Args:
        model: A file, which is not read.
        options: ``latency_us`` of every query; ``script``, a JSON list of latencies in µs taken in turn; the index of
            the query at which it misbehaves: ``crash_at`` (aborts the process), ``hang_at`` (never returns), ``nan_at``
            (NaN in float outputs); ``precision`` that :meth:`NullSession.placement` tells (default ``fp32``).
        inputs: What the session takes.
        outputs: What it gives; a dynamic dimension gets the size it has in the feeds, else their first dimension's.

    Raises:
        UnknownName: An option is unknown.
        EngineError: The file is missing, or an option is wrong.
    """
    check_options(NAME, options, OPTIONS)
    model = Path(model)
    if not model.is_file():
        raise EngineError(f"{NAME} could not open {model.name}", found="no such file")
    return NullSession(options, _script(options), tuple(inputs), tuple(outputs))


class NullSession:
    """Takes feeds, lets the scripted time pass, gives zeros; one thread at a time."""

    def __init__(
        self,
        options: Mapping[str, Option],
        latencies_ns: Sequence[int],
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._options = options
        self._latencies_ns = latencies_ns
        self._check = feed_checker(inputs)
        self._queries = 0
        self._open = True

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs one batch; see :meth:`edgekit.runtime.session.Session.run`."""
        start_ns = time.perf_counter_ns()
        if not self._open:
            raise closed(NAME)
        self._check(feeds)
        query = self._queries
        self._queries += 1
        if query == self._options.get("crash_at"):
            os.abort()
        while query == self._options.get("hang_at"):
            time.sleep(60)
        nan = query == self._options.get("nan_at")
        result = {spec.name: self._output(spec, feeds, nan=nan) for spec in self.outputs}
        end_ns = start_ns + self._latencies_ns[query % len(self._latencies_ns)]
        while time.perf_counter_ns() < end_ns:  # busy, as a computing engine is
            pass
        return result

    def placement(self, feeds: Mapping[str, Array] | None = None) -> Placement:
        """Tells one compute node in the precision named by the options."""
        if not self._open:
            raise closed(NAME)
        precision = str(self._options.get("precision", "fp32"))
        return Placement(device="null", nodes=(PlacedNode(name="null", op="Null", precision=precision, compute=True),))

    def close(self) -> None:
        """Ends the session."""
        self._open = False

    def _output(self, spec: TensorSpec, feeds: Mapping[str, Array], *, nan: bool) -> Array:
        sizes = {
            dim: size
            for given in self.inputs
            for dim, size in zip(given.shape, feeds[given.name].shape, strict=True)
            if isinstance(dim, str)
        }
        batch = next((array.shape[0] for array in feeds.values() if array.ndim), 1)
        shape = [sizes.get(dim, batch) if isinstance(dim, str) else dim for dim in spec.shape]
        array = np.zeros(shape, spec.dtype)
        if nan and array.dtype.kind == "f":
            array.fill(np.nan)
        return array


def _script(options: Mapping[str, Option]) -> list[int]:
    """The scripted latencies in ns."""
    text = str(options.get("script", json.dumps([options.get("latency_us", 0)])))
    try:
        return [int(float(us) * 1000) for us in json.loads(text)] or [0]
    except (TypeError, ValueError) as exc:
        raise EngineError(
            f"{NAME} option 'script' is wrong", found=text, allowed="a JSON list of latencies in µs"
        ) from exc
