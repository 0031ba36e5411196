import math

import numpy as np
import pytest

from edgekit.drift.walking import AT_ONCE, Stage, Tensor, first_parting, walk

CHAIN = [
    Tensor(name="x", op="input", users=("a",)),
    Tensor(name="a", op="Conv", users=("b",)),
    Tensor(name="b", op="Relu", users=("c",)),
    Tensor(name="c", op="Gemm", users=()),
]


def values(seed):
    return np.random.default_rng(seed).standard_normal(100).astype(np.float32)


def noisy(array, db):
    noise = np.random.default_rng(9).standard_normal(array.shape)
    return (array + noise * np.sqrt(np.square(array).sum() / np.square(noise).sum()) * 10 ** (-db / 20)).astype(
        np.float32
    )


def stage(name, arrays, floor_db=30.0):
    return Stage(name=name, read=lambda names: {n: arrays[n] for n in names if n in arrays}, floor_db=floor_db)


PLAIN = {tensor.name: values(i) for i, tensor in enumerate(CHAIN)}


def at(db):
    """The chain with noise of so many dB in each tensor."""
    return {name: noisy(PLAIN[name], db[name]) for name in db}


def test_the_first_tensor_that_parts_is_named_with_its_ranges():
    small = at({"x": 45, "a": 40, "b": 20, "c": 12})
    steps = walk(CHAIN, [stage("onnx", PLAIN), stage("quantised", small)])
    assert [(s.tensor, s.stage, s.before) for s in steps] == [(n, "quantised", "onnx") for n in "xabc"]
    assert [s.db for s in steps] == [pytest.approx(db, abs=0.1) for db in (45, 40, 20, 12)]
    first = first_parting(steps)["quantised"]
    assert (first.tensor, first.op, first.parts) == ("b", "Relu", True)
    assert first.range == (float(small["b"].min()), float(small["b"].max()))
    assert first.before_range == (float(PLAIN["b"].min()), float(PLAIN["b"].max()))


def test_every_stage_is_compared_with_the_one_before_and_with_the_first():
    one = at({"x": 60, "a": 60, "b": 60, "c": 60})
    steps = walk(CHAIN, [stage("torch", PLAIN), stage("onnx", PLAIN), stage("quantised", one), stage("compiled", one)])
    of_a = {s.stage: s for s in steps if s.tensor == "a"}
    assert list(of_a) == ["onnx", "quantised", "compiled"]
    assert (of_a["onnx"].db, of_a["compiled"].db) == (300.0, 300.0)
    assert of_a["compiled"].reference_db == of_a["quantised"].db == pytest.approx(60, abs=0.1)
    assert first_parting(steps) == {}


def test_a_stage_without_a_tensor_is_stepped_over():
    middle = {name: array for name, array in PLAIN.items() if name != "a"}
    steps = walk(CHAIN, [stage("onnx", PLAIN), stage("quantised", middle), stage("compiled", PLAIN)])
    assert [(s.stage, s.before) for s in steps if s.tensor == "a"] == [("compiled", "onnx")]


def test_a_tensor_of_another_shape_or_of_integers_is_not_compared():
    other = PLAIN | {"a": PLAIN["a"].reshape(10, 10), "b": np.arange(100), "c": np.zeros(0, np.float32)}
    steps = walk(CHAIN, [stage("onnx", PLAIN), stage("quantised", other)])
    assert [s.tensor for s in steps] == ["x"]


def test_a_scale_moved_from_one_layer_to_the_next_has_not_parted():
    moved = PLAIN | {"a": PLAIN["a"] * 3}
    steps = walk(CHAIN, [stage("onnx", PLAIN), stage("quantised", moved)])
    assert {s.tensor: s.db < 30 for s in steps} == {"x": False, "a": True, "b": False, "c": False}
    assert first_parting(steps) == {}


def test_whether_a_tensor_comes_back_is_seen_behind_those_that_are_not_there():
    moved = {"x": PLAIN["x"], "a": PLAIN["a"] * 3, "c": PLAIN["c"]}
    assert first_parting(walk(CHAIN, [stage("onnx", PLAIN), stage("quantised", moved)])) == {}
    lost = moved | {"c": PLAIN["c"] * 3}
    assert first_parting(walk(CHAIN, [stage("onnx", PLAIN), stage("quantised", lost)]))["quantised"].tensor == "a"
    # Nothing made from it is there: what is not known to come back has parted.
    alone = {"x": PLAIN["x"], "a": PLAIN["a"] * 3}
    ends = [tensor for tensor in CHAIN if tensor.name != "c"]
    ends[-1] = Tensor(name="b", op="Relu", users=())
    assert first_parting(walk(ends, [stage("onnx", PLAIN), stage("q", alone)]))["q"].tensor == "a"


def test_a_loop_of_names_ends():
    ring = [Tensor(name="a", op="A", users=("b",)), Tensor(name="b", op="B", users=("a",))]
    found = walk(ring, [stage("onnx", PLAIN), stage("q", {"a": -PLAIN["a"]})])
    assert [step.tensor for step in found] == ["a"]


def test_nan_parts_and_has_a_range_of_what_is_finite():
    broken = PLAIN | {"b": np.full(100, np.nan, np.float32), "c": np.full(100, np.inf, np.float32)}
    steps = walk(CHAIN, [stage("onnx", PLAIN), stage("compiled", broken)])
    first = first_parting(steps)["compiled"]
    assert (first.tensor, first.db, first.range) == ("b", -300.0, (0.0, 0.0))
    assert all(math.isfinite(end) for step in steps for end in step.range)


def test_few_tensors_are_held_at_a_time():
    many = [Tensor(name=f"t{i}", op="Add", users=()) for i in range(2 * AT_ONCE + 1)]
    asked, told = [], []

    def read(names):
        asked.append(len(names))
        return dict.fromkeys(names, PLAIN["x"])

    both = [Stage(name=name, read=read, floor_db=80.0) for name in ("onnx", "compiled")]
    steps = walk(many, both, lambda step, done, total, note="": told.append((step, done, total)), "look")
    assert len(steps) == len(many)
    assert asked == [AT_ONCE] * 4 + [1] * 2
    assert told == [("look", done, 129) for done in (0, 64, 128, 129)]
