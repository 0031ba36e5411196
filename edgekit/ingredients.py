"""A recipe's data: opened, split, and proven to share nothing between training and test."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.artifact import Parent, TensorSpec
from edgekit.bundle import GOLDEN_SAMPLES
from edgekit.data import (
    Samples,
    as_taken,
    check_disjoint,
    check_inputs,
    draw_calibration,
    load_samples,
    renamed,
    split_validation,
)
from edgekit.errors import DataError, SpecError, did_you_mean
from edgekit.labelling import further_apart, joined, keep_labels
from edgekit.metrics import METRICS, Metric, load_metric, of_first
from edgekit.random_inputs import random_samples
from edgekit.recipe import DataSpec, Recipe
from edgekit.runtime.session import fits

# The ranges of fewer are those of single samples.
FEWEST_CALIBRATION = 16
DTYPES = {
    "f32": "float32",
    "f16": "float16",
    "i64": "int64",
    "i32": "int32",
    "i8": "int8",
    "u8": "uint8",
    "bool": "bool",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ingredients:
    """A recipe's data.

    Attributes:
        train: Training samples without the validation ones; None without data.
        validation: Samples that choose the best epoch.
        calibration: Samples that calibrate a quantised model.
        test: Samples on which numbers and score are judged; random ones without data.
        test_sha256: Hash of all of them.
        held_out: Whether they are a test set, so that accuracy may be claimed on them.
        metric: The task metric; None without labels.
        metric_name: Its name.
        labels: Class names.
        parents: Where they came from, for manifests.
        training: All training samples, in their order, validation samples among them.
    """

    train: Samples | None
    validation: Samples | None
    calibration: Samples | None
    test: Samples
    test_sha256: str
    held_out: bool
    metric: Metric | None
    metric_name: str | None
    labels: tuple[str, ...]
    parents: tuple[Parent, ...]
    training: Samples | None = None


def load_data(
    recipe: Recipe, base: Path, specs: tuple[TensorSpec, ...] | None, *, whole_queries: bool = False
) -> Ingredients:
    """Opens the recipe's data, splits it, and proves that nothing of the test set is trained on.

    Args:
        recipe: The recipe.
        base: Its folder.
        specs: Input specs of an ``.onnx`` model, or of ``[shapes]``; None when only the data say.
        whole_queries: Samples that have an axis more than an input are whole queries, stacked.

    Raises:
        SpecError: There is neither data nor a shape.
        DataError: Samples are missing, mis-shaped, too few, or shared between training and test.
    """
    if recipe.data is None:
        return _random(recipe, specs)
    train = _opened(recipe, base, recipe.data.train, "data.train", recipe.data.labels, specs or ())
    if whole_queries and specs:
        specs = sized_by(train, specs)
    labels = recipe.data.labels or train.classes
    parents = [Parent(kind="data", name="train", sha256=train.fingerprint())]
    kept, validation = _validation(recipe, base, train, labels, specs)
    if isinstance(recipe.data.validation, str):
        parents.append(Parent(kind="data", name="validation", sha256=validation.fingerprint()))
    if recipe.data.test is None:
        test = _unjudged(train, validation, recipe.seed)
        test_sha256 = test.fingerprint()
    else:
        test = _opened(recipe, base, recipe.data.test, "data.test", labels or None, specs or ())
        check_disjoint(train, test, "training")
        check_disjoint(validation, test, "validation")
        test_sha256 = test.fingerprint()
        parents.append(Parent(kind="data", name="test", sha256=test_sha256))
    _check_test(test, recipe.data)
    _check_calibration(train, recipe.data)
    for samples in (train, validation, test):
        check_inputs(samples, specs or specs_of(train))
    kept, more = _partly_labelled(recipe, base, kept, labels, specs)
    parents += more
    labelled = test.targets is not None
    return Ingredients(
        train=kept,
        validation=validation,
        calibration=draw_calibration(train, recipe.data.calibration, recipe.seed),
        test=test,
        test_sha256=test_sha256,
        held_out=recipe.data.test is not None,
        metric=_metric(recipe, base) if labelled else None,
        metric_name=recipe.metric if labelled else None,
        labels=labels,
        parents=tuple(parents),
        training=train,
    )


def _validation(
    recipe: Recipe, base: Path, train: Samples, labels: tuple[str, ...], specs: tuple[TensorSpec, ...] | None
) -> tuple[Samples, Samples]:
    """Training samples and those for validation: a share of them, or samples of their own."""
    assert recipe.data is not None  # there is data
    given = recipe.data.validation
    if not isinstance(given, str):
        return split_validation(train, given, recipe.seed)
    return train, _opened(recipe, base, given, "data.validation", labels or None, specs or ())


def _metric(recipe: Recipe, base: Path) -> Metric:
    """The recipe's metric; of several tasks a built-in one scores the first."""
    metric = load_metric(recipe.metric, base, "metric")
    return of_first(metric) if recipe.tasks and recipe.metric in METRICS else metric


