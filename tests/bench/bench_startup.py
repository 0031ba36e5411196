"""How long ``edgekit --help`` takes, as a whole process, against ``python -c "import click"``.

By hand: ``python tests/bench/bench_startup.py [TURNS]``. The figure to keep: at most 2 times.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path
from time import perf_counter_ns

EDGEKIT = Path(sys.executable).with_name("edgekit")
COMMANDS = {
    "import click": [sys.executable, "-c", "import click"],
    "edgekit --help": [str(EDGEKIT), "--help"],
    "python -m edgekit --help": [sys.executable, "-m", "edgekit", "--help"],
    "edgekit targets": [str(EDGEKIT), "targets"],
    "edgekit doctor": [str(EDGEKIT), "doctor"],
}
BASELINE = "import click"


def time_ms(command: list[str]) -> float:
    started = perf_counter_ns()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return (perf_counter_ns() - started) / 1e6


def main(turns: int) -> None:
    """Runs all commands in turns; every ratio is of one turn, so a slow moment hits both sides."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(turns + 1):
        for name, command in COMMANDS.items():
            ms = time_ms(command)
            if turn > 0:  # the first turn fills the page cache
                times[name].append(ms)
    print(f"{'whole process':<26}{'median ms':>10}{'median ratio':>14}{'ratio, middle half':>20}")
    for name, taken in times.items():
        ratios = [mine / theirs for mine, theirs in zip(taken, times[BASELINE], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{name:<26}{statistics.median(taken):>10.1f}{middle:>14.2f}{f'{low:.2f} to {high:.2f}':>20}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
