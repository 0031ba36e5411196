"""A report as types: what ``report.json`` and ``profile --json`` hold, schema version 2.

The published JSON Schemas are made of these types (``python -m edgekit.schemas``), their descriptions of the text under
each field. A change that an older reader would stumble over raises the version.
"""

from __future__ import annotations

from typing import Literal

from typing_extensions import NotRequired, TypedDict

from edgekit.reporting.evidence import Drop, Measured, Proof, record
from edgekit.reporting.kept_model import Kept
from edgekit.reporting.pruning_model import Pruning
from edgekit.reporting.qat_model import Qat

REPORT_SCHEMA_VERSION = 2

Status = Literal["pass", "fail", "inconclusive", "not measured"]
ExitCode = Literal[0, 1, 3, 4]


@record
class Host(TypedDict):
    """The machine that a report was made on."""

    arch: str
    """"x86_64" or "aarch64"."""
    isa: str
    """Instruction-set tier, e.g. "avx512-vnni"."""
    cpu_model: str
    """CPU model, or "unknown"."""
    board: str | None
    """Board model from the device tree."""
    gpus: list[str]
    """Names of NVIDIA GPUs."""
    cores: int
    """CPUs that may be used."""
    memory_mb: float
    """Memory, in MB, within the container's limit."""
    governor: str
    """cpufreq governor, or "unknown"."""
    os: str
    """Kernel and release."""
    python: str
    """Version of Python."""


@record
class Training(TypedDict):
    """How a model was trained."""

    epochs: int
    """Passes over the training data."""
    best_epoch: int
    """The epoch, from 1, whose weights were kept."""
    scores: list[float]
    """Validation score after each epoch, 0 to 1."""
    losses: list[float]
    """Mean training loss of each epoch."""
    seconds: float
    """Wall-clock time, in seconds."""
    stopped_early: bool
    """Whether patience ended it."""
    first_score: NotRequired[float | None]
    """Validation score of the weights that it began with; null where they were not to be kept."""
    reused: bool
    """Whether it is from an earlier run."""


@record
class Model(TypedDict):
    """Teacher or student."""

    name: str
    """As the recipe names it."""
    sha256: str
    """Identity: its weights and sources."""
    parameters: int | None
    """Count; null for an ONNX file."""
    training: Training | None
    """Null where it was not trained."""


@record
class Models(TypedDict):
    """The two models of a recipe."""

    teacher: Model
    student: Model
    """The teacher itself where the recipe has no student."""


@record
class Data(TypedDict):
    """What accuracy rests on."""

    test_samples: int
    """Samples that were judged on."""
    random: bool
    """No data was given: nothing is known of the accuracy."""
    held_out: bool
    """Whether nothing was trained, chosen or calibrated on those samples."""
    metric: str | None
    """Name of the score; null without one."""


@record
class Reproduce(TypedDict):
    """What it takes to run it again."""

    command: str | None
    """The command line; null for a run from Python."""
    recipe_sha256: str
    """Hash of the recipe as it was run, overrides applied."""
    versions: dict[str, str]
    """Version by package."""
    hashes: dict[str, str]
    """sha256 by what it is of: "teacher", "student", "fp32", "test data"."""


@record
class Limit(TypedDict):
    """One limit of the profile and what became of it; the unit is the end of its name."""

    limit: str
    """Its name, e.g. "p99_ms", "size_mb", "max_drop_points"."""
    allowed: float
    """Its value."""
    value: float | None
    """What was seen: a point estimate."""
    low: float | None
    """Lower end of what is true with the stated confidence."""
    high: float | None
    """Upper end; the limit is judged by it."""
    status: Status
    note: str
    """Confidence and number of samples, or why it is not decided."""


@record
class Candidate(TypedDict):
    """One try: an engine and a precision."""

    engine: str
    precision: str
    plan: str
    """Engine and precision, and what is unusual in how it was made."""
    scheme: str | None
    """The engine's int8 dialect; null in float."""
    shipped: bool
    """Whether it is what ships."""
    status: Status
    reason: str
    """Why it has that status."""
    failure: str | None
    """Why it could not be made or did not run."""
    sha256: str | None
    """Identity of its artifact."""
    size_mb: float | None
    """Size of its artifact, in MB."""
    notes: list[str]
    """What was decided on the way, e.g. layers left in float."""
    options: dict[str, str | int | float | bool]
    """Engine options that it is opened with."""
    proof: Proof | None
    limits: list[Limit]
    """Empty where it failed."""
    measured: Measured | None
    """Null where nothing was timed."""


