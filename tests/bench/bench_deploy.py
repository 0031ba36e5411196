"""How long ``edgekit deploy examples/digits`` takes, as a whole process, on both CPU engines.

By hand: ``python tests/bench/bench_deploy.py [RUNS]``. The figure to keep: under 60 s after install. A second deploy
into the same folder shows what a finished run costs again.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

ROOT = Path(__file__).parents[2]
EDGEKIT = Path(sys.executable).with_name("edgekit")
LIMIT_S = 60.0
MET = 0


def deploy(out: Path) -> tuple[float, dict[str, float]]:
    """One deploy: seconds of the whole process, and seconds by step, told by the progress it prints."""
    started = before = perf_counter()
    parts: dict[str, float] = {}
    step = "start"
    command = [str(EDGEKIT), "deploy", "examples/digits", "--out", str(out)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            now = perf_counter()
            parts[step] = parts.get(step, 0.0) + now - before
            told = re.match(r"([\w -]+): \d+/\d+", line)
            step, before = told.group(1) if told else "report", now
    if process.returncode != MET:
        sys.exit(f"edgekit deploy ended with exit code {process.returncode}, not {MET}")
    return perf_counter() - started, parts


def main(runs: int) -> None:
    """Deploys ``runs`` times from nothing, each followed by a second deploy into the same folder."""
    slowest = 0.0
    for run in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            seconds, parts = deploy(Path(folder))
            again, _ = deploy(Path(folder))
        slowest = max(slowest, seconds)
        print(f"run {run + 1}{'':<30}{'seconds':>9}")
        for name, taken in sorted(parts.items(), key=lambda part: -part[1]):
            print(f"  after {name!r:<28}{taken:>9.1f}")
        print(f"  {'whole process':<34}{seconds:>9.1f}\n  {'again, nothing changed':<34}{again:>9.1f}")
    print(f"slowest {slowest:.1f} s, limit {LIMIT_S:.0f} s: {'met' if slowest < LIMIT_S else 'NOT MET'}")
    sys.exit(slowest >= LIMIT_S)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
