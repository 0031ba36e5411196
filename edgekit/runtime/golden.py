"""Golden samples: inputs whose outputs are known, run again on the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.artifact import GOLDEN_FILE, Array, Manifest, StrPath
from edgekit.errors import BundleError, FeedError
from edgekit.runtime import ENGINES, engine_version
from edgekit.runtime.bundle import Bundle, open_bundle
from edgekit.runtime.cpu import cpu_model
from edgekit.runtime.npz import Damaged, read_arrays
from edgekit.runtime.numbers import run_batched, snr_db
from edgekit.runtime.session import one_query

if TYPE_CHECKING:
    from edgekit.runtime.placement import Placement

INPUT, REFERENCE, ARTIFACT, RAW = "input/", "reference/", "artifact/", "raw/"
OWN_FLOOR_DB = 80.0  # the same build on the same CPU differs by its threads' rounding only
PARITY_FLOOR_DB = {"fp32": 90.0, "fp16": 35.0, "bf16": 35.0}  # what a precision keeps on any engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What the golden samples show on this machine.

    Attributes:
        samples: How many were run.
        reference_db: Worst signal-to-noise ratio of an output against the reference's, in dB.
        floor_db: What the manifest asks of it.
        own_db: The same against the artifact's own recorded outputs, or None on another engine build or CPU model.
        same_build: Whether this is the engine build and CPU model that recorded them.
        passed: Whether every rule holds.
        messages: What was found, one line a rule.
    """

    samples: int
    reference_db: float
    floor_db: float
    own_db: float | None
    same_build: bool
    passed: bool
    messages: tuple[str, ...]


def verify_bundle(path: StrPath) -> Verification:
    """Checks a bundle's hashes, runs its golden samples and compares.

    Against the reference no output may be under the manifest's floor, or, where another engine recorded that, under
    what the precision keeps on any; on the engine build and CPU model that recorded the artifact's own outputs, none
    may be under 80 dB of those either.

    Args:
        path: The bundle's folder.

    Raises:
        BundleError: The bundle is damaged, or its golden file does not fit its model.
        EngineError: The engine is missing, refuses the artifact or fails on a sample.
    """
    with open_bundle(path) as bundle:
        return verify_opened(bundle)


def placement_of(bundle: Bundle) -> Placement:
    """How the engine runs an opened bundle here, by its own record of the golden samples.

    Raises:
        BundleError: Its golden file does not fit its model.
        EngineError: The engine failed.
    """
    golden = load_golden(bundle.path / GOLDEN_FILE, bundle.manifest)
    inputs = {spec.name: golden[INPUT + spec.name] for spec in bundle.manifest.inputs}
    return bundle.session.placement(one_query(inputs, bundle.session.inputs))


def verify_opened(bundle: Bundle) -> Verification:
    """Runs the golden samples of an opened bundle and compares, as :func:`verify_bundle` does.

    Raises:
        BundleError: Its golden file does not fit its model.
        EngineError: The engine fails on a sample.
    """
    path, manifest = bundle.path, bundle.manifest
    golden = load_golden(path / GOLDEN_FILE, manifest)
    inputs = {spec.name: golden[INPUT + spec.name] for spec in manifest.inputs}
    try:
        outputs = run_batched(bundle.session, inputs)
    except FeedError as exc:
        raise BundleError(
            f"{path / GOLDEN_FILE}: does not fit the model: {exc.problem}", found=exc.found, allowed=exc.allowed
        ) from exc
    version, cpu = engine_version(manifest.engine), cpu_model()
    same_build = (version, cpu) == (manifest.golden.engine_version, manifest.golden.cpu_model)
    reference_db = _worst_db(golden, REFERENCE, outputs, path)
    own_db = _worst_db(golden, ARTIFACT, outputs, path) if same_build else None
    floor_db = asked_db(manifest, same_build=same_build)
    close, own = reference_db >= floor_db, own_db is None or own_db >= OWN_FLOOR_DB
    if own_db is None:
        own_message = (
            f"its own outputs: not compared, they were recorded by {manifest.engine} {manifest.golden.engine_version} "
            f"on {manifest.golden.cpu_model}, this is {version} on {cpu}"
        )
    else:
        own_message = f"its own outputs: {own_db:.1f} dB, at least {OWN_FLOOR_DB:.1f} asked: {_word(own)}"
    return Verification(
        samples=len(next(iter(inputs.values()))),
        reference_db=reference_db,
        floor_db=floor_db,
        own_db=own_db,
        same_build=same_build,
        passed=close and own,
        messages=(f"reference: {reference_db:.1f} dB, at least {floor_db:.1f} asked: {_word(close)}", own_message),
    )


