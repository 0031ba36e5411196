"""What the page shows of a report, gathered for its template: text, tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from edgekit.reporting.html_kept import kept_view
from edgekit.reporting.html_pruning import pruning_view
from edgekit.reporting.html_tables import (
    Cell,
    Grid,
    Head,
    allowed_text,
    candidates_grid,
    conditions_grid,
    figure,
    interval_text,
    latency_grid,
    limit_name,
    limit_text,
    limits_grid,
    loads_grid,
    name_of,
    over_run,
    plain,
    status_cell,
    time_cell,
    trials_grid,
)
from edgekit.reporting.pictures_latency import (
    budgets_of,
    draw_histogram,
    draw_ridges,
    draw_timeline,
    percentiles_of,
)
from edgekit.reporting.pictures_pareto import SHAPES, Pareto, crowded, draw_key, draw_pareto, pareto_of
from edgekit.reporting.pictures_steps import changed, draw_gauge, draw_scores, draw_steps, megabytes
from edgekit.reporting.placing import placement_facts
from edgekit.reporting.tables import count, counted, host_text, milliseconds, percent, qat_facts, shipped_of
from edgekit.reporting.tried import failures as trial_failures
from edgekit.reporting.tried import trials_line

Pair = tuple[Markup | None, Markup | None]
SIGNS = {"pass": "\N{CHECK MARK}", "fail": "\N{MULTIPLICATION X}", "inconclusive": "?", "not measured": "\N{EN DASH}"}
# What the page leads with; the others follow as the profile has them.
FIRST = ("p50_ms", "p90_ms", "p95_ms", "p99_ms", "p999_ms", "max_drop_points")


def run_view(report: Mapping[str, Any], identity: str) -> dict[str, Any]:
    """Everything that the page shows of one run.

    Args:
        report: The report.
        identity: What the anchors of this run begin with.
    """
    targets = [target_view(report, target, f"{identity}-t{i}") for i, target in enumerate(report["targets"], start=1)]
    worst = next(
        (s for s in ("fail", "inconclusive", "not measured") if any(t["status"] == s for t in targets)), "pass"
    )
    return {
        "identity": identity,
        "name": report["name"],
        "created": report.get("created") or "",
        "seconds": report.get("seconds"),
        "status": worst,
        "sign": SIGNS[worst],
        "targets": targets,
        "host": _host(report),
        "models": _models(report, identity),
        "data": _data(report),
        "kept": kept_view(report, identity),
        "pruning": pruning_view(report["pruning"], f"{identity}-pruning") if report.get("pruning") else None,
        **_reproduce(report, identity),
    }


def target_view(report: Mapping[str, Any], target: Mapping[str, Any], identity: str) -> dict[str, Any]:
    """Everything that the page shows of one target."""
    shipped = shipped_of(target)
    shown = _shown(target)
    measured = (shown or {}).get("measured") or {}
    pareto = pareto_of(target)
    pictures = _pictures(target, pareto, measured, identity)
    return {
        "identity": identity,
        "name": target["target"],
        "profile": target["profile"],
        "device": (target.get("device") or {}).get("name"),
        "status": target["status"],
        "sign": SIGNS.get(target["status"], "?"),
        "ships": name_of(shipped) if shipped else None,
        "why": target.get("why") or "",
        "reason": (shipped or {}).get("reason") or "",
        "bundle": target.get("bundle"),
        "gains": _gains(target.get("steps") or []),
        "tiles": _tiles(target, shipped, identity),
        "not_measured": target.get("not_measured"),
        "pareto": pareto,
        "crowded": crowded(pareto),
        "legend": _legend(pareto),
        "pictures": pictures,
        "shown": name_of(shown) if shown else None,
        "drift": measured.get("drift"),
        "alerts": [
            (kind, measured[key])
            for kind, key in (("Drift", "drift"), ("Spoiled", "spoiled"))
            if measured.get(key) and measured[key] not in ((shipped or {}).get("reason") or "")
        ],
        "steps": target.get("steps") or [],
        "step_notes": _step_notes(target.get("steps") or []),
        "grids": [
            grid
            for grid in (
                limits_grid(target, f"{identity}-limits", shipped=True),
                limits_grid(target, f"{identity}-other-limits", shipped=False),
                candidates_grid(target, f"{identity}-candidates"),
                trials_grid(target, f"{identity}-trials"),
                latency_grid(target, f"{identity}-latencies"),
                loads_grid(target, f"{identity}-loads"),
            )
            if grid.rows
        ],
        "conditions": conditions_grid(measured.get("conditions"), f"{identity}-conditions"),
        "over_run": over_run(measured.get("conditions")),
        "facts": _facts(report, target, measured),
        "warnings": _warnings(target),
        "failures": [(f"{i}. {name_of(c)}", c["failure"]) for i, c in _numbered(target) if c.get("failure")]
        + trial_failures(target),
        "notes": [(f"{i}. {name_of(c)}", note) for i, c in _numbered(target) for note in c.get("notes") or []],
    }


def _gains(steps: Sequence[Mapping[str, Any]]) -> str:
    """What ships against the teacher in a line: how much quicker and smaller, and both scores."""
    if len(steps) < 2:
        return ""
    first, last = steps[0], steps[-1]
    better = [
        better
        for key, kind in (("p50_ms", "faster"), ("size_mb", "smaller"))
        if kind in (better := changed(first.get(key), last.get(key), kind) or "")
    ]
    said = [f"{' and '.join(better)} than the {first['name']}"] if better else []
    if first.get("score") is not None and last.get("score") is not None:
        said.append(f"score {percent(last['score'])} ({first['name']} {percent(first['score'])})")
    return "; ".join(said)


def _step_notes(steps: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Every note once, with the steps that it is of."""
    notes = dict.fromkeys(s["note"] for s in steps if s.get("note"))
    return [(", ".join(s["name"] for s in steps if s.get("note") == note), note) for note in notes]


