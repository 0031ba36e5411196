"""What a report says, as cases that a continuous integration server counts: one a candidate, one a limit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from edgekit.reporting.comparison import sentence
from edgekit.reporting.tables import LIMIT_NAMES, UNITS, bounds, hundredths, milliseconds, shipped_of

Outcome = Literal["pass", "fail", "inconclusive", "not measured", "error", "left out"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing that had to hold.

    Attributes:
        name: Stable from run to run: no figures in it.
        outcome: A limit's verdict; of a candidate ``pass`` (it was made and ran), ``not measured`` (made, and not run
            because this host is not the target), ``error`` (it failed, and so nothing ships) or ``left out`` (it
            failed, and another one ships).
        message: What was found and what is allowed, on one line.
        detail: The same at length, or nothing.
        seconds: Time under load, where it is known.
    """

    name: str
    outcome: Outcome
    message: str
    detail: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """The cases of one target, or of one comparison.

    Attributes:
        name: What was tried where, e.g. ``digits on local``.
        status: The verdict.
        summary: Why, in one line.
        created: When, ISO 8601.
        cases: The cases.
        properties: Host, engines and figures by name.
    """

    name: str
    status: str
    summary: str
    created: str
    cases: tuple[Case, ...]
    properties: Mapping[str, str] = field(default_factory=dict)


def suites_of(report: Mapping[str, Any]) -> list[Suite]:
    """The suites of a report: one a target of a run, one for a profile or a comparison."""
    if report["kind"] == "profile":
        return [_profile_suite(report)]
    if report["kind"] == "comparison":
        return [_comparison_suite(report)]
    return [_target_suite(report, target) for target in report["targets"]]


def _target_suite(report: Mapping[str, Any], target: Mapping[str, Any]) -> Suite:
    shipped = shipped_of(target)
    judged = [shipped] if shipped else [c for c in target["candidates"] if c["limits"]]
    cases = [_made(c, target) for c in target["candidates"]]
    for candidate in judged:
        # Where nothing ships every candidate's limits count, and the names must differ.
        prefix = "" if shipped else f"{_name(candidate)}: "
        cases += [_limit(limit, prefix) for limit in candidate["limits"]]
    facts = {
        **_host(report["host"]),
        **{f"engine.{name}": version for name, version in report["engines"].items()},
        "edgekit": report["edgekit_version"],
        "command": report["command"] or "",
        "profile": target["profile"],
        "ships": _name(shipped) if shipped else "nothing",
        "bundle": target["bundle"]["id"] if target["bundle"] else "",
    }
    for candidate in judged:
        facts |= _figures(candidate, "" if shipped else f"{_name(candidate)}.")
    return Suite(
        name=f"{report['name']} on {target['target']}",
        status=target["status"],
        summary=target["why"]
        if shipped is None or shipped["status"] == "pass"
        else f"{shipped['reason']}; {target['why']}",
        created=report["created"],
        cases=tuple(cases),
        properties=facts,
    )


def _profile_suite(report: Mapping[str, Any]) -> Suite:
    bundle = report["bundle"]
    ran = Case(
        name=f"{bundle['engine']} {bundle['precision']} runs",
        outcome="pass",
        message="measured",
        seconds=_seconds(report["measured"]),
    )
    facts = {
        **_host(report["host"]),
        f"engine.{bundle['engine']}": str(report["measured"]["engine_version"]),
        "profile": report["profile"],
        "bundle": bundle["id"],
    }
    return Suite(
        name=f"{bundle['name']} on {report['target']}",
        status=report["status"],
        summary=report["reason"],
        created=report["measured"]["started_at"],
        cases=(ran, *_profile_cases(report)),
        properties=facts | _figures(report, ""),
    )


def _profile_cases(report: Mapping[str, Any]) -> Iterator[Case]:
    for limit in report["limits"]:
        yield _limit(limit, "")
    if report["status"] != "pass" and all(limit["status"] == "pass" for limit in report["limits"]):
        # Nothing that was limited was missed, and still there is no verdict: this host is not the target.
        yield Case(name="verdict", outcome=report["status"], message=one_line(report["reason"]))


