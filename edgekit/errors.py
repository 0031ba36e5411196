"""Every error EdgeKit raises on purpose.

A message has up to four parts: the problem, what was found, what is allowed, and how to mend it.
The command line prints it without a traceback and exits with ``exit_code``.

::

    EdgeKitError
    ├── SpecError            a file people write: recipe, target, profile
    ├── UnknownName          a name that resolves to nothing; carries the nearest match
    ├── DataError            samples: missing, empty, mis-shaped, NaN, leaking into the test set
    ├── ModelError           a model or its weights cannot be loaded
    │   ├── ExportError      … cannot cross to ONNX
    │   └── TrainingError    … cannot be trained
    │       └── Diverged     … and what it learnt until then was good
    ├── EngineError          an engine refused or failed
    │   └── EngineMissing    … is not installed, or its hardware is not here
    ├── FeedError            a wrong input name, dtype or shape given to a session
    ├── StreamError          a stream of frames cannot be, is closed, or dropped a frame
    ├── ParityError          the numbers of an artifact are broken
    ├── MeasurementError     a measuring process crashed, hung or was refused
    ├── DeviceError          a device cannot be reached, is not trusted, is busy, or refuses what is asked of it
    │   ├── Unreachable      … does not answer: it may later
    │   └── ConnectionLost   … and it was the connection that went: what ran there may still run
    └── BundleError          a bundle is damaged, foreign, newer, or points outside itself
"""

from __future__ import annotations

from collections.abc import Iterable


class EdgeKitError(Exception):
    """Base of all of EdgeKit's errors.

    Args:
        problem: What went wrong, one sentence.
        found: What was found.
        allowed: What would have been right.
        fix: What the reader can do about it.
    """

    exit_code = 1

    def __init__(
        self,
        problem: str,
        *,
        found: object = None,
        allowed: object = None,
        fix: str | None = None,
    ) -> None:
        self.problem = problem
        self.found = found
        self.allowed = allowed
        self.fix = fix
        parts = {"found": found, "allowed": allowed, "fix": fix}
        lines = [f"  {label + ':':<9}{text}" for label, text in parts.items() if text is not None]
        super().__init__("\n".join([problem, *lines]))


class SpecError(EdgeKitError):
    """A recipe, target or profile file is wrong."""


class UnknownName(EdgeKitError):
    """A name resolves to nothing.

    Args:
        kind: What was looked for, e.g. ``target``.
        name: The name as given.
        known: The names there are.
        where: Where the name was written, e.g. ``edgekit.toml: targets``.
        fix: What the reader can do where no name is near.
    """

    def __init__(
        self, kind: str, name: str, known: Iterable[str], where: str | None = None, fix: str | None = None
    ) -> None:
        self.known = sorted(known)
        prefix = f"{where}: " if where else ""
        super().__init__(
            f"{prefix}unknown {kind} {name!r}",
            found=repr(name),
            allowed=", ".join(self.known) or "nothing is defined",
            fix=did_you_mean(name, self.known) or fix,
        )


class DataError(EdgeKitError):
    """Samples are missing, empty, mis-shaped, not finite, or leak into the test set."""


class ModelError(EdgeKitError):
    """A model or its weights cannot be loaded."""


class ExportError(ModelError):
    """A model cannot cross from torch to ONNX."""


class TrainingError(ModelError):
    """Training cannot start or cannot go on."""


class Diverged(TrainingError):
    """A training's loss or outputs are finite no more."""


class EngineError(EdgeKitError):
    """An engine refused a model or failed while running it."""


class EngineMissing(EngineError):
    """An engine is not installed, or the hardware it needs is not here."""


class FeedError(EdgeKitError):
    """A session was given a wrong input name, dtype or shape."""


class StreamError(EdgeKitError):
    """A stream of frames cannot be opened, is closed, or dropped a frame for a newer one."""


class ParityError(EdgeKitError):
    """The numbers of an artifact are broken: it must not ship."""


class MeasurementError(EdgeKitError):
    """A measurement was refused, crashed or hung."""


class DeviceError(EdgeKitError):
    """A device cannot be reached, is not trusted, is busy, or refuses what is asked of it."""


class Unreachable(DeviceError):
    """A device does not answer; it may when it is asked again."""


class ConnectionLost(DeviceError):
    """The connection to a device went while it was used; what ran there may still run."""


class BundleError(EdgeKitError):
    """A bundle is damaged, foreign, of a newer schema, or points outside itself."""


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """Returns ``did you mean 'x'?`` for the nearest known name, or None if none is near."""
    import difflib

    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else None
