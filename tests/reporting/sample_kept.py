"""What a student kept, as a report holds it: measured on made-up logits, so that its figures belong together."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

import numpy as np

from edgekit.artifact import to_json

ANIMALS = ("aeroplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "lorry with a trailer")
LANGUAGES = ("English", "Welsh", "Sámi")


def logits(labels: np.ndarray, classes: int, seed: int, edge: float, slips: dict[int, int]) -> np.ndarray:
    """Logits that favour each label by ``edge``, but take some of the ``slips``' keys for their values."""
    rng = np.random.default_rng(seed)
    made = rng.standard_normal((len(labels), classes))
    favoured = np.array([slips.get(int(label), int(label)) if rng.random() < 0.4 else int(label) for label in labels])
    made[np.arange(len(labels)), favoured] += edge
    return made


def corruption() -> dict[str, Any]:
    kinds = []
    for i, kind in enumerate(("noise", "blur", "contrast", "brightness", "occlusion")):
        teacher, student = ([round(v - 0.07 * i * j, 6) for j in range(3)] for v in (0.9, 0.84))
        means = {f"{role}_mean": round(sum(v) / 3, 6) for role, v in (("teacher", teacher), ("student", student))}
        kinds.append({"kind": kind, "teacher": teacher, "student": student} | means)
    whole = [round(sum(one[f"{role}_mean"] for one in kinds) / 5, 6) for role in ("teacher", "student")]
    return {"samples": 1000, "teacher_clean": 0.951, "student_clean": 0.902, "teacher_mean": whole[0],
            "student_mean": whole[1], "kinds": kinds}  # fmt: skip


@cache
def _kept(classes: int, samples: int, grouped: bool, empty: int) -> str:
    from edgekit.distillation.kept import measure_kept

    rng = np.random.default_rng(3)
    labels = rng.integers(0, classes - empty, samples)
    names = ANIMALS if classes == len(ANIMALS) else tuple(f"class number {i}" for i in range(classes))
    found = measure_kept(
        logits(labels, classes, 1, 4.5, {}),
        logits(labels, classes, 2, 4.0, {3: 5, 4: 7, 1: 9}),
        labels,
        names,
        groups=rng.choice(3, samples, p=(0.8, 0.15, 0.05)) if grouped else None,
        group_names=LANGUAGES if grouped else (),
    )
    return json.dumps(to_json(found) | {"corruption": corruption()}, allow_nan=False)


def kept(classes: int = 10, samples: int = 2000, *, grouped: bool = True, empty: int = 0) -> dict[str, Any]:
    """The part ``kept`` of a report.

    Args:
        classes: How many.
        samples: Test samples.
        grouped: Whether they are in groups.
        empty: How many of the last classes have no samples.
    """
    found: dict[str, Any] = copy.deepcopy(json.loads(_kept(classes, samples, grouped, empty)))
    return found


def renamed(found: dict[str, Any], name: str) -> dict[str, Any]:
    """The same with one name for every class and group."""
    for one in [*found["classes"], *found["groups"], *found["curves"]["classes"]]:
        one["name"] = name
    return found