def asked_db(manifest: Manifest, *, same_build: bool = True) -> float:
    """What ``verify`` asks of a bundle's outputs against the reference, in dB.

    It is the manifest's floor. But where reference and artifact were computed by one engine on one CPU, they may be the
    same to the bit, and no other build or CPU rounds so: there no more is asked than fp32 keeps on any engine. And the
    golden outputs of an engine that could not run where the bundle was made were recorded by another, which may have
    computed the very bits of the reference: then no engine has to be closer than its precision keeps anywhere.

    Args:
        manifest: The bundle's.
        same_build: Whether this is the engine build and CPU model that recorded the artifact's own outputs.
    """
    floor_db = manifest.golden.floor_db if same_build else min(manifest.golden.floor_db, PARITY_FLOOR_DB["fp32"])
    recorder = manifest.golden.engine_version.partition(" ")[0]
    if recorder == manifest.engine or recorder not in ENGINES:
        return floor_db
    return min(floor_db, PARITY_FLOOR_DB.get(manifest.precision, floor_db))


def load_golden(file: Path, manifest: Manifest, *, raw: bool = False) -> dict[str, Array]:
    """Reads ``golden.npz``; arrays only, nothing in it is ever run.

    Args:
        file: The file, with keys ``input/NAME``, ``reference/NAME`` and ``artifact/NAME``.
        manifest: The manifest it belongs to.
        raw: Whether to read ``raw/NAME`` too, the samples before preprocessing, where there is any.

    Raises:
        BundleError: It cannot be read, lacks an array of the manifest, or holds other counts of samples.
    """
    names = [INPUT + spec.name for spec in manifest.inputs]
    names += [kind + spec.name for kind in (REFERENCE, ARTIFACT) for spec in manifest.outputs]
    if raw and manifest.preprocessing is not None:
        names.append(RAW + manifest.preprocessing.input)
    try:
        golden = read_arrays(file, names, compressed=False)
    except KeyError as exc:
        raise BundleError(f"{file}: an array is missing", found=str(exc), allowed=", ".join(names)) from exc
    except Damaged as exc:
        raise BundleError(
            f"{file}: cannot be read",
            found=str(exc),
            allowed="arrays of numbers, as edgekit writes them",
            fix="copy the bundle again, or make it again",
        ) from exc
    counts = {len(array) if array.ndim else 0 for array in golden.values()}
    if counts != {manifest.golden.samples}:
        raise BundleError(
            f"{file}: its arrays do not hold the samples the manifest counts",
            found=", ".join(map(str, sorted(counts))),
            allowed=manifest.golden.samples,
        )
    return golden


def _worst_db(golden: Mapping[str, Array], kind: str, outputs: Mapping[str, Array], path: Path) -> float:
    for name, array in outputs.items():
        if golden[kind + name].shape != array.shape:
            raise BundleError(
                f"{path}: golden array {kind + name!r} has another shape than the model's output",
                found=list(golden[kind + name].shape),
                allowed=list(array.shape),
            )
    return min(snr_db(golden[kind + name], array) for name, array in outputs.items())


def _word(good: bool) -> str:
    return "good" if good else "FAILED"
