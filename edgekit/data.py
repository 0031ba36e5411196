"""Samples: where batches come from, how they are split, and what proves that two sets share nothing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edgekit._draws import drawn
from edgekit._paths import expand_path, portable_name
from edgekit._readers import Source, read_dataset, read_npz
from edgekit.artifact import Array, TensorSpec, hash_json
from edgekit.errors import DataError, FeedError, did_you_mean
from edgekit.processing_specs import Preprocessing
from edgekit.runtime.preprocessing import preprocess
from edgekit.runtime.session import fits

RANDOM = "random"
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
KINDS = "an .npz file, a folder or tar of images by class, or package.module:attr"
READ_AT_ONCE = 32  # samples held while a whole set is walked through
_ATTRIBUTE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """A set of samples, read when asked for.

    Attributes:
        name: Where they come from, for messages.
        count: How many there are.
        fetch: Turns indices into a raw batch by input name, stacked on axis 0.
        targets: int64 class labels ``[n]``, or whatever the user's metric takes; None: unlabelled.
        classes: Class names, empty when unknown.
        preprocessing: From raw samples to model tensors; None: they are model tensors already.
        floats: Type of the floats by input, where a model takes others than float32.
        groups: Index into ``group_names`` of each sample's group, int64 ``[n]``; None: there are no groups.
        group_names: Of these samples' groups; another set may have others.
        further: Targets of further tasks by name, ``[n, …]``.
    """

    name: str
    count: int
    fetch: Callable[[Array], dict[str, Array]]
    targets: Array | None = None
    classes: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    floats: Mapping[str, str] = field(default_factory=dict)
    groups: Array | None = None
    group_names: tuple[str, ...] = ()
    further: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.count

    def raw(self, indices: Array | Sequence[int]) -> dict[str, Array]:
        """Raw samples by input name, stacked on axis 0."""
        return self.fetch(np.asarray(indices, dtype=np.int64))

    def tensors(self, indices: Array | Sequence[int]) -> dict[str, Array]:
        """Model tensors by input name, stacked on axis 0; floats are what the model takes, however they are stored."""
        return {name: self._tensor(name, array) for name, array in self.raw(indices).items()}

    def _tensor(self, name: str, array: Array) -> Array:
        if self.preprocessing is not None and name == self.preprocessing.input:
            return preprocess(array, self.preprocessing)
        return array.astype(self.floats.get(name, "float32"), copy=False) if array.dtype.kind == "f" else array

    def subset(self, indices: Array | Sequence[int]) -> Samples:
        """The samples at ``indices``, in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            count=len(chosen),
            fetch=lambda among: self.fetch(chosen[among]),
            targets=None if self.targets is None else self.targets[chosen],
            groups=None if self.groups is None else self.groups[chosen],
            further={name: array[chosen] for name, array in self.further.items()},
        )

    def only(self, names: Sequence[str]) -> Samples:
        """The same samples with these inputs alone."""
        prepared = self.preprocessing is not None and self.preprocessing.input in names
        return replace(
            self,
            fetch=lambda indices: {name: array for name, array in self.fetch(indices).items() if name in names},
            preprocessing=self.preprocessing if prepared else None,
        )

    def batches(self, size: int) -> Batches:
        """Model tensors in batches of ``size``; the last one may be smaller."""
        return Batches(samples=self, size=size)

    def digests(self) -> list[bytes]:
        """A 16-byte BLAKE2b digest of every raw sample (RFC 7693): equal samples, equal digests."""
        found = []
        for start in range(0, self.count, READ_AT_ONCE):
            indices = np.arange(start, min(start + READ_AT_ONCE, self.count))
            batch = self.raw(indices)
            found += [_digest({name: array[row] for name, array in batch.items()}) for row in range(len(indices))]
        return found

    def fingerprint(self) -> str:
        """Hash of all samples in order, all targets, classes, preprocessing and groups, as 64 hex digits."""
        targets = None if self.targets is None else _digest({"targets": self.targets}).hex()
        samples = hashlib.sha256(b"".join(self.digests())).hexdigest()
        more = [] if self.groups is None else [_digest({"groups": self.groups}).hex(), self.group_names]
        more += [_digest(self.further).hex()] if self.further else []
        return hash_json([samples, targets, self.classes, self.preprocessing, *more])


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """Model tensors by input name, batch by batch; can be walked through again and again."""

    samples: Samples
    size: int

    def __len__(self) -> int:
        return -(-self.samples.count // self.size)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        for start in range(0, self.samples.count, self.size):
            yield self.samples.tensors(np.arange(start, min(start + self.size, self.samples.count)))


def _digest(arrays: Mapping[str, Array]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}:{array.dtype.str}{array.shape};".encode())
        digest.update(array.tobytes())
    return digest.digest()


def load_samples(
    spec: str,
    *,
    base: Path,
    preprocessing: Preprocessing | None,
    input_name: str | None = None,
    labels: tuple[str, ...] | None = None,
    where: str = "data",
    origin: str | None = None,
    groups: str | None = None,
) -> Samples:
    """Opens a set of samples.

    Args:
        spec: An ``.npz`` file (``x`` and ``y``, or arrays by input name and ``y``), a folder or tar of images
            by class (``images.tar.gz!train`` for a folder inside), or ``package.module:attr`` (a torch Dataset of
            model tensors, to which no preprocessing applies). Environment variables in paths are expanded.
        base: What relative paths are relative to, and whose modules are importable: the recipe's folder.
        preprocessing: The recipe's ``[input]``.
        input_name: Name of a single input; None: the preprocessing's, else ``input``.
        labels: Class names in order. Give the training set's to the test set, so that both count alike.
        where: Where the set was named, e.g. ``edgekit.toml: data.train``, for messages.
        origin: Where the samples can be had, told where they are missing.
        groups: The array or the Dataset's attribute that says which group each sample is of.

    Raises:
        DataError: It is missing, empty, mis-shaped, damaged, or holds NaN, wrong labels or no such groups.
    """
    name = input_name or (preprocessing.input if preprocessing else None)
    if _ATTRIBUTE.fullmatch(spec):
        source = read_dataset(spec, base=base, input_name=name, labels=labels, where=where, groups=groups)
        preprocessing = None
    else:
        source = _read_files(spec, base, preprocessing, name, labels, where, origin, groups)
    if preprocessing is not None:
        preprocessing = _bind(preprocessing, list(source.fetch(np.arange(1))), f"{where}: {spec}", input_name)
    samples = Samples(
        name=portable_name(spec),
        count=source.count,
        fetch=source.fetch,
        targets=source.targets,
        classes=source.classes,
        preprocessing=preprocessing,
        groups=source.groups,
        group_names=source.group_names,
    )
    try:
        samples.tensors([0])
    except FeedError as exc:
        raise DataError(
            f"{where}: {spec}: the samples do not fit the recipe's [input]: {exc.problem}",
            found=exc.found,
            allowed=exc.allowed,
            fix=exc.fix or "describe the raw samples in [input]",
        ) from exc
    return samples


def _read_files(
    spec: str,
    base: Path,
    preprocessing: Preprocessing | None,
    name: str | None,
    labels: tuple[str, ...] | None,
    where: str,
    origin: str | None,
    groups: str | None,
) -> Source:
    hint = f"the samples can be had from {origin}" if origin else None
    text, mark, inner = spec.partition("!")
    path = expand_path(text, base=base, where=where, error=DataError, hint=hint)
    if not path.exists():
        near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else [])
        raise DataError(f"{where}: {path}: no such file or folder", found=spec, allowed=KINDS, fix=near or hint)
    archive = path.is_file() and path.name.endswith(ARCHIVES)
    if mark and not archive:
        raise DataError(f"{where}: {path} is not an archive", found=spec, allowed=f"a path in {', '.join(ARCHIVES)}")
    if path.is_file() and path.suffix == ".npz":
        return read_npz(path, input_name=name, labels=labels, where=where, groups=groups)
    if not archive and not path.is_dir():
        raise DataError(f"{where}: {path}: not a kind of data that is known", found=path.suffix, allowed=KINDS)
    if groups is not None:
        at = f"{where}: {path}: images by class have no groups"
        raise DataError(at, found=f"data.groups = {groups!r}", allowed="an .npz file, or a Dataset's module:attr")
    from edgekit._images import read_folder, read_tar

    image_name = name or "input"
    if archive:
        return read_tar(path, inner, preprocessing=preprocessing, input_name=image_name, labels=labels, where=where)
    return read_folder(path, preprocessing=preprocessing, input_name=image_name, labels=labels, where=where)


