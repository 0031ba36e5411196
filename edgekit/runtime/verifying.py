"""``python -m edgekit.runtime.verifying BUNDLE``: runs a bundle's golden samples and prints what they show as JSON.

Exit status: 0 when it is told, whether it passed or not; 1 when it could not be done, with the reason as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from edgekit.errors import EdgeKitError
from edgekit.runtime.golden import verify_bundle


def main(arguments: list[str]) -> int:
    """Verifies the bundle named on the command line; returns the exit status."""
    try:
        found = verify_bundle(Path(arguments[0]))
    except EdgeKitError as exc:
        problem = {"kind": type(exc).__name__, "problem": exc.problem, "found": exc.found, "allowed": exc.allowed}
        print(json.dumps({"error": {**problem, "fix": exc.fix}}, default=str))
        return 1
    print(json.dumps(dataclasses.asdict(found), allow_nan=True))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