def _partly_labelled(
    recipe: Recipe, base: Path, train: Samples, labels: tuple[str, ...], specs: tuple[TensorSpec, ...] | None
) -> tuple[Samples, list[Parent]]:
    """Training samples of which some have no label: all but a share, and those of ``data.unlabelled``."""
    assert recipe.data is not None  # there is data
    parents: list[Parent] = []
    if recipe.data.labelled is not None:
        train = keep_labels(train, recipe.data.labelled, recipe.seed)
    if recipe.data.unlabelled is not None:
        more = _opened(recipe, base, recipe.data.unlabelled, "data.unlabelled", labels or None, specs or ())
        check_inputs(more, specs or specs_of(train))
        parents.append(Parent(kind="data", name="unlabelled", sha256=more.fingerprint()))
        train = joined(train, more)
    return train, parents


def stage_data(recipe: Recipe, data: Ingredients, spec: str, base: Path, number: int) -> Ingredients:
    """The same data, with training samples of a stage's own.

    Raises:
        DataError: They are missing, do not fit the model, or are in the test set.
    """
    assert data.train is not None  # there is something to train on
    own = _opened(recipe, base, spec, f"distillation.stages[{number}].data", data.labels or None, specs_of(data.train))
    check_disjoint(own, data.test, "training")
    check_inputs(own, specs_of(data.train))
    parents = [p for p in data.parents if p.name != "train"]
    return replace(data, train=own, parents=(*parents, Parent(kind="data", name="train", sha256=own.fingerprint())))


def seen_by(data: Ingredients, names: Sequence[str]) -> Ingredients:
    """The same data with these inputs alone, as a model that takes no others sees it; no names: all."""
    if not names or data.train is None:
        return data
    sets = ("train", "validation", "calibration", "test", "training")
    found = {name: getattr(data, name) for name in sets}
    return replace(data, **{name: samples.only(names) for name, samples in found.items() if samples is not None})


def _random(recipe: Recipe, specs: tuple[TensorSpec, ...] | None) -> Ingredients:
    if specs is None:
        raise SpecError(
            "there is no data and no input shape, so nothing can be run",
            found="neither [data] nor [shapes] in the recipe",
            fix="give data, or the shape: --input NAME=f32[1,3,224,224]",
        )
    # Without a batch of samples, what is open on an axis 0 is 1 wherever it is found.
    single = {spec.shape[0] for spec in specs if spec.shape and isinstance(spec.shape[0], str)}
    one = tuple(replace(s, shape=(*s.shape[:1], *(1 if d in single else d for d in s.shape[1:]))) for s in specs)
    test = random_samples(one, seed=recipe.seed)
    return Ingredients(
        train=None,
        validation=None,
        calibration=None,
        test=test,
        test_sha256=test.fingerprint(),
        held_out=False,
        metric=None,
        metric_name=None,
        labels=(),
        parents=(),
    )


def _opened(
    recipe: Recipe, base: Path, spec: str, where: str, labels: tuple[str, ...] | None, specs: Sequence[TensorSpec]
) -> Samples:
    """One set of the recipe, its single input called as the model calls it, in floats of the model's type."""
    samples = load_samples(
        spec,
        base=base,
        preprocessing=recipe.input.preprocessing() if recipe.input else None,
        # Of several inputs one may be called x, which otherwise means the only one.
        input_name="x" if recipe.input is None and len(specs) > 1 and "x" in {s.name for s in specs} else None,
        labels=labels,
        where=where,
        origin=recipe.data.source if recipe.data else None,
        groups=recipe.data.groups if recipe.data else None,
    )
    samples = further_apart(samples, recipe.tasks, where)
    return as_taken(renamed(samples, specs[0].name) if len(specs) == 1 else samples, specs)


def _unjudged(train: Samples, validation: Samples, seed: int) -> Samples:
    """Samples that prove numbers where there is no test set; without labels, for nothing may be claimed on them."""
    chosen = validation if len(validation) >= GOLDEN_SAMPLES else draw_calibration(train, GOLDEN_SAMPLES, seed)
    return replace(chosen, targets=None)


def specs_of(samples: Samples) -> tuple[TensorSpec, ...]:
    """What one sample is once preprocessed; axis 0 is the batch."""
    tensors = samples.tensors([0])
    return tuple(
        TensorSpec(name=name, dtype=str(array.dtype), shape=("batch", *array.shape[1:]))
        for name, array in tensors.items()
    )


