"""Makes ``train.npz`` and ``test.npz`` of the four files that Zalando publishes: ``python pack.py FROM TO``.

``FROM`` is a folder with ``train-images-idx3-ubyte.gz``, ``train-labels-idx1-ubyte.gz`` and the two of ``t10k-…``, as
they lie in ``data/fashion`` of https://github.com/zalandoresearch/fashion-mnist. Nothing is downloaded.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np

PARTS = {"train": "train", "test": "t10k"}
BYTES = 0x08  # the element type of an idx file that holds unsigned bytes


def read_idx(path: Path) -> np.ndarray:
    """The array in a gzipped idx file of bytes (format: Y. LeCun, "The MNIST database of handwritten digits").

    Raises:
        ValueError: It is another kind of file, or cut off.
    """
    content = gzip.decompress(path.read_bytes())
    if content[:3] != bytes([0, 0, BYTES]):
        raise ValueError(f"{path}: not an idx file of bytes")
    axes = content[3]
    shape = np.frombuffer(content, ">u4", axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def pack(source: Path, out: Path) -> None:
    """Writes ``out/train.npz`` and ``out/test.npz``: ``x`` uint8 ``[n, 28, 28]``, ``y`` uint8 ``[n]``."""
    out.mkdir(parents=True, exist_ok=True)
    for part, name in PARTS.items():
        images = read_idx(source / f"{name}-images-idx3-ubyte.gz")
        labels = read_idx(source / f"{name}-labels-idx1-ubyte.gz")
        np.savez_compressed(out / f"{part}.npz", x=images, y=labels)
        print(f"{out / part}.npz: {len(images)} pictures, {len(labels)} labels")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    pack(Path(sys.argv[1]), Path(sys.argv[2]))
