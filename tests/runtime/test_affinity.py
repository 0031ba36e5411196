"""CPUs of a target: what the kernel says of every thread of a session that was pinned."""

import os
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

from edgekit.artifact import save_artifact
from edgekit.errors import EngineError
from edgekit.runtime import open_artifact
from edgekit.runtime.affinity import parse_cpus, spell_cpus

ENGINES = ["onnxruntime", "openvino"]
LAST = max(os.sched_getaffinity(0))

# Opens an artifact in a process that may use every CPU, and prints which ones each thread may use then and afterwards.
SCRIPT = """
import os, sys
from pathlib import Path
import numpy as np
from edgekit.artifact import load_artifact
from edgekit.runtime import open_artifact

def masks():
    tasks = [task for task in Path("/proc/self/task").iterdir()]
    return {task.name: [l.split()[1] for l in (task / "status").read_text().splitlines() if "Cpus_allowed_list" in l][0]
            for task in tasks}

artifact = load_artifact(Path(sys.argv[1]))
os.sched_setaffinity(0, range(os.cpu_count()))
before, own = masks(), str(os.getpid())
session = open_artifact(artifact)
session.run({"input": np.ones((2, 3, 8, 8), np.float32)})
during = masks()
started = {during[task] for task in during if task not in before}
session.close()
print(before[own], during[own], masks()[own], *sorted(started), sep="|")
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_the_thread_that_opens_and_those_that_the_engine_starts_run_on_the_targets_cpus(tiny_artifact, engine):
    if os.cpu_count() == 1:
        pytest.skip("one CPU: there is nothing to choose")
    threads = {"onnxruntime": {"intra_op_num_threads": 2}, "openvino": {"INFERENCE_NUM_THREADS": 1}}[engine]
    artifact = tiny_artifact("conv_batch2", engine, cpus=str(LAST), **threads)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(artifact.folder)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    before, during, after, *started = done.stdout.strip().split("|")
    assert during == str(LAST)
    assert before == after != during
    assert set(started) <= {str(LAST)}
    if engine == "onnxruntime":
        assert started, "two threads were asked for, and one is the caller's"


def test_cpus_that_are_not_here_are_told_and_the_others_taken(tiny_artifact):
    before = os.sched_getaffinity(0)
    with pytest.warns(UserWarning, match=f"made for CPUs {LAST},4000, and CPUs .* may use"):
        session = open_artifact(tiny_artifact("conv_batch2", cpus=f"{LAST},4000"))
    assert os.sched_getaffinity(0) == {LAST}
    session.close()
    assert os.sched_getaffinity(0) == before
    with pytest.warns(UserWarning, match="made for CPUs 4000"):
        session = open_artifact(tiny_artifact("conv_batch2", cpus="4000"))
    assert os.sched_getaffinity(0) == before
    assert session.run({"input": np.ones((2, 3, 8, 8), np.float32)})


def test_a_session_that_does_not_open_leaves_the_thread_where_it_was(tiny_artifact):
    before = os.sched_getaffinity(0)
    with pytest.raises(EngineError):
        open_artifact(tiny_artifact("unsupported", cpus=str(LAST)))
    assert os.sched_getaffinity(0) == before


def test_a_session_may_outlive_the_thread_that_opened_it(tiny_artifact):
    before, opened = os.sched_getaffinity(0), []
    opener = threading.Thread(target=lambda: opened.append(open_artifact(tiny_artifact("conv", cpus=str(LAST)))))
    opener.start()
    opener.join()
    opened[0].close()
    assert os.sched_getaffinity(0) == before


def test_without_the_option_nothing_is_pinned(tiny_artifact):
    before = os.sched_getaffinity(0)
    with warnings.catch_warnings(action="error") if sys.version_info >= (3, 11) else warnings.catch_warnings():
        open_artifact(save_artifact(tiny_artifact("conv")))
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(("text", "cpus"), [("0", {0}), ("0,4-7", {0, 4, 5, 6, 7}), ("3-3,1", {1, 3})])
def test_lists_of_cpus_are_read_and_written(text, cpus):
    assert parse_cpus(text) == cpus
    assert parse_cpus(spell_cpus(cpus)) == cpus


@pytest.mark.parametrize("text", ["", "a", "-1", "4-2", "1,,2", "1;2", "99999"])
def test_what_is_no_list_of_cpus_is_an_error(tiny_artifact, text):
    with pytest.raises(EngineError, match="not a list of CPUs"):
        open_artifact(tiny_artifact("conv", cpus=text))


@pytest.mark.parametrize("option", [{"cpus": True}, {"cpus": 1.5}])
def test_another_type_is_no_list_of_cpus(tiny_artifact, option):
    with pytest.raises(EngineError, match="not a list of CPUs"):
        open_artifact(tiny_artifact("conv", **option))