def sized_by(samples: Samples, specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """Input specs with the samples' sizes where they are open.

    An input whose samples have one axis more is fed whole queries: it gets an axis of size 1 in front.
    """

    def sized(spec: TensorSpec, shape: tuple[int, ...]) -> TensorSpec:
        if len(shape) == len(spec.shape) + 1 and fits(shape[1:], spec.shape):
            return replace(spec, shape=(1, *shape[1:]))
        if fits(shape[1:], spec.shape[1:]):
            return replace(spec, shape=(*spec.shape[:1], *shape[1:]))
        return spec  # check_inputs says what is wrong

    shapes = {name: array.shape for name, array in samples.tensors([0]).items()}
    return tuple(sized(spec, shapes.get(spec.name, ())) for spec in specs)


def _check_test(test: Samples, data: DataSpec) -> None:
    if len(test) < GOLDEN_SAMPLES:
        key = "train" if data.test is None else "test"
        raise DataError(
            f"data.{key}: {test.name}: too few samples",
            found=f"{len(test)} samples",
            allowed=f"at least {GOLDEN_SAMPLES}: so many travel with a bundle as its golden samples",
            fix="give more samples",
        )


def _check_calibration(train: Samples, data: DataSpec) -> None:
    count = min(len(train), data.calibration)
    if count < FEWEST_CALIBRATION:
        key = "train" if len(train) < FEWEST_CALIBRATION else "calibration"
        raise DataError(
            f"data.{key}: {train.name}: too few samples to calibrate a quantised model",
            found=f"{count} samples",
            allowed=f"at least {FEWEST_CALIBRATION}; 100 to 300 are usual",
            fix="give more samples; they need no labels",
        )


def parse_shapes(shapes: Mapping[str, str], *, batched: bool = True) -> tuple[TensorSpec, ...] | None:
    """Input specs from ``{"input": "f32[1,3,224,224]"}``; None when there are none.

    Args:
        shapes: Texts by input name.
        batched: Axis 0 is the batch, whatever its size; else it is a size like every other.

    Raises:
        SpecError: A text is not a dtype and a shape.
    """
    specs = []
    for name, text in shapes.items():
        match = re.fullmatch(r"(\w+)\[\s*((?:[1-9]\d*(?:\s*,\s*[1-9]\d*)*)?)\s*\]", text.strip())
        if match is None or match.group(1) not in DTYPES or (batched and not match.group(2)):
            raise SpecError(
                f"input {name!r}: not a shape",
                found=repr(text),
                allowed=f"DTYPE[N,…] with DTYPE one of {', '.join(DTYPES)} and sizes of 1 or more, e.g. "
                "f32[1,3,224,224]",
            )
        sizes = tuple(int(d) for d in match.group(2).split(",") if d.strip())
        shape: tuple[int | str, ...] = ("batch", *sizes[1:]) if batched else sizes
        specs.append(TensorSpec(name=name, dtype=DTYPES[match.group(1)], shape=shape))
    return tuple(specs) or None


def shaped(specs: tuple[TensorSpec, ...], shapes: Mapping[str, str], *, batched: bool = True) -> tuple[TensorSpec, ...]:
    """Input specs of a model, with the sizes that it leaves open filled in from ``[shapes]``.

    Args:
        specs: The model's inputs.
        shapes: Texts by input name, as for :func:`parse_shapes`.
        batched: Axis 0 of every input is the batch; else one sample is one whole query, and an input whose axis 0 is
            neither 1 nor open gets an axis of size 1 in front.

    Raises:
        SpecError: A shape is given for no input of the model, or contradicts it.
    """
    given = {spec.name: spec for spec in parse_shapes(shapes, batched=batched) or ()}
    known = {spec.name: spec for spec in specs}
    first = 1 if batched else 0
    for name, spec in given.items():
        if name not in known:
            raise SpecError(
                f"a shape is given for {name!r}, which is no input of the model",
                found=str(spec),
                allowed="; ".join(map(str, specs)),
                fix=did_you_mean(name, known),
            )
        model = known[name]
        sizes = tuple(int(dim) for dim in spec.shape[first:])  # parse_shapes names the batch only
        if spec.dtype != model.dtype or not fits(sizes, model.shape[first:]):
            raise SpecError(
                f"the shape given for input {name!r} contradicts the model", found=str(spec), allowed=str(model)
            )
    # One name is one size, also in inputs that no shape is given for.
    pairs = [pair for name, spec in given.items() for pair in zip(known[name].shape, spec.shape, strict=True)]
    sizes_of: dict[int | str, int] = {dim: size for dim, size in pairs if isinstance(size, int)}
    filled = tuple(
        given.get(spec.name) or replace(spec, shape=tuple(sizes_of.get(d, d) for d in spec.shape)) for spec in specs
    )
    return filled if batched else tuple(map(_one_query, filled))


def _one_query(spec: TensorSpec) -> TensorSpec:
    first = spec.shape[0] if spec.shape else None
    return spec if first == 1 or isinstance(first, str) else replace(spec, shape=(1, *spec.shape))
