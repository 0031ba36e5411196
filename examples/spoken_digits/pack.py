"""Makes ``train.npz`` and ``test.npz`` of the Free Spoken Digit Dataset: ``python pack.py FROM TO``.

``FROM`` is the folder ``recordings`` of https://github.com/Jakobovski/free-spoken-digit-dataset, or a ``.tar.gz`` that
holds it. Recordings 0 to 4 of every speaker and digit are the test set, as its authors say. Nothing is downloaded.
"""

from __future__ import annotations

import io
import re
import sys
import tarfile
import wave
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

RATE = 8000  # samples a second
LENGTH = RATE  # of a clip: one second
TEST_INDICES = range(5)
NAME = re.compile(r"(\d)_([a-z]+)_(\d+)\.wav")  # digit, speaker, index


def fit(sound: np.ndarray) -> np.ndarray:
    """One second ``[8000]`` of a recording: silence on both sides of a shorter one, the loudest of a longer one."""
    if len(sound) <= LENGTH:
        before = (LENGTH - len(sound)) // 2
        return np.pad(sound, (before, LENGTH - len(sound) - before))
    energy = np.concatenate(([0.0], np.cumsum(sound.astype(np.float64) ** 2)))
    start = int(np.argmax(energy[LENGTH:] - energy[:-LENGTH]))
    return sound[start : start + LENGTH]


def read_wav(content: bytes, name: str) -> np.ndarray:
    """The samples of a wav file, int16 ``[n]``.

    Raises:
        ValueError: It is no wav file, or not one channel of 16 bits at 8 kHz.
    """
    try:
        with wave.open(io.BytesIO(content)) as file:
            kind = (file.getnchannels(), 8 * file.getsampwidth(), file.getframerate())
            sound = np.frombuffer(file.readframes(file.getnframes()), "<i2" if kind[1] == 16 else "u1")
    except (wave.Error, EOFError) as exc:
        raise ValueError(f"{name}: not a wav file: {exc}") from exc
    if kind != (1, 16, RATE) or not len(sound):
        raise ValueError(f"{name}: {kind[0]} channels of {kind[1]} bits at {kind[2]} Hz; wanted: 1 of 16 at {RATE}")
    return sound.astype(np.int16)


def read_files(source: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every wav file in a folder or an archive."""
    if source.is_dir():
        for path in source.glob("*.wav"):
            yield path.name, path.read_bytes()
        return
    with tarfile.open(source) as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.name.endswith(".wav") else None
            if stream is not None:
                yield PurePosixPath(member.name).name, stream.read()


def pack(source: Path, out: Path) -> None:
    """Writes ``out/train.npz`` and ``out/test.npz``, by digit, speaker and index.

    Each holds ``x`` int16 ``[n, 8000]``, ``y`` uint8 ``[n]`` and ``speaker``, their names.

    Raises:
        ValueError: A file is not what its name should say, or there is none.
    """
    found: dict[str, list[tuple[int, str, int, np.ndarray]]] = {"train": [], "test": []}
    for name, content in read_files(source):
        match = NAME.fullmatch(name)
        if match is None:
            raise ValueError(f"{name}: not <digit>_<speaker>_<index>.wav")
        digit, speaker, index = int(match[1]), match[2], int(match[3])
        part = "test" if index in TEST_INDICES else "train"
        found[part].append((digit, speaker, index, fit(read_wav(content, name))))
    out.mkdir(parents=True, exist_ok=True)
    for part, clips in found.items():
        if not clips:
            raise ValueError(f"{source}: no recordings for {part}.npz")
        clips.sort(key=lambda clip: clip[:3])
        digits, speakers, _, sounds = zip(*clips, strict=True)
        arrays = {"x": np.stack(sounds), "y": np.array(digits, np.uint8), "speaker": np.array(speakers)}
        np.savez_compressed(out / f"{part}.npz", **arrays)
        print(f"{out / part}.npz: {len(clips)} clips of {len(set(speakers))} speakers")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    pack(Path(sys.argv[1]), Path(sys.argv[2]))
