"""``edgekit doctor``: true here, and useful where only the base dependencies are installed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner

import edgekit.backends
import edgekit.runtime
from edgekit.catalog import list_targets
from edgekit.cli.main import cli
from edgekit.profiling.host import this_host
from edgekit.specs import mismatch

ROOT = Path(edgekit.__file__).parent.parent
BASE = ["numpy", "click", "pydantic", "rich"]
HEAVY = {"torch", "onnx", "onnxruntime", "openvino", "nncf", "tensorrt", "timm"}


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("EDGEKIT_CATALOG", raising=False)


def doctor(*args):
    return CliRunner().invoke(cli, ["doctor", *args])


@pytest.fixture
def engines(monkeypatch):
    """Scripts what each engine lacks: {"prepare": {engine: reason}, "execute": {engine: reason}}."""

    def script(prepare=None, execute=None):
        class Backend:
            def __init__(self, engine):
                self.engine = engine

            def missing(self, target):
                return (prepare or {}).get(self.engine)

        monkeypatch.setattr(edgekit.backends, "load_backend", Backend)
        monkeypatch.setattr(edgekit.runtime, "missing", (execute or {}).get)

    return script


def closure(names):
    """Installed distributions that these need, themselves included."""
    found: dict[str, metadata.Distribution] = {}
    todo = list(names)
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in found:
            continue
        found[name] = metadata.distribution(name)
        needs = [need for need in found[name].requires or [] if "extra ==" not in need]
        for need in needs:
            required = re.match(r"[\w.-]+", need).group()
            if "python_version <" not in need and "platform_system" not in need:
                todo.append(required)
    return found.values()


@pytest.fixture
def bare(tmp_path):
    """Runs a command of edgekit where nothing but the base dependencies can be imported."""
    for distribution in closure(BASE):
        for file in distribution.files or []:
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (tmp_path / top).exists():
                (tmp_path / top).symlink_to(Path(str(distribution.locate_file(top))))
    (tmp_path / "edgekit").symlink_to(ROOT / "edgekit")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from edgekit.cli.main import main; main()"

    def run(*args):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        return subprocess.run(
            [sys.executable, "-I", "-S", "-c", script, *args],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )

    return run


def test_with_the_base_dependencies_alone_it_says_what_to_install(bare):
    done = bare("doctor")
    assert done.stderr == ""
    assert "pip install 'edgekit[compress]'" in done.stdout
    assert "to run onnxruntime" in done.stdout
    assert "to run openvino" in done.stdout
    assert done.returncode == 1  # nothing can be prepared there


def test_with_the_base_dependencies_alone_the_rest_works(bare, tmp_path):
    assert bare("targets", "local").returncode == 0
    assert bare("profiles").returncode == 0
    assert bare("init", str(tmp_path / "new")).returncode == 0


def test_it_imports_nothing_heavy():
    script = (
        "import sys\nfrom edgekit.cli.main import cli\n"
        "try:\n    cli(['doctor'])\nexcept SystemExit:\n    pass\n"
        "import json; print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not HEAVY & set(json.loads(done.stdout.splitlines()[-1]))


def test_json_holds_the_facts(engines):
    engines(execute={"tensorrt": "no GPU: buy one"})
    shown = doctor("--json")
    report = json.loads(shown.output)
    assert shown.exit_code == 0
    assert report["host"]["cpu_model"] == this_host().cpu_model
    assert report["installed"]["base"]["numpy"] == metadata.version("numpy")
    for row, target in zip(report["targets"], list_targets(), strict=True):
        assert (row["name"], row["mismatch"]) == (target.name, mismatch(target, this_host()))
        assert [engine["engine"] for engine in row["engines"]] == list(target.engines)
        for engine in row["engines"]:
            assert engine["prepare"] is None
            assert engine["execute"] == ("no GPU: buy one" if engine["engine"] == "tensorrt" else None)


def test_every_remedy_is_told_once(engines):
    reason = "openvino is not installed: pip install 'edgekit[openvino]'"
    engines(prepare={"openvino": reason}, execute={"openvino": reason})
    shown = doctor()
    assert shown.exit_code == 0
    assert shown.output.count(reason) == 1
    assert f"to prepare for openvino, run openvino: {reason}" in shown.output
    assert max(map(len, shown.output.partition("base:")[2].partition("to prepare")[0].splitlines())) <= 80


def test_a_target_without_an_engine_here_cannot_be_measured_here(engines):
    engines(execute=dict.fromkeys(["openvino", "onnxruntime", "tensorrt"], "gone: fetch it"))
    local = next(line for line in doctor().output.splitlines() if line.split()[:1] == ["local"])
    assert "no: no engine" in local


def test_it_fails_only_when_nothing_can_be_prepared(engines):
    engines(prepare={"openvino": "x", "onnxruntime": "x"})
    assert doctor().exit_code == 0
    engines(prepare=dict.fromkeys(["openvino", "onnxruntime", "tensorrt"], "x"))
    assert doctor().exit_code == 1


def test_a_package_that_is_not_there_is_named(monkeypatch):
    from edgekit.cli import doctor as module

    monkeypatch.setitem(module.PACKAGES, "vision", ("no-such-package-anywhere",))
    assert "vision:   -; not installed: no-such-package-anywhere" in doctor().output
    assert json.loads(doctor("--json").output)["installed"]["vision"] == {"no-such-package-anywhere": None}
