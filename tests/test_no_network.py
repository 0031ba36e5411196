"""Nothing phones home: network calls counted by the kernel while quantising and running."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

# Quantises with NNCF and with ONNX Runtime's quantiser, and runs the result on both engines.
WORK = """
import sys
from pathlib import Path
from dataclasses import replace
from edgekit.runtime.quiet import silence_telemetry
{switch}
import nncf
import numpy as np
import openvino
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from edgekit import runtime
from edgekit.artifact import load_artifact

class Reader(CalibrationDataReader):
    def __init__(self):
        self.left = [{{"input": image}} for image in images]
    def get_next(self):
        return self.left.pop() if self.left else None

images = [np.random.default_rng(seed).normal(size=(1, 3, 16, 16)).astype(np.float32) for seed in range(4)]
artifact = load_artifact(Path(sys.argv[1]))
model = openvino.Core().read_model(artifact.path)
quantised = nncf.quantize(model, nncf.Dataset(images), subset_size=4)
openvino.save_model(quantised, artifact.folder / "quantised.xml", compress_to_fp16=False)
quantize_static(artifact.path, artifact.folder / "quantised.onnx", Reader())
for engine, name in (("openvino", "quantised.xml"), ("onnxruntime", "quantised.onnx")):
    session = runtime.open_artifact(replace(artifact, engine=engine, model=name))
    session.run({{"input": images[0]}})
    print(engine, session.placement().share("int8"))
"""

ON = "silence_telemetry()"
# The whole switch taken out: every module calls it before it imports an engine.
OFF = "import edgekit.runtime.quiet as quiet, edgekit.runtime.onnxruntime as o, edgekit.runtime.openvino as v\n" + (
    "quiet.silence_telemetry = o.silence_telemetry = v.silence_telemetry = lambda: None"
)
# The reporter was imported by somebody else before the switch was thrown.
LATE = "import openvino_telemetry; silence_telemetry()"

_CALL = re.compile(r"\b(connect|sendto|sendmsg)\(.*sa_family=AF_INET6?\b")


@pytest.fixture
def network_calls(tiny_artifact, tmp_path):
    """Runs code in a plain process under strace and gives its network calls."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed: apt-get install strace")

    def count(switch):
        trace = tmp_path / "trace"
        # A clean home and no word of pytest or of a build service: telemetry stays silent for those by itself.
        hidden = ("PYTEST", "NNCF", "ORT_", "CI", "TF_BUILD", "JENKINS", "HOME")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
        (tmp_path / "home").mkdir(exist_ok=True)
        command = [strace, "-f", "-e", "trace=connect,sendto,sendmsg", "-o", str(trace)]
        command += [sys.executable, "-c", WORK.format(switch=switch), str(tiny_artifact("five_convs").folder)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            env=environment | {"HOME": str(tmp_path / "home")},
        )
        assert done.returncode == 0, done.stderr
        assert "openvino 1.0" in done.stdout
        assert "onnxruntime" in done.stdout
        return [line for line in trace.read_text().splitlines() if _CALL.search(line)]

    return count


@pytest.mark.parametrize("switch", [ON, pytest.param(LATE, marks=pytest.mark.slow)])
def test_nothing_is_sent_while_quantising_and_running(network_calls, switch):
    assert network_calls(switch) == []


def test_something_is_sent_when_the_switch_is_taken_out(network_calls):
    assert network_calls(OFF)
