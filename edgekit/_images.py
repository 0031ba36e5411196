"""Readers of images by class, from a folder or from a tar archive that is never extracted."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from edgekit._readers import Source, check_targets, class_indices
from edgekit.artifact import Array
from edgekit.errors import DataError
from edgekit.processing_specs import Preprocessing
from edgekit.runtime.preprocessing import resize_bilinear

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L")  # more than 8 bits a channel: Pillow would clip them
LAYOUT = "<class>/<name>.png (or .jpg, .jpeg, .bmp)"


def read_folder(
    path: Path, *, preprocessing: Preprocessing | None, input_name: str, labels: tuple[str, ...] | None, where: str
) -> Source:
    """Reads ``<class>/<image>`` files, decoded each time they are fetched.

    Raises:
        DataError: The folder has another layout, or an image is damaged or of another size.
    """
    at = f"{where}: {path}"
    mode = _mode(preprocessing, at)
    files = [
        file
        for folder in sorted(path.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
        for file in sorted(folder.iterdir())
        if _is_image(file.name) and file.is_file()
    ]
    if not files:
        inside = [f.name + "/" * f.is_dir() for f in sorted(path.iterdir())]
        raise _no_images(at, inside, "data/train, where data holds train/ and test/")
    sizes = [_size(file, f"{where}: {file}") for file in files]
    return _source(
        names=[file.parent.name for file in files],
        sizes=sizes,
        decode=lambda index: _decode(files[index], mode, f"{where}: {files[index]}"),
        settings=(preprocessing, input_name, labels),
        at=at,
    )


def read_tar(
    path: Path,
    inner: str,
    *,
    preprocessing: Preprocessing | None,
    input_name: str,
    labels: tuple[str, ...] | None,
    where: str,
) -> Source:
    """Decodes ``<inner>/<class>/<image>`` members into memory; nothing is written to disk.

    Raises:
        DataError: The archive is damaged or has another layout, or an image is damaged or of another size.
    """
    at = f"{where}: {path}!{inner}" if inner else f"{where}: {path}"
    mode = _mode(preprocessing, at)
    root = PurePosixPath(inner).parts
    found: list[tuple[str, str, Array]] = []
    seen: dict[str, None] = {}
    for member, encoded in _image_members(path, at):
        parts = PurePosixPath(member).parts
        seen[parts[0]] = None
        if parts[: len(root)] == root and len(parts) == len(root) + 2:
            image = _decode(io.BytesIO(encoded), mode, f"{where}: {path}!{member}")
            found.append((parts[-2], parts[-1], image))
    if not found:
        raise _no_images(at, list(seen), f"{path.name}!{next(iter(seen), 'train')}")
    found.sort(key=lambda entry: entry[:2])
    images = [image for _, _, image in found]
    return _source(
        names=[name for name, _, _ in found],
        sizes=[(image.shape[0], image.shape[1]) for image in images],
        decode=images.__getitem__,
        settings=(preprocessing, input_name, labels),
        at=at,
    )


def _image_members(path: Path, at: str) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                is_image = member.isreg() and _is_image(PurePosixPath(member.name).name)
                stream = archive.extractfile(member) if is_image else None
                if stream is not None:
                    yield member.name, stream.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as exc:
        raise DataError(
            f"{at}: the archive cannot be read", found=str(exc), fix="it is damaged or cut short; get it again"
        ) from exc


def _no_images(at: str, inside: Sequence[str], example: str) -> DataError:
    more = f" and {len(inside) - 8} more" if len(inside) > 8 else ""
    return DataError(
        f"{at}: no images by class",
        found=(", ".join(inside[:8]) + more) or "nothing",
        allowed=LAYOUT,
        fix=f"name the folder that holds the classes, e.g. {example}",
    )


def _is_image(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


def _mode(preprocessing: Preprocessing | None, at: str) -> str:
    """``L`` for a recipe that takes images without a channel axis, else ``RGB``."""
    if preprocessing is None:
        return "RGB"
    kept = preprocessing.layout == "any" and preprocessing.model_layout == "NHWC"
    if preprocessing.layout in ("NHWC", "NHW") or kept:
        return "L" if preprocessing.layout == "NHW" else "RGB"
    raise DataError(
        f"{at}: images do not have the layout of the recipe's [input]",
        found=f"layout = {preprocessing.layout!r}",
        allowed='"NHWC" (decoded as RGB) or "NHW" (decoded as grey)',
        fix='in the recipe: [input] layout = "NHWC"',
    )


def _size(file: Path, at: str) -> tuple[int, int]:
    with _opened(file, at) as image:
        return image.height, image.width


def _decode(file: Path | IO[bytes], mode: str, at: str) -> Array:
    """One image as uint8 ``[height, width, 3]``, or ``[height, width]`` in mode ``L``."""
    try:
        with _opened(file, at) as image:
            if image.mode in DEEP_MODES:
                raise DataError(
                    f"{at}: more than 8 bits a channel", found=f"mode {image.mode}", fix="store such data as .npz"
                )
            return np.array(image.convert(mode), dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as exc:
        raise _damaged(at, exc) from exc


def _opened(file: Path | IO[bytes], at: str) -> Any:
    try:
        from PIL import Image
    except ImportError as exc:
        raise DataError(
            f"{at}: images need Pillow", found=str(exc), fix='pip install "edgekit[compress]", or pip install pillow'
        ) from exc
    try:
        return Image.open(file)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as exc:
        raise _damaged(at, exc) from exc


def _damaged(at: str, exc: Exception) -> DataError:
    return DataError(
        f"{at}: not a readable image", found=f"{type(exc).__name__}: {exc}", fix="replace the file, or remove it"
    )


def _source(
    *,
    names: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    decode: Callable[[int], Array],
    settings: tuple[Preprocessing | None, str, tuple[str, ...] | None],
    at: str,
) -> Source:
    preprocessing, input_name, labels = settings
    resize = preprocessing.resize if preprocessing else None
    uniform = len(set(sizes)) == 1
    if not uniform and resize is None:
        other = next(index for index, size in enumerate(sizes) if size != sizes[0])
        raise DataError(
            f"{at}: the images differ in size",
            found=f"{_pixels(sizes[0])} (image 0) and {_pixels(sizes[other])} (image {other})",
            allowed="one size, or a size to bring them to",
            fix="in the recipe: [input] resize = [height, width]",
        )
    classes, targets = class_indices(names, labels, at)

    def fetch(indices: Array) -> dict[str, Array]:
        images = (decode(int(index)) for index in indices)
        # Only images of one size stack: the others are resized here, by the function the device resizes with.
        fitted = images if resize is None or uniform else (_resized(image, resize) for image in images)
        return {input_name: np.stack(list(fitted))}

    return Source(
        count=len(names), fetch=fetch, targets=check_targets(targets, len(names), classes, at), classes=classes
    )


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _resized(image: Array, size: tuple[int, int]) -> Array:
    resized: Array = resize_bilinear(image[None], size, axes=(1, 2))[0].astype(np.float32, copy=False)
    return resized
