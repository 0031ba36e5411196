"""What ships: an artifact, its manifest and golden inputs and outputs, in one folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import __version__
from edgekit.artifact import (
    GOLDEN_FILE,
    MANIFEST_FILE,
    Array,
    Artifact,
    Golden,
    Manifest,
    Parent,
    bundle_id,
    hash_file,
    hash_json,
    write_json,
)
from edgekit.checking import References, runnable
from edgekit.data import RANDOM, Samples
from edgekit.disk import PARTIAL, filled
from edgekit.errors import BundleError
from edgekit.processing_specs import InGraph, Postprocessing, Preprocessing
from edgekit.profiling.host import this_host
from edgekit.quantization.schemes import Plan
from edgekit.runtime import engine_version, missing, open_artifact
from edgekit.runtime.golden import ARTIFACT, INPUT, RAW, REFERENCE
from edgekit.runtime.numbers import run_batched, snr_db
from edgekit.steps import replace_folder

GOLDEN_SAMPLES = 16
NOT_HERE = "not installed where the bundle was made"
# verify allows this much below the recorded dB: another build or CPU rounds differently.
GOLDEN_MARGIN_DB = 3.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GoldenSet:
    """Golden inputs with reference and artifact outputs, and what they prove."""

    arrays: Mapping[str, Array]
    golden: Golden


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFacts:
    """What a manifest says beside the artifact itself."""

    name: str
    target: str
    plan: Plan
    batch: int
    preprocessing: Preprocessing | None
    labels: tuple[str, ...]
    parents: tuple[Parent, ...]
    accuracy: Mapping[str, Any]
    timings: Mapping[str, Any]
    statistics: Mapping[str, Any] | None = None
    watch: Mapping[str, Any] | None = None
    postprocessing: Postprocessing | None = None
    in_graph: InGraph | None = None


def make_golden(artifact: Artifact, references: References, samples: Samples, batch: int) -> GoldenSet:
    """Picks golden samples (every class where labelled, at least 16) and runs them.

    Args:
        artifact: A compiled artifact.
        references: Outputs of the fp32 student on all of ``samples``.
        samples: The check samples.
        batch: The artifact's batch; the number of golden samples is a multiple of it where there are enough.
    """
    indices = golden_indices(samples, batch)
    inputs = samples.tensors(indices)
    engine = runnable(artifact)
    session = open_artifact(engine)
    try:
        outputs = run_batched(session, inputs)
    finally:
        session.close()
    reference = {name: output[indices] for name, output in references.student.items()}
    db = round(min(snr_db(reference[name], outputs[name]) for name in reference), 3)
    arrays = {f"{INPUT}{name}": array for name, array in inputs.items()}
    arrays |= {f"{REFERENCE}{name}": array for name, array in reference.items()}
    arrays |= {f"{ARTIFACT}{name}": array for name, array in outputs.items()}
    if samples.preprocessing is not None:
        # So that the application clock can be read again on the device, preprocessing and all.
        name = samples.preprocessing.input
        arrays[f"{RAW}{name}"] = samples.raw(indices)[name]
    version = engine_version(engine.engine)
    golden = Golden(
        samples=len(indices),
        random=samples.name == RANDOM,
        reference_db=db,
        floor_db=round(db - GOLDEN_MARGIN_DB, 3),
        engine_version=version if engine is artifact else f"{engine.engine} {version}",
        cpu_model=this_host().cpu_model,
    )
    return GoldenSet(arrays=arrays, golden=golden)


def golden_indices(samples: Samples, batch: int) -> Array:
    """Positions of the golden samples: the first of every class, then evenly spread ones; sorted."""
    count = len(samples)
    first: Array = np.empty(0, dtype=np.int64)
    if samples.targets is not None and samples.targets.ndim == 1 and samples.targets.dtype.kind in "iu":
        first = np.unique(samples.targets, return_index=True)[1]
    wanted = max(GOLDEN_SAMPLES, len(first))
    wanted = min(-(-wanted // batch) * batch, count)
    rest = np.setdiff1d(np.linspace(0, count - 1, num=min(count, 4 * wanted)).astype(np.int64), first)
    missing = wanted - len(first)
    if missing > 0 and len(rest):
        first = np.concatenate(
            [first, rest[np.linspace(0, len(rest) - 1, num=min(missing, len(rest))).astype(np.int64)]]
        )
    return np.unique(first)


def write_bundle(artifact: Artifact, golden: GoldenSet, facts: BundleFacts, out: Path) -> Manifest:
    """Writes a bundle at ``out``, replacing an older one whole.

    Args:
        artifact: The compiled artifact that ships.
        golden: Its golden set.
        facts: The rest of the manifest.
        out: The bundle's folder.

    Returns:
        The manifest, with the bundle's id.

    Raises:
        BundleError: Something that is no bundle lies at ``out``.
    """
    check_replaceable(out)
    partial = out.parent / f"{PARTIAL}{out.name}"
    with filled(partial, f"the bundle {out.name}"):
        manifest = _fill(partial, artifact, golden, facts)
        write_json(partial / MANIFEST_FILE, manifest)
        replace_folder(partial, out)
    return manifest


def check_replaceable(out: Path) -> None:
    """Refuses to put a bundle in the place of anything but a bundle, an empty folder or nothing.

    Raises:
        BundleError: Something else lies at ``out``.
    """
    if out.is_symlink() or (
        out.exists() and not (out / MANIFEST_FILE).is_file() and not (out.is_dir() and not any(out.iterdir()))
    ):
        raise BundleError(
            f"{out}: the bundle would go here, and this is something else",
            found="a link" if out.is_symlink() else "a folder without a manifest.json" if out.is_dir() else "a file",
            allowed="an older bundle, which is replaced, or nothing",
            fix="choose another folder with --out",
        )


def _fill(folder: Path, artifact: Artifact, golden: GoldenSet, facts: BundleFacts) -> Manifest:
    files = {}
    for name, digest in sorted(artifact.files.items()):
        target = folder / "artifact" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(artifact.folder / name, target)
        files[f"artifact/{name}"] = digest
    # numpy's stubs take only positional arrays here; the names hold slashes on purpose.
    np.savez(folder / GOLDEN_FILE, **dict(golden.arrays))  # type: ignore[arg-type]
    files[GOLDEN_FILE] = hash_file(folder / GOLDEN_FILE)
    manifest = Manifest(
        name=facts.name,
        target=facts.target,
        engine=artifact.engine,
        engine_version=engine_version(artifact.engine) if missing(artifact.engine) is None else NOT_HERE,
        precision=artifact.precision,
        model=f"artifact/{artifact.model}",
        inputs=artifact.inputs,
        outputs=artifact.outputs,
        options=artifact.options,
        plan={
            "method": facts.plan.method,
            "scheme": facts.plan.scheme,
            "corrections": facts.plan.corrections,
            "float_groups": facts.plan.float_groups,
            "notes": artifact.notes,
        },
        batch=facts.batch,
        preprocessing=facts.preprocessing,
        postprocessing=facts.postprocessing,
        in_graph=facts.in_graph,
        labels=facts.labels,
        parents=facts.parents,
        files=files,
        golden=golden.golden,
        accuracy=facts.accuracy,
        edgekit_version=__version__,
        timings=facts.timings,
        timings_sha256=hash_json(facts.timings),
        statistics=facts.statistics,
        watch=facts.watch,
    )
    return replace(manifest, id=bundle_id(manifest))
