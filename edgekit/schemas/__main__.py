"""``python -m edgekit.schemas``: writes the published schemas anew, beside this file."""

from __future__ import annotations

from pathlib import Path

from edgekit.schemas import write

if __name__ == "__main__":
    write(Path(__file__).parent)
