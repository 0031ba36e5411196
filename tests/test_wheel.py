"""The built wheel in a bare environment: numpy, one engine, and nothing else."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tiny_recipe import edgekit, stripes

ROOT = Path(__file__).parents[1]
# What importing an engine needs beside itself.
ENGINES = {"onnxruntime": ("onnxruntime",), "openvino": ("openvino", "openvino-telemetry")}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout; without an environment of its own where hatchling is installed."""
    out = tmp_path_factory.mktemp("wheel")
    tool = ["hatchling", "build", "-t", "wheel", "-d", str(out)]
    if importlib.util.find_spec("hatchling") is None:
        tool = ["pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(ROOT)]
    done = subprocess.run([sys.executable, "-m", *tool], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("edgekit-*.whl")
    return built


@pytest.fixture(scope="session")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory):
    """Makes an environment with the wheel (``--no-deps``) and some installed packages, linked without theirs."""

    def make(*packages: str) -> Path:
        folder = tmp_path_factory.mktemp("bare")
        venv.create(folder, with_pip=False, symlinks=True)
        python = folder / "bin" / "python"
        install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
        subprocess.run([*install, "--no-index", "--disable-pip-version-check", str(wheel)], check=True)
        (site,) = folder.glob("lib/python*/site-packages")
        for package in packages:
            link(package, site)
        return python

    return make


def link(package: str, site: Path) -> None:
    """Links the top-level files and folders of an installed package into ``site``."""
    distribution = importlib.metadata.distribution(package)
    names = {file.parts[0] for file in distribution.files or () if ".." not in file.parts}
    for name in names - {"__pycache__", "bin"}:
        (site / name).symlink_to(Path(str(distribution.locate_file(name))))


def run(python: Path, *args: str, cwd: Path) -> str:
    """Runs the bare Python, away from the checkout."""
    done = subprocess.run([str(python), "-I", *args], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_wheel_holds_the_whole_catalogue_and_the_types_marker(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for kind in ("targets", "profiles"):
        shipped = {f"edgekit/_data/{kind}/{path.name}" for path in (ROOT / kind).glob("*.toml")}
        assert shipped
        assert {name for name in names if name.startswith(f"edgekit/_data/{kind}/")} == shipped
    assert "edgekit/py.typed" in names
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "edgekit").rglob("*.py")}
    assert modules <= names
    page = {path.relative_to(ROOT).as_posix() for path in (ROOT / "edgekit" / "reporting" / "page").iterdir()}
    assert page
    assert page <= names
    schemas = {path.relative_to(ROOT).as_posix() for path in (ROOT / "edgekit" / "schemas").glob("*.json")}
    assert schemas
    assert schemas <= names
    strangers = {name.partition("/")[0] for name in names} - {"edgekit"}
    assert all(name.endswith(".dist-info") for name in strangers), strangers


def test_the_wheel_says_what_it_needs(wheel):
    metadata = next(n for n in zipfile.ZipFile(wheel).namelist() if n.endswith(".dist-info/METADATA"))
    text = zipfile.ZipFile(wheel).read(metadata).decode()
    base = {
        line.split()[1].split(">")[0]
        for line in text.splitlines()
        if line.startswith("Requires-Dist") and "extra" not in line
    }
    assert base == {"numpy", "click", "pydantic", "rich", "jinja2", "tomli", "typing-extensions"}
    assert "Requires-Python: >=3.10" in text


def test_import_edgekit_needs_the_standard_library_only(bare, tmp_path):
    python = bare()
    script = "import edgekit, sys; print(edgekit.__version__, 'numpy' in sys.modules, len(dir(edgekit)) > 20)"
    assert run(python, "-c", script, cwd=tmp_path).endswith(" False True\n")


def test_the_command_without_its_packages_says_what_it_needs(bare, tmp_path):
    python = bare("numpy")
    for command in ([python.with_name("edgekit")], [python, "-m", "edgekit"]):
        done = subprocess.run([*command, "doctor"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert "no package click" in done.stderr
        assert "without --no-deps" in done.stderr
        assert "Traceback" not in done.stderr


DEVICE = """
import importlib.util, json, sys
from pathlib import Path
import numpy as np

assert not [name for name in ("pydantic", "click", "rich", "torch", "onnx") if importlib.util.find_spec(name)]
import edgekit
from edgekit.profiling.load import LoadSpec
from edgekit.profiling.measure import measure
from edgekit.profiling.statistics import summarise
from edgekit.runtime import open_bundle, verify_bundle
from edgekit.runtime.bundle import artifact_of
from edgekit.runtime.files import run_file

folder, samples = Path(sys.argv[1]), Path(sys.argv[2])
outputs = run_file(folder, samples, Path("y.npz"))
with open_bundle(folder) as bundle:
    manifest, raw = bundle.manifest, np.load(samples)["input"]
    first = bundle.run(bundle.preprocess(raw[:1]))
artifact = artifact_of(folder, manifest)
load = LoadSpec(scenario="single_stream", batch=1, min_seconds=0.1, min_count=20, percentiles=(50.0,))
measured = measure(artifact, load, {"input": raw}, preprocessing=manifest.preprocessing)
print(json.dumps({
    "home": edgekit.__file__,
    "verified": verify_bundle(folder).passed,
    "same": bool(np.allclose(first["output"], outputs["output"][:1], atol=1e-5)),
    "classes": outputs["output"].argmax(1).tolist(),
    "measured": [measured.status, measured.reason, summarise(measured.application_ms).n],
}))
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_a_device_runs_verifies_and_measures_a_bundle_with_numpy_and_one_engine(engine, bare, deployed, tmp_path):
    bundle = shutil.copytree(deployed.out, tmp_path / "run") / "local"
    made = edgekit("deploy", deployed.project, "--out", tmp_path / "run", "--engine", engine, "--precision", "int8")
    assert made.exit_code == 0, made.stderr
    images, labels = stripes(30, seed=7)
    np.savez(tmp_path / "x.npz", input=images)
    python = bare("numpy", *ENGINES[engine])
    found = json.loads(run(python, "-c", DEVICE, str(bundle), str(tmp_path / "x.npz"), cwd=tmp_path))
    assert Path(found["home"]).is_relative_to(python.parents[1])
    assert found["verified"]
    assert found["same"]
    assert (np.array(found["classes"]) == labels).mean() > 0.9
    assert found["measured"][:2] == ["ok", None]
    assert found["measured"][2] >= 20
    with np.load(tmp_path / "y.npz") as archive:
        assert archive["output"].shape == (30, 3)
