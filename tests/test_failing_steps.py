"""Every step fails in turn, and nothing half-written is found."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_line import (
    fake_target,
    leftovers,
    quick_profile,
    snapshot,
    torch_recipe,
    write_project,
    write_torch_project,
)

from edgekit.distilling import distill_recipe
from edgekit.errors import EdgeKitError
from edgekit.pipeline import deploy
from edgekit.runtime import verify_bundle

# What is made to fail, and the step folders that must not be there for it to be called.
STEPS = {
    "train teacher": ("edgekit.distillation.trainer.train", ("teacher", "student")),
    "train student": ("edgekit.distillation.students.distill", ("student",)),
    "save weights": ("edgekit.lessons.save_weights", ("teacher", "student")),
    "references": ("edgekit.references.run_reference", ("references",)),
    "export": ("edgekit.conversion.onnx_export.to_onnx", ("export",)),
    "quantise": ("edgekit.backends.onnxruntime.quantize", ("quantize",)),
    "compile": ("edgekit.backends.onnxruntime.compile", ("compile",)),
    "check": ("edgekit.candidate.prove", ()),
    "measure": ("edgekit.making.measure_in_turns", ("measure",)),
    "golden": ("edgekit.shipping.make_golden", ()),
    "bundle": ("edgekit.bundle.hash_file", ()),
    "manifest": ("edgekit.bundle.write_json", ()),
    "report": ("edgekit.pipeline.write_json", ()),
    "report as Markdown": ("edgekit.pipeline.to_markdown", ()),
}
# These fail one candidate, which is a row; here it is the only one.
ROWS = ("quantise", "compile", "check")


class Line:
    """A deployment of an int8 student on ONNX Runtime."""

    def __init__(self, project, out):
        self.project, self.out = project, out
        self.recipe = torch_recipe(project, quantization={"precision": "int8"})

    def run(self):
        return deploy(self.recipe, self.project, self.out)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A good run, made once."""
    folder = tmp_path_factory.mktemp("good")
    line = Line(write_torch_project(folder / "failing_nets"), folder / "run")
    with pytest.MonkeyPatch.context() as patch:
        put_catalogue(patch)
        assert line.run()["exit_code"] == 0
    yield line
    sys.modules.pop("failing_nets", None)


def put_catalogue(patch):
    patch.setattr(
        "edgekit.pipeline.load_target", lambda name, folders: fake_target(engines=("onnxruntime",), threads=1)
    )
    patch.setattr("edgekit.pipeline.load_profile", lambda name, folders: quick_profile())


@pytest.fixture
def line(good, tmp_path, monkeypatch):
    """A copy of the good run, to be disturbed."""
    put_catalogue(monkeypatch)
    shutil.copytree(good.out, tmp_path / "run")
    return Line(good.project, tmp_path / "run")


def breaking(exc):
    """A function that writes half a file wherever it is given a folder, then fails."""

    def fail(*args, **kwargs):
        for folder in (arg for arg in args if isinstance(arg, Path)):
            (folder / "half.bin" if folder.is_dir() else folder).write_bytes(b"half")
        raise exc

    return fail


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    "exc", [EdgeKitError("the step broke", found="a wheel"), OSError(errno.ENOSPC, "No space left")]
)
def test_a_step_that_fails_leaves_nothing_half_written(line, monkeypatch, step, exc):
    function, forgotten = STEPS[step]
    for folder in (line.out / ".steps").iterdir():
        if folder.name.split("-")[0] in forgotten:
            shutil.rmtree(folder)
    bundle, kept = snapshot(line.out / "fake"), {p.name for p in (line.out / ".steps").iterdir()}
    report = (line.out / "report.json").read_bytes()
    is_row = step in ROWS and not isinstance(exc, OSError)

    with monkeypatch.context() as patch:
        patch.setattr(function, breaking(exc))
        if is_row:
            told = line.run()
            (row,) = told["targets"][0]["candidates"]
            assert (told["exit_code"], "the step broke\n  found:   a wheel" in row["failure"]) == (1, True)
        else:
            with pytest.raises(
                (EdgeKitError, OSError), match=r"the step broke|the disk is full|No space left"
            ) as caught:
                line.run()
            assert isinstance(caught.value, type(exc))

    assert leftovers(line.out) == []
    assert not list(line.out.rglob("half.bin"))
    made = {p.name for p in (line.out / ".steps").iterdir() if p.suffix != ".checkpoint"} - kept
    assert not any(name.split("-")[0] in forgotten for name in made)
    if not step.startswith("report"):
        assert snapshot(line.out / "fake") == bundle
        assert is_row or (line.out / "report.json").read_bytes() == report
    assert verify_bundle(line.out / "fake").passed

    # And the next run goes on as if nothing had been.
    report_again = line.run()
    assert report_again["exit_code"] == 0
    assert (line.out / "fake" / "golden.npz").read_bytes() == bundle["golden.npz"]
    assert leftovers(line.out) == []


