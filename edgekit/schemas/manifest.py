"""A bundle's manifest as types, for its published schema; what reads it on a device is :mod:`edgekit.runtime`."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import NotRequired, TypedDict

from edgekit.reporting.evidence import Figures, Proof, record
from edgekit.reporting.model import Host, Limit, Status


@record
class TensorSpec(TypedDict):
    """One input or output of the model."""

    name: str
    dtype: str
    """numpy's name of the element type, e.g. "float32"."""
    shape: list[int | str]
    """Dimensions; a string is a dynamic dimension's name."""


@record
class Preprocessing(TypedDict):
    """From a raw batch to a model tensor: resized, scaled, normalised and laid out, in that order."""

    input: str
    """The model input it feeds."""
    layout: Literal["NHWC", "NCHW", "NHW", "any"]
    """Axes of a raw batch; "any" is kept as it is."""
    model_layout: Literal["NCHW", "NHWC"]
    """Axes that the model takes."""
    scale: float
    """Factor applied to raw values."""
    mean: list[float]
    """Mean of each channel after scaling; one value stands for all."""
    std: list[float]
    """Standard deviation of each channel after scaling; one value stands for all."""
    resize: list[int] | None
    """Height and width in pixels; null keeps the size."""


@record
class Postprocessing(TypedDict):
    """From an output of the model to scores."""

    output: str
    """The model output that it reads."""
    activation: Literal["none", "softmax", "sigmoid"]
    """What turns it into scores."""
    axis: int
    """The axis of classes; 0 is the batch."""
    top: int | None
    """How many of the best are kept, with their classes and labels; null: all."""


@record
class InGraph(TypedDict):
    """What the model's own graph does, so that nobody else may."""

    preprocessing: Preprocessing | None
    """Not null: the model takes raw samples."""
    postprocessing: Postprocessing | None
    """Not null: the model gives scores."""


@record
class Scheme(TypedDict):
    """One engine's int8 dialect."""

    name: str
    activation_signed: bool
    activation_symmetric: bool
    weight_symmetric: bool
    per_channel: bool
    """One weight scale an output channel."""
    quantize_bias: bool
    reduce_range: bool
    """Weights of 7 bits."""
    operators: dict[str, list[int]]
    """Operator types that are quantised, with the indices of their quantised inputs."""
    preset: str | None
    """NNCF's preset, where the engine's own tool places the quantisers."""
    model_type: str | None
    """What that tool was told of the model."""
    float_type: NotRequired[str]
    """Precision of what is not quantised, "fp32" or "fp16"; bundles of earlier builds do not tell, and have fp32."""


@record
class Plan(TypedDict):
    """How the artifact was made."""

    method: str | None
    """Range method of the calibration, "dynamic", or how weights are rounded; null in float."""
    scheme: Scheme | None
    """Null in float."""
    corrections: list[str]
    """"smooth-quant", "equalize", "bias-correction"."""
    float_groups: list[str]
    """Nodes left in float."""
    notes: list[str]
    """What was decided on the way."""


@record
class Parent(TypedDict):
    """One ancestor."""

    kind: str
    """"teacher", "student", "fp32", "quantized" or "data"."""
    name: str
    sha256: str


@record
class Golden(TypedDict):
    """What golden.npz proves."""

    samples: int
    """Samples in it."""
    random: bool
    """No data was given and the inputs are random."""
    reference_db: float
    """Worst signal-to-noise ratio of an output against the reference, in dB."""
    floor_db: float
    """What `edgekit verify` asks for, in dB."""
    engine_version: str
    """Engine build that made the artifact's own outputs."""
    cpu_model: str
    """CPU that made them."""


@record
class Verdict(TypedDict):
    """What was judged when the bundle was made."""

    status: Status
    limits: list[Limit]
    reason: str


@record
class Timings(TypedDict):
    """The verdict and what it rests on; not part of the bundle's id."""

    verdict: Verdict
    profile: dict[str, Any]
    """The profile as it was, with every default."""
    target: dict[str, Any]
    """The target as it was, with every default."""
    not_measured: str | None
    """Why nothing was timed: the host was not the target."""
    host: Host
    measured: Figures | None
    """Null where nothing was timed."""


@record
class ChannelStatistics(TypedDict):
    """What the values of one channel were like."""

    minimum: float
    """The smallest."""
    maximum: float
    """The greatest."""
    mean: float
    """Their mean."""
    std: float
    """Their standard deviation."""
    quantiles: list[float]
    """At the statistics' levels."""
    edges: list[float]
    """Inner edges of the bins that drift is told by, ascending."""
    shares: list[float]
    """Share of the values in each bin, one more than edges."""


@record
class TensorStatistics(TypedDict):
    """What one input or output was like."""

    name: str
    axis: int | None
    """The axis of the channels; null: all values are one channel."""
    drift_noise: float
    """The drift that 99 of 100 windows of the same samples stay under."""
    channels: list[ChannelStatistics]


@record
class Statistics(TypedDict):
    """What inputs and outputs were like on the samples that calibrated the artifact."""

    source: Literal["calibration", "test"]
    samples: int
    """How many of them were looked at."""
    window: int
    """Samples that drift and saturation are told of."""
    levels: list[float]
    """Of the quantiles, 0 to 1."""
    inputs: list[TensorStatistics]
    outputs: list[TensorStatistics]


@record
class Watch(TypedDict):
    """How the bundle is watched on a device."""

    every: int
    """Values are looked at in one query of so many."""
    period_s: float
    """Seconds from one line to the next."""
    window_s: float
    """Seconds over which latencies, failures and drops are judged."""
    limits: dict[str, float]
    """What must be kept, by name."""


@record
class Manifest(TypedDict):
    """What a bundle says of itself."""

    schema_version: Literal[1]
    id: str
    """Hash of artifact, golden samples and this manifest without `timings`, their hash and `id`: 64 hex digits."""
    name: str
    """The recipe's name."""
    target: str
    """The target's name."""
    engine: str
    engine_version: str
    """Engine build where the bundle was made."""
    precision: str
    model: str
    """The file that the engine opens, relative to the bundle."""
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    options: dict[str, str | int | float | bool]
    """Engine options that the artifact is opened with."""
    plan: Plan
    batch: int
    """Samples a query."""
    preprocessing: Preprocessing | None
    """Null where the model takes samples as they are."""
    postprocessing: NotRequired[Postprocessing | None]
    """Null where the model's outputs are given as they are; bundles of earlier builds do not tell."""
    in_graph: NotRequired[InGraph | None]
    """Null where the model's graph does neither; likewise."""
    labels: list[str]
    """Class names; empty where unknown."""
    parents: list[Parent]
    """Everything that the bundle can be traced back to, oldest first."""
    files: dict[str, str]
    """sha256 of every file, by path relative to the bundle."""
    golden: Golden
    accuracy: Proof
    edgekit_version: str
    timings: Timings
    timings_sha256: str
    """Hash of `timings` as JSON with sorted keys and without spaces, which are not part of `id`."""
    statistics: NotRequired[Statistics | None]
    """Null where there were no real samples; bundles of earlier builds do not tell."""
    watch: NotRequired[Watch | None]
    """Bundles of earlier builds do not tell."""
