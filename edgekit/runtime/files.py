"""Running a bundle from one ``.npz`` file to another."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np

from edgekit.artifact import Array
from edgekit.disk import whole
from edgekit.errors import DataError, EdgeKitError, FeedError
from edgekit.runtime.bundle import Bundle, open_bundle
from edgekit.runtime.npz import Damaged, read_arrays
from edgekit.runtime.numbers import run_batched


def run_file(bundle: Path, source: Path, sink: Path, *, raw: bool = False) -> dict[str, Array]:
    """Runs a bundle on the samples of a file.

    Args:
        bundle: The bundle's folder.
        source: ``.npz`` with samples stacked on axis 0: arrays by input name, or a single array of any name.
        sink: ``.npz`` to write the outputs to, by name; whole or not at all.
        raw: The samples are model tensors already, and the outputs are the model's own: the bundle's pre- and
            postprocessing are skipped.

    Returns:
        The outputs by name.

    Raises:
        DataError: The file is missing, damaged or empty.
        FeedError: The samples do not fit the model.
        BundleError: The bundle is damaged.
        EdgeKitError: The outputs cannot be written there.
        DiskFull: There is no room for them.
    """
    check_sink(sink)
    samples = read_npz(source)
    with open_bundle(bundle) as opened:
        outputs = _run(opened, samples, source, raw)
        outputs = outputs if raw else opened.postprocess(outputs)
    with whole(sink) as partial, partial.open("wb") as stream:
        np.savez(stream, **outputs)  # type: ignore[arg-type]  # numpy's stubs forbid keyword arrays
    return outputs


def check_sink(sink: Path) -> None:
    """Refuses a file that cannot be written, before the work whose result it is to hold.

    Raises:
        EdgeKitError: It is a folder, or its folder is missing or may not be written.
    """
    folder = sink.absolute().parent
    if sink.is_dir():
        raise EdgeKitError(f"{sink}: cannot be written", found="a folder", allowed="the name of a file")
    if not folder.is_dir():
        raise EdgeKitError(f"{sink}: cannot be written", found=f"no folder {folder}", fix="make the folder first")
    if not os.access(folder, os.W_OK):
        raise EdgeKitError(f"{sink}: cannot be written", found=f"no right to write in {folder}")


def _run(opened: Bundle, samples: dict[str, Array], source: Path, raw: bool) -> dict[str, Array]:
    if len(samples) == 1 and len(opened.inputs) == 1:
        samples = {opened.inputs[0].name: next(iter(samples.values()))}
    try:
        return run_batched(opened.session, samples if raw else opened.preprocess(samples))
    except FeedError as exc:
        fix = exc.fix
        settings = opened.manifest.preprocessing
        if settings is not None and samples.keys() == {spec.name for spec in opened.inputs}:
            fix = (
                f"with --raw the samples are model tensors; leave it out for raw samples ({settings.layout})"
                if raw
                else f"raw samples are {settings.layout}, the bundle preprocesses them; give --raw with model tensors"
            )
        raise FeedError(f"{source}: {exc.problem}", found=exc.found, allowed=exc.allowed, fix=fix) from exc


def read_npz(source: Path) -> dict[str, Array]:
    """Reads the arrays of an ``.npz`` file by name; nothing in it is ever run.

    Raises:
        DataError: The file is missing, damaged or empty, or holds Python objects.
    """
    fix = "write it with numpy.savez(path, input=samples)"
    if not source.is_file():
        raise DataError(f"{source}: no such file", fix="check the path")
    if not zipfile.is_zipfile(source):
        size = source.stat().st_size
        raise DataError(f"{source}: not an .npz file", found=f"{size} bytes of something else", fix=fix)
    try:
        arrays = read_arrays(source)
    except Damaged as exc:
        raise DataError(
            f"{source}: holds Python objects, or an array is damaged",
            found=str(exc),
            allowed="arrays of numbers; objects are refused, for reading them could run code",
            fix=fix,
        ) from exc
    if not arrays:
        raise DataError(f"{source}: no arrays in it", allowed="arrays by input name", fix=fix)
    return arrays
