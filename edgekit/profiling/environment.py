"""What a process of ours inherits."""

from __future__ import annotations

import os
import site
from pathlib import Path


def child_environment() -> dict[str, str]:
    """This process's environment for a child, without telemetry, and with this very edgekit importable."""
    environment = dict(os.environ) | {"ORT_DISABLE_TELEMETRY": "1"}
    root = str(Path(__file__).resolve().parents[2])
    if root not in [*site.getsitepackages(), site.getusersitepackages()]:
        known = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = root + (os.pathsep + known if known else "")
    return environment
