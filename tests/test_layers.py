"""The house's order: imports go up the list of layers only, and public names are callable."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgekit

PACKAGE = Path(edgekit.__file__).parent

# Lowest first; a module may import from its own line and from those above it.
LAYERS = [
    ["__init__", "errors", "progress", "disk", "ranks"],
    ["processing_specs"],
    ["artifact"],
    ["runtime"],
    ["profiling"],
    [
        *["specs", "data", "catalog", "models", "metrics", "steps", "labelling", "random_inputs"],
        *["recipe", "recipe_training", "recipe_augmentation", "recipe_student", "recipe_pruning", "recipe_qat"],
        *["recipe_watch"],
        *["_lookup", "_paths", "_draws", "_groups", "_readers", "_images", "_weights"],
    ],
    ["quantization"],
    ["backends", "conversion", "distillation", "pruning", "qat"],
    ["apart", "claimed", "checking", "verdict", "bundle", "watch_facts"],
    [
        *["processing", "making", "choosing", "candidate", "planning", "sensitivity", "searching", "rivals"],
        *["table_file", "table_options", "latency_table", "roofline", "places"],
    ],
    ["reporting", "schemas", "devices"],
    [
        "pipeline",
        "shrinking",
        "ingredients",
        "references",
        "sensitivities",
        "teaching",
        "lessons",
        "distilling",
        "roles",
        "chains",
        "keeping",
        "beginning",
        "shipping",
        "gains",
        "trained_int8",
        "timing",
        "inspecting",
        "ruling",
        "drift",
        "sides",
        "comparing",
    ],
    ["cli", "__main__"],
]
LEVEL = {unit: level for level, units in enumerate(LAYERS) for unit in units}

# What is sent to a device may need, besides numpy and the standard library, one engine.
ON_DEVICE = ["errors", "disk", "processing_specs", "artifact", "runtime", "profiling"]
ENGINES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "tensorrt": "tensorrt", "cuda": "tensorrt"}

FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, also inside functions and under TYPE_CHECKING, as a dotted name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "edgekit":
                yield from (_owner_of_public(alias.name) for alias in node.names)
            else:
                yield node.module or ""


def _owner_of_public(name: str) -> str:
    """The module behind ``from edgekit import name``."""
    if name in edgekit._PUBLIC:
        return edgekit._PUBLIC[name].partition(":")[0]
    return f"edgekit.{name}" if name in LEVEL else "edgekit"


def unit(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_up_the_list_of_layers_only(path):
    assert unit(path) in LEVEL, f"give {unit(path)!r} a place in LAYERS"
    for name in imports(path):
        if name.split(".")[0] != "edgekit":
            continue
        imported = [*name.split("."), "__init__"][1]
        assert imported in LEVEL, f"give {imported!r} a place in LAYERS"
        assert LEVEL[imported] <= LEVEL[unit(path)], f"{unit(path)} must not import {name}"


@pytest.mark.parametrize(
    "path", [p for p in FILES if unit(p) in ON_DEVICE], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_what_goes_to_a_device_needs_numpy_and_one_engine(path):
    roots = {name.split(".")[0] for name in imports(path)} - {"edgekit", "numpy"} - set(sys.stdlib_module_names)
    assert roots <= set(ENGINES), f"{sorted(roots - set(ENGINES))} is not on every device"
    assert len({ENGINES[root] for root in roots}) <= 1


@pytest.mark.parametrize(
    "path", [p for p in FILES if unit(p) in ON_DEVICE], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_what_goes_to_a_device_imports_nothing_that_does_not(path):
    ours = {[*name.split("."), "__init__"][1] for name in imports(path) if name.split(".")[0] == "edgekit"}
    assert ours <= {"__init__", "progress", *ON_DEVICE}


def test_the_layers_test_sees_a_wrong_import(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text("def f():\n    from edgekit.cli.main import main\n    from edgekit import load_recipe\n")
    assert list(imports(wrong)) == ["edgekit.cli.main", "edgekit.recipe"]
    assert LEVEL["cli"] > LEVEL["recipe"] > LEVEL["runtime"]


# One process: modules stay imported in it, and its warnings are not those of the tests.
SCRIPT = """
import importlib, pkgutil
import edgekit

absent = {"torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf", "tensorrt", "cuda",
          "safetensors", "PIL", "sklearn"}
for module in pkgutil.walk_packages(edgekit.__path__, "edgekit."):
    if module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.split(".")[0] not in absent:
            raise
assert edgekit._PUBLIC, "no public names"
for name in edgekit._PUBLIC:
    assert callable(getattr(edgekit, name)), f"edgekit.{name} is {getattr(edgekit, name)!r}"
    assert name in dir(edgekit), name
"""


def test_no_module_hides_a_public_name():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'edgekit' has no attribute 'nothing'"):
        edgekit.nothing  # noqa: B018
