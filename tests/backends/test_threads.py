"""A target's threads, CPUs and memory, as the engines that open what was compiled have them."""

import os
from pathlib import Path

import pytest
from small_nets import conv_net, save

from edgekit.backends import load_backend
from edgekit.catalog import load_target
from edgekit.errors import EngineError, SpecError
from edgekit.runtime import onnxruntime, open_artifact
from edgekit.specs import Target, difference, parse

LAST = max(os.sched_getaffinity(0))
RAW = {"description": "a box", "engines": ["openvino", "onnxruntime"], "precisions": ["fp32"]}


def target(**fields):
    return parse(Target, RAW | fields, "box.toml", name="box")


@pytest.mark.parametrize(
    ("engine", "name"), [("onnxruntime", "intra_op_num_threads"), ("openvino", "INFERENCE_NUM_THREADS")]
)
def test_cpus_are_an_option_and_as_many_threads_unless_told_otherwise(engine, name, float_net, tmp_path):
    backend = load_backend(engine)
    four = backend.compile(float_net, target(cpus=[4, 5, 6, 7]), 1, tmp_path / "four")
    two = backend.compile(float_net, target(cpus=[4, 5, 6, 7], threads=2), 1, tmp_path / "two")
    free = backend.compile(float_net, target(), 1, tmp_path / "free")
    assert (four.options["cpus"], four.options[name]) == ("4-7", 4)
    assert (two.options["cpus"], two.options[name]) == ("4-7", 2)
    assert not {"cpus", name} & set(free.options)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_what_is_compiled_for_cpus_of_this_machine_opens_on_them(engine, float_net, tmp_path):
    before = os.sched_getaffinity(0)
    built = load_backend(engine).compile(float_net, target(cpus=[LAST]), 1, tmp_path)
    session = open_artifact(built)
    assert os.sched_getaffinity(0) == {LAST}
    session.close()
    assert os.sched_getaffinity(0) == before


def test_onnx_runtime_gives_memory_back_where_the_target_wants_it(float_net, tmp_path):
    built = load_backend("onnxruntime").compile(float_net, target(keep_memory=False), 1, tmp_path / "small")
    session = open_artifact(built)
    taken = vars(session)["_session"].get_session_options()
    assert (taken.enable_cpu_mem_arena, taken.enable_mem_pattern) == (False, False)
    session.close()
    usual = open_artifact(load_backend("onnxruntime").compile(float_net, target(), 1, tmp_path / "fast"))
    assert vars(usual)["_session"].get_session_options().enable_cpu_mem_arena is True


def test_openvino_says_that_it_keeps_its_memory(float_net, tmp_path):
    built = load_backend("openvino").compile(float_net, target(keep_memory=False), 1, tmp_path)
    assert any("keep_memory = false changes nothing" in note for note in built.notes)


def test_what_onnx_runtime_did_not_take_is_an_error():
    class Other:
        intra_op_num_threads = 1

    with pytest.raises(EngineError, match="did not take intra_op_num_threads=4"):
        onnxruntime._check_taken({"intra_op_num_threads": 4}, Other())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cpus": [4], "cores": 4}, "numbers from 0 to 3: the target has 4 cores"),
        ({"cpus": [0, 0], "threads": 2}, "at least 2 different ones"),
        ({"cpus": []}, "at least 1"),
        ({"cpus": [-1]}, "0 or more"),
        ({"keep_memory": "no"}, "true or false"),
    ],
)
def test_a_target_that_contradicts_itself_is_refused(fields, message):
    with pytest.raises(SpecError, match=message):
        target(**fields)


def test_this_machines_threads_are_as_many_as_its_cpus_where_they_are_named(tmp_path):
    (tmp_path / "targets").mkdir()
    text = (Path(__file__).parents[2] / "targets" / "local.toml").read_text()
    (tmp_path / "targets" / "box.toml").write_text(f"{text}\ncpus = [0]\n")
    assert load_target("box", [tmp_path]).threads == 1


def test_a_host_with_fewer_cores_than_the_target_has_cpus_is_not_the_target():
    from edgekit.profiling.host import this_host

    cores = this_host().cores
    assert difference(target(cpus=list(range(cores))), this_host()) is None
    found = difference(target(cpus=list(range(cores + 1))), this_host())
    assert found is not None
    assert found.what == "cores"


def test_a_core_type_is_read_back_as_it_was_asked(tmp_path):
    net = save(conv_net(), tmp_path / "float")
    box = target(options={"openvino": {"SCHEDULING_CORE_TYPE": "ANY_CORE"}})
    session = open_artifact(load_backend("openvino").compile(net, box, 1, tmp_path / "built"))
    read_back = vars(session)["_compiled"].get_property("SCHEDULING_CORE_TYPE")
    assert read_back.name == "ANY_CORE"
    session.close()
