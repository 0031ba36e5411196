"""Running a bundle from one ``.npz`` file to another."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from edgekit.artifact import Array
from edgekit.errors import DataError
from edgekit.runtime.bundle import open_bundle
from edgekit.runtime.numbers import run_batched


def run_file(bundle: Path, source: Path, sink: Path, *, raw: bool = False) -> dict[str, Array]:
    """Runs a bundle on the samples of a file.

    Args:
        bundle: The bundle's folder.
        source: ``.npz`` with samples stacked on axis 0: arrays by input name, or a single array of any name.
        sink: ``.npz`` to write the outputs to, by name; whole or not at all.
        raw: The samples are model tensors already: the bundle's preprocessing is skipped.

    Returns:
        The outputs by name.

    Raises:
        DataError: The file is missing, damaged or empty.
        FeedError: The samples do not fit the model.
        BundleError: The bundle is damaged.
    """
    samples = _read(source)
    with open_bundle(bundle) as opened:
        if len(samples) == 1 and len(opened.inputs) == 1:
            samples = {opened.inputs[0].name: next(iter(samples.values()))}
        feeds = samples if raw else opened.preprocess(samples)
        outputs = run_batched(opened.session, feeds)
    partial = sink.with_name(f".partial-{sink.name}")
    try:
        with partial.open("wb") as stream:
            np.savez(stream, **outputs)  # type: ignore[arg-type]  # numpy's stubs forbid keyword arrays
        os.replace(partial, sink)
    finally:
        partial.unlink(missing_ok=True)
    return outputs


def _read(source: Path) -> dict[str, Array]:
    fix = "write it with numpy.savez(path, input=samples)"
    if not source.is_file():
        raise DataError(f"{source}: no such file", fix="check the path")
    try:
        with np.load(source, allow_pickle=False) as archive:
            found = {name: archive[name] for name in archive.files} if hasattr(archive, "files") else {}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as exc:
        raise DataError(f"{source}: not an .npz of plain arrays", found=str(exc), fix=fix) from exc
    if not found:
        raise DataError(f"{source}: not an .npz with arrays", allowed="arrays by input name", fix=fix)
    return found