def _comparison_suite(report: Mapping[str, Any]) -> Suite:
    names = {side["label"]: f"{side['label']} {side['name']}" for side in report["sides"]}
    facts = {**_host(report["host"]), "edgekit": report["edgekit_version"], "in turns": str(report["in_turns"]).lower()}
    for pair in report["pairs"]:
        for ratio in pair["ratios"]:
            name = f"{pair['other']}/{pair['base']}.p{ratio['percentile']:g}"
            facts |= {f"{name}.{key}": f"{ratio[key]:.6g}" for key in ("ratio", "low", "high")}
    return Suite(
        name=f"compared with {next(iter(names.values()))}",
        status=report["status"],
        summary="; ".join(sentence(pair) for pair in report["pairs"]),
        created=report["created"],
        cases=tuple(_pair(pair, names[pair["other"]]) for pair in report["pairs"]),
        properties=facts,
    )


def _pair(pair: Mapping[str, Any], name: str) -> Case:
    outcome: Outcome = pair["status"] or "pass"  # where no limit was given, being compared is all there is to hold
    if pair["finding"] == "not compared" and pair["status"] is None:
        outcome = "error"
    reason = f" ({pair['reason']})" if pair["reason"] and pair["ratios"] else ""
    return Case(name=name, outcome=outcome, message=one_line(f"{sentence(pair)}{reason}"))


def _made(candidate: Mapping[str, Any], target: Mapping[str, Any]) -> Case:
    failure = candidate["failure"]
    name = f"{_name(candidate)} runs"
    if failure:
        shipped = any(c["shipped"] for c in target["candidates"])
        return Case(name=name, outcome="left out" if shipped else "error", message=one_line(failure), detail=failure)
    if candidate["measured"] is None:
        why = target["not_measured"] or candidate["reason"]
        return Case(name=name, outcome="not measured", message=one_line(f"not measured: {why}"))
    return Case(name=name, outcome="pass", message="measured", seconds=_seconds(candidate["measured"]))


def _limit(limit: Mapping[str, Any], prefix: str) -> Case:
    name = LIMIT_NAMES[limit["limit"]]
    return Case(name=f"{prefix}{name}", outcome=limit["status"], message=limit_text(limit))


def limit_text(limit: Mapping[str, Any]) -> str:
    """What became of a limit on one line: ``30.1 ms [29.8, 30.4], allowed: 25 ms (99%, n = 1200)``."""
    unit = UNITS[limit["limit"].rsplit("_", 1)[-1]]
    show = milliseconds if unit == "ms" else hundredths
    seen = f"{show(limit['value'])} {unit}" if limit["value"] is not None else "nothing seen"
    interval = bounds(limit["low"], limit["high"], show)
    note = f" ({limit['note']})" if limit["note"] else ""
    return one_line(f"{seen}{f' {interval}' if interval else ''}, allowed: {limit['allowed']:g} {unit}{note}")


def _figures(judged: Mapping[str, Any], prefix: str) -> dict[str, str]:
    """Every limit's figures by name, e.g. ``p99_ms.high``; what is not known is absent."""
    return {
        f"{prefix}{limit['limit']}.{key}": f"{limit[key]:.6g}"
        for limit in judged["limits"]
        for key in ("allowed", "value", "low", "high")
        if limit[key] is not None
    }


def _host(host: Mapping[str, Any]) -> dict[str, str]:
    keys = ("cpu_model", "arch", "isa", "cores", "board", "governor", "os", "python")
    return {f"host.{key}": str(host[key]) for key in keys if host[key] is not None}


def _name(made: Mapping[str, Any]) -> str:
    return str(made["plan"])


def _seconds(measured: Mapping[str, Any]) -> float:
    conditions = measured["conditions"]
    return float(conditions["seconds"]) if conditions else 0.0


def one_line(text: str) -> str:
    """A text on one line, its runs of white space made single spaces."""
    return " ".join(text.split())
