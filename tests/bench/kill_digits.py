"""Kills ``edgekit deploy examples/digits`` at random moments of every step, lets it go on, and compares bundle ids.

By hand: ``python tests/bench/kill_digits.py [--kills 50] [--seed 0]``. Engine and precision are named, so that timing
chooses nothing. One undisturbed run comes first. Each kill has a folder of its own that begins with the steps that
run finished before the one to be hit; the moment within the step is random. Which step was under way is read from the
folder afterwards: its partial folder is there; checking has none, so there the last line of progress tells. Kills
between two steps are kept and counted as such. Kills go on beyond ``--kills`` until every step was hit three times.

After every kill the same command is given again and must end with the undisturbed run's bundle id, with the finished
steps untouched, nothing partial left, and no process or temporary folder of the killed run alive.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMAND = [str(Path(sys.executable).with_name("edgekit")), "deploy", "examples/digits"]
CHOICES = ["--engine", "openvino", "--precision", "int8"]
FOLDERS = ("teacher", "student", "export", "references", "quantize", "compile")  # steps with folders, in order
STEPS = (*FOLDERS, "check", "measure", "bundle", "report")
BEFORE = {"check": "measure"}  # a step without a folder begins before another's
BETWEEN = "between steps"
EACH = 3
POLL_S = 0.0003
ENDED = (0, 3, 4)  # exit codes of a run that came to its end
ORPHANS_S = 20.0
MARK = "EDGEKIT_KILL_DIGITS"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A deployment under way, or ended."""

    process: subprocess.Popen[bytes]
    out: Path
    mark: str

    @property
    def told(self) -> str:
        return self.out.with_suffix(".stderr").read_text()


