"""What is told and written of a pruning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.artifact import to_json, write_json
from edgekit.disk import PARTIAL, filled, whole
from edgekit.latency_table import LatencyTable, write_table
from edgekit.models import save_weights
from edgekit.shrinking.scores import Times
from edgekit.shrinking.steps import Pruned, Step, normal_ms
from edgekit.steps import replace_folder

PRUNING_JSON = "pruning.json"
PRUNING_HTML = "pruning.html"
TABLE_JSON = "latency_table.json"
STEPS = "pruned"  # folder with the weights and the changes of every step


def pruning_report(pruned: Pruned) -> dict[str, Any]:
    """A pruning as JSON: the key ``pruning`` of a report, and the whole of ``pruning.json``."""
    line, table = pruned.line, pruned.table
    first = pruned.steps[0]
    judged = (
        first.candidate is not None and first.candidate.proof is not None and first.candidate.proof.drop is not None
    )
    estimate = None if pruned.task.not_measured is None or table is None else table.source
    return {
        "target": line.job.target.name,
        "plan": str(first.candidate.plan) if first.candidate else "",
        **({} if line.job.place is None else {"device": line.job.place.name}),
        "samples": len(line.judged_on) if judged else None,
        "budget_ms": pruned.budget_ms,
        "budget": _budget(pruned),
        "max_drop_points": pruned.limit_points,
        "criterion": line.settings.criterion,
        "estimate": estimate,
        "stopped": pruned.stopped,
        "best": pruned.best.number,
        "seconds": round(pruned.seconds, 1),
        "table": None if table is None else _table(table),
        "steps": [_step(step, estimated=estimate is not None) for step in pruned.steps],
        "notes": list(pruned.notes),
    }


def met(pruned: Pruned) -> bool:
    """Whether the last step that is kept is within the budget, by its median."""
    return normal_ms(pruned.best.times, pruned.steps[0].times) <= pruned.budget_ms


def write_pruned(pruned: Pruned, out: Path) -> None:
    """Writes the table of latencies, every step's weights with the changes that lead to it, and the report.

    A step's module is had again by ``apply_change`` of all its changes in order, and its weights.
    """
    from edgekit.pruning.changes import as_json
    from edgekit.reporting.html_pruning import pruning_page

    report = pruning_report(pruned)
    if pruned.table is not None:
        write_table(pruned.table, out / TABLE_JSON)
    partial = out / f"{PARTIAL}{STEPS}"
    with filled(partial, "the steps of the pruning"):
        for step in pruned.steps[1:]:
            assert step.model.module is not None, "only modules are pruned"
            save_weights(step.model.module, partial / f"step-{step.number}.safetensors")
            write_json(partial / f"step-{step.number}.json", [as_json(change) for change in step.changes])
        replace_folder(partial, out / STEPS)
    with whole(out / PRUNING_JSON) as path:
        write_json(path, report)
    with whole(out / PRUNING_HTML) as path:
        path.write_text(pruning_page(report, pruned.line.recipe.name), encoding="utf-8")


def _budget(pruned: Pruned) -> str:
    settings, first = pruned.line.settings, pruned.steps[0].times
    by_ratio = settings.ratio is not None and pruned.budget_ms == settings.ratio * first.p50_ms
    if by_ratio:
        return f"{settings.ratio:g} of the unpruned student's {first.p50_ms:.3f} ms"
    if settings.budget_ms is not None:
        return "pruning.budget_ms"
    return f"p50_ms of profile {pruned.line.job.profile.name}"


def _table(table: LatencyTable) -> dict[str, Any]:
    return {
        "source": table.source,
        "whole_ms": table.whole_us / 1e3,
        "seconds": round(table.seconds, 1),
        "rows": [
            {
                "group": row.group,
                "kind": row.kind,
                "members": row.members,
                "move": row.move,
                "saved_ms": row.saved_us / 1e3,
                "low_ms": row.low_us / 1e3,
                "high_ms": row.high_us / 1e3,
                "shown": row.shown,
            }
            for row in table.rows
        ],
    }


def _step(step: Step, *, estimated: bool) -> dict[str, Any]:
    proof = step.candidate.proof if step.candidate else None
    return {
        "number": step.number,
        "aim_ms": step.aim_ms,
        **_latency(step.times),
        "estimated": estimated,
        "score": proof.artifact if proof else None,
        "drop": to_json(proof.drop) if proof and proof.drop else None,
        "parameters": step.model.parameters,
        "macs": step.macs,
        "changes": list(step.said),
        "epochs": step.epochs,
        "kept": step.kept,
        "why": step.why,
    }


def _latency(times: Times) -> dict[str, Any]:
    ratio = times.ratio
    return {
        "p50_ms": times.p50_ms,
        "p50_low_ms": times.low_ms,
        "p50_high_ms": times.high_ms,
        "ratio": None if ratio is None else {"ratio": ratio.ratio, "low": ratio.low, "high": ratio.high},
    }
