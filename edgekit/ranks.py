"""Which of several processes this is, by what ``torchrun`` and ``accelerate launch`` put into the environment."""

from __future__ import annotations

import os


def processes() -> int:
    """How many processes train together; 1 where nothing started several."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is the one that writes and speaks."""
    return processes() == 1 or int(os.environ.get("RANK", "0")) == 0
