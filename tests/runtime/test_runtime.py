import importlib
import importlib.metadata
import re
import subprocess
import sys

import pytest

from edgekit import runtime
from edgekit.errors import EngineMissing, UnknownName
from edgekit.runtime import tensorrt


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True, env=environment or None
    ).stdout


def test_every_engine_of_the_table_offers_the_same_three_functions():
    for path in runtime.ENGINES.values():
        module = importlib.import_module(path)
        assert callable(module.missing)
        assert callable(module.version)
        assert callable(module.load)


def test_an_unknown_engine_gets_the_nearest_name():
    for ask in (runtime.missing, runtime.engine_version):
        with pytest.raises(UnknownName, match="unknown engine 'openvivo'") as caught:
            ask("openvivo")
        assert caught.value.fix == "did you mean 'openvino'?"


@pytest.mark.parametrize(
    ("engine", "mend"),
    [("onnxruntime", "onnxruntime"), ("openvino", "openvino"), ("tensorrt", "'edgekit[tensorrt]'")],
)
def test_an_engine_that_is_not_installed_says_what_installs_it(engine, mend, monkeypatch, tiny_artifact):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert f"pip install {mend}" in runtime.missing(engine)
    with pytest.raises(EngineMissing, match=re.escape(f"pip install {mend}")):
        runtime.open_artifact(tiny_artifact("conv", engine))
    with pytest.raises(EngineMissing, match=f"engine '{engine}' cannot run here"):
        runtime.engine_version(engine)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_version_of_a_build_under_another_package_name_is_the_modules(engine, monkeypatch):
    packaged = runtime.engine_version(engine)

    def not_found(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", not_found)
    assert runtime.engine_version(engine).startswith(packaged)


def test_tensorrt_says_what_is_missing_in_turn(monkeypatch, tmp_path):
    there = {"tensorrt"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if name in there else None)
    monkeypatch.setattr(tensorrt, "_GPUS", (tmp_path / "none",))
    assert "no NVIDIA GPU" in tensorrt.missing()
    monkeypatch.setattr(tensorrt, "_GPUS", (tmp_path,))
    monkeypatch.setattr("importlib.metadata.version", lambda name: "8.6.1")
    assert "TensorRT 8.6.1 is too old" in tensorrt.missing()
    monkeypatch.setattr("importlib.metadata.version", lambda name: "10.3.0")
    assert "pip install 'cuda-bindings" in tensorrt.missing()
    there.add("cuda.bindings")
    assert tensorrt.missing() is None


def test_only_engines_that_build_on_the_device_are_made_ready_and_waited_for(monkeypatch, tiny_artifact):
    built = []
    monkeypatch.setattr(tensorrt, "missing", lambda: None)
    monkeypatch.setattr(tensorrt, "get_ready", lambda model, options: built.append((model.name, options)))
    for engine in ("onnxruntime", "null", "tensorrt"):
        runtime.get_ready(tiny_artifact("conv", engine))
    assert built == [("model.onnx", {})]
    assert runtime.first_silence_s("onnxruntime", 120.0) == 120.0
    assert runtime.first_silence_s("tensorrt", 120.0) == 3600.0


def test_asking_what_is_missing_imports_no_engine():
    code = """
import sys
from edgekit import runtime
for engine in runtime.ENGINES: runtime.missing(engine)
print(sorted({"onnxruntime", "openvino", "tensorrt", "torch", "onnx", "pydantic", "click"} & set(sys.modules)))
"""
    assert run_python(code).strip() == "[]"


def test_running_a_bundle_needs_no_package_but_numpy_and_the_engine(tiny_artifact):
    """Whatever else is installed is made impossible to import."""
    code = """
import sys
engine, folder = sys.argv[1:]
allowed = {"edgekit", "numpy", engine, "openvino_telemetry"} | sys.stdlib_module_names
class Bare:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed and not name.startswith("_"):
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, Bare())
import numpy as np
from pathlib import Path
from edgekit import runtime
import edgekit.runtime.bundle, edgekit.runtime.golden
from edgekit.artifact import load_artifact
session = runtime.open_artifact(load_artifact(Path(folder)))
session.run({"input": np.ones((1, 3, 8, 8), np.float32)})
print(session.placement().share("fp32"))
"""
    for engine in ("onnxruntime", "openvino"):
        child = subprocess.run(
            [sys.executable, "-c", code, engine, tiny_artifact("conv", engine).folder],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (child.stdout, child.stderr) == ("1.0\n", "")
