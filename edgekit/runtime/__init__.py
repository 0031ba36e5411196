"""Engines as they execute a model on the device: one module an engine, and the bundles they open.

Everything here needs numpy, the standard library and the one engine that is opened.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib
from typing import TYPE_CHECKING, Any, Protocol, cast

from edgekit.errors import EngineMissing, UnknownName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from edgekit.artifact import Artifact, Option, StrPath, TensorSpec
    from edgekit.runtime.bundle import Bundle
    from edgekit.runtime.golden import Verification
    from edgekit.runtime.session import Session
    from edgekit.runtime.stream import Stream

ENGINES = {
    "onnxruntime": "edgekit.runtime.onnxruntime",
    "openvino": "edgekit.runtime.openvino",
    "tensorrt": "edgekit.runtime.tensorrt",
    "null": "edgekit.runtime.null",
}
BUILDING_S = {"tensorrt": 3600.0}  # engines that build once on a device, at first use; how long that may take
CACHE_OPTIONS = {"openvino": "CACHE_DIR"}  # of engines that keep what they compile, the option that names the folder


class Engine(Protocol):
    """What every engine's module offers."""

    def missing(self) -> str | None:
        """Says why the engine cannot execute here and what mends it, or returns None when it can."""
        ...

    def version(self) -> str:
        """The engine's build, e.g. ``1.31.1``."""
        ...

    def load(
        self, model: StrPath, options: Mapping[str, Option], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> Session:
        """Opens a model file."""
        ...


def missing(engine: str) -> str | None:
    """Says why an engine cannot *execute* here, with the command that mends it, or returns None when it can.

    Nothing heavy is imported to find out.

    Raises:
        UnknownName: There is no such engine.
    """
    return _module(engine).missing()


def engine_version(engine: str) -> str:
    """The build of an engine, e.g. ``1.31.1``.

    Raises:
        UnknownName: There is no such engine.
        EngineMissing: It is not installed.
    """
    return _ready(engine).version()


def open_artifact(artifact: Artifact) -> Session:
    """Opens an artifact on the engine it was made for, with its own options; see :func:`open_model`."""
    return open_model(artifact.engine, artifact.path, artifact.options, artifact.inputs, artifact.outputs)


def open_model(
    engine: str,
    model: StrPath,
    options: Mapping[str, Option],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
) -> Session:
    """Opens a model's file on an engine.

    With the option ``cpus`` this thread is pinned to them until the session is closed; see
    :func:`edgekit.runtime.affinity.pinned`.

    Raises:
        UnknownName: The engine is not one that executes.
        EngineMissing: The engine cannot execute here.
        EngineError: The engine refuses it.
        BundleError: The file points outside its folder.
    """
    module = _ready(engine)
    cpus, own = _without_cpus(options)
    if cpus is None:
        return module.load(model, own, inputs, outputs)
    from edgekit.runtime.affinity import pinned

    return pinned(str(cpus), lambda: module.load(model, own, inputs, outputs))


def get_ready(artifact: Artifact) -> None:
    """Has the engine do what it does once on a device and keeps: TensorRT builds its plan. Others need nothing.

    Raises:
        EngineMissing: Its engine cannot execute here.
        EngineError: Its engine refuses it.
        BundleError: Its file points outside its folder.
    """
    if artifact.engine in BUILDING_S:
        prepare: Callable[[Path, Mapping[str, Option]], None] = vars(_ready(artifact.engine))["get_ready"]
        prepare(artifact.path, _without_cpus(artifact.options)[1])


def first_silence_s(engine: str, otherwise: float) -> float:
    """How long an engine may say nothing until an artifact is open; ``otherwise`` but for those that build first."""
    return max(otherwise, BUILDING_S.get(engine, 0.0))


def with_cache(artifact: Artifact, folder: str = "engine-cache") -> Artifact | None:
    """The artifact set to keep what its engine compiles in ``folder``, below its own; None for an engine without."""
    option = CACHE_OPTIONS.get(artifact.engine)
    return None if option is None else dataclasses.replace(artifact, options={**artifact.options, option: folder})


def without_cache(artifact: Artifact) -> Artifact:
    """The artifact set to be compiled anew whenever it is opened."""
    option = CACHE_OPTIONS.get(artifact.engine)
    kept = {name: value for name, value in artifact.options.items() if name != option}
    return dataclasses.replace(artifact, options=kept)


def from_cache(session: Session) -> bool:
    """Whether the engine says that it took the compiled model from its cache."""
    return bool(getattr(session, "from_cache", False))


def open_bundle(path: StrPath, *, check: bool = True) -> Bundle:
    """Checks a bundle's files and opens it; see :func:`edgekit.runtime.bundle.open_bundle`."""
    with _collector_paused():
        from edgekit.runtime.bundle import open_bundle as open_here

        return open_here(path, check=check)


def open_stream(path: str | Path, **settings: Any) -> Stream:
    """Opens a bundle for a stream of frames; see :func:`edgekit.runtime.stream.open_stream`."""
    from edgekit.runtime.stream import open_stream as open_frames

    return open_frames(path, **settings)


def verify_bundle(path: StrPath) -> Verification:
    """Runs a bundle's golden samples here; see :func:`edgekit.runtime.golden.verify_bundle`."""
    from edgekit.runtime.golden import verify_bundle as verify

    return verify(path)


def _without_cpus(options: Mapping[str, Option]) -> tuple[Option | None, Mapping[str, Option]]:
    """The CPUs that an artifact is to run on, or None, and the options that are the engine's own."""
    own = dict(options)
    return own.pop("cpus", None), own


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Opening makes no garbage, and the collector would walk through all that numpy and the engine imported: 8 ms."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _module(engine: str) -> Engine:
    if engine not in ENGINES:
        raise UnknownName("engine", engine, ENGINES)
    return cast("Engine", importlib.import_module(ENGINES[engine]))


def _ready(engine: str) -> Engine:
    module = _module(engine)
    reason = module.missing()
    if reason is not None:
        raise EngineMissing(f"engine {engine!r} cannot run here", found=reason)
    return module
