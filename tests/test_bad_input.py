"""Bad input through the command line: one clear message on stderr, the right exit code, nothing half-written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_recipe import RECIPE, as_tensors, edgekit, edgekit_process, stripes, write_project

from edgekit import bundle, pipeline, steps
from edgekit.artifact import read_json

# One engine in one precision for another machine: nothing is measured, so a run that gets far takes little.
FAST = ("--target", "raspberry-pi-4", "--engine", "onnxruntime", "--precision", "fp32")


def deploy(project: Path, *args: object):
    return edgekit("deploy", project, "--out", project / "out", *(args or FAST))


def assert_told(done, *words: object) -> None:
    """One message, on stderr, of one to four parts, without a traceback; exit code 1."""
    assert done.exit_code == 1, done.output
    messages = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(messages) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert str(word) in done.stderr, f"{word!r} is not in:\n{done.stderr}"


def assert_nothing_half_written(project: Path) -> None:
    assert not [path for path in project.rglob("*") if "partial" in path.name]
    bundles = [path for path in (project / "out").glob("*") if path.is_dir() and not path.name.startswith(".")]
    assert bundles == []


def save(path: Path, **arrays: np.ndarray) -> None:
    np.savez(path, **arrays)  # type: ignore[arg-type]


# --- the recipe -----------------------------------------------------------------------------------------------------

RECIPES = {
    "unknown key": ("calibration = 32", "calibraton = 32", ["data.calibraton", "allowed: calibration, ", "'calibrat"]),
    "unknown table": ("[distillation]", "[distilation]", ["unknown key 'distilation'", "did you mean 'distillation'?"]),
    "missing key": ('model = "tinynets:teacher"', "", ["key 'teacher.model' is missing", "add it"]),
    "wrong type": ("epochs = 2", 'epochs = "2"', ["teacher.train.epochs", "found:   '2'", "allowed: an integer"]),
    "out of range": ("epochs = 2", "epochs = 0", ["teacher.train.epochs", "found:   0", "allowed: more than 0"]),
    "wrong choice": ('layout = "NHWC"', 'layout = "NCWH"', ["input.layout", "'NHWC'", "did you mean"]),
    "not TOML": ("[teacher]", "[teacher", ["not valid TOML", "line 5"]),
    "unknown target": (
        '["local"]',
        '["raspbery-pi-4"]',
        ["unknown target 'raspbery-pi-4'", "did you mean 'raspberry-"],
    ),
    "unknown profile": (
        '"quick.toml"',
        '"interactiv"',
        ["unknown profile 'interactiv'", "did you mean 'interactive'?"],
    ),
    "missing profile file": ('"quick.toml"', '"quik.toml"', ["profile file 'quik.toml' does not exist", "no file at"]),
    "unknown module": ("tinynets:student", "tinynet:student", ["student", "'tinynet'", "beside the recipe"]),
    "unknown factory": ("tinynets:student", "tinynets:studnt", ["student", "did you mean 'student'?"]),
    "unknown metric": ('profile = "quick.toml"', 'metric = "acuracy"\nprofile = "quick.toml"', ["'accuracy'?"]),
    "wrong argument": (
        'model = "tinynets:teacher"',
        'model = "tinynets:teacher"\nargs = { widht = 3 }',
        ["wrong arguments", "did you mean 'width'?"],
    ),
    "factory that raises": (
        'model = "tinynets:teacher"',
        'model = "tinynets:teacher"\nargs = { width = -3 }',
        ["failed while making the module", "--debug shows where in your code"],
    ),
}


@pytest.mark.parametrize("case", RECIPES)
def test_a_wrong_recipe_says_file_key_found_allowed_and_nearest(project, case):
    old, new, words = RECIPES[case]
    assert old in RECIPE
    (project / "edgekit.toml").write_text(RECIPE.replace(old, new, 1))
    done = edgekit("deploy", project, "--out", project / "out")
    assert_told(done, *words)
    if case.startswith(("unknown key", "unknown table", "missing key", "wrong type", "out of", "wrong choice", "not")):
        assert str(project / "edgekit.toml") in done.stderr
    assert_nothing_half_written(project)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("distillation.epoch=5", ["--set distillation.epoch=5", "did you mean 'epochs'?"]),
        ("distillation", ["not an override", "KEY=VALUE"]),
        ("name.first=x", ["'name' is a value, not a table"]),
        ("seed=-1", ["'seed'", "0 or more"]),
    ],
)
def test_a_wrong_override_names_itself(project, override, words):
    assert_told(deploy(project, "--set", override), *words)
    assert_nothing_half_written(project)


def test_a_recipe_that_is_not_there(tmp_path):
    for command in ("deploy", "distill"):
        assert_told(edgekit(command, tmp_path / "none"), f"{tmp_path}/none: no such file", "edgekit init")


# --- the data -------------------------------------------------------------------------------------------------------


def _change(array: np.ndarray, index: object, value: object) -> np.ndarray:
    changed = array.copy()
    changed[index] = value
    return changed


IMAGES, LABELS = stripes(96, seed=0)
TENSORS = as_tensors(IMAGES)
DATA = {
    "missing": (None, ["train.npz: no such file or folder"]),
    "damaged": (b"PK\x03\x04", ["train.npz: not an .npz file"]),
    "no samples": ({"y": LABELS}, ["train.npz: no samples"]),
    "empty": ({"x": IMAGES[:0], "y": LABELS[:0]}, ["'input' is empty", "shape [0, 12, 12, 1]"]),
    "one sample": ({"x": IMAGES[:1], "y": LABELS[:1]}, ["too few samples", "1 samples"]),
    "mis-shaped": ({"x": IMAGES[..., 0], "y": LABELS}, ["do not fit the recipe's [input]", "NHWC"]),
    "another number of labels": ({"x": IMAGES, "y": LABELS[:-1]}, ["96 samples, 95 labels"]),
    "label out of range": (
        {"x": IMAGES, "y": _change(LABELS, 7, 3)},
        ["label is out of range", "3 at sample 7", "to 2"],
    ),
    "label below zero": ({"x": IMAGES, "y": _change(LABELS, 7, -1)}, ["label is out of range", "-1 at sample 7"]),
    "text labels": ({"x": IMAGES, "y": np.array(["a"] * 96)}, ["the labels are text", "data.labels"]),
    "one class": ({"x": IMAGES, "y": LABELS * 0}, ["all samples are of one class"]),
    "NaN": ({"x": _change(IMAGES.astype(float), (5, 1, 1, 0), np.nan), "y": LABELS}, ["NaN", "sample 5"]),
    "infinity": (
        {"x": _change(IMAGES.astype(float), (5, 1, 1, 0), np.inf), "y": LABELS},
        ["infinity", "sample 5: inf"],
    ),
    "objects": ({"x": np.array([{}] * 96), "y": LABELS}, ["Python objects", "could run code"]),
    "test samples among them": (
        {"x": np.concatenate([IMAGES, stripes(96, seed=1)[0][10:12]]), "y": np.append(LABELS, [1, 2])},
        ["in the test set", "2 of 98", "training sample 96 = test sample 10"],
    ),
    "another shape than the test set's": (
        {"x": IMAGES[:, :8], "y": LABELS},
        ["test.npz: input", "[batch, 1, 12, 12]", "[batch, 1, 8, 12]"],
    ),
}


@pytest.mark.parametrize("case", DATA)
def test_bad_data_are_told_before_any_training(project, case):
    arrays, words = DATA[case]
    path = project / "train.npz"
    path.unlink()
    if isinstance(arrays, bytes):
        path.write_bytes(arrays)
    elif arrays is not None:
        save(path, **arrays)
    done = deploy(project)
    assert_told(done, *words)
    assert "train teacher" not in done.stderr
    assert_nothing_half_written(project)


def test_a_bad_test_set_is_told_before_any_training(project):
    for arrays, words in (
        ({"x": IMAGES, "y": _change(LABELS, 3, 9)}, ["data.test", "label is out of range", "9 at sample 3"]),
        ({"x": _change(IMAGES.astype(float), (0, 0, 0, 0), np.nan), "y": LABELS}, ["data.test", "NaN"]),
    ):
        save(project / "test.npz", **arrays)
        done = deploy(project)
        assert_told(done, *words)
        assert "train teacher" not in done.stderr


# --- weights and models ---------------------------------------------------------------------------------------------


@pytest.fixture
def weighted(project):
    """The recipe without training: its teacher's weights come from a file, and it is deployed as it is."""
    text = RECIPE.partition("[teacher.train]")[0] + 'weights = "teacher.safetensors"\n[data]\ntrain = "train.npz"\n'
    (project / "edgekit.toml").write_text(text + '[input]\nlayout = "NHWC"\nscale = 0.00392156862745098\n')
    return project