@record
class Trial(TypedDict):
    """One plan that "auto" tried, on samples that are not the test samples."""

    plan: str
    """Engine and precision, and what is unusual in how it was made."""
    within: bool
    """Whether it lost little enough to be measured."""
    db: float | None
    """Worst signal-to-noise ratio of an output against the fp32 student, in dB; null where it could not be made."""
    drop: Drop | None
    """Drop from the teacher; null without a score."""
    drop_from_fp32: Drop | None
    """Drop from the fp32 student; null without a score."""
    samples: int | None
    """Samples it was judged on."""
    failure: str | None
    """Why it could not be made, or what is broken."""


@record
class Step(TypedDict):
    """One step of the waterfall from the teacher to what ships; null where it was not measured."""

    name: str
    """"teacher", "fp32 student", "int8 after training", or engine and precision."""
    engine: str | None
    """The engine it was measured on."""
    size_mb: float | None
    """Size, in MB."""
    p50_ms: float | None
    """Median latency, in ms, application clock, measured in the same turns as the others."""
    p50_low_ms: float | None
    """Lower bound of it, in ms."""
    p50_high_ms: float | None
    """Upper bound of it, in ms."""
    score: float | None
    """Mean score."""
    parameters: int | None
    """Count."""
    note: str
    """Why something was not measured, or nothing."""


@record
class Limits(TypedDict, total=False):
    """What must be met, in ms, MB and points; a limit that is absent is not checked."""

    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    p999_ms: float
    load_ms: float
    first_inference_ms: float
    peak_memory_mb: float
    size_mb: float
    max_drop_points: float


@record
class Load(TypedDict):
    """How the load was driven."""

    scenario: Literal["single_stream", "batch"]
    """One query after another, or the same with full batches."""
    batch: int
    """Samples a query."""
    min_seconds: float
    """Shortest measurement of a candidate, in seconds."""
    max_seconds: float
    """Longest, in seconds."""
    min_count: int
    """Fewest queries."""
    max_other_load: float
    """Share of the CPUs' time that others may use before the run is called spoiled, 0 to 1."""


@record
class BundleLink(TypedDict):
    """Where the bundle is."""

    path: str
    """Relative to the report."""
    id: str
    """The bundle's id, 64 hex digits."""


@record
class Device(TypedDict):
    """The device that measured."""

    name: str
    """As it was named: a name of devices.toml, or user@host[:port]."""
    host: Host
    """Its facts."""


@record
class Target(TypedDict):
    """One target of a run."""

    target: str
    profile: str
    limits: Limits
    load: Load
    threads: int | None
    """Threads an engine uses; null: the engine's choice."""
    not_measured: str | None
    """Why nothing was timed: this host is not the target."""
    status: Status
    """The verdict on what ships; "fail" where nothing does."""
    exit_code: ExitCode
    """0 met, 1 error, 3 a limit not met, 4 inconclusive or not measured."""
    bundle: BundleLink | None
    why: str
    """Why this one ships, or why none does."""
    candidates: list[Candidate]
    """Every try, failed ones included."""
    steps: list[Step]
    """What each step gained and lost, in order."""
    trials: list[Trial]
    """Every plan that "auto" tried, in order; empty where a precision was named."""
    device: NotRequired[Device]
    """The device that measured; absent where the host of the run did."""


@record
class Report(TypedDict):
    """A run of `edgekit deploy` or `edgekit export`."""

    kind: Literal["run"]
    schema_version: Literal[2]
    edgekit_version: str
    name: str
    """The recipe's name."""
    created: str
    """When the run ended, ISO 8601, UTC."""
    command: str | None
    """The command line; null for a run from Python."""
    seed: int
    host: Host
    engines: dict[str, str]
    """Build by engine, of those installed."""
    models: Models
    same_model: bool
    """There is no student: the teacher is deployed."""
    untrained: bool
    """No weights were given: they are as the factory made them."""
    data: Data
    reproduce: Reproduce
    targets: list[Target]
    exit_code: ExitCode
    """The worst of the targets': 1, then 3, then 4, then 0."""
    seconds: float
    """Wall-clock time of the run, in seconds."""
    kept: NotRequired[Kept]
    """What the student kept of its teacher; absent without a student or a test set of class labels."""
    pruning: NotRequired[Pruning]
    """How the student was pruned to a latency budget; absent where it was not."""
    qat: NotRequired[list[Qat]]
    """How it was trained in int8; absent where it was not."""


@record
class ProfiledBundle(TypedDict):
    """The bundle that was measured."""

    name: str
    id: str
    """64 hex digits."""
    engine: str
    precision: str


@record
class Profile(TypedDict):
    """What `edgekit profile --json` writes: one bundle, measured and judged again."""

    kind: Literal["profile"]
    schema_version: Literal[2]
    bundle: ProfiledBundle
    target: str
    profile: str
    status: Status
    reason: str
    exit_code: ExitCode
    limits: list[Limit]
    measured: Measured
    host: Host
    device: NotRequired[Device]
    """The device that measured; absent where this machine did."""
