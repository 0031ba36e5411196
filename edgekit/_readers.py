"""Readers of ``.npz`` files and of Datasets, and the checks of labels that every reader shares."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit._groups import no_groups, numbered
from edgekit._lookup import resolve
from edgekit.artifact import Array
from edgekit.errors import DataError, did_you_mean

TARGET_NAMES = ("y", "labels", "label", "targets")
CHUNK_BYTES = 1 << 24  # what a check may hold beside the data


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a reader found.

    Attributes:
        count: Samples.
        fetch: Indices to a raw batch by input name.
        targets: Class labels ``[n]`` as int64, other targets as they are, or None.
        classes: Class names, empty when unknown.
        groups: Index into ``group_names`` of each sample, int64 ``[n]``; None without groups.
        group_names: In order.
    """

    count: int
    fetch: Callable[[Array], dict[str, Array]]
    targets: Array | None
    classes: tuple[str, ...]
    groups: Array | None = None
    group_names: tuple[str, ...] = ()


def read_npz(
    path: Path, *, input_name: str | None, labels: tuple[str, ...] | None, where: str, groups: str | None = None
) -> Source:
    """Reads ``x`` and ``y``, or arrays by input name beside ``y``; nothing is unpickled.

    Args:
        path: The file.
        input_name: Name of a single input; None: ``input`` for ``x``, else the array's own name.
        labels: Class names, which bound the labels.
        where: Where the file was named, for messages.
        groups: Name of the array that says which group each sample is of; it is no input.

    Raises:
        DataError: The file is damaged, empty or mis-shaped, or holds NaN, objects, wrong labels or no such groups.
    """
    at = f"{where}: {path}"
    arrays = _load_arrays(path, at)
    if groups is not None and groups not in arrays:
        raise no_groups(groups, "array", arrays, at)
    target_name = next((name for name in TARGET_NAMES if name in arrays), None)
    targets = None if target_name is None else arrays.pop(target_name)
    group_of = None if groups is None else targets if groups == target_name else arrays.pop(groups)
    if not arrays:
        raise DataError(
            f"{at}: no samples", found=target_name or "no arrays", allowed="an array 'x', or one a model input"
        )
    if len(arrays) == 1:
        only = next(iter(arrays))
        arrays = {input_name or ("input" if only == "x" else only): arrays[only]}
    count = _check_arrays(arrays, at)
    if targets is not None:
        targets = check_targets(targets, count, labels or (), at)
    numbers, names = (None, ()) if group_of is None else numbered(group_of, count, f"{at}: groups {groups!r}")
    return Source(
        count=count,
        fetch=lambda indices: {name: array[indices] for name, array in arrays.items()},
        targets=targets,
        classes=labels or (),
        groups=numbers,
        group_names=names,
    )


def _load_arrays(path: Path, at: str) -> dict[str, Array]:
    fix = "write it again with numpy.savez"
    if not zipfile.is_zipfile(path):  # numpy would take it for a pickle
        raise DataError(f"{at}: not an .npz file", found=f"{path.stat().st_size} bytes of something else", fix=fix)
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except ValueError as exc:
        raise DataError(
            f"{at}: holds Python objects, or an array is damaged",
            found=str(exc),
            allowed="arrays of numbers; objects are refused, for reading them could run code",
            fix="store arrays of numbers of one shape (numpy.stack) and labels as integers",
        ) from exc
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as exc:
        raise DataError(f"{at}: cannot be read", found=str(exc), fix=fix) from exc


def _check_arrays(arrays: Mapping[str, Array], at: str) -> int:
    for name, array in arrays.items():
        if array.dtype.kind not in "buif":
            raise DataError(f"{at}: {name!r} is not numbers", found=str(array.dtype), allowed="integers or floats")
        if array.ndim == 0 or array.size == 0:
            raise DataError(
                f"{at}: {name!r} is empty", found=f"shape {list(array.shape)}", allowed="one sample or more on axis 0"
            )
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise DataError(
            f"{at}: the inputs hold different numbers of samples",
            found=", ".join(f"{name}: {count}" for name, count in counts.items()),
            allowed="one row a sample in every array",
        )
    for name, array in arrays.items():
        check_finite(name, array, at)
    return next(iter(counts.values()))