def state(project: Path, width: int = 16):
    import torch

    namespace: dict[str, object] = {}
    exec((project / "tinynets.py").read_text(), namespace)
    torch.manual_seed(0)
    return namespace["teacher"](width).state_dict()  # type: ignore[operator]


def test_weights_that_hold_nan(weighted):
    from safetensors.torch import save_file

    bad = state(weighted)
    bad["4.weight"][0, 0, 0, 0] = float("nan")
    save_file(bad, weighted / "teacher.safetensors")
    assert_told(deploy(weighted), "teacher.safetensors: the weights hold NaN", "1 of 4608 values of 4.weight")
    assert_nothing_half_written(weighted)


def test_weights_that_are_missing_damaged_or_of_another_network(weighted):
    from safetensors.torch import save_file

    path = weighted / "teacher.safetensors"
    assert_told(deploy(weighted), "teacher.weights", "teacher.safetensors: no such file")
    path.write_bytes(b"\x10\0\0\0\0\0\0\0{")
    assert_told(deploy(weighted), "cannot be read", "damaged")
    save_file(state(weighted, width=8), path)
    assert_told(deploy(weighted), "the weights do not fit the model", "[8, 1, 3, 3] in the file, [16, 1, 3, 3]")
    assert_nothing_half_written(weighted)


