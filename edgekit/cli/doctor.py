"""``edgekit doctor``: what is installed, what each target lacks here, and what mends it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli._output import ERROR, MET, console, print_json, print_table
from edgekit.cli.catalogue import catalog_option, json_option

if TYPE_CHECKING:
    from edgekit.specs import Target

# By what they are for; the names are those of the distributions.
PACKAGES = {
    "base": ("numpy", "click", "pydantic", "rich"),
    "compress": ("torch", "onnx", "onnxscript", "safetensors", "nncf", "pillow"),
    "engines": ("onnxruntime", "openvino", "tensorrt", "cuda-bindings"),
    "vision": ("torchvision", "timm"),
    "examples": ("scikit-learn",),
}


@click.command()
@catalog_option
@json_option
def doctor(folders: tuple[Path, ...], as_json: bool) -> int:
    """Say what is installed, what each target lacks here, and the command that mends it.

    Exits with 1 when no target could be prepared here, else with 0.
    """
    from edgekit.artifact import to_json
    from edgekit.catalog import list_targets
    from edgekit.profiling.host import this_host

    report = {
        "host": to_json(this_host()),
        "installed": _installed(),
        "targets": [_examine(target) for target in list_targets(folders)],
    }
    print_json(report) if as_json else _show(report)
    ready = any(engine["prepare"] is None for target in report["targets"] for engine in target["engines"])
    return MET if ready else ERROR


def _installed() -> dict[str, dict[str, str | None]]:
    return {group: {name: _version(name) for name in names} for group, names in PACKAGES.items()}


def _version(distribution: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _examine(target: Target) -> dict[str, Any]:
    """What every engine of a target lacks here (None: nothing), and why the target cannot be measured here."""
    from edgekit.backends import load_backend
    from edgekit.profiling.host import this_host
    from edgekit.runtime import missing
    from edgekit.specs import mismatch

    engines = [
        {"engine": engine, "prepare": load_backend(engine).missing(target), "execute": missing(engine)}
        for engine in target.engines
    ]
    return {"name": target.name, "engines": engines, "mismatch": mismatch(target, this_host())}


def _show(report: dict[str, Any]) -> None:
    out = console()
    out.print(_host_text(report["host"]), soft_wrap=True)
    for group, packages in report["installed"].items():
        found = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
        lacking = ", ".join(name for name, version in packages.items() if not version)
        note = f"; not installed: {lacking}" if lacking else ""
        out.print(f"{group + ':':<10}{found or '-'}{note}")
    print_table(("target", "prepare here", "run here", "measure here"), [_row(target) for target in report["targets"]])
    for line in _remedies(report["targets"]):
        out.print(line, soft_wrap=True)


def _row(target: dict[str, Any]) -> tuple[str, ...]:
    able = {
        what: [engine["engine"] for engine in target["engines"] if engine[what] is None]
        for what in ("prepare", "execute")
    }
    measured = "yes" if able["execute"] else "no: no engine runs here"
    if target["mismatch"] is not None:
        measured = f"no: {target['mismatch']}"
    return target["name"], ", ".join(able["prepare"]) or "no", ", ".join(able["execute"]) or "no", measured


def _host_text(host: dict[str, Any]) -> str:
    extras = [host["board"], *host["gpus"], None if host["governor"] == "unknown" else f"governor {host['governor']}"]
    facts = [
        f"{host['cpu_model']} ({host['arch']}, {host['isa']})",
        f"{host['cores']} cores",
        f"{host['memory_mb'] / 1000:.1f} GB",
        *(extra for extra in extras if extra),
        host["os"],
        f"Python {host['python']}",
    ]
    return f"{'host:':<10}{', '.join(facts)}"


def _remedies(targets: list[dict[str, Any]]) -> list[str]:
    """Every reason once, with what it keeps from working."""
    reasons: dict[str, list[str]] = {}
    for target in targets:
        for engine in target["engines"]:
            for what, word in (("prepare", "prepare for"), ("execute", "run")):
                if engine[what] is not None:
                    reasons.setdefault(engine[what], []).append(f"{word} {engine['engine']}")
    lines = [f"to {', '.join(dict.fromkeys(kept))}: {reason}" for reason, kept in reasons.items()]
    if sys.version_info < (3, 11) and reasons:
        lines.append("edgekit[compress] needs Python 3.11 or newer: prepare bundles there, run them here")
    return lines
