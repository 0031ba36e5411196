"""The measuring process, or one load in a short one; and on a device all of a run's, by itself.

::

    python -m edgekit.profiling [--load cold|cached | --verify BUNDLE/] JOB/
    python -m edgekit.profiling --jobs FOLDER/
    python -m edgekit.profiling --follow FOLDER/ LINES
    python -m edgekit.profiling --stop FOLDER/
"""

from __future__ import annotations

import sys
from pathlib import Path

from edgekit.errors import EdgeKitError

_USAGE = (
    "usage: python -m edgekit.profiling [--load cold|cached | --verify BUNDLE/] JOB/\n"
    "       python -m edgekit.profiling --jobs FOLDER/ | --follow FOLDER/ LINES | --stop FOLDER/"
)


def main(arguments: list[str]) -> int:
    """Does what the command line says; returns the exit status."""
    try:
        match arguments:
            case ["--jobs", folder]:
                from edgekit.profiling.jobs import run_jobs

                return run_jobs(Path(folder).absolute())
            case ["--follow", folder, lines] if lines.isdecimal():
                from edgekit.profiling.following import follow

                return follow(Path(folder).absolute(), int(lines))
            case ["--stop", folder]:
                from edgekit.profiling.following import stop

                return stop(Path(folder).absolute())
            case _:
                return _work(arguments)
    except EdgeKitError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1


def _work(arguments: list[str]) -> int:
    from edgekit.profiling.worker import load_once, verify_once, work

    match arguments:
        case ["--load", "cold" | "cached" as kind, folder]:
            return load_once(Path(folder), kind)
        case ["--verify", bundle, folder]:
            return verify_once(Path(folder), Path(bundle))
        case [folder] if not folder.startswith("-"):
            return work(Path(folder))
    print(_USAGE, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
