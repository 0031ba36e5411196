"""One user's deployment, ``edgekit.toml``: teacher, student, data, settings, targets, profile."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from edgekit.errors import SpecError
from edgekit.processing_specs import Preprocessing
from edgekit.recipe_pruning import Pruning
from edgekit.recipe_qat import Qat
from edgekit.recipe_student import StudentSpec
from edgekit.recipe_training import Distillation, TaskSpec, Teacher
from edgekit.recipe_watch import WatchSpec
from edgekit.specs import Names, Strict, parse, parse_toml, read_toml

Floats = Annotated[tuple[float, ...], Field(strict=False, min_length=1)]
Share = Annotated[float, Field(gt=0, lt=1)]


class DataSpec(Strict):
    """Where samples come from: ``.npz``, a folder or tar of images by class, or ``package.module:attr``.

    Attributes:
        train: Training samples; calibration and validation samples are drawn from them.
        test: Test samples, on which accuracy is judged; None: nothing is judged.
        validation: Share of the training samples kept for validation; or samples of their own, as for ``train``: what a
            teacher was trained on, it answers better than anything new.
        calibration: How many samples calibrate a quantised model.
        labels: Class names, in order; None: taken from the data where it has them.
        labelled: Share of the training samples whose labels are used, drawn by class; None: all. The others teach by
            the teacher's answers alone.
        unlabelled: More training samples, which teach by the teacher's answers alone.
        source: Where the samples can be had, told where they are missing; nothing is downloaded.
        groups: Array of the ``.npz`` files, or attribute of the Datasets, that says which group (a language, a domain)
            each sample is of.
    """

    train: str
    test: str | None = None
    validation: Share | str = 0.1
    calibration: PositiveInt = 300
    labels: Names | None = None
    labelled: Share | None = None
    unlabelled: str | None = None
    source: str | None = None
    groups: str | None = None


class InputSpec(Strict):
    """Preprocessing from a raw sample to a model tensor; the fields of :class:`edgekit.processing_specs.Preprocessing`.

    With ``in_graph`` the shipped model does it itself: it takes raw samples, of the type and size of the test set's.
    """

    name: str = "input"
    layout: Literal["NHWC", "NCHW", "NHW", "any"] = "any"
    model_layout: Literal["NCHW", "NHWC"] = "NCHW"
    scale: PositiveFloat = 1.0
    mean: Floats = (0.0,)
    std: Annotated[tuple[PositiveFloat, ...], Field(strict=False, min_length=1)] = (1.0,)
    resize: Annotated[tuple[PositiveInt, PositiveInt], Field(strict=False)] | None = None
    in_graph: bool = False

    @model_validator(mode="after")
    def _channels_agree(self) -> InputSpec:
        if len(self.mean) != len(self.std) and 1 not in (len(self.mean), len(self.std)):
            raise ValueError("mean and std of as many channels, or one value for all")
        return self

    def preprocessing(self) -> Preprocessing:
        """The plain form that travels in the manifest."""
        fields = self.model_dump(exclude={"name", "in_graph"})
        return Preprocessing(input=self.name, **fields)


class OutputSpec(Strict):
    """Postprocessing of one output; the fields of :class:`edgekit.processing_specs.Postprocessing`.

    Attributes:
        name: The output; None: the only one.
        activation: What turns it into scores.
        axis: The axis of classes; 0 is the batch.
        top: How many of the best scores are kept, with their classes and labels; None: all.
        in_graph: Whether the shipped model computes the activation itself.
    """

    name: str | None = None
    activation: Literal["none", "softmax", "sigmoid"] = "none"
    axis: PositiveInt = 1
    top: PositiveInt | None = None
    in_graph: bool = False


class SchemeFields(Strict):
    """Fields of the engine's dialect that are set by hand; see :class:`edgekit.quantization.schemes.Scheme`."""

    activation_signed: bool | None = None
    activation_symmetric: bool | None = None
    weight_symmetric: bool | None = None
    per_channel: bool | None = None
    quantize_bias: bool | None = None
    reduce_range: bool | None = None
    operators: dict[str, Annotated[tuple[NonNegativeInt, ...], Field(strict=False)]] | None = None
    preset: Literal["performance", "mixed"] | None = None
    model_type: Literal["transformer", ""] | None = None


class Quantization(Strict):
    """What precision ships, and how it is made.

    Attributes:
        precision: ``auto`` tries what the target runs, measures in turns and ships the fastest that passes.
        method: int8: range method or ``dynamic``; w8 and w4: ``round`` or ``codebook``; None: the engine's usual one.
        corrections: Corrections of static int8; None: the engine's usual ones.
        float_nodes: Names of nodes left in float.
        scheme: Fields of the engine's dialect set by hand.
        trials: Most plans that ``auto`` tries on one engine.
    """

    precision: Literal["auto", "fp32", "fp16", "bf16", "fp8", "int8", "w8", "w4"] = "auto"
    method: str | None = None
    corrections: Names | None = None
    float_nodes: Names = ()
    scheme: SchemeFields = SchemeFields()
    trials: PositiveInt = 16


