"""``python -m edgekit`` is the command ``edgekit``; a device's runtime, installed with ``--no-deps``, has none."""

from __future__ import annotations

import sys

_PACKAGES = ("click", "rich", "pydantic", "jinja2", "typing_extensions")


def main() -> None:
    """Runs the command line and exits."""
    try:
        from edgekit.cli.main import main as run
    except ModuleNotFoundError as exc:
        if exc.name not in _PACKAGES:
            raise
        sys.exit(
            "error: the command edgekit needs more than EdgeKit's runtime\n"
            f"  found:   no package {exc.name}\n"
            "  fix:     install EdgeKit without --no-deps; or call it from a workstation, with --device"
        )
    run()


if __name__ == "__main__":
    main()
