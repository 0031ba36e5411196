"""What a recipe says of training and distillation: the teacher's own table, ``[distillation]`` and its parts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from edgekit.recipe_augmentation import Adversarial, Augmentation
from edgekit.specs import Names, Strict


class Head(Strict):
    """A new classification head: the linear layer at ``module`` is replaced by a fresh one.

    Attributes:
        module: Module path of the layer, e.g. ``fc``.
        classes: Outputs of the new layer.
    """

    module: str
    classes: PositiveInt


class Sparse(Strict):
    """Weights that are zero from the first step on, or little by little; one of ``share`` and ``pattern``.

    Attributes:
        share: Of the weights, those of the smallest magnitude.
        over: The part of a training, 0 to 1, over which the share rises from nothing, quickly at first (Zhu and Gupta
            2017); weights of epochs before its end are not kept, and a stage or generation begins anew. 0: all are zero
            from the first step on.
        pattern: ``[N, M]``: N of every M consecutive weights stay, e.g. ``[2, 4]``.
        scope: Where the weights of a share are ranked: ``global``, or ``layer`` by layer.
        dense: Module paths whose weights stay as they are.
    """

    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    over: Annotated[float, Field(ge=0, le=1)] = 0.0
    pattern: Annotated[tuple[PositiveInt, PositiveInt], Field(strict=False)] | None = None
    scope: Literal["global", "layer"] = "global"
    dense: Names = ()

    @model_validator(mode="after")
    def _one_of_both(self) -> Sparse:
        if (self.share is None) == (self.pattern is None):
            raise ValueError("one of share and pattern")
        if self.pattern is not None and self.pattern[0] >= self.pattern[1]:
            raise ValueError("a pattern [N, M] with N below M")
        if self.pattern is not None and self.over:
            raise ValueError("over beside share alone: a pattern holds from the first step on")
        return self


class Training(Strict):
    """How a module is trained, or fine-tuned.

    Attributes:
        epochs: Most passes over the training data.
        batch_size: Samples a step.
        learning_rate: Peak rate.
        weight_decay: Decoupled weight decay.
        optimizer: ``adamw`` or ``sgd`` (momentum 0.9).
        patience: Stop after so many epochs without a better validation score; None: never.
        schedule: Of the rate after the warm-up: ``cosine`` to zero, or ``constant``.
        warmup: Share of the steps over which the rate rises to its peak.
        accumulate: Batches whose gradients make one step.
        clip_norm: Gradients are scaled down to this norm; None: never.
        ema: Decay of a running mean of the weights, which is what is scored and kept; None: the weights themselves.
        mixed_precision: ``fp16`` (GPU) or ``bf16``: what the forward pass computes in.
        trackers: Where losses and scores are written as training goes on, by Accelerate.
        augmentation: How samples are varied.
        adversarial: Training against attacks; None: none.
        group_temperature: Groups are drawn by their size to the power of one over this; 1: as they are.
        freeze: Module paths whose parameters stay as they are.
        rates: Factor of the learning rate by module path.
        head: A new head, put on before training.
        bn_sparsity: Factor of the L1 norm of the BatchNorm scales, which is added to what is minimised, so that the
            criterion ``batchnorm`` can tell channels apart (Liu et al. 2017, with 1e-5 and 1e-4 and ``sgd``); losses
            are told without it. None: nothing is added.
        sparse: Weights that become zero and stay so; None: none.
    """

    epochs: PositiveInt = 10
    batch_size: PositiveInt = 64
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.01
    optimizer: Literal["adamw", "sgd"] = "adamw"
    patience: PositiveInt | None = None
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    accumulate: PositiveInt = 1
    clip_norm: PositiveFloat | None = None
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    trackers: Annotated[tuple[Literal["tensorboard", "mlflow", "wandb"], ...], Field(strict=False)] = ()
    augmentation: Augmentation = Augmentation()
    adversarial: Adversarial | None = None
    group_temperature: PositiveFloat = 1.0
    freeze: Names = ()
    rates: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    head: Head | None = None
    bn_sparsity: PositiveFloat | None = None
    sparse: Sparse | None = None


class ModelSpec(Strict):
    """Where a model comes from.

    Attributes:
        model: ``package.module:factory``, ``timm:NAME`` or a path to an ``.onnx`` file.
        args: Keyword arguments of the factory.
        weights: ``.safetensors``, or ``.pt`` read with weights only, relative to the recipe; or ``factory`` where the
            factory itself gives the module trained weights.
        inputs: Arrays of the data that it takes, where teacher and student see different views of a sample; none: all.
    """

    model: str
    args: dict[str, Any] = Field(default_factory=dict)
    weights: str | None = None
    inputs: Names = ()

    @property
    def weights_file(self) -> str | None:
        """The file of weights; None where there is none to read."""
        return None if self.weights == "factory" else self.weights


def _as_list(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Layers = Annotated[Names, BeforeValidator(_as_list), Field(min_length=1)]


class FeatureMatch(Strict):
    """Features of the student's layers that are matched with those of the teacher's.

    Attributes:
        loss: ``hints``, ``attention_transfer``, ``similarity``, ``relational``, ``contrastive``, ``review``, or
            ``module:attr`` of a callable that gives a scalar of the student's and the teacher's feature.
        student: Module path in the student, e.g. ``layer2``; for ``review`` several, shallow to deep.
        teacher: Module path in the teacher; as many.
        weight: Factor of the loss.
        args: Keyword arguments of the loss.
    """

    loss: str
    student: Layers
    teacher: Layers
    weight: PositiveFloat = 1.0
    args: dict[str, Any] = Field(default_factory=dict)


class OtherTeacher(ModelSpec):
    """One more teacher, beside the recipe's.

    Attributes:
        share: Of what is taught, beside ``distillation.teacher_share`` and the other ones'.
    """

    share: NonNegativeFloat = 1.0


class TaskSpec(Strict):
    """A further task of teacher and student, learnt beside the first output, which the labels are of.

    Attributes:
        output: The output's name: its key where the model returns a mapping, else ``output_1``, ``output_2`` ….
        target: The array of the data that it is to give; it is no input.
        kind: ``classes``: logits ``[n, classes]`` for class numbers ``[n]``; ``values``: numbers of any shape.
        weight: Factor of its loss; None: learnt beside the model, from how uncertain the task is.
        taught: Whether the teacher has this output too; else the task is learnt from its targets alone.
    """

    output: str
    target: str
    kind: Literal["classes", "values"] = "classes"
    weight: PositiveFloat | None = None
    taught: bool = True


class Schedule(Strict):
    """How a value goes from what it is given as to ``end`` while a student learns.

    Attributes:
        end: Where it goes.
        kind: ``linear`` and ``cosine`` go with the steps; ``gap`` goes as far as the student's top class is the
            teacher's, on a running mean of training batches.
    """

    end: NonNegativeFloat
    kind: Literal["linear", "cosine", "gap"] = "linear"


class Schedules(Strict):
    """What changes while a student learns; None: nothing.

    Attributes:
        temperature: Of the soft loss.
        soft_weight: Share of the soft loss.
        features: A factor of all that is matched between layers, which begins at 1.
    """

    temperature: Schedule | None = None
    soft_weight: Schedule | None = None
    features: Schedule | None = None

    @model_validator(mode="after")
    def _in_range(self) -> Schedules:
        if self.temperature is not None and self.temperature.end <= 0:
            raise ValueError("temperature.end above 0")
        if self.soft_weight is not None and self.soft_weight.end > 1:
            raise ValueError("soft_weight.end of at most 1")
        return self


class Distillation(Training):
    """What a student learns from: the teacher's logits, the labels, and the teacher's layers.

    Attributes:
        temperature: Softens both sets of logits; the soft loss is scaled by its square.
        soft_weight: Share of the soft loss, 0 to 1; the rest is the cross-entropy with the labels.
        soft: What the logits are matched by: ``soft_targets``, ``decoupled``, ``dist``, or ``module:attr``.
        soft_args: Keyword arguments of that loss.
        standardise: Logits of both are standardised first (Sun et al. 2024).
        features: What is matched between layers, added to the rest.
        teachers: More teachers, all with weights.
        teacher_share: The share of the recipe's own teacher in what they teach together.
        assistants: Models between teacher and student, large to small: each learns from the one before.
        generations: How often the student is taught; each time but the first by what it became the time before.
        schedules: What of it changes while the student learns.
        peers: Models that learn beside the student, each from the others' answers too.
        peer_weight: Factor of what peers teach each other.
        cache: The teacher's answers are kept on disk, where it would give the same ones again.
        stages: Tables of these settings, one after the other, each with ``data`` (training samples of its own) if it
            likes; what a stage leaves out is as above.
        combine: How their answers become one: ``mean`` (geometric), or ``confidence``: the surer one counts more.
    """

    temperature: PositiveFloat = 4.0
    soft_weight: Annotated[float, Field(ge=0, le=1)] = 0.7
    soft: str = "soft_targets"
    soft_args: dict[str, Any] = Field(default_factory=dict)
    standardise: bool = False
    features: Annotated[tuple[FeatureMatch, ...], Field(strict=False)] = ()
    teachers: Annotated[tuple[OtherTeacher, ...], Field(strict=False)] = ()
    teacher_share: NonNegativeFloat = 1.0
    combine: Literal["mean", "confidence"] = "mean"
    assistants: Annotated[tuple[ModelSpec, ...], Field(strict=False)] = ()
    generations: PositiveInt = 1
    schedules: Schedules = Schedules()
    peers: Annotated[tuple[ModelSpec, ...], Field(strict=False)] = ()
    peer_weight: PositiveFloat = 1.0
    cache: bool = True
    stages: Annotated[tuple[dict[str, Any], ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _stages_are_settings(self) -> Distillation:
        for number in range(len(self.stages)):
            try:
                self.stage(number)
            except ValidationError as exc:
                first = exc.errors()[0]
                raise ValueError(f"stages[{number}].{'.'.join(map(str, first['loc']))}: {first['msg']}") from exc
        return self

    def stage(self, number: int) -> Distillation:
        """The settings of one stage: its own, and these where it is silent; a new head belongs to the first alone."""
        own = {key: value for key, value in self.stages[number].items() if key != "data"}
        if "stages" in own:
            raise ValueError(f"stages[{number}].stages: a stage has none of its own")
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return Distillation(**fields | {"stages": (), "head": None if number else self.head} | own)


class Teacher(ModelSpec):
    """The large model.

    Attributes:
        train: Without weights: how it is trained first. With weights: how it is fine-tuned.
    """

    train: Training | None = None