class Recipe(Strict):
    """One user's deployment.

    Attributes:
        name: Shown in reports and written in the manifest.
        seed: One seed, one student.
        teacher: The large model, or the model to deploy as it is.
        student: The small model; None: the teacher itself is deployed.
        data: Samples; None: random inputs, no accuracy.
        input: Preprocessing of raw samples; None: the data are model tensors already.
        output: Postprocessing of an output; None: outputs are given as they are.
        shapes: Input shapes by name, e.g. ``f32[1,3,224,224]``, for a torch model without data.
        metric: A name or ``module:attr``; without labels, agreement with the reference is used.
        tasks: Further tasks, each with an output of its own.
        distillation: How the student learns.
        pruning: What the student is pruned to; None: it stays as it is.
        qat: How it goes on learning in int8; None: int8 is made by calibration alone.
        quantization: What precision ships.
        watch: How its bundles are watched on a device, and what they must keep there.
        targets: Target names.
        profile: Profile name.
    """

    name: str
    seed: NonNegativeInt = 0
    teacher: Teacher
    student: StudentSpec | None = None
    data: DataSpec | None = None
    input: InputSpec | None = None
    output: OutputSpec | None = None
    shapes: dict[str, str] = Field(default_factory=dict)
    metric: str = "accuracy"
    tasks: Annotated[tuple[TaskSpec, ...], Field(strict=False)] = ()
    distillation: Distillation = Distillation()
    pruning: Pruning | None = None
    qat: Qat | None = None
    quantization: Quantization = Quantization()
    watch: WatchSpec = WatchSpec()
    targets: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = ("local",)
    profile: str = "interactive"


def load_recipe(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """Reads a recipe.

    Args:
        path: The file, or a folder with an ``edgekit.toml``.
        overrides: ``KEY=VALUE`` pairs; keys are dotted, values are TOML (bare words are text).

    Raises:
        SpecError: The file or an override is wrong.
    """
    path = recipe_file(path)
    if not path.exists():
        raise SpecError(f"{path}: no such file", fix="check the path, or write one with `edgekit init`")
    raw = read_toml(path)
    where = str(path)
    for override in overrides:
        _override(raw, override)
        where += f" with --set {override}"
    raw.setdefault("name", path.resolve().parent.name)
    return parse(Recipe, raw, where)


def recipe_for_model(
    model: str,
    *,
    weights: str | None,
    calibration: str | None,
    test: str | None,
    inputs: Iterable[str],
    overrides: Iterable[str],
) -> Recipe:
    """The recipe that deploys one model as it is.

    Args:
        model: As in a recipe; a path is relative to the working folder.
        weights: Weights file, or None.
        calibration: Samples that calibrate it, or None.
        test: Held-out samples, or None.
        inputs: ``NAME=f32[1,3,224,224]`` texts.
        overrides: As for :func:`load_recipe`.

    Raises:
        SpecError: An input or an override is wrong.
    """
    raw: dict[str, Any] = {"name": model.rsplit("/", 1)[-1], "teacher": {"model": model}, "shapes": {}}
    if weights is not None:
        raw["teacher"]["weights"] = weights
    if calibration is not None:
        raw["data"] = {"train": calibration} | ({"test": test} if test else {})
    elif test is not None:
        raise SpecError("--test needs --calibration", fix="give both, or neither")
    for text in inputs:
        name, equals, shape = text.partition("=")
        if not equals:
            raise SpecError(f"--input {text}: not an input", found=text, allowed="NAME=f32[1,3,224,224]")
        raw["shapes"][name.strip()] = shape
    for override in overrides:
        _override(raw, override)
    return parse(Recipe, raw, "command line")


def recipe_file(path: Path) -> Path:
    """The recipe file that ``path`` (a file or its folder) stands for."""
    return path / "edgekit.toml" if path.is_dir() else path


def _override(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise SpecError(
            f"--set {override}: not an override",
            found=repr(override),
            allowed="KEY=VALUE, e.g. distillation.epochs=5",
        )
    table = raw
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise SpecError(f"--set {override}: {part!r} is a value, not a table", found=repr(table))
    table[parts[-1]] = _toml_value(text)


def _toml_value(text: str) -> Any:
    try:
        return parse_toml(f"value = {text}", "--set")["value"]
    except SpecError:  # a bare word is text: --set quantization.precision=int8
        return text
