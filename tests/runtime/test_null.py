import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from edgekit import runtime
from edgekit.artifact import to_json
from edgekit.errors import EngineError

FEEDS = {"input": np.ones((2, 3, 8, 8), np.float32)}


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves a microsecond at every look."""

    class Clock:
        now_ns = 0

    def look():
        Clock.now_ns += 1000
        return Clock.now_ns

    monkeypatch.setattr(time, "perf_counter_ns", look)
    return Clock


def spent_us(clock, session):
    start_ns = clock.now_ns
    session.run(FEEDS)
    return (clock.now_ns - start_ns) // 1000 - 1


def test_every_query_takes_the_latency(tiny_artifact, clock):
    session = runtime.open_artifact(tiny_artifact("conv", "null", latency_us=250.0))
    assert [spent_us(clock, session) for _ in range(3)] == [250, 250, 250]


def test_a_script_is_taken_in_turn(tiny_artifact, clock):
    session = runtime.open_artifact(tiny_artifact("conv", "null", script="[100, 200, 700]"))
    assert [spent_us(clock, session) for _ in range(5)] == [100, 200, 700, 100, 200]


def test_outputs_are_zeros_of_the_declared_shapes(tiny_artifact):
    outputs = runtime.open_artifact(tiny_artifact("conv", "null")).run(FEEDS)
    assert outputs["output"].shape == (2, 4, 8, 8)
    assert not outputs["output"].any()


def test_nan_comes_at_the_scripted_query(tiny_artifact):
    session = runtime.open_artifact(tiny_artifact("conv", "null", nan_at=1))
    assert [bool(np.isnan(session.run(FEEDS)["output"]).all()) for _ in range(3)] == [False, True, False]


def test_placement_tells_the_option(tiny_artifact):
    session = runtime.open_artifact(replace(tiny_artifact("conv", "null"), options={"precision": "int8"}))
    assert session.placement().share("int8") == 1.0


@pytest.mark.parametrize("script", ["fast", "{}x", '["a"]', "7"])
def test_a_wrong_script_is_an_error(tiny_artifact, script):
    with pytest.raises(EngineError, match="option 'script' is wrong"):
        runtime.open_artifact(tiny_artifact("conv", "null", script=script))


def test_a_missing_file_is_an_error(tiny_artifact):
    artifact = tiny_artifact("conv", "null")
    artifact.path.unlink()
    with pytest.raises(EngineError, match="null could not open"):
        runtime.open_artifact(artifact)


CHILD = """
import sys, numpy as np
from pathlib import Path
from edgekit import runtime
from edgekit.artifact import load_artifact
session = runtime.open_artifact(load_artifact(Path(sys.argv[1])))
for query in range(3):
    session.run({"input": np.ones((1, 3, 8, 8), np.float32)})
    print(query, flush=True)
"""


def test_a_crash_ends_the_process_with_a_signal(tiny_artifact):
    artifact = tiny_artifact("conv", "null", crash_at=1)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, artifact.folder], capture_output=True, text=True, timeout=60, check=False
    )
    assert child.returncode == -6
    assert child.stdout == "0\n"


def test_a_hang_never_answers(tiny_artifact):
    artifact = tiny_artifact("conv", "null", hang_at=2)
    with subprocess.Popen([sys.executable, "-c", CHILD, artifact.folder], stdout=subprocess.PIPE, text=True) as child:
        assert [child.stdout.readline(), child.stdout.readline()] == ["0\n", "1\n"]
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.3)
        child.kill()


def test_options_are_plain_json(tiny_artifact):
    artifact = tiny_artifact("conv", "null", script="[1]", latency_us=2.0)
    assert to_json(artifact.options) == {"script": "[1]", "latency_us": 2.0}
