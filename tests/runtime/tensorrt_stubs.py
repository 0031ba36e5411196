"""The real Python bindings of TensorRT, loaded without a GPU over empty libraries that are compiled on the spot.

The wheels ``tensorrt_cu13_bindings`` (TensorRT 11) and ``tensorrt_cu12_bindings`` (10) hold the real pybind11 module,
which needs three libraries only to be there. Loaded over stubs it gives every class, enum and signature; making a
builder gives no builder, as on a machine without a GPU. Nothing of the wheels is kept in this project.

Wheels are found in the folder that EDGEKIT_TENSORRT_WHEELS names::

    pip download --no-deps -d FOLDER tensorrt_cu13_bindings tensorrt_cu12_bindings==10.3.0

and an installed ``tensorrt_bindings`` serves for its own series.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

VARIABLE = "EDGEKIT_TENSORRT_WHEELS"
SERIES = ("10", "11")
PACKAGE = "tensorrt_bindings"
LIBRARIES = {
    "libnvinfer": (
        *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL"),
        *("getBuilderPluginRegistry", "getPluginRegistry"),
    ),
    "libnvinfer_plugin": ("initLibNvInferPlugins",),
    "libnvonnxparser": (
        *("createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getNvOnnxParserVersion"),
    ),
}
_WHEEL = re.compile(r"tensorrt_cu\d+_bindings-(\d+)\.[\d.]+-(cp\d+)-")
DUMP = f"""
import json, sys
import {PACKAGE} as trt

def told(member):
    if isinstance(member, property):
        setter = None if member.fset is None else member.fset.__doc__ or ""
        return {{"kind": "property", "doc": member.fget.__doc__ or "", "setter": setter}}
    return {{"kind": "method" if callable(member) else "value", "doc": getattr(member, "__doc__", None) or ""}}

def members(cls):
    names = [name for name in dir(cls) if not name.startswith("_") or name == "__init__"]
    found = {{name: told(getattr(cls, name)) for name in names}}
    return found | {{"__enum__": sorted(getattr(cls, "__members__", ()))}}

found = {{name: members(cls) for name, cls in vars(trt).items() if isinstance(cls, type)}}
print(json.dumps({{"version": trt.__version__, "classes": found}}))
"""


def bindings(series: str, folder: Path) -> dict[str, str]:
    """The environment in which ``import tensorrt_bindings`` gives the real module of a series.

    Args:
        series: ``10`` or ``11``.
        folder: Where the wheel is unpacked and the stubs are compiled.

    Skips the test where no wheel of the series for this Python is found, or there is no C compiler.
    """
    if sys.platform != "linux":
        pytest.skip("needs a host with Linux: the wheels' libraries are ELF files")
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to compile the stub libraries with")
    package = _package(series, folder)
    libraries = folder / "stubs"
    libraries.mkdir()
    for name, symbols in LIBRARIES.items():
        source = libraries / f"{name}.c"
        source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in symbols))
        soname = f"{name}.so.{series}"
        command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", str(libraries / soname), str(source)]
        subprocess.run(command, check=True, timeout=60)
    path = os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "LD_LIBRARY_PATH": str(libraries), "PYTHONPATH": path}


def run(code: str, environment: dict[str, str]) -> str:
    """What a program prints that runs with the real bindings; libraries are looked for when a process starts."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def surface(series: str, folder: Path) -> dict[str, object]:
    """Every class of the bindings with its members: their docstrings hold the signatures."""
    return json.loads(run(DUMP, bindings(series, folder)))


def _package(series: str, folder: Path) -> Path:
    wanted, this = os.environ.get(VARIABLE), f"cp{sys.version_info.major}{sys.version_info.minor}"
    for wheel in sorted(Path(wanted).glob("*.whl")) if wanted else ():
        match = _WHEEL.match(wheel.name)
        if match is not None and match.groups() == (series, this):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder / "wheel")
            return folder / "wheel"
    spec = importlib.util.find_spec(PACKAGE)
    if spec is not None and spec.origin is not None:
        package = Path(spec.origin).parent
        if re.search(rf"^__version__ = \"{series}\.", (package / "__init__.py").read_text(), re.MULTILINE):
            return package.parent
    pytest.skip(f"no bindings of TensorRT {series} for {this}: install them, or name a folder of wheels in {VARIABLE}")
