"""Plans kept on the device: built once, rebuilt when something changes, on a fake TensorRT."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import onnx
import pytest
from tensorrt_machine import FP32, break_plan, machine_fixture, model_fixture  # noqa: F401  # fixtures

from edgekit import runtime
from edgekit.disk import PARTIAL, DiskFull
from edgekit.errors import EngineError, EngineMissing
from edgekit.runtime import tensorrt_plans
from edgekit.runtime.tensorrt_plans import cache_folder, inspector_of, plan_for


def test_a_plan_is_built_once_and_reused(machine, model):
    first = plan_for(model, FP32)
    assert first == plan_for(model, FP32)
    assert machine.world.builds == 1
    assert inspector_of(first)["Layers"]


def test_the_cache_is_of_one_user(machine, model, tmp_path):
    folder = plan_for(model, FP32).parent
    assert folder.is_relative_to(tmp_path / "cache" / "tensorrt")
    for each in (tmp_path / "cache", tmp_path / "cache" / "tensorrt", folder.parent):
        assert oct(each.stat().st_mode & 0o777) == "0o700"


def test_a_folder_that_others_may_write_to_is_refused(machine, model, tmp_path):
    (tmp_path / "cache" / "tensorrt").mkdir(parents=True)
    (tmp_path / "cache" / "tensorrt").chmod(0o777)
    with pytest.raises(EngineError, match=r"(?s)they are code.*drwxrwxrwx.*set EDGEKIT_CACHE"):
        plan_for(model, FP32)
    assert machine.world.builds == 0


def test_a_plan_that_others_could_have_put_there_is_not_opened(machine, model):
    plan_for(model, FP32).parent.parent.chmod(0o770)
    with pytest.raises(EngineError, match=r"(?s)they are code.*drwxrwx---"):
        plan_for(model, FP32)


@pytest.mark.parametrize(
    "change",
    [
        lambda m, _: m.now(version="11.4.0.106"),
        lambda m, _: m.now(name="NVIDIA L4"),
        lambda m, _: m.now(compute_capability="8.9"),
        lambda m, _: m.now(driver="560.1"),
        lambda _, model: model.write_bytes(model.read_bytes() + b"\x72\x00"),  # an empty metadata entry
    ],
    ids=["version", "gpu", "capability", "driver", "model"],
)
def test_what_a_plan_hangs_on_rebuilds_it(machine, model, change):
    first = plan_for(model, FP32)
    change(machine, model)
    assert plan_for(model, FP32) != first
    assert machine.world.builds == 2


def test_other_options_and_other_external_data_are_another_plan(machine, model, tmp_path, tiny_onnx):
    first = plan_for(model, FP32)
    assert plan_for(model, FP32 | {"optimization_level": 5}) != first
    outside, proto = tmp_path / "outside.onnx", tiny_onnx("conv_batch2")
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
    onnx.save(proto, outside, save_as_external_data=True, location="weights", size_threshold=0)
    second = plan_for(outside, FP32)
    weights = bytearray((tmp_path / "weights").read_bytes())
    weights[0] ^= 1
    (tmp_path / "weights").write_bytes(weights)
    assert plan_for(outside, FP32) != second


def break_record(plan):
    plan.with_name("plan.json").write_text('{"sha256": 5')


def strange_record(plan):
    plan.with_name("plan.json").write_text('{"sha256": 5}')


@pytest.mark.parametrize("damage", [break_plan, break_record, strange_record, Path.unlink])
def test_a_broken_cache_is_rebuilt_and_not_trusted(machine, model, damage):
    plan = plan_for(model, FP32)
    whole = plan.read_bytes()
    damage(plan)
    assert plan_for(model, FP32) == plan
    assert machine.world.builds == 2
    assert plan.read_bytes() == whole


def test_timings_are_kept_for_the_next_model_and_broken_ones_are_not_used(machine, model, tmp_path):
    plan_for(model, FP32)
    plan_for(model, FP32 | {"optimization_level": 1})
    kept = [len(config.cache._data) for config in machine.world.configs]
    assert kept == [32, 64]  # the second build began with what the first one learnt
    (timings,) = (tmp_path / "cache" / "tensorrt").glob("timings-*[!k]")
    timings.write_bytes(timings.read_bytes()[:-1])
    plan_for(model, FP32 | {"optimization_level": 2})
    assert len(machine.world.configs[2].cache._data) == 32


def test_a_failed_rebuild_for_a_new_driver_keeps_the_last_working_plan(machine, model):
    first = plan_for(model, FP32)
    machine.now(driver="560.1")
    machine.world.build_messages = ("Error Code 2: OutOfMemory",)
    with pytest.warns(RuntimeWarning, match=r"(?s)earlier driver is used.*ran out of memory"):
        assert plan_for(model, FP32) == first
    machine.world.build_messages = ()
    assert plan_for(model, FP32) != first  # tried again, and good


def test_so_does_a_full_disk(machine, model, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    first = plan_for(model, FP32)
    machine.now(driver="560.1")
    monkeypatch.setattr(tensorrt_plans, "write_json", full)
    with pytest.warns(RuntimeWarning, match=r"(?s)earlier driver is used.*disk is full"):
        assert plan_for(model, FP32) == first
    assert not list(first.parent.parent.glob(f"{PARTIAL}*"))
    with pytest.raises(DiskFull, match=r"the TensorRT plan of model\.onnx"):
        plan_for(model, FP32 | {"optimization_level": 5})


@pytest.mark.parametrize("change", [{"version": "10.9.0"}, {"name": "NVIDIA L4"}])
def test_a_plan_of_another_version_or_gpu_is_never_the_last_working_one(machine, model, change):
    plan_for(model, FP32)
    machine.now(**change)
    machine.world.build_messages = ("Error Code 2: OutOfMemory",)
    with pytest.raises(EngineError, match="ran out of memory"):
        plan_for(model, FP32)


def test_nor_is_one_of_other_options_or_a_broken_one(machine, model):
    plan = plan_for(model, FP32)
    machine.now(driver="560.1")
    machine.world.build_messages = ("Error Code 2: OutOfMemory",)
    with pytest.raises(EngineError, match="ran out of memory"):
        plan_for(model, FP32 | {"optimization_level": 5})
    break_plan(plan)
    with pytest.raises(EngineError, match="ran out of memory"):
        plan_for(model, FP32)


def test_a_failed_build_leaves_the_plan_of_the_model_before(machine, model, tmp_path):
    first = plan_for(model, FP32)
    newer = tmp_path / "newer.onnx"
    newer.write_bytes(model.read_bytes() + b"\x72\x00")
    machine.world.build_messages = ("Error Code 4: Internal Error",)
    with pytest.raises(EngineError):
        plan_for(newer, FP32)
    assert plan_for(model, FP32) == first


@pytest.mark.parametrize("where", ["file", "/proc/nothing"])
def test_a_folder_that_cannot_be_written_to_is_told_before_the_build(machine, model, monkeypatch, tmp_path, where):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / where))
    with pytest.raises(EngineError, match=r"(?s)cannot be kept there.*found: .*set EDGEKIT_CACHE") as told:
        plan_for(model, FP32)
    assert str(tmp_path / where) in str(told.value)
    assert machine.world.builds == 0


def test_where_plans_are_kept(monkeypatch):
    monkeypatch.delenv("EDGEKIT_CACHE", raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert cache_folder() == Path("/home/somebody/.cache/edgekit")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/somebody")
    assert cache_folder() == Path("/var/somebody/edgekit")
    monkeypatch.setenv("EDGEKIT_CACHE", "/data/plans")
    assert cache_folder() == Path("/data/plans")


def test_no_gpu_builds_and_keeps_nothing(machine, model, tmp_path):
    machine.world.has_gpu = False
    with pytest.raises(EngineMissing, match="no usable GPU"):
        plan_for(model, FP32)
    assert not list((tmp_path / "cache").rglob("plan.*"))


# Two processes -----------------------------------------------------------------------------------------------------

BUILDER = """
    import sys, time
    from pathlib import Path
    from tensorrt_fake import FakeDevice, fake_tensorrt
    from edgekit.runtime import tensorrt_build, tensorrt_plans
    from edgekit.runtime.cuda import Gpu

    model, started, go = map(Path, sys.argv[1:])

    def wait():
        started.touch()
        while not go.exists():
            time.sleep(0.01)

    sys.modules["tensorrt"] = fake_tensorrt(FakeDevice(version="10.3.0", during_build=wait))
    gpu = Gpu(name="Orin", compute_capability="8.7", memory_mb=8000, free_mb=5000, driver="540.4", runtime="12.6")
    tensorrt_build.gpu = tensorrt_plans.gpu = lambda: gpu
    print(tensorrt_plans.plan_for(model, {"precision": "fp32"}))
