"""``edgekit doctor``: what is installed, what each target lacks here, what disturbs timing, and what mends it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli._devices import device_option
from edgekit.cli._output import ERROR, MET, console, print_json, print_table, wrapped
from edgekit.cli.catalogue import catalog_option, host_line, json_option, needs

if TYPE_CHECKING:
    from edgekit.profiling.conditions import Conditions
    from edgekit.specs import Target

# By what they are for; the names are those of the distributions.
PACKAGES = {
    "base": ("numpy", "click", "pydantic", "rich"),
    "compress": ("torch", "onnx", "onnxscript", "safetensors", "nncf", "pillow"),
    "engines": ("onnxruntime", "openvino", "tensorrt", "cuda-bindings"),
    "vision": ("torchvision", "timm"),
    "examples": ("scikit-learn",),
}

# Long enough for the kernel's ticks of 10 ms to tell a busy machine from an idle one, and hardly felt.
WATCH_SECONDS = 0.3
_INDENT = 10


@click.command()
@catalog_option
@json_option
@device_option
@click.option("--clean", is_flag=True, help="With --device: only remove what EdgeKit keeps there and nobody uses.")
def doctor(folders: tuple[Path, ...], as_json: bool, devices: tuple[str, ...], clean: bool) -> int:
    """Say what is installed, what each target lacks here, what disturbs timing, and what mends it.

    Exits with 1 when no target could be prepared here, else with 0. With --device: which engines run there, which
    targets the device is, what disturbs timing, what EdgeKit keeps there; exits with 1 where no engine runs.
    """
    if clean:
        if not devices:
            raise click.UsageError("--clean goes with --device")
        from edgekit.cli.on_devices import clean_there

        return clean_there(devices, as_json=as_json)
    if devices:
        from edgekit.cli.on_devices import examine_there

        return examine_there(devices, folders, as_json=as_json)
    from edgekit.artifact import to_json
    from edgekit.catalog import list_targets
    from edgekit.profiling.host import this_host

    report = {
        "host": to_json(this_host()),
        "timing": _timing(),
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


def _timing() -> dict[str, Any]:
    """What this host is like for timing at this moment, and what to do about it."""
    from edgekit.profiling import facts
    from edgekit.runtime.system import this_system

    return facts.timing(this_system(), WATCH_SECONDS)


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
    return {"name": target.name, "engines": engines, "mismatch": mismatch(target, this_host()), "needs": needs(target)}


def _show(report: dict[str, Any]) -> None:
    out = console()
    host, timing = report["host"], report["timing"]
    lines = [*labelled("host", f"{_host_text()}, {host['os']}, Python {host['python']}")]
    lines += labelled("timing", ", ".join(timing_facts(timing["conditions"], timing["clock_source"])))
    for line in timing["advice"]:
        lines += labelled("", f"- {line}", hanging="  ")
    for group, packages in report["installed"].items():
        found = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
        lacking = ", ".join(name for name, version in packages.items() if not version)
        note = f"; not installed: {lacking}" if lacking else ""
        lines += labelled(group, f"{found or '-'}{note}")
    for line in lines:
        out.print(line, soft_wrap=True)
    print_table(("target", "engines here", "measure here"), [_row(target) for target in report["targets"]])
    for remedy in _remedies(report["targets"]):
        for line in wrapped(remedy, later="  "):
            out.print(line, soft_wrap=True)


def labelled(label: str, text: str, hanging: str = "") -> list[str]:
    """A label and a text beside it, within the console's width; what is in backticks stays on one line to be copied."""
    return wrapped(text, f"{label + ':' if label else '':<{_INDENT}}", " " * _INDENT + hanging)


def timing_facts(found: Conditions, clock: str) -> list[str]:
    """What disturbs timing, in a few words each."""
    state = found.after
    facts = [f"governor {state.governor}", f"clock source {clock}"]
    if state.min_frequency_mhz is not None and state.max_frequency_mhz is not None:
        facts.append(f"{state.min_frequency_mhz:.0f} to {state.max_frequency_mhz:.0f} MHz")
    if state.temperature_c is not None:
        facts.append(f"{state.temperature_c:.0f} °C")
    if state.throttle_count is not None:
        facts.append(f"throttled {state.throttle_count} times since it started")
    limits = [
        *([] if found.cpu_limit is None else [f"{found.cpu_limit:g} CPUs"]),
        *([] if found.memory_limit_mb is None else [f"{found.memory_limit_mb:.0f} MB"]),
    ]
    facts.append(f"the container's limit is {' and '.join(limits)}" if limits else "no container limit")
    if found.other_load is not None:
        facts.append(f"others use {found.other_load:.0%} of the CPUs now")
    return facts


def _row(target: dict[str, Any]) -> tuple[str, ...]:
    words = {
        (True, True): "{}",
        (True, False): "{} (prepares only)",
        (False, True): "{} (runs only)",
    }
    able = [(engine["engine"], (engine["prepare"] is None, engine["execute"] is None)) for engine in target["engines"]]
    engines = [words[can].format(name) for name, can in able if any(can)]
    runs = any(execute for _, (_, execute) in able)
    measured = target["needs"] or ("yes" if runs else "no engine runs here")
    return target["name"], ", ".join(engines) or "none", measured


def _host_text() -> str:
    from edgekit.profiling.host import this_host

    return host_line(this_host())


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
