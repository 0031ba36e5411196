import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fake_line import null_artifact

from edgekit.apart import opened_apart
from edgekit.artifact import TensorSpec
from edgekit.errors import EngineError, EngineMissing, FeedError, UnknownName

ONES = np.ones((5, 4), np.float32)


def test_samples_are_run_in_another_process_in_batches_of_the_artifact(tmp_path):
    with opened_apart(null_artifact(tmp_path / "a", batch=2)) as session:
        for count in (5, 1, 300):
            outputs = session.run({"input": np.ones((count, 4), np.float32)})
            assert {name: (array.shape, array.dtype) for name, array in outputs.items()} == {
                "logits": ((count, 3), np.float32)
            }
        placement = session.placement()
    assert (placement.device, [node.op for node in placement.nodes]) == ("null", ["Null"])


def test_the_same_numbers_as_in_this_process(tiny_artifact):
    from edgekit.runtime import open_artifact

    artifact = tiny_artifact("conv")
    images = np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)
    session = open_artifact(artifact)
    expected = session.run({"input": images})["output"]
    session.close()
    with opened_apart(artifact) as apart:
        # Views and other orders in memory travel as what they mean.
        assert np.array_equal(apart.run({"input": images})["output"], expected)
        assert np.array_equal(apart.run({"input": np.asfortranarray(images)})["output"], expected)
        assert np.array_equal(apart.run({"input": images[::-1]})["output"], expected[::-1])


def test_every_dtype_travels(tiny_artifact):
    with opened_apart(tiny_artifact("integers")) as apart:
        found = apart.run({"ids": np.arange(8).reshape(2, 4), "mask": np.tile([True, False], (2, 2))})["kept"]
    assert found.dtype == np.int64
    assert found.tolist() == [[0, 0, 2, 0], [4, 0, 6, 0]]


def test_an_artifact_in_a_relative_folder(tmp_path, monkeypatch):
    artifact = null_artifact(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    with opened_apart(dataclasses.replace(artifact, folder=Path("a"))) as apart:
        assert apart.run({"input": ONES})["logits"].shape == (5, 3)


def test_modules_beside_the_user_are_not_taken_for_pythons(tmp_path, monkeypatch):
    (tmp_path / "socket.py").write_text("raise RuntimeError('mine')\n")
    monkeypatch.chdir(tmp_path)
    assert run(null_artifact(tmp_path / "a"))["logits"].shape == (5, 3)


# ---- what goes wrong ----


def run(artifact, **options):
    with opened_apart(artifact, **options) as apart:
        return apart.run({"input": ONES})


def test_a_crash_is_an_error_and_not_the_end(tmp_path):
    with pytest.raises(EngineError, match="null died of SIGABRT while running the samples"):
        run(null_artifact(tmp_path / "a", crash_at=3))


def test_a_hang_is_ended(tmp_path):
    with pytest.raises(EngineError, match="null gave no answer for 1 s while running the samples"):
        run(null_artifact(tmp_path / "a", hang_at=3), silence_s=1.0)


def test_many_slow_batches_are_no_hang(tmp_path):
    artifact = null_artifact(tmp_path / "a", latency_us=400_000.0)
    assert run(artifact, silence_s=1.5)["logits"].shape == (5, 3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"options": {"nonsense": 1}}, UnknownName, "unknown null option 'nonsense'"),
        ({"engine": "tensorrt"}, EngineMissing, "engine 'tensorrt' cannot run here"),
        ({"model": "gone.null"}, EngineError, "could not open gone.null"),
        ({"inputs": (TensorSpec(name="other", dtype="float32", shape=(1, 4)),)}, FeedError, "unknown input 'input'"),
    ],
)
def test_an_error_of_the_engine_is_raised_here_as_the_same(tmp_path, change, error, message):
    with pytest.raises(error, match=message) as caught:
        run(dataclasses.replace(null_artifact(tmp_path / "a"), **change))
    assert caught.value.found


def test_what_a_dying_engine_printed_is_told(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif '-m' in sys.orig_argv:\n    print('out of memory'); sys.stdout.flush(); os._exit(9)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(EngineError, match="null ended with exit status 9") as caught:
        run(null_artifact(tmp_path / "a"))
    assert caught.value.found == "out of memory"


def test_an_error_inside_the_block_ends_the_process_too(tmp_path):
    seen = []
    with pytest.raises(KeyError):
        fail_inside(null_artifact(tmp_path / "a"), seen)
    with pytest.raises(ProcessLookupError):
        os.kill(seen[0], 0)


def fail_inside(artifact, seen):
    popen = subprocess.Popen

    class Watching(popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            seen.append(self.pid)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgekit.apart.subprocess.Popen", Watching)
        with opened_apart(artifact):
            raise KeyError("mine")


ORPHAN = """
import socket
from edgekit.apart import serve

ours, theirs = socket.socketpair()
ours.close()
serve(theirs.detach())
print("ended")
"""


def test_the_process_ends_when_its_parent_is_gone():
    done = subprocess.run([sys.executable, "-c", ORPHAN], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "ended\n", done.stderr


KILLED = """
import os, signal, sys, threading, time
from pathlib import Path
import numpy as np
from edgekit.apart import opened_apart
from fake_line import null_artifact

def told(*args, **kwargs):
    process = popen(*args, **kwargs)
    print(process.pid, flush=True)
    return process

import subprocess
popen, subprocess.Popen = subprocess.Popen, told
with opened_apart(null_artifact(Path(sys.argv[1]), hang_at=0)) as apart:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
    apart.run({"input": np.ones((1, 4), np.float32)})
"""


def test_the_process_ends_with_a_killed_parent_even_while_its_engine_hangs(tmp_path):
    path = os.pathsep.join(filter(None, [os.path.dirname(__file__), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "a")],
        stdout=subprocess.PIPE,
        env=dict(os.environ) | {"PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    until = time.monotonic() + 30
    while lives(int(done.stdout)):
        assert time.monotonic() < until, "it lives on"
        time.sleep(0.02)


def lives(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