def _numbered(target: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    return list(enumerate(target["candidates"], start=1))


def _shown(target: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Whose latencies are drawn in full: what ships, else the first with any."""
    timed = [c for c in target["candidates"] if (c.get("measured") or {}).get("application")]
    return next((c for c in timed if c["shipped"]), timed[0] if timed else shipped_of(target))


def _pictures(target: Mapping[str, Any], pareto: Pareto, measured: Mapping[str, Any], identity: str) -> dict[str, Pair]:
    """Every picture, wide and narrow; None where there is nothing to draw."""
    budgets, steps = budgets_of(target), target.get("steps") or []
    metric = next((c["proof"]["metric"] for c in target["candidates"] if (c.get("proof") or {}).get("metric")), "score")
    found: dict[str, list[Markup | None]] = {}
    for narrow in (False, True):
        mine = f"{identity}-{'n' if narrow else 'w'}"
        drawn = {
            "pareto": draw_pareto(pareto, f"{mine}p", narrow=narrow) if pareto.points else None,
            "histogram": draw_histogram(measured, budgets, f"{mine}h", narrow=narrow),
            "ridges": draw_ridges(target, f"{mine}r", narrow=narrow),
            "timeline": draw_timeline(measured, budgets, narrow=narrow),
            "size": draw_steps(steps, "size_mb", "Size, MB", megabytes, narrow=narrow),
            "latency": draw_steps(steps, "p50_ms", "Median latency, ms", milliseconds, narrow=narrow),
            "score": draw_scores(steps, metric, narrow=narrow),
        }
        for name, drawing in drawn.items():
            found.setdefault(name, []).append(drawing)
    return {name: (pair[0], pair[1]) for name, pair in found.items()}


def _legend(pareto: Pareto) -> list[tuple[str, Markup]]:
    """The engines' markers."""
    drawn = {p.engine for p in pareto.points}
    return [(name, draw_key(i % SHAPES)) for i, name in enumerate(pareto.engines) if name in drawn]


def _tiles(target: Mapping[str, Any], shipped: Mapping[str, Any] | None, identity: str) -> list[dict[str, Any]]:
    """The limits of what ships, latency and accuracy first; where none is set, what is known of it."""
    if shipped is None:
        return []
    limits = sorted(
        shipped.get("limits") or [], key=lambda r: FIRST.index(r["limit"]) if r["limit"] in FIRST else len(FIRST)
    )
    tiles = []
    for i, result in enumerate(limits):
        unit = {"ms": "ms", "mb": "MB", "points": "points"}.get(result["limit"].rsplit("_", 1)[-1], "")
        seen, interval = limit_text(result, result.get("value")), interval_text(result)
        said = f"{limit_name(result)}: {seen} {unit} {interval}, allowed {allowed_text(result)}: {result['status']}"
        tiles.append(
            {
                "name": limit_name(result),
                "value": seen,
                "unit": unit if result.get("value") is not None else "",
                "interval": interval,
                "allowed": allowed_text(result),
                "status": result["status"],
                "sign": SIGNS.get(result["status"], "?"),
                "note": result.get("note") or "",
                "gauge": draw_gauge(result, said, f"{identity}-g{i}") if result.get("value") is not None else None,
            }
        )
    named = {tile["name"] for tile in tiles}
    known = percentiles_of(shipped.get("measured"))
    drop = (shipped.get("proof") or {}).get("drop")
    if "50.0" in known and not named & {"p50", "p90", "p95", "p99", "p99.9"}:
        tiles.insert(0, _tile("p50", milliseconds(known["50.0"]), "ms"))
    if drop and drop.get("points") is not None and "accuracy drop" not in named:
        tiles.append(_tile("accuracy drop", f"{drop['points']:.2f}".replace("-", "\N{MINUS SIGN}"), "points"))
    return tiles


def _tile(name: str, value: str, unit: str) -> dict[str, Any]:
    """A figure that no limit is set for."""
    return {"name": name, "value": value, "unit": unit, "interval": "", "allowed": "no limit", "status": "none",
            "sign": "", "note": "", "gauge": None}  # fmt: skip


def _warnings(target: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What a reader must know of the measurements: kind, text, and whose they are."""
    said: dict[tuple[str, str], list[str]] = {}
    for i, c in _numbered(target):
        measured = c.get("measured") or {}
        found = [("drift", measured.get("drift")), ("spoiled", measured.get("spoiled"))]
        found += [("caveat", caveat) for caveat in measured.get("caveats") or []]
        if (measured.get("warm_up") or {}).get("settled") is False:
            found.append(("not settled", "no steady stretch was found while warming up"))
        if measured.get("status") not in (None, "ok"):
            found.append((str(measured["status"]), measured.get("reason")))
        for kind, text in found:
            if text:
                said.setdefault((kind, text), []).append(f"{i}. {name_of(c)}")
    everyone = sum(1 for c in target["candidates"] if c.get("measured"))
    return [
        (kind, text, "all candidates" if len(who) == everyone and everyone > 1 else ", ".join(who))
        for (kind, text), who in said.items()
    ]


def _facts(report: Mapping[str, Any], target: Mapping[str, Any], measured: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How the load was driven, and what makes the figures less than they seem."""
    load = target.get("load") or {}
    driven = [
        load.get("scenario"),
        f"batch {plain(load.get('batch'))}",
        counted(target.get("threads"), "thread"),
    ]
    lines = [("load", ", ".join(part for part in driven if part))]
    application = measured.get("application") or {}
    if application:
        when = str(measured.get("started_at") or "").replace("T", " ").replace("+00:00", " UTC")
        lines.append(
            ("measured", f"{plain(application.get('n'))} queries in {plain(measured.get('turns'))} turns, {when}")
        )
    lines += [("auto", trials_line(target))] if trials_line(target) else []
    lines += [*placement_facts(target), *qat_facts(report, target)]
    if report.get("untrained"):
        lines.append(("weights", "none were given: they are as the factory made them"))
    if not (report.get("data") or {}).get("held_out"):
        lines.append(("accuracy", "there is no test set: numbers are proven, accuracy is not"))
    return lines


def _host(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    names = {"arch": "architecture", "isa": "instruction set", "cpu_model": "CPU", "memory_mb": "memory, MB",
             "os": "system", "python": "Python", "gpus": "GPUs"}  # fmt: skip
    host = report.get("host") or {}
    lines = [(names.get(key, key), plain(value)) for key, value in host.items() if value not in (None, [], "")]
    for target in report.get("targets") or []:
        device = target.get("device")
        if device:
            lines.append((f"{target['target']} measured on", f"{device['name']}: {host_text(device['host'])}"))
    return lines


def _models(report: Mapping[str, Any], identity: str) -> Grid:
    models = report.get("models") or {}
    rows = []
    for role in ("teacher", "student"):
        model = models.get(role)
        if model and not (role == "student" and report.get("same_model")):
            parameters = model.get("parameters")
            rows.append([Cell(role), Cell(plain(model.get("name"))), figure(count(parameters), parameters)])
    head = [Head("role"), Head("model"), Head("parameters", True)]
    return Grid(identity=f"{identity}-models", caption="Models", head=head, rows=rows, sortable=False)


def _data(report: Mapping[str, Any]) -> str:
    data = report.get("data") or {}
    if data.get("random"):
        return "Random inputs: nothing is known of the accuracy."
    samples = "Test samples" if data.get("held_out") else "Samples (not held out: no claim rests on their scores)"
    metric = f", metric {data['metric']}" if data.get("metric") else ""
    return f"{samples}: {plain(data.get('test_samples'))}{metric}."


def _reproduce(report: Mapping[str, Any], identity: str) -> dict[str, Any]:
    """Command, hashes and versions; older reports have fewer of them."""
    given = report.get("reproduce") or {}
    versions = {"edgekit": report.get("edgekit_version")} | dict(report.get("engines") or {})
    versions |= dict(given.get("versions") or {})
    hashes = {"recipe": given.get("recipe_sha256")} | dict(given.get("hashes") or {})
    models = report.get("models") or {}
    hashes |= {role: (models.get(role) or {}).get("sha256") for role in models if role not in hashes}
    for target in report["targets"]:
        if target.get("bundle"):
            hashes[f"bundle {target['target']}"] = target["bundle"].get("id")
    return {
        "command": given.get("command") or report.get("command"),
        "seed": report.get("seed"),
        "versions": [(name, plain(version)) for name, version in versions.items() if version],
        "hashes": [(name, plain(value)) for name, value in hashes.items() if value],
    }


def runs_grid(views: Sequence[Mapping[str, Any]], reports: Sequence[Mapping[str, Any]]) -> Grid:
    """One row a target of every run: the verdicts of a page of several runs."""
    rows = []
    for view, report in zip(views, reports, strict=True):
        for shown, target in zip(view["targets"], report["targets"], strict=True):
            shipped = shipped_of(target)
            known = percentiles_of((shipped or {}).get("measured"))
            proof = (shipped or {}).get("proof") or {}
            rows.append(
                [
                    Cell(view["name"], view["name"], link=view["identity"]),
                    Cell(view["created"].replace("T", " ").replace("+00:00", ""), view["created"]),
                    Cell(shown["name"], shown["name"]),
                    status_cell(shown["status"]),
                    Cell(shown["ships"] or "nothing", shown["ships"] or ""),
                    time_cell(known.get("50.0")),
                    time_cell(known.get("99.0")),
                    figure(percent(proof.get("artifact")), proof.get("artifact")),
                    figure(megabytes((shipped or {}).get("size_mb")), (shipped or {}).get("size_mb")),
                ]
            )
    head = [Head("run"), Head("created, UTC"), Head("target"), Head("verdict"), Head("ships"), Head("p50 ms", True)]
    head += [Head("p99 ms", True), Head("score", True), Head("MB", True)]
    return Grid(identity="runs", caption="Runs", head=head, rows=rows)