BAD_NETS = {
    "an operator without translation": (
        "return torch.linalg.eigvals(x[:, 0])[:, :3].real",
        ["linalg_eig", "tinynets.py", "torch.linalg.eigvals(x[:, 0])"],
    ),
    "outputs that are NaN": (
        "return (x.mean((2, 3)) - 100).log()",
        ["the torch model itself gives NaN", "2 of 2 values"],
    ),
    "control flow on values": (
        "return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))",
        ["cannot trace Net", "tinynets.py", "if x.sum() > 0"],
    ),
}


@pytest.mark.parametrize("case", BAD_NETS)
def test_a_model_that_cannot_export_names_the_operator_and_the_users_line(weighted, case):
    body, words = BAD_NETS[case]
    (weighted / "tinynets.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.scale = nn.Parameter(torch.ones(1))\n\n"
        f"    def forward(self, x):\n        x = x * self.scale\n        {body}\n\n\ndef teacher():\n    return Net()\n"
    )
    import torch
    from safetensors.torch import save_file

    save_file({"scale": torch.ones(1)}, weighted / "teacher.safetensors")
    done = deploy(weighted)
    assert_told(done, *words)
    assert_nothing_half_written(weighted)


# --- engines --------------------------------------------------------------------------------------------------------

HIDE = """
import os
from importlib.machinery import PathFinder

def find_spec(cls, name, path=None, target=None):
    hidden = name.partition(".")[0] in os.environ["HIDDEN"].split()
    return None if hidden else found(name, path, target)

found = PathFinder.find_spec
PathFinder.find_spec = classmethod(find_spec)
"""


