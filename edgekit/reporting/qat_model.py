"""How a student was trained in int8, as a type of the report."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from edgekit.reporting.evidence import record


@record
class Qat(TypedDict):
    """One training in int8: of all targets whose engines have the same dialect."""

    targets: list[str]
    """Names of the targets that it is a candidate of."""
    said: str
    """How it went, in a sentence."""
    scheme: str
    """The int8 dialect that it was trained in."""
    weight_bits: Literal[4, 8]
    """Bits of a weight in the file; 4 are decoded to int8 when it is opened."""
    method: str
    """How the first ranges of activations were found."""
    teacher: Literal["student", "teacher"]
    """Who taught it: the float student, or the recipe's teacher."""
    calibration: int
    """Samples that the first ranges are of."""
    learning_rate: float
    """Peak rate."""
    epochs: int
    """Passes over the training data that were made."""
    best_epoch: int
    """The epoch, from 1, whose weights were kept; 0: those that it began with, as calibrated."""
    first_score: float
    """Validation score of what it began with, 0 to 1."""
    score: float
    """Validation score of what was kept, 0 to 1."""
    scores: list[float]
    """Validation score after each epoch."""
    losses: list[float]
    """Mean training loss of each epoch."""
    seconds: float
    """Wall-clock time of the training, in seconds."""
    reused: bool
    """Whether it is from an earlier run."""
    sha256: str
    """Identity of the model that it ended in."""
    size_mb: float
    """Size of that model, in MB."""
