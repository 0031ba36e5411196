"""What the page shows of where a student lost, gathered for its template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.reporting.html_tables import Cell, Grid, Head, figure
from edgekit.reporting.kept import sentence, task_rows
from edgekit.reporting.pictures_kept import MOST_ROWS, by_loss, draw_confusion, draw_curves, draw_recalls
from edgekit.reporting.tables import count, percent

# Rows of a table of classes, pairs or groups; report.json holds everything.
MOST = 50
Kept = Mapping[str, Any]


def kept_view(report: Mapping[str, Any], identity: str) -> dict[str, Any] | None:
    """Everything that the page shows of it.

    Args:
        report: The report of a run.
        identity: What the anchors of this run begin with.

    Returns:
        None where the report knows nothing of it.
    """
    kept = report.get("kept")
    if not kept:
        return None
    mine = f"{identity}-kept"
    known, whole = by_loss(kept), [one for one in kept["classes"] if not one["samples"]]
    confusion = tuple(draw_confusion(kept, narrow=narrow) for narrow in (False, True))
    folded = [classes_grid(kept, f"{mine}-classes"), samples_grid(kept, f"{mine}-samples")]
    return {
        "identity": mine,
        "said": sentence(kept),
        "scores": scores_grid(kept, f"{mine}-scores"),
        "recalls": tuple(draw_recalls(kept, narrow=narrow) for narrow in (False, True)),
        "more": f"The {MOST_ROWS} of {len(known)} classes that lost most." if len(known) > MOST_ROWS else "",
        "unseen": f"Without test samples: {_listed([one['name'] for one in whole])}." if whole else "",
        "confusion": None if confusion[0] is None else confusion,
        "confused": confused_grid(kept, f"{mine}-confused"),
        "curves": tuple(draw_curves(kept, narrow=narrow) for narrow in (False, True)),
        "groups": groups_grid(kept, f"{mine}-groups"),
        "corrupted": corruption_grid(kept, f"{mine}-corruption"),
        "folded": [grid for grid in folded if grid.rows],
        "corruption": kept["corruption"],
    }


def _listed(names: list[str], most: int = 20) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _rate(value: float | None) -> Cell:
    return figure(percent(value), value)


def _change(before: float | None, after: float | None) -> Cell:
    """What was gained or lost, in points."""
    if before is None or after is None:
        return figure("", None)
    points = 100.0 * (after - before)
    return figure(f"{points:+.2f}" if abs(points) >= 0.005 else "0.00", points)


def scores_grid(kept: Kept, identity: str) -> Grid:
    """Every score of both on all test samples."""
    names = {
        "accuracy": "accuracy",
        "precision": "precision, mean of the classes",
        "recall": "recall, mean of the classes",
        "f1": "F1, mean of the classes",
        "auc": "area under the ROC curve",
        "average_precision": "area under the precision-recall curve",
        "calibration_error": "calibration error; less is better",
    }
    rows = []
    for key, name in names.items():
        both = [kept[role][key] for role in ("teacher", "student")]
        rows.append([Cell(name), *map(_rate, both), _change(*both)])
    rows.append([Cell("agreement with the teacher"), figure("", None), _rate(kept["agreement"]), figure("", None)])
    rows += [[Cell(name), *(figure(text, None) for text in both), figure("", None)] for name, *both in task_rows(kept)]
    return Grid(
        identity=identity, caption="Scores on the test samples", head=_sides(""), rows=rows, sortable=False
    )  # fmt: skip


def _sides(first: str, *more: Head) -> list[Head]:
    return [Head(first), *more, Head("teacher", True), Head("student", True), Head("change, points", True)]


def corruption_grid(kept: Kept, identity: str) -> Grid:
    """Accuracy of both under every corruption, mild to severe."""
    found = kept["corruption"]
    rows: list[list[Cell]] = []
    if found is not None:
        for name, key, one in [
            ("as they are", "clean", found),
            *((one["kind"], "mean", one) for one in found["kinds"]),
            ("mean of all kinds", "mean", found),
        ]:
            both = [one[f"{role}_{key}"] for role in ("teacher", "student")]
            each = [_steps(one.get(role)) for role in ("teacher", "student")]
            rows.append([Cell(name, name), *map(_rate, both), _change(*both), *each])
    head = [*_sides("corruption"), Head("teacher, mild to severe", True), Head("student, mild to severe", True)]
    return Grid(identity=identity, caption="Accuracy under noise and corruption", head=head, rows=rows)


def _steps(values: list[float] | None) -> Cell:
    """Accuracy at every severity, sorted by that of the severest."""
    if values is None:
        return figure("", None)
    return figure(" · ".join(f"{100 * value:.1f}%" for value in values), values[-1])


def groups_grid(kept: Kept, identity: str) -> Grid:
    """Accuracy of both in every group."""
    rows = [
        [
            Cell(one["name"], one["name"]),
            figure(count(one["samples"]), one["samples"]),
            _rate(one["teacher"]),
            _rate(one["student"]),
            _change(one["teacher"], one["student"]),
            _rate(one["agreement"]),
        ]
        for one in kept["groups"][:MOST]
    ]
    head = [*_sides("group", Head("samples", True)), Head("agreement", True)]
    return Grid(identity=identity, caption="Accuracy by group", head=head, rows=rows)


def confused_grid(kept: Kept, identity: str) -> Grid:
    """The wrong answers that the student gives more often than the teacher."""
    names = [one["name"] for one in kept["classes"]]
    rows = [
        [
            Cell(names[one["label"]], names[one["label"]]),
            Cell(names[one["answer"]], names[one["answer"]]),
            figure(count(one["teacher"]), one["teacher"]),
            figure(count(one["student"]), one["student"]),
            figure(f"+{one['student'] - one['teacher']:,}", one["student"] - one["teacher"]),
        ]
        for one in kept["confused"][:MOST]
    ]
    head = [Head("class"), Head("is taken for"), Head("teacher, times", True), Head("student, times", True)]
    head.append(Head("more often", True))
    return Grid(identity=identity, caption="New mistakes of the student", head=head, rows=rows, folded=True)


def classes_grid(kept: Kept, identity: str) -> Grid:
    """Every class: precision, recall, F1, ROC area and calibration of both, the furthest fallen recall first."""
    known = by_loss(kept)
    rows = []
    for one in known[:MOST]:
        cells = [Cell(one["name"], one["name"]), figure(count(one["samples"]), one["samples"])]
        for key in ("precision", "recall", "f1", "auc", "calibration_error"):
            teacher, student = one["teacher"][key], one["student"][key]
            cells += [_rate(teacher), _rate(student)]
        rows.append([*cells, _rate(one["agreement"])])
    head = [Head("class"), Head("samples", True)]
    for name in ("precision", "recall", "F1", "ROC area", "calibration error"):
        head += [Head(f"{name}, teacher", True), Head("student", True)]
    caption = "Every class" if len(known) <= MOST else f"The {MOST} of {len(known)} classes that lost most"
    return Grid(identity=identity, caption=caption, head=[*head, Head("agreement", True)], rows=rows, folded=True)


def samples_grid(kept: Kept, identity: str) -> Grid:
    """The samples that the teacher was surest of among those that the student has wrong."""
    names = [one["name"] for one in kept["classes"]]
    rows = [
        [
            figure(str(one["index"]), one["index"]),
            Cell(names[one["label"]], names[one["label"]]),
            Cell(names[one["answer"]], names[one["answer"]]),
            _rate(one["teacher"]),
            _rate(one["student"]),
        ]
        for one in kept["lost_samples"]
    ]
    head = [Head("test sample", True), Head("class"), Head("student's answer"), Head("teacher's confidence", True)]
    head.append(Head("student's in the class", True))
    caption = "Samples that the teacher was sure of and the student has wrong"
    return Grid(identity=identity, caption=caption, head=head, rows=rows, folded=True)
