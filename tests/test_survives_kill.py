"""``kill -9`` in every step of the tiny recipe's line: in the middle of it, and when all is written but not renamed."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from killed_line import Line, started
from tiny_recipe import edgekit, write_project

from edgekit.runtime.manifest import read_manifest
from edgekit.steps import OLD

AFTER_BUNDLE = r"^rmtree \.edgekit-partial-(export|report\.json)"  # so that there is one
# By step, the moments right before which the run is killed, one after another in one folder.
MOMENTS: dict[str, list[str]] = {
    "lock": [r"^mkdir \.steps", r"^write \.lock"],
    "teacher": [r"^progress train teacher 20/", r"^rename \S*-teacher-# to"],
    "student": [r"^progress train student 20/", r"^rename \S*-student-# to"],
    "clean-up": [r"^progress export to ONNX 0/1", r"^write model.onnx", r"^rmtree \.edgekit-partial-export-#$"],
    "export": [r"^rename model.onnx to", r"^rename \S*-export-# to"],
    "references": [r"^write \S*/student.npz", r"^rename \S*-references-# to"],
    "quantise": [r"^progress quantise for", r"^write \S*-quantize-#/artifact.json", r"^rename \S*-quantize-# to"],
    "compile": [r"^write \S*-compile-#/artifact.json", r"^rename \S*-compile-# to"],
    "check": [r"^progress check openvino int8 0/", r"^progress check openvino int8 96/"],
    "measure": [r"^progress load 0/", r"^progress measure [1-9]", r"^write measured.json", r"^rename \S*-measure-# to"],
    "bundle": [
        r"^write model.xml",
        r"^write \S*/golden.npz",
        r"^write \S*/manifest.json",
        r"^rename \S*-local to local",
        AFTER_BUNDLE,
    ],
    "bundle over an older one": [r"^rename local to", r"^rename \S*-local to local", r"^rmdir \.edgekit-old-partial"],
    "report": [
        *(r"^write \S*/report.json", r"^rename \S* to report.json", r"^rmdir \.edgekit-partial-report.json"),
        *(r"^write \S*/report.md", r"^rename \S* to report.md"),
    ],
}


def bundle_id(out: Path) -> str | None:
    """The id of the bundle that lies in a run's folder, or is being replaced there, checked; None without one."""
    found = [out / name for name in ("local", f"{OLD}local") if (out / name).exists()]
    return read_manifest(found[0]).id if found else None


@dataclass(kw_only=True)
class Chain:
    """One folder in which run after run is killed, a step further each time."""

    line: Line
    project: Path
    out: Path
    mark: str
    ran: dict[str, list[str]] = field(default_factory=dict)
    finished: dict[str, int] = field(default_factory=dict)

    def deploy(self, out: Path, at: str | None = None):
        args = ("deploy", self.project, "--engine", "openvino", "--precision", "int8", "--out", out)
        return self.line.run(*args, under=out, at=at)

    def reach(self, step: str) -> None:
        """Kills in every step up to this one, unless that is done."""
        for name, moments in MOMENTS.items():
            if name not in self.ran:
                self.ran[name] = [self.killed_at(moment) for moment in moments]
            if name == step:
                return

    def killed_at(self, moment: str) -> str:
        """Kills one run; gives the moment that was reached."""
        before = bundle_id(self.out)
        done = self.deploy(self.out, moment)
        assert done.status == -9, f"{moment} was not reached: {done.status}\n{done.stderr}\n" + "\n".join(done.moments)
        self.children_are_gone()
        self.nothing_was_made_again()
        assert bundle_id(self.out) == before or before is None, "the older bundle is lost"
        return done.moments[-1]

    def nothing_was_made_again(self) -> None:
        now = {path.parent.name: path.stat().st_mtime_ns for path in (self.out / ".steps").glob("[!.]*/step.json")}
        assert now.items() >= self.finished.items(), "a finished step is gone, or was made again"
        self.finished = now

    def children_are_gone(self) -> None:
        until = time.monotonic() + 60
        while left := [pid for pid in Path("/proc").glob("[0-9]*") if self.is_a_child(pid)]:
            assert time.monotonic() < until, f"processes of a killed run live on: {left}"
            time.sleep(0.02)

    def is_a_child(self, process: Path) -> bool:
        try:
            ours = f"SURVIVES={self.mark}".encode() in (process / "environ").read_bytes()
            return ours and b"-m\0edgekit." in (process / "cmdline").read_bytes()
        except OSError:
            return False


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> Iterator[Chain]:
    folder, mark = tmp_path_factory.mktemp("killed"), uuid.uuid4().hex
    process = started(folder / "log", SURVIVES=mark)
    project = write_project(folder / "project")
    with process:
        line = Line(process=process, log=folder / "log")
        yield Chain(line=line, project=project, out=folder / "out", mark=mark)
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize("step", MOMENTS)
def test_a_run_killed_in_any_step_goes_on(chain, step):
    chain.reach(step)
    assert len(chain.ran[step]) == len(MOMENTS[step])


def test_the_end_is_the_bundle_of_an_undisturbed_run(chain):
    chain.reach("report")
    done = chain.deploy(chain.out)
    assert done.status in (0, 4), done.stderr
    chain.nothing_was_made_again()
    assert not [path for path in chain.out.rglob("*") if "partial" in path.name]
    other = chain.out.with_name("undisturbed")
    done = chain.deploy(other)
    assert done.status in (0, 4), done.stderr
    assert bundle_id(chain.out) == bundle_id(other) is not None
    names = [sorted(path.name for path in (out / ".steps").glob("[!.]*")) for out in (chain.out, other)]
    assert [name for name in names[0] if not name.startswith("measure")] == [
        name for name in names[1] if not name.startswith("measure")
    ]
    assert edgekit("verify", chain.out / "local").exit_code == 0
