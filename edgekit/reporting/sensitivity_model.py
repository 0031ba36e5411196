"""A sensitivity analysis as types: what ``edgekit quantize --sensitivity`` writes, schema version 1."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from edgekit.reporting.evidence import Drop, record
from edgekit.reporting.model import Host

SENSITIVITY_SCHEMA_VERSION = 1


@record
class Group(TypedDict):
    """One operator group in int8 while all others are in float, against the model in float."""

    name: str
    """Its first compute node, and its last where it has several."""
    operators: list[str]
    """Operator types of its compute nodes, each once, in order."""
    nodes: list[str]
    """Names of all its nodes: what a recipe's quantization.float takes to leave it in float."""
    compute: int
    """How many of them are convolutions, matrix products and the like."""
    db: float | None
    """Worst signal-to-noise ratio of an output against the fp32 model, in dB; null where it could not be made."""
    drop: Drop | None
    """Drop of the score from the fp32 model; null without a score."""
    int8_share: float | None
    """Share of the whole model's convolutions and matrix products that then ran in int8, 0 to 1."""
    p50_ms: float | None
    """Median latency, in ms, application clock; null where it was not measured."""
    ratio: float | None
    """That median over the fp32 model's in the same turns, no unit: below 1 int8 pays; null where it is not known."""
    low: float | None
    """Lower end of the ratio's interval, no unit."""
    high: float | None
    """Upper end of the ratio's interval, no unit."""
    finding: Literal["pays", "costs", "no difference shown", "unsettled", "not measured", "failed"]
    """What the interval says of int8 in this group."""
    failure: str | None
    """Why it could not be made, or did not run."""


@record
class SensitivityReport(TypedDict):
    """What every operator group loses and gains in int8 on one engine."""

    kind: Literal["sensitivity"]
    schema_version: Literal[1]
    edgekit_version: str
    created: str
    """When it ended, ISO 8601, UTC."""
    command: str | None
    """The command line; null for a run from Python."""
    model: str
    """Its name."""
    sha256: str
    """Identity of the fp32 ONNX model."""
    target: str
    profile: str
    engine: str
    plan: str
    """The plan in int8 whose groups were tried one at a time."""
    threads: int | None
    """Threads that the engine uses; null: the engine's choice."""
    host: Host
    not_measured: str | None
    """Why nothing was timed: this host is not the target."""
    samples: int
    """Samples that every group was judged on; they are not the test samples."""
    metric: str | None
    """Name of the score; null without one."""
    fp32_ms: float | None
    """Median latency of the model in fp32, in ms, measured in the same turns; null where it is not known."""
    confidence: float | None
    """Two-sided confidence of every ratio's interval, 0 to 1; null where none is known."""
    groups: list[Group]
    """In the model's order."""
