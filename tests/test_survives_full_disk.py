"""A disk that is full indeed, in every step: told once with its place, nothing half-written, finished steps kept."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from killed_line import Line, fill_disk, started
from tiny_recipe import stripes, write_project

from edgekit.artifact import read_json

IN_A_SMALL_DISK = [
    "unshare",
    "-Urm",
    "bash",
    "-c",
    'mount -t tmpfs -o size=24m tmpfs "$0" && mkdir "$0/tmp" && exec "$@"',
]
CAN_MOUNT = (
    subprocess.run(
        ["unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
    ).returncode
    == 0
)
pytestmark = pytest.mark.skipif(not CAN_MOUNT, reason="needs a host that lets a user mount a tmpfs")

# By what is told: the moment right before which the disk is filled to its last byte.
MOMENTS = {
    "a checkpoint of the training": r"^progress train teacher 20/",
    "the step 'teacher'": r"^write \S*-teacher-#/history.json",
    "the step 'student'": r"^write \S*-student-#/history.json",
    "the step 'export'": r"^mkdir \.edgekit-partial-export-#$",
    "the step 'references'": r"^write \S*/student.npz",
    "the step 'quantize'": r"^mkdir \.edgekit-partial-quantize-#$",
    "the step 'compile'": r"^mkdir \.edgekit-partial-compile-#$",
    "the step 'measure'": r"^mkdir \.edgekit-partial-measure-#/0",
    "the bundle local": r"^write \S*/golden.npz",
    "report.json": r"^write \S*/report.json",
    "report.md": r"^write \S*/report.md",
}


@dataclass(kw_only=True)
class Disk:
    """A small disk in a mount namespace of its own, and the process in there that runs commands."""

    line: Line
    project: Path
    path: Path
    ran: list[str] = field(default_factory=list)

    @property
    def seen(self) -> Path:
        """The disk as this process sees it."""
        return Path(f"/proc/{self.line.process.pid}/root{self.path}")

    def deploy(self, out: Path, at: str | None = None):
        args = ("deploy", self.project, "--engine", "openvino", "--precision", "int8", "--out", out)
        return self.line.run(*args, under=out, at=at, fill=self.path / "filler")

    def reach(self, what: str) -> None:
        """Fills the disk in every step up to this one, unless that is done."""
        for name, moment in MOMENTS.items():
            if name not in self.ran:
                self.filled_at(name, moment)
                self.ran.append(name)
            if name == what:
                return

    def filled_at(self, name: str, moment: str) -> None:
        before = self.steps()
        done = self.deploy(self.path / "out", moment)
        self.told(done, name, self.path / "out")
        assert not [path for path in self.seen.rglob("*") if "partial" in path.name]
        assert self.steps().items() >= before.items()
        self.make_room()

    def steps(self) -> dict[str, int]:
        return {p.parent.name: p.stat().st_mtime_ns for p in (self.seen / "out" / ".steps").glob("[!.]*/step.json")}

    def told(self, done, what: str, place: Path) -> None:
        """One message that names what, where and how much is free; exit code 1."""
        assert done.status == 1, done.stderr
        assert done.stderr.count("error: ") == 1
        assert f"the disk is full: {what} could not be written" in done.stderr
        assert f"error: {place}" in done.stderr
        assert "\n  found:   0.000 MB free" in done.stderr
        assert "\n  fix:     make room there and give the same command again" in done.stderr
        assert "Traceback" not in done.stderr

    def make_room(self) -> None:
        (self.seen / "filler").unlink()


@pytest.fixture(scope="module")
def disk(tmp_path_factory) -> Iterator[Disk]:
    folder = tmp_path_factory.mktemp("small")
    (folder / "disk").mkdir()
    process = started(folder / "log", [*IN_A_SMALL_DISK, str(folder / "disk")], TMPDIR=str(folder / "disk" / "tmp"))
    with process:
        line = Line(process=process, log=folder / "log")
        yield Disk(line=line, project=write_project(folder / "project"), path=folder / "disk")
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize("what", MOMENTS)
def test_a_disk_that_is_full_in_any_step_is_told_and_the_next_run_goes_on(disk, what):
    disk.reach(what)
    assert what in disk.ran


@pytest.fixture(scope="module")
def elsewhere(disk, tmp_path_factory) -> Path:
    """What came of the run at last, on a disk with room."""
    disk.reach("report.md")
    done = disk.deploy(disk.path / "out")
    assert done.status in (0, 4), done.stderr
    return shutil.copytree(disk.seen / "out", tmp_path_factory.mktemp("elsewhere") / "out")


@pytest.mark.slow
def test_the_end_is_the_bundle_of_an_undisturbed_run(disk, elsewhere, tmp_path):
    done = disk.deploy(tmp_path / "out")
    assert done.status in (0, 4), done.stderr
    ids = [read_json(out / "local" / "manifest.json")["id"] for out in (elsewhere, tmp_path / "out")]
    assert ids[0] == ids[1]


@pytest.mark.parametrize("at", [r"^progress load 0/", r"^progress measure [1-9]"])
def test_a_full_disk_of_temporary_files_is_told_as_such(disk, elsewhere, at):
    for folder in (elsewhere / ".steps").glob("measure-*"):
        shutil.rmtree(folder)
    done = disk.deploy(elsewhere, at)
    disk.told(done, "the measuring jobs", disk.path / "tmp")
    assert list((disk.seen / "tmp").glob("edgekit-*")) == []
    disk.make_room()
    assert disk.deploy(elsewhere).status in (0, 4)


def test_results_of_commands_are_written_whole_or_not_at_all(disk, elsewhere, tmp_path):
    sink, bundle = disk.path / "p.json", elsewhere / "local"
    filled = {"under": disk.path, "at": r"^mkdir \.edgekit-partial-", "fill": disk.path / "filler"}
    disk.told(disk.line.run("profile", bundle, "--json", sink, **filled), "p.json", disk.path)
    disk.make_room()
    np.savez(tmp_path / "x.npz", input=stripes(3000, seed=0)[0])
    args = ("run", bundle, "--input", tmp_path / "x.npz", "--output", disk.path / "y.npz")
    disk.told(disk.line.run(*args, **filled), "y.npz", disk.path)
    fill_disk(disk.seen / "filler")  # nothing is written, so nothing is missed
    assert disk.line.run("report", elsewhere, under=disk.path).status in (0, 4)
    disk.make_room()
    assert sorted(path.name for path in disk.seen.iterdir()) == ["out", "tmp"]
