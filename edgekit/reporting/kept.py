"""What a student kept of its teacher, in words and as tables for the terminal and for Markdown alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.reporting.tables import NONE, Table, count, percent

MOST_NAME = 32  # characters of a class or group in the first column, which is never broken
MOST_CLASSES = 6

Kept = Mapping[str, Any]


def kept_table(kept: Kept) -> Table:
    """Teacher against student, the least that tells where the student lost.

    Args:
        kept: The part ``kept`` of a report, or what ``distill`` writes to ``kept.json``.
    """
    teacher, student = kept["teacher"], kept["student"]
    rows = [["accuracy", percent(teacher["accuracy"]), percent(student["accuracy"])]]
    rows.append(["agreement with the teacher", "", percent(kept["agreement"])])
    rows.append(["calibration error", *(percent(model["calibration_error"]) for model in (teacher, student))])
    for kind, of in (("class", class_lost(kept)), ("group", group_lost(kept))):
        if of is not None:
            rows.append([f"worst {kind}: {short(of[0])}", percent(of[1]), percent(of[2])])
    worst = worst_corruption(kept)
    if worst is not None:
        shown = (percent(worst["teacher_mean"]), percent(worst["student_mean"]))
        rows.append([f"worst corruption: {worst['kind']}", *shown])
    return ["", "teacher", "student"], rows + task_rows(kept)


def task_rows(kept: Kept) -> list[list[str]]:
    """A line for every further task."""
    units = {"classes": "accuracy", "values": "root mean square error"}
    return [
        [f"{units[one['kind']]}: {short(one['name'])}", *(_task_score(one, role) for role in ("teacher", "student"))]
        for one in kept.get("tasks", ())
    ]


def _task_score(one: Mapping[str, Any], role: str) -> str:
    value = one[role]
    return percent(value) if one["kind"] == "classes" or value is None else f"{value:.4g}"


def lost_table(kept: Kept) -> Table:
    """The classes whose recall fell most."""
    rows = []
    for i in kept["lost_classes"][:MOST_CLASSES]:
        one = kept["classes"][i]
        recalls = (percent(one[role]["recall"]) for role in ("teacher", "student"))
        rows.append([one["name"], count(one["samples"]), *recalls, percent(one["agreement"])])
    return ["class", "samples", "teacher", "student", "agreement"], rows


def corruption_table(kept: Kept) -> Table:
    """Accuracy under every corruption; no rows where none was tried."""
    found = kept["corruption"]
    if found is None:
        return ["", "teacher", "student"], []
    rows = [["as they are", percent(found["teacher_clean"]), percent(found["student_clean"])]]
    rows += [[one["kind"], percent(one["teacher_mean"]), percent(one["student_mean"])] for one in found["kinds"]]
    rows.append(["mean of all kinds", percent(found["teacher_mean"]), percent(found["student_mean"])])
    return ["", "teacher", "student"], rows


def class_lost(kept: Kept) -> tuple[str, float, float] | None:
    """The class that lost most: its name and both recalls; None where none lost."""
    if not kept["lost_classes"]:
        return None
    one = kept["classes"][kept["lost_classes"][0]]
    return one["name"], one["teacher"]["recall"], one["student"]["recall"]


def group_lost(kept: Kept) -> tuple[str, float, float] | None:
    """The group that lost most: its name and both accuracies; None where none lost."""
    if not kept["lost_groups"]:
        return None
    one = kept["groups"][kept["lost_groups"][0]]
    return one["name"], one["teacher"], one["student"]


def worst_corruption(kept: Kept) -> Mapping[str, Any] | None:
    """The kind under which the student is furthest behind its teacher; None where none was tried."""
    kinds: Sequence[Mapping[str, Any]] = (kept["corruption"] or {}).get("kinds") or []
    return min(kinds, key=lambda one: float(one["student_mean"] - one["teacher_mean"]), default=None)


def sentence(kept: Kept) -> str:
    """What was kept, in a line."""
    said = (
        f"On {kept['samples']:,} test samples the student gives its teacher's answer {percent(kept['agreement'])} "
        f"of the time"
    )
    lost = class_lost(kept)
    if lost is None:
        return f"{said}; no class lost recall"
    return f"{said}; it lost most in {lost[0]}: recall {percent(lost[2])}, the teacher's {percent(lost[1])}"


def short(name: str) -> str:
    """A name that fits the first column."""
    name = " ".join(name.split()) or NONE
    return name if len(name) <= MOST_NAME else f"{name[: MOST_NAME - 1]}…"