def _bind(preprocessing: Preprocessing, names: Sequence[str], at: str, input_name: str | None) -> Preprocessing:
    """Preprocessing under the name of the input it feeds."""
    if len(names) == 1:
        return replace(preprocessing, input=names[0])
    if (input_name or preprocessing.input) not in names:
        raise DataError(
            f"{at}: no array for the input that the recipe's [input] preprocesses",
            found=preprocessing.input,
            allowed=", ".join(names),
            fix='in the recipe: [input] name = "…"',
        )
    return replace(preprocessing, input=input_name or preprocessing.input)


def renamed(samples: Samples, name: str) -> Samples:
    """The same samples with their single input under another name, such as a model's own.

    Raises:
        DataError: They have several inputs.
    """
    (current, *others) = samples.raw([0])
    if others:
        raise DataError(
            f"{samples.name}: several inputs cannot be renamed to {name!r}",
            found=", ".join([current, *others]),
            fix="name the arrays as the model's inputs",
        )
    if current == name:
        return samples
    return replace(
        samples,
        fetch=lambda indices: {name: samples.fetch(indices)[current]},
        preprocessing=replace(samples.preprocessing, input=name) if samples.preprocessing else None,
    )


def as_taken(samples: Samples, specs: Sequence[TensorSpec]) -> Samples:
    """The same samples with floats of the type that a model's inputs are of."""
    others = {spec.name: spec.dtype for spec in specs if spec.dtype in ("float16", "float64")}
    return replace(samples, floats=others) if others else samples


