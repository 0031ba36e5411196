"""``python -m edgekit.profiling [--load cold|cached] JOB/``: the measuring process, or one load in a short one."""

from __future__ import annotations

import sys
from pathlib import Path

from edgekit.errors import EdgeKitError
from edgekit.profiling.worker import load_once, work

_USAGE = "usage: python -m edgekit.profiling [--load cold|cached] JOB/"


def main(arguments: list[str]) -> int:
    """Runs the job of the folder named on the command line; returns the exit status."""
    try:
        match arguments:
            case ["--load", "cold" | "cached" as kind, folder]:
                return load_once(Path(folder), kind)
            case [folder] if not folder.startswith("-"):
                return work(Path(folder))
        print(_USAGE, file=sys.stderr)
        return 2
    except EdgeKitError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