def check_finite(name: str, array: Array, at: str, first: int = 0) -> None:
    """Refuses NaN and infinity, a few rows at a time.

    Args:
        name: What the array is, for the message.
        array: Samples on axis 0.
        at: Where it comes from, for the message.
        first: Index of its first row among all samples.

    Raises:
        DataError: A value is not finite.
    """
    if array.dtype.kind != "f":
        return
    rows = max(1, CHUNK_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        finite = np.isfinite(array[start : start + rows])
        if not finite.all():
            bad = start + int(np.argmin(finite.reshape(len(finite), -1).all(axis=1)))
            raise DataError(
                f"{at}: {name!r} holds NaN or infinity",
                found=f"sample {first + bad}: {_first_bad(array[bad])}",
                allowed="finite numbers",
                fix="drop the sample, or mend whatever wrote it",
            )


def _first_bad(row: Array) -> str:
    values = np.atleast_1d(row).ravel()
    return str(values[~np.isfinite(values)][0])


def check_targets(targets: Array, count: int, classes: Sequence[str], at: str) -> Array:
    """Checks targets, and turns class labels into int64 ``[n]``.

    Whole numbers, one a sample, are class labels. Anything else numeric is for a metric of the user's own
    and stays as it is.

    Args:
        targets: One row a sample.
        count: Samples.
        classes: Class names, which bound the labels; empty when unknown.
        at: Where they come from, for the message.

    Raises:
        DataError: They are text or objects, too many or few, not finite, out of range, or all of one class.
    """
    if targets.dtype.kind not in "buif":
        raise DataError(
            f"{at}: the labels are {'text' if targets.dtype.kind in 'US' else targets.dtype}",
            found=repr(targets.ravel()[0]) if targets.size else "nothing",
            allowed="class indices 0, 1, 2, …",
            fix="store indices, and name the classes in the recipe: data.labels = [...]",
        )
    if targets.ndim == 0 or len(targets) != count:
        raise DataError(
            f"{at}: samples and labels differ in number",
            found=f"{count} samples, {len(targets) if targets.ndim else 0} labels",
            allowed="one label a sample",
        )
    check_finite("labels", targets, at)
    if targets.dtype.kind != "f" and targets.shape == (count, 1):
        targets = targets[:, 0]
    whole = targets.ndim == 1 and (targets.dtype.kind != "f" or bool((targets == np.floor(targets)).all()))
    if not whole:
        return targets
    labels = targets.astype(np.int64)
    _check_range(labels, classes, at)
    return labels


def _check_range(labels: Array, classes: Sequence[str], at: str) -> None:
    top = len(classes) - 1 if classes else None
    wrong = np.flatnonzero((labels < 0) | (labels > top if top is not None else False))
    if len(wrong):
        named = f" ({len(classes)} class names)" if classes else ""
        raise DataError(
            f"{at}: a label is out of range",
            found=f"{int(labels[wrong[0]])} at sample {int(wrong[0])} ({len(wrong)} in all)",
            allowed=f"0 to {top}{named}" if top is not None else "0 and above",
            fix="count classes from 0 and name every one in data.labels",
        )
    if len(labels) > 1 and (labels == labels[0]).all():
        raise DataError(
            f"{at}: all samples are of one class",
            found=f"{len(labels)} samples of class {int(labels[0])}",
            allowed="two classes or more",
            fix="add samples of the other classes, or leave the labels out",
        )


def class_indices(names: Iterable[str], labels: tuple[str, ...] | None, at: str) -> tuple[tuple[str, ...], Array]:
    """Class names in order, and the index of every sample's class.

    Args:
        names: Class name of every sample.
        labels: Class names in order, or None: the names found, sorted.
        at: Where they come from, for the message.

    Raises:
        DataError: A class is not among ``labels``.
    """
    names = list(names)
    classes = labels or tuple(sorted(set(names)))
    index = {name: number for number, name in enumerate(classes)}
    strangers = sorted(set(names) - set(classes))
    if strangers:
        raise DataError(
            f"{at}: a class is not among the recipe's labels",
            found=", ".join(strangers),
            allowed=", ".join(classes),
            fix=did_you_mean(strangers[0], classes),
        )
    return classes, np.array([index[name] for name in names], dtype=np.int64)


def read_dataset(
    spec: str,
    *,
    base: Path,
    input_name: str | None,
    labels: tuple[str, ...] | None,
    where: str,
    groups: str | None = None,
) -> Source:
    """Reads a torch Dataset, or any object with a length and items, of model tensors.

    An item is ``x``, ``(x, y)`` or ``(dict, y)``. Every item is read once here, for its target and to be
    checked, and again when it is used.

    Args:
        spec: ``package.module:attr``; a class or function is called without arguments.
        base: A folder whose modules are importable too.
        input_name: Name of a single input.
        labels: Class names; None: the Dataset's own ``classes``.
        where: Where it was named, for messages.
        groups: Name of its attribute that says which group each sample is of.

    Raises:
        DataError: It has no length, fails, its items are not model tensors of one shape, or it has no such groups.
        EdgeKitError: The module or attribute is missing.
    """
    at = f"{where}: {spec}"
    dataset = _open_dataset(resolve(spec, {}, kind="dataset", base=base, where=where), at)
    count = _length(dataset, at)
    numbers, names = _groups_of(dataset, groups, count, at)
    name = input_name or "input"
    first, _ = _item(dataset, 0, name, at)
    shapes = {key: (array.shape, array.dtype) for key, array in first.items()}
    targets = []
    for index in range(count):
        inputs, target = _item(dataset, index, name, at)
        _check_item(inputs, shapes, index, at)
        targets.append(target)
    if not labels:
        own = getattr(dataset, "classes", ())
        labels = tuple(own) if isinstance(own, (list, tuple)) and all(isinstance(n, str) for n in own) else ()

    def fetch(indices: Array) -> dict[str, Array]:
        items = [_item(dataset, int(index), name, at)[0] for index in indices]
        return {key: np.stack([item[key] for item in items]) for key in shapes}

    return Source(
        count=count,
        fetch=fetch,
        targets=_stack_targets(targets, labels, at),
        classes=labels,
        groups=numbers,
        group_names=names,
    )


def _groups_of(dataset: Any, groups: str | None, count: int, at: str) -> tuple[Array | None, tuple[str, ...]]:
    if groups is None:
        return None, ()
    if not hasattr(dataset, groups):
        public = [name for name in getattr(dataset, "__dict__", ()) if not name.startswith("_")]
        raise no_groups(groups, "attribute", public, at)
    return numbered(getattr(dataset, groups), count, f"{at}: groups {groups!r}")


def _open_dataset(found: Any, at: str) -> Any:
    if isinstance(found, type) or (callable(found) and not hasattr(found, "__getitem__")):
        try:
            found = found()
        except Exception as exc:
            raise DataError(f"{at}: cannot be made", found=f"{type(exc).__name__}: {exc}") from exc
    if not (hasattr(found, "__len__") and hasattr(found, "__getitem__")):
        raise DataError(
            f"{at}: not a Dataset",
            found=type(found).__name__,
            allowed="an object with __len__ and __getitem__, such as torch.utils.data.Dataset",
            fix="an iterable without a length: collect its items in a list first",
        )
    return found


def _length(dataset: Any, at: str) -> int:
    try:
        count = len(dataset)
    except Exception as exc:
        raise DataError(f"{at}: its length cannot be read", found=f"{type(exc).__name__}: {exc}") from exc
    if count == 0:
        raise DataError(f"{at}: no samples", found="a Dataset of length 0", allowed="one sample or more")
    return count


def _item(dataset: Any, index: int, name: str, at: str) -> tuple[dict[str, Array], Any]:
    try:
        item = dataset[index]
    except Exception as exc:
        raise DataError(f"{at}: sample {index} cannot be read", found=f"{type(exc).__name__}: {exc}") from exc
    if isinstance(item, tuple):
        if len(item) not in (1, 2):
            raise DataError(f"{at}: sample {index} is a tuple of {len(item)}", allowed="x, (x, y) or (dict, y)")
        inputs, target = item if len(item) == 2 else (item[0], None)
    else:
        inputs, target = item, None
    named = inputs if isinstance(inputs, Mapping) else {name: inputs}
    return {str(key): _array(value, f"{at}: sample {index}") for key, value in named.items()}, target


def _array(value: Any, at: str) -> Array:
    try:
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    except (TypeError, ValueError):  # ragged lists, and torch types that numpy lacks
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "buif" or type(value).__module__.startswith("PIL."):
        raise DataError(
            f"{at} is not a model tensor",
            found=f"{type(value).__module__}.{type(value).__name__} {getattr(value, 'dtype', '')}".rstrip(),
            allowed="a tensor x, (x, y) or ({input name: tensor}, y)",
            fix="a Dataset yields model tensors: transform the sample inside it",
        )
    return array


def _check_item(inputs: Mapping[str, Array], shapes: Mapping[str, tuple[Any, Any]], index: int, at: str) -> None:
    found = {key: (array.shape, array.dtype) for key, array in inputs.items()}
    if found != shapes:
        raise DataError(
            f"{at}: sample {index} differs from sample 0",
            found=_describe(found),
            allowed=_describe(shapes),
            fix="yield every input with one shape and dtype",
        )
    for key, array in inputs.items():
        check_finite(key, array[None], at, first=index)


def _describe(shapes: Mapping[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{key}: {dtype}{list(shape)}" for key, (shape, dtype) in shapes.items())


def _stack_targets(targets: Sequence[Any], classes: Sequence[str], at: str) -> Array | None:
    if all(target is None for target in targets):
        return None
    if any(target is None for target in targets):
        raise DataError(f"{at}: only some samples have labels", allowed="a label for every sample, or for none")
    arrays = [
        _array(target, f"{at}: label {index}") if not isinstance(target, str) else np.asarray(target)
        for index, target in enumerate(targets)
    ]
    if len({array.shape for array in arrays}) > 1:
        raise DataError(
            f"{at}: the labels differ in shape",
            found=", ".join(sorted({str(list(array.shape)) for array in arrays})),
            allowed="one shape",
        )
    return check_targets(np.stack(arrays), len(arrays), classes, at)