def split_validation(samples: Samples, share: float, seed: int) -> tuple[Samples, Samples]:
    """Splits off validation samples, by class where labelled.

    Args:
        samples: The training samples.
        share: Share of them kept for validation, between 0 and 1.
        seed: Decides which.

    Returns:
        Training and validation samples, each in the order of ``samples``.

    Raises:
        DataError: There are too few samples for both.
    """
    wanted = max(1, round(share * samples.count))
    if wanted >= samples.count:
        raise DataError(
            f"{samples.name}: too few samples to keep some for validation",
            found=f"{samples.count} samples, share {share}",
            allowed="at least one for training and one for validation",
        )
    chosen = drawn(samples.targets, samples.count, wanted, seed, keep=1)
    kept = np.setdiff1d(np.arange(samples.count), chosen)
    return samples.subset(kept), samples.subset(chosen)


def draw_calibration(samples: Samples, count: int, seed: int) -> Samples:
    """Draws samples, by class in proportion where labelled and at least one of each where ``count`` allows.

    Args:
        samples: What is drawn from.
        count: How many; at most all of them.
        seed: Decides which.
    """
    return samples.subset(drawn(samples.targets, samples.count, min(count, samples.count), seed, keep=0))


def check_disjoint(samples: Samples, test: Samples, what: str) -> None:
    """Refuses samples that are in the test set too.

    Args:
        samples: Samples used while the model is made.
        test: The test set.
        what: What ``samples`` are, e.g. ``calibration``.

    Raises:
        DataError: A raw sample is in both; says how many, and the first in each.
    """
    in_test = {digest: index for index, digest in reversed(list(enumerate(test.digests())))}
    shared = [(index, in_test[digest]) for index, digest in enumerate(samples.digests()) if digest in in_test]
    if shared:
        mine, theirs = shared[0]
        raise DataError(
            f"{what} samples are in the test set {test.name}",
            found=f"{len(shared)} of {samples.count}, the first is {what} sample {mine} = test sample {theirs}",
            allowed="no sample in both: accuracy would be judged on what the model has seen",
            fix="remove them from one of the sets",
        )


def check_inputs(samples: Samples, specs: Sequence[TensorSpec]) -> None:
    """Checks that samples, once preprocessed, are what a model takes.

    Args:
        samples: The samples; the first is tried.
        specs: The model's inputs; axis 0 is the batch, of any size.

    Raises:
        DataError: An input is missing, unknown, or of the wrong dtype or shape.
    """
    tensors = samples.tensors([0])
    known = [spec.name for spec in specs]
    for name in sorted(set(tensors) ^ set(known)):
        problem = "has no samples" if name in known else "is not an input of the model"
        raise DataError(
            f"{samples.name}: {name!r} {problem}",
            found=", ".join(tensors),
            allowed=", ".join(str(spec) for spec in specs),
            fix=did_you_mean(name, tensors if name in known else known),
        )
    for spec in specs:
        array = tensors[spec.name]
        found = f"{array.dtype}[{', '.join(['batch', *map(str, array.shape[1:])])}]"
        if str(array.dtype) != spec.dtype:
            raise DataError(
                f"{samples.name}: input {spec.name!r} has the wrong dtype",
                found=found,
                allowed=str(spec),
                fix="describe the raw samples in the recipe's [input], or store them as the model takes them",
            )
        if not fits(array.shape[1:], spec.shape[1:]):
            raise DataError(
                f"{samples.name}: input {spec.name!r} has the wrong shape",
                found=found,
                allowed=str(spec),
                fix="set layout and resize in the recipe's [input], or store them as the model takes them",
            )
