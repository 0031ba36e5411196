"""A teacher's answers on disk: written once, read at every step, or all there is of a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from edgekit.artifact import Array, hash_file, read_json, write_json
from edgekit.data import Samples
from edgekit.distillation.batch import Answers, Batch
from edgekit.distillation.forward import device_of, evaluating, forward, logits_of, to_torch
from edgekit.errors import DataError, TrainingError
from edgekit.progress import Progress, silent

if TYPE_CHECKING:
    from edgekit.distillation.augmentation import View

SHARD = 4096  # samples a file
INDEX = "outputs.json"
STORED = ("train.npy", "test.npy")


def asked(teacher: nn.Module) -> Answers:
    """Answers by running the teacher on every batch."""

    def answer(batch: Batch) -> Tensor:
        with torch.no_grad():
            return logits_of(teacher, batch.inputs)

    return answer


def write_outputs(
    folder: Path,
    teacher: nn.Module,
    data: Samples,
    *,
    teacher_id: str,
    view: View | None,
    views: int,
    progress: Progress = silent,
) -> None:
    """Writes a teacher's logits on every view of every training sample, in shards with their hashes.

    Args:
        folder: Where to; it exists.
        teacher: In evaluation mode while it is asked.
        data: Training samples.
        teacher_id: Identity of the teacher, which a reader must name.
        view: The augmentation, whose seed is the recipe's; None: samples as they are.
        views: How many views there are.
        progress: Told of every batch.
    """
    shards, total = [], views * len(data)
    device = device_of(teacher)
    with evaluating(teacher), torch.no_grad():
        for number in range(views):
            for start in range(0, len(data), SHARD):
                rows = []
                for first in range(start, min(start + SHARD, len(data)), 256):
                    progress("ask teacher", number * len(data) + first, total, f"view {number + 1} of {views}")
                    indices = np.arange(first, min(first + 256, start + SHARD, len(data)))
                    inputs = to_torch(data.tensors(indices), device)
                    if view is not None:
                        inputs, _ = view(inputs, None, indices, number)
                    rows.append(logits_of(teacher, inputs).float().cpu().numpy())
                name = f"view-{number:03d}-{start // SHARD:05d}.npy"
                np.save(folder / name, np.concatenate(rows))
                shards.append({"file": name, "sha256": hash_file(folder / name)})
    progress("ask teacher", total, total)
    write_json(folder / INDEX, {"teacher": teacher_id, "samples": len(data), "views": views, "shards": shards})


def read_outputs(folder: Path, data: Samples, *, teacher_id: str) -> Answers:
    """Answers from what :func:`write_outputs` wrote; the files are mapped, not held in memory.

    Raises:
        DataError: The folder is of another teacher or other samples, or a file is missing or damaged.
    """
    index = read_json(folder / INDEX)
    for what, found, wanted in (
        ("teacher", index["teacher"], teacher_id),
        ("number of samples", index["samples"], len(data)),
    ):
        if found != wanted:
            raise DataError(
                f"{folder}: the stored outputs are of another {what}",
                found=f"{found}",
                allowed=f"{wanted}",
                fix="remove the folder: it is made again",
            )
    for shard in index["shards"]:
        path = folder / shard["file"]
        if not path.exists() or hash_file(path) != shard["sha256"]:
            raise DataError(
                f"{path}: the stored outputs are {'damaged' if path.exists() else 'missing'}",
                fix=f"remove the folder {folder}: it is made again",
            )
    maps = [np.load(folder / shard["file"], mmap_mode="r") for shard in index["shards"]]
    per_view = len(maps) // index["views"]

    def answer(batch: Batch) -> Tensor:
        shards = maps[batch.view % index["views"] * per_view :]
        rows = np.stack([shards[i // SHARD][i % SHARD] for i in batch.indices.tolist()])
        return torch.from_numpy(rows).to(next(iter(batch.inputs.values())).device)

    return answer


class StoredTeacher(nn.Module):
    """A teacher that is only a folder: ``train.npy`` and ``test.npy``, logits ``[n, classes]`` in the data's order.

    Args:
        folder: The folder; ``test.npy`` may be missing where nothing is judged.

    Raises:
        DataError: ``train.npy`` is missing, or a file holds something else.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.files = {name: _rows_of(folder / name) for name in STORED if (folder / name).exists()}
        if STORED[0] not in self.files:
            raise DataError(
                f"{folder}: no stored outputs of a teacher",
                found=", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "an empty folder",
                allowed="train.npy, and test.npy where there is a test set: logits [samples, classes], float32",
                fix="np.save the teacher's logits for every sample, in the order of data.train and data.test",
            )
        self._known: dict[bytes, Array] = {}

    def bind(self, name: str, samples: Samples) -> None:
        """Ties the rows of a file to samples, in their order.

        Raises:
            DataError: There are not as many.
        """
        rows = self.files.get(name)
        if rows is None:
            return
        if len(rows) != len(samples):
            raise DataError(
                f"{self.folder / name}: not as many outputs as samples",
                found=f"{len(rows)} rows, {len(samples)} samples of {samples.name}",
                fix="store one row for each sample, in order",
            )
        self._known |= dict(zip(samples.digests(), rows, strict=True))

    def rows(self, samples: Samples) -> Array:
        """The logits of samples that were bound, ``[n, classes]``.

        Raises:
            DataError: One was not.
        """
        found = [self._known.get(digest) for digest in samples.digests()]
        missing = sum(row is None for row in found)
        if missing:
            raise DataError(
                f"{self.folder}: the teacher's stored outputs lack samples of {samples.name}",
                found=f"{missing} of {len(samples)}",
                fix="store the teacher's logits for the test set too, in test.npy",
            )
        return np.stack([row for row in found if row is not None])

    def forward(self, *_: Tensor, **__: Tensor) -> Tensor:
        """Refuses: there is no network.

        Raises:
            TrainingError: Always.
        """
        raise TrainingError(
            "this teacher is only stored outputs, so it cannot answer for a varied sample or by its layers",
            found=str(self.folder),
            allowed="training without augmentation, attacks and matched layers, from one teacher",
            fix="remove those from the recipe, or give the teacher itself",
        )


def stored_answers(teacher: StoredTeacher, data: Samples) -> Answers:
    """Answers of a teacher that is only a folder."""
    rows = torch.from_numpy(teacher.rows(data))

    def answer(batch: Batch) -> Tensor:
        return rows[batch.indices].to(next(iter(batch.inputs.values())).device)

    return answer


def outputs_of(teacher: nn.Module, samples: Samples) -> Mapping[str, Array]:
    """What a teacher gives for samples: of a network by running it, of a folder what it holds."""
    if isinstance(teacher, StoredTeacher):
        return {"output": teacher.rows(samples)}
    return forward(teacher, samples)


def _rows_of(path: Path) -> Array:
    try:
        rows: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as exc:
        raise DataError(f"{path}: not a .npy file of numbers", found=str(exc).splitlines()[0]) from exc
    if rows.ndim != 2 or rows.dtype.kind != "f" or not np.isfinite(rows).all():
        raise DataError(
            f"{path}: not a teacher's logits",
            found=f"{rows.dtype}{list(rows.shape)}" + (", with NaN or infinity" if rows.dtype.kind == "f" else ""),
            allowed="finite floats [samples, classes]",
        )
    return rows.astype(np.float32)
