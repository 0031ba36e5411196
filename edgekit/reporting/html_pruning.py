"""What a page shows of how a student was pruned, gathered for its template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.reporting.comparison import times_text
from edgekit.reporting.html_tables import Cell, Grid, Head, figure, time_cell
from edgekit.reporting.pictures_pareto import draw_key
from edgekit.reporting.pictures_pruning import ROUND, SQUARE, draw_pruning, drawn, missing
from edgekit.reporting.pruned import changes_text, latency_name, latency_text, macs_text, pruning_sentence, remarks
from edgekit.reporting.tables import bounds, count, interval, milliseconds, percent

# Rows of the table of moves; pruning.json holds everything.
MOST_MOVES = 200

Pruning = Mapping[str, Any]


def pruning_page(pruning: Pruning, name: str) -> str:
    """Renders how a student was pruned as one page that needs nothing but a browser.

    Args:
        pruning: The part ``pruning`` of a report, or what ``prune`` writes to ``pruning.json``.
        name: The recipe's name.
    """
    from edgekit.reporting.html import render_page

    return render_page("pruning.html", status="not measured", name=name, view=pruning_view(pruning, "pruning"))


def pruning_view(pruning: Pruning, identity: str) -> dict[str, Any]:
    """Everything that the page shows of it.

    Args:
        pruning: The part ``pruning`` of a report.
        identity: What its anchors begin with.
    """
    pictures = tuple(draw_pruning(pruning, f"{identity}-{i}", narrow=bool(i)) for i in range(2))
    return {
        "identity": identity,
        "target": pruning["target"],
        "plan": pruning["plan"],
        "seconds": pruning["seconds"],
        "said": pruning_sentence(pruning),
        "estimate": pruning["estimate"],
        "how": "estimated" if pruning["estimate"] else "measured",
        "picture": pictures,
        "legend": _legend(pruning),
        "rules": _rules(pruning),
        "missing": missing(pruning),
        "steps": steps_grid(pruning, f"{identity}-steps"),
        "moves": moves_grid(pruning, f"{identity}-moves"),
        "changes": [(f"step {s['number']}", "; ".join(s["changes"])) for s in pruning["steps"] if s["changes"]],
        "facts": list(remarks(pruning)),
        "notes": pruning["notes"],
    }


def _legend(pruning: Pruning) -> list[tuple[str, Any]]:
    """The markers that are in the picture."""
    steps = drawn(pruning)
    found = [
        ("unpruned", draw_key(SQUARE), any(step["number"] == 0 for step in steps)),
        ("kept", draw_key(ROUND), any(step["number"] and step["kept"] for step in steps)),
        ("undone", draw_key(ROUND, hollow=True), any(not step["kept"] for step in steps)),
    ]
    return [(name, key) for name, key, there in found if there]


def _rules(pruning: Pruning) -> list[str]:
    """What else a reader of the picture must know, as far as it is in it."""
    limits = [("right of the budget", pruning["budget_ms"]), ("below the limit", pruning["max_drop_points"])]
    beyond = " and ".join(where for where, limit in limits if limit is not None)
    ringed = any(step["number"] == pruning["best"] for step in drawn(pruning))
    return [*(["ring: taken"] if ringed else []), *([f"{beyond}: not allowed"] if beyond else [])]


def steps_grid(pruning: Pruning, identity: str) -> Grid:
    """One row a step: what it came to, and what was left out in it."""
    rows: list[list[Cell]] = []
    marked = set()
    for step in pruning["steps"]:
        if step["number"] == pruning["best"]:
            marked.add(len(rows))
        ratio, drop, changes = step["ratio"], step["drop"], changes_text(step)
        rows.append(
            [
                figure(str(step["number"]), step["number"]),
                Cell(changes, changes, "note"),
                figure(latency_text(step), step["p50_ms"]),
                figure(times_text(ratio) if ratio else "", ratio["ratio"] if ratio else None),
                figure(percent(step["score"]), step["score"]),
                figure(interval(drop), drop["points"] if drop else None),
                _became(step),
                figure(macs_text(step["macs"]), step["macs"]),
                figure(count(step["parameters"]), step["parameters"]),
                time_cell(step["aim_ms"]),
                figure(str(step["epochs"]), step["epochs"]),
            ]
        )
    head = [Head("step", True), Head("changes"), Head(latency_name(pruning), True), Head("of the unpruned", True)]
    head += [Head("score", True), Head("drop, points", True), Head("what became of it")]
    head += [Head(name, True) for name in ("MACs", "parameters", "aim ms", "epochs")]
    return Grid(identity=identity, caption="Steps", head=head, rows=rows, marked=frozenset(marked), marked_as="taken")


def _became(step: Mapping[str, Any]) -> Cell:
    if step["kept"]:
        return Cell("kept", "kept", "status pass")
    return Cell("undone", "undone", "status fail", step["why"])


def moves_grid(pruning: Pruning, identity: str) -> Grid | None:
    """One row a move: what it saves when it is made alone; None where there is no table."""
    table = pruning["table"]
    if not table or not table["rows"]:
        return None
    rows = [
        [
            Cell(row["group"], row["group"]),
            Cell(row["move"], row["move"]),
            figure(milliseconds(row["saved_ms"]), row["saved_ms"]),
            Cell(bounds(row["low_ms"], row["high_ms"], milliseconds) or "\N{EN DASH}", row["low_ms"], "number"),
            Cell("yes", "yes", "status pass") if row["shown"] else Cell("no", "no", "status not-measured"),
            figure(count(row["members"]), row["members"]),
            Cell(row["kind"], row["kind"]),
        ]
        for row in table["rows"][:MOST_MOVES]
    ]
    head = [Head("group"), Head("move"), Head("saves, ms", True), Head("interval", True), Head("shown faster")]
    head += [Head("groups alike", True), Head("kind")]
    caption = f"What every move saves of {milliseconds(table['whole_ms'])} ms, {table['source']}"
    return Grid(identity=identity, caption=caption, head=head, rows=rows, folded=True)