@pytest.fixture
def without(tmp_path):
    """Environment in which some packages are not installed, in the process and its children."""
    folder = tmp_path / "hide"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HIDE)
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return lambda *names: {"HIDDEN": " ".join(names), "PYTHONPATH": path}


def test_a_missing_engine_that_was_named_is_an_error_before_any_work(project, without):
    done = edgekit_process(
        "deploy", project, "--out", project / "out", "--engine", "openvino", **without("openvino", "nncf")
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: engine 'openvino' was named and cannot prepare a model here\n")
    assert "pip install" in done.stderr
    assert_nothing_half_written(project)


def test_without_torch_the_message_says_what_installs_it(project, without):
    done = edgekit_process("deploy", project, "--out", project / "out", **without("torch"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: preparing a model needs torch, which is not installed here\n")
    assert "pip install 'edgekit[compress]'" in done.stderr
    assert_nothing_half_written(project)


def test_a_missing_engine_that_was_not_named_is_a_row_in_the_report(deployed, tmp_path, without):
    out = shutil.copytree(deployed.out, tmp_path / "out")
    done = edgekit_process(
        *("deploy", deployed.project, "--out", out, "--precision", "fp32"), **without("openvino", "nncf")
    )
    assert done.returncode == 0, done.stderr
    (target,) = read_json(out / "report.json")["targets"]
    failed, shipped = target["candidates"]
    assert (failed["engine"], shipped["engine"], shipped["shipped"]) == ("openvino", "onnxruntime", True)
    assert "openvino is not installed" in failed["failure"]
    assert "openvino is not installed" in " ".join(done.stdout.split())


def test_a_bundle_whose_engine_is_missing_says_what_installs_it(deployed, tmp_path, without):
    save(tmp_path / "x.npz", input=IMAGES)
    done = edgekit_process(
        *("run", deployed.bundle, "--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz"),
        **without("openvino", "onnxruntime"),
    )
    assert done.returncode == 1
    assert "cannot run here" in done.stderr
    assert "pip install" in done.stderr
    assert not (tmp_path / "y.npz").exists()


# --- the frame ------------------------------------------------------------------------------------------------------


def test_debug_shows_the_traceback_and_then_the_same_message(project):
    (project / "train.npz").unlink()
    told = deploy(project).stderr
    done = edgekit("--debug", "deploy", project, "--out", project / "out", *FAST)
    assert done.exit_code == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.endswith(told)


STEPS = ["teacher", "student", "export", "references", "quantize", "compile", "bundle", "report"]


@pytest.fixture(scope="module")
def failing(tmp_path_factory):
    """One project for all steps: each run goes on where the one before failed."""
    return write_project(tmp_path_factory.mktemp("failing"))


@pytest.mark.parametrize("step", STEPS)
def test_a_full_disk_at_each_step_in_turn_leaves_nothing_half_written(failing, monkeypatch, step):
    """The disk is full when the step's last file is written; the next run goes on from there."""
    write, failed = steps.write_json, []

    def full(path, value):
        last = {"bundle": path.name == "manifest.json", "report": path.name == "report.json"}
        if last.get(step, path.parent.name.startswith(f"{steps.PARTIAL}{step}-")):
            path.write_text("{")
            failed.append(path)
            raise OSError(28, "No space left on device", str(path))
        write(path, value)

    for module in (steps, bundle, pipeline):
        monkeypatch.setattr(module, "write_json", full, raising=False)
    done = deploy(failing, "--target", "raspberry-pi-4", "--engine", "onnxruntime", "--precision", "int8")
    assert failed
    assert_told(done, "the disk is full")
    assert not [path for path in failing.rglob("*") if "partial" in path.name or path in failed]
    assert (failing / "out" / "raspberry-pi-4").exists() == (step == "report")