"""


@pytest.fixture
def building(machine, model, tmp_path):
    """Another process in the middle of a build, and the file that lets it go on."""
    go, started = tmp_path / "go", tmp_path / "started"
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(runtime.__file__).parents[2])])
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(BUILDER), str(model), str(started), str(go)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    while not started.exists():
        assert process.poll() is None
        time.sleep(0.02)
    yield process, go
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_waits_and_reuses(machine, model, building):
    process, go = building
    found = []
    waiting = threading.Thread(target=lambda: found.append(plan_for(model, FP32)))
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    assert not found
    go.touch()
    waiting.join(60)
    assert str(found[0]) == process.stdout.read().strip()
    assert machine.world.builds == 0


def test_a_killed_build_leaves_no_half_plan_and_no_lock(machine, model, building, tmp_path):
    process, _ = building
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not list((tmp_path / "cache").rglob("plan.*"))
    plan = plan_for(model, FP32)
    assert machine.world.builds == 1
    assert not list((tmp_path / "cache").rglob(f"{PARTIAL}*"))
    assert plan.is_file()


def test_what_a_killed_process_wrote_is_no_plan(machine, model):
    plan = plan_for(model, FP32)
    half = plan.parent.with_name(f"{PARTIAL}{plan.parent.name}")
    plan.parent.rename(half)  # as if it were killed before the last step
    break_plan(half / plan.name)
    assert plan_for(model, FP32) == plan
    assert machine.world.builds == 2
    assert not half.exists()