@pytest.mark.parametrize(
    "step", ["references", "export", "quantise", "compile", "measure", "bundle", "report", "save weights"]
)
def test_a_full_disk_says_what_could_not_be_written(line, monkeypatch, step):
    function, forgotten = STEPS[step]
    for folder in (line.out / ".steps").iterdir():
        if folder.name.split("-")[0] in forgotten:
            shutil.rmtree(folder)
    monkeypatch.setattr(function, breaking(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(
        OSError, match=r"the disk is full: (the (step|bundle) \S+|report.json) could not be written"
    ) as caught:
        line.run()
    assert str(line.out) in caught.value.filename


def test_distill_leaves_no_half_of_a_weights_file(line, monkeypatch):
    rows = distill_recipe(line.recipe, line.project, line.out)
    assert [row[0] for row in rows] == ["teacher", "student"]
    before = {name: (line.out / name).read_bytes() for name in ("teacher.safetensors", "student.safetensors")}
    monkeypatch.setattr("edgekit.distilling.save_weights", breaking(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OSError, match=r"the disk is full: teacher.safetensors could not be written"):
        distill_recipe(line.recipe, line.project, line.out)
    assert {name: (line.out / name).read_bytes() for name in before} == before
    assert leftovers(line.out) == []


# ---- a disk that is full indeed ----

FULL = """
import os, sys
from pathlib import Path

import edgekit.pipeline
from fake_line import fake_target, make_recipe, quick_profile

project, out = Path(sys.argv[1]), Path(sys.argv[2])
engines = tuple(sys.argv[3].split(","))
edgekit.pipeline.load_target = lambda name, folders: fake_target(engines=engines)
edgekit.pipeline.load_profile = lambda name, folders: quick_profile()

def go(**fields):
    report = edgekit.pipeline.deploy(make_recipe(quantization={"precision": "int8"}, **fields), project, out)
    return report["exit_code"], report["targets"][0]["candidates"][0]["failure"]

print(go())
with (out.parent / "filler").open("wb", buffering=0) as filler:
    try:
        while True:
            filler.write(bytes(4096))
    except OSError:
        pass
try:
    print(go(data={"train": "train.npz", "test": "test.npz", "calibration": 20}))
except OSError as exc:
    print(type(exc).__name__, str(exc).splitlines()[0])
os.remove(out.parent / "filler")
print(go(data={"train": "train.npz", "test": "test.npz", "calibration": 20}))
print([path.name for path in out.rglob("*") if "partial" in path.name])
"""

IN_A_SMALL_DISK = ["unshare", "-Urm", "bash", "-c", 'mount -t tmpfs -o size=16m tmpfs "$0" && exec "$@"']
CAN_MOUNT = subprocess.run(["unshare", "-Urm", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not CAN_MOUNT, reason="this machine lets no user mount a tmpfs")
@pytest.mark.parametrize(
    "engine", ["null", *(pytest.param(e, marks=pytest.mark.slow) for e in ("onnxruntime", "openvino"))]
)
def test_a_disk_that_fills_up_stops_the_run_and_the_next_one_goes_on(tmp_path, engine):
    project, disk = write_project(tmp_path / "project"), tmp_path / "disk"
    disk.mkdir()
    command = [*IN_A_SMALL_DISK, str(disk), sys.executable, "-c", FULL, str(project), str(disk / "run"), engine]
    environment = dict(os.environ) | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    first, full, again, left = done.stdout.splitlines()
    assert first == again == "(0, None)"
    assert full.startswith("DiskFull [Errno 28] the disk is full: the step 'quantize' could not be written")
    assert left == "[]"
