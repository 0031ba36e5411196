"""Every call of CUDA's runtime that our code makes, against the real ``cuda.bindings.runtime``, 12.x and 13.x.

Our code is tested on ``cuda_fake``; here each of the fake's calls, numbers and parameters is compared with the real
ones. The package imports without a GPU. It is looked for among what is installed and in the folders that
EDGEKIT_CUDA_BINDINGS names (joined as PATH is)::

    pip install --no-deps --target FOLDER 'cuda-bindings==13.*' cuda-pathfinder
"""

import ast
import importlib.util
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import cuda_fake
import pytest

from edgekit import runtime

VARIABLE = "EDGEKIT_CUDA_BINDINGS"
SOURCES = [Path(runtime.__path__[0]) / name for name in ("cuda.py", "tensorrt.py", "tensorrt_io.py")]
ENUMS = (cuda_fake.cudaError_t, cuda_fake.cudaMemcpyKind, cuda_fake.cudaStreamCaptureMode)
DUMP = """
import inspect, json, sys
from cuda.bindings import runtime
from cuda.bindings import __version__
names, enums = json.loads(sys.argv[1])

def parameters(function):
    return [p.name for p in inspect.signature(function).parameters.values()]

print(json.dumps({
    "version": __version__,
    "calls": {name: parameters(getattr(runtime, name)) for name in names if hasattr(runtime, name)},
    "values": {name: int(getattr(runtime, name)) for name in ("cudaStreamNonBlocking", "cudaHostAllocDefault")},
    "enums": {name: {member.name: int(member) for member in getattr(runtime, name)} for name in enums},
    "properties": [name for name in dir(runtime.cudaDeviceProp()) if not name.startswith("_")],
    "handles": [int(runtime.cudaStream_t(7)), int(runtime.cudaEvent_t(7)), int(runtime.cudaGraphExec_t(7))],
    "tuples": {name: len(getattr(runtime, name)(*args)) for name, args in {
        "cudaGetDeviceCount": (), "cudaMemGetInfo": (), "cudaEventCreate": (), "cudaGetLastError": (),
        "cudaMalloc": (1,), "cudaHostAlloc": (1, 0), "cudaStreamCreateWithFlags": (1,), "cudaRuntimeGetVersion": (),
        "cudaGetDeviceProperties": (0,), "cudaDriverGetVersion": (), "cudaGetDevice": (),
        "cudaGetErrorString": (runtime.cudaError_t.cudaErrorNoDevice,),
        "cudaFree": (0,), "cudaFreeHost": (0,),
    }.items()},
}))
"""


def installations():
    """Every cuda-bindings there is: what goes before ``sys.path`` to import it, by a name for the test."""
    folders = [folder for folder in os.environ.get(VARIABLE, "").split(os.pathsep) if folder]
    try:
        installed = importlib.util.find_spec("cuda.bindings") is not None
    except ModuleNotFoundError:
        installed = False
    return [*folders, *([""] if installed else [])]


@pytest.fixture(scope="module", params=installations() or [None])
def real(request):
    if request.param is None:
        pytest.skip(f"no cuda-bindings: pip install --no-deps --target FOLDER cuda-bindings; {VARIABLE}=FOLDER")
    path = os.pathsep.join(part for part in (request.param, os.environ.get("PYTHONPATH", "")) if part)
    asked = json.dumps([cuda_fake.CALLS, [kind.__name__ for kind in ENUMS]])
    done = subprocess.run(
        [sys.executable, "-c", DUMP, asked],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_call_is_there_with_the_fakes_parameters(real):
    assert set(real["calls"]) == set(cuda_fake.CALLS), f"cuda-bindings {real['version']}"
    for name, parameters in real["calls"].items():
        own = list(inspect.signature(getattr(cuda_fake.FakeCuda(), name)).parameters)
        assert own == parameters, f"cuda-bindings {real['version']}: {name}"


def test_every_call_gives_as_many_values_as_the_fakes(real):
    for name, values in real["tuples"].items():
        assert values == 1 + cuda_fake.RESULTS.get(name, 0), f"cuda-bindings {real['version']}: {name}"


def test_every_number_is_the_real_one(real):
    for kind in ENUMS:
        for member in kind:
            assert real["enums"][kind.__name__][member.name] == int(member), member
    assert real["values"] == {"cudaStreamNonBlocking": 1, "cudaHostAllocDefault": 0}


def test_a_handle_is_a_number_to_tensorrt(real):
    assert real["handles"] == [7, 7, 7]


def test_the_properties_that_are_read_are_there(real):
    assert {"name", "major", "minor"} <= set(real["properties"])


def test_our_code_makes_no_call_but_the_fakes():
    """Names in our source, as strings and as attributes; and as many arguments as the call has parameters."""
    used, arguments = set(), {}
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr.startswith("cuda") and node.attr[4:5].isupper():
                used.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in cuda_fake.CALLS:
                used.add(node.value)
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                arguments.setdefault(node.args[0].value, set()).add(len(node.args) - 1)
    known = {*cuda_fake.CALLS, *vars(cuda_fake)} | {member.name for kind in ENUMS for member in kind}
    assert not {name for name in used if name not in known}
    assert set(cuda_fake.CALLS) <= used, "the fake has a call that nobody makes"
    for name in set(arguments) & set(cuda_fake.CALLS):
        wanted = len(inspect.signature(getattr(cuda_fake.FakeCuda(), name)).parameters)
        assert arguments[name] == {wanted}, name
