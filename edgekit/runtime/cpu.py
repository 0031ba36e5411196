"""The model of this machine's CPU, as the kernel names it."""

from __future__ import annotations

import re
from pathlib import Path


def cpu_model() -> str:
    """The CPU model string, e.g. ``AMD EPYC 9554``, or ``unknown``."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux, or not mounted: "unknown" is a legal answer
        return "unknown"
    return parse_cpu_model(cpuinfo)


def parse_cpu_model(cpuinfo: str) -> str:
    """The CPU model in the text of ``/proc/cpuinfo``, or ``unknown``."""
    named = re.search(r"^model name\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    if named:
        return named.group(1).strip()
    part = re.search(r"^CPU part\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    vendor = re.search(r"^CPU implementer\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    return f"ARM {vendor.group(1)} part {part.group(1)}" if part and vendor else "unknown"