def start(out: Path) -> Run:
    """Starts a deployment into ``out`` in a process group of its own."""
    mark, temporary = uuid.uuid4().hex, out.with_suffix(".tmp")
    temporary.mkdir(exist_ok=True)
    environment = dict(os.environ) | {"TMPDIR": str(temporary), MARK: mark}
    with out.with_suffix(".stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [*COMMAND, *CHOICES, "--out", str(out)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
    return Run(process=process, out=out, mark=mark)


def under_way(run: Run) -> str:
    """The step under way, as the run's folder and its progress tell."""
    for folder in (run.out, run.out / ".steps"):
        for name in names(folder):
            if name.startswith((".edgekit-partial-", ".edgekit-old-partial-")):
                inner = name.removeprefix(".edgekit-partial-").removeprefix(".edgekit-old-partial-")
                return "bundle" if inner == "local" else re.split(r"[-.]", inner)[0]
    lines = [line for line in run.told.splitlines() if ": " in line]
    if lines and lines[-1].startswith("check "):
        done, _, total = lines[-1].split(": ")[1].split()[0].partition("/")
        return "check" if int(done) < int(total) else BETWEEN
    return BETWEEN


def names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def watch(run: Run) -> Iterator[tuple[float, str]]:
    """Yields the time and the step under way, each time it is another, until the process ends."""
    before = BETWEEN
    while run.process.poll() is None:
        step = under_way(run)
        if step != before:
            yield time.perf_counter(), step
            before = step
        time.sleep(POLL_S)


def undisturbed(out: Path) -> tuple[str, dict[str, float]]:
    """Runs to the end; gives the bundle's id and the seconds that each step took."""
    run = start(out)
    took: dict[str, float] = dict.fromkeys(STEPS, 0.0)
    last, since = BETWEEN, time.perf_counter()
    for now, step in [*watch(run), (time.perf_counter(), BETWEEN)]:
        took[last] = took.get(last, 0.0) + now - since
        last, since = step, now
    return ended(run), took


def ended(run: Run) -> str:
    """Waits for a run and gives its bundle's id."""
    code = run.process.wait()
    if code not in ENDED:
        sys.exit(f"exit code {code} in {run.out}:\n{run.told}")
    return str(json.loads((run.out / "local" / "manifest.json").read_text())["id"])


def prepare(whole: Path, out: Path, step: str) -> None:
    """Makes a folder that holds what ``whole`` had finished before a step."""
    when = {path.parent: path.stat().st_mtime_ns for path in (whole / ".steps").glob("[!.]*/step.json")}
    begins = [at for folder, at in when.items() if folder.name.split("-")[0] == BEFORE.get(step, step)]
    ends = {"bundle": (whole / "local" / "manifest.json").stat().st_mtime_ns, "report": time.time_ns()}
    for folder, at in when.items():
        if at < ends.get(step, min(begins, default=0)):
            shutil.copytree(folder, out / ".steps" / folder.name)
    if step == "report" or (step == "bundle" and out.name.endswith("1")):  # an older bundle, which is replaced
        shutil.copytree(whole / "local", out / "local")


def kill(out: Path, step: str, wait_s: float) -> str:
    """Kills a deployment some time after a step began; gives the step that was under way."""
    run = start(out)
    began = next((now for now, now_under_way in watch(run) if now_under_way == step), None)
    if began is not None:
        time.sleep(wait_s)
    if run.process.poll() is not None:
        return "ended before"
    os.killpg(run.process.pid, signal.SIGKILL)
    if run.process.wait() != -signal.SIGKILL:
        return "ended before"
    no_orphans(run)
    return under_way(run)


def no_orphans(run: Run) -> None:
    """Fails when a process of a killed run lives on."""
    until = time.monotonic() + ORPHANS_S
    while left := [path.parent.name for path in Path("/proc").glob("[0-9]*/environ") if is_of(run, path)]:
        if time.monotonic() > until:
            sys.exit(f"processes of the run killed in {run.out} live on: {', '.join(left)}")
        time.sleep(0.05)


def is_of(run: Run, environ: Path) -> bool:
    try:
        return f"{MARK}={run.mark}".encode() in environ.read_bytes()
    except OSError:
        return False


def go_on(out: Path) -> str:
    """Gives the command again; gives the id, after a look at what a kill may leave."""
    before = {path: path.stat().st_mtime_ns for path in (out / ".steps").glob("[!.]*/step.json")}
    found = ended(start(out))
    if repeated := [path.parent.name for path, when in before.items() if path.stat().st_mtime_ns != when]:
        sys.exit(f"{out}: finished steps were made again: {', '.join(repeated)}")
    if left := [str(path) for path in out.rglob("*") if "partial" in path.name]:
        sys.exit(f"{out}: half-written: {', '.join(left)}")
    if left := [path.name for path in out.with_suffix(".tmp").glob("edgekit-*")]:
        sys.exit(f"{out}: temporary folders are left: {', '.join(left)}")
    return found


def main() -> None:
    """Kills, goes on, compares, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began, rng = time.perf_counter(), random.Random(options.seed)
    each = min(EACH, options.kills // len(STEPS))
    hits: Counter[str] = Counter()
    aimed: Counter[str] = Counter()
    other = 0
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        wanted, took = undisturbed(whole)
        print(f"undisturbed: {time.perf_counter() - began:.0f} s, bundle {wanted}", flush=True)
        kills = 0
        while kills < options.kills or any(hits[step] < each for step in STEPS):
            if sum(aimed.values()) > 5 * max(options.kills, len(STEPS)):
                sys.exit(f"some steps are too short to be hit: {hits}")
            short = [step for step in STEPS if hits[step] < each]
            step = min(short, key=lambda s: aimed[s]) if short else rng.choice(STEPS)
            out = Path(folder) / f"run{sum(aimed.values())}"
            aimed[step] += 1
            out.mkdir()
            prepare(whole, out, step)
            hit = kill(out, step, rng.uniform(0, took[step]))
            if hit == "ended before":
                continue
            kills += 1
            hits[hit] += 1
            found = go_on(out)
            other += found != wanted
            same = "the same bundle" if found == wanted else f"ANOTHER BUNDLE {found}"
            seconds = time.perf_counter() - began
            print(f"{kills:>3} aimed at {step:<10} hit {hit:<13} {same}, {seconds:.0f} s", flush=True)
            shutil.rmtree(out)
        table(hits, aimed, took)
    print(f"{kills} kills, {kills - other} ended in the undisturbed run's bundle, {time.perf_counter() - began:.0f} s")
    sys.exit(other > 0)


def table(hits: Counter[str], aimed: Counter[str], took: dict[str, float]) -> None:
    """Prints how often every step was hit."""
    print(f"\n{'step':<14}{'aimed at':>9}{'hit':>5}{'seconds undisturbed':>21}")
    for step in (*STEPS, BETWEEN):
        print(f"{step:<14}{aimed[step]:>9}{hits[step]:>5}{took.get(step, 0.0):>21.3f}")


if __name__ == "__main__":
    main()
