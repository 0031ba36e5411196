"""``python -m edgekit.profiling JOB/``: the measuring process."""

from __future__ import annotations

import sys
from pathlib import Path

from edgekit.errors import EdgeKitError
from edgekit.profiling.worker import work


def main(arguments: list[str]) -> int:
    """Runs the job of the folder named on the command line; returns the exit status."""
    if len(arguments) != 1:
        print("usage: python -m edgekit.profiling JOB/", file=sys.stderr)
        return 2
    try:
        return work(Path(arguments[0]))
    except EdgeKitError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
