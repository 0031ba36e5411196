"""What a bundle carries for being watched: statistics of real samples, and limits that are numbers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from fake_line import make_samples, null_artifact, quick_profile

from edgekit.artifact import TensorSpec, to_json
from edgekit.data import RANDOM, Samples
from edgekit.errors import EngineError, SpecError
from edgekit.processing_specs import Preprocessing
from edgekit.recipe import load_recipe
from edgekit.recipe_watch import WatchLimits, WatchSpec
from edgekit.runtime.watch.settings import LIMITS
from edgekit.runtime.watch.tensors import parse_statistics
from edgekit.runtime.watch.windows import TensorWindow
from edgekit.watch_facts import LEVELS, reference_statistics, watch_settings

SPEC = WatchSpec()


def pictures(count=200, size=(8, 8), seed=0):
    """Raw uint8 pictures ``[n, h, w, 3]`` whose red, green and blue are apart."""
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 50, (count, *size, 3)) + np.array([0, 50, 200])).astype(np.uint8)


def picture_samples(count=200, seed=0):
    x = pictures(count, seed=seed)
    preprocessing = Preprocessing(layout="NHWC", scale=1 / 255, mean=(0.5,), std=(0.25,))
    return Samples(name="pictures", count=count, fetch=lambda i: {"input": x[i]}, preprocessing=preprocessing)


def picture_artifact(folder, shape=(1, 3, 8, 8), dtype="float32"):
    artifact = null_artifact(folder)
    return dataclasses.replace(artifact, inputs=(TensorSpec(name="input", dtype=dtype, shape=shape),))


def made(tmp_path, samples=None, spec=SPEC, **shape):
    samples = samples or picture_samples()
    return reference_statistics(picture_artifact(tmp_path / "a", **shape), samples, samples, spec)


def test_channels_are_told_apart_and_are_those_of_numpy(tmp_path):
    found = made(tmp_path)["inputs"][0]
    tensors = picture_samples().tensors(np.arange(200))["input"]
    assert found["axis"] == 1
    for i, channel in enumerate(found["channels"]):
        values = tensors[:, i].astype(np.float64)
        assert found["values"] == len(values.ravel())
        assert channel["minimum"] == pytest.approx(values.min())
        assert channel["maximum"] == pytest.approx(values.max())
        assert channel["mean"] == pytest.approx(values.mean())
        assert channel["std"] == pytest.approx(values.std())
        assert channel["quantiles"] == pytest.approx(np.quantile(values, LEVELS), abs=1e-6)
        assert channel["shares"] == pytest.approx([0.1] * 10, abs=0.02)


def test_channels_last_are_found_by_the_preprocessing(tmp_path):
    samples = picture_samples()
    last = dataclasses.replace(samples, preprocessing=dataclasses.replace(samples.preprocessing, model_layout="NHWC"))
    found = made(tmp_path, last, shape=(1, 8, 8, 3))["inputs"][0]
    assert found["axis"] == 3
    assert len(found["channels"]) == 3


@pytest.mark.parametrize(("layout", "axes", "axis"), [("NHWC", (0, 1, 2, 3), 3), ("NCHW", (0, 3, 1, 2), 1)])
def test_raw_samples_are_looked_at_where_the_engine_preprocesses_them(tmp_path, layout, axes, axis):
    x = pictures().transpose(axes)
    own = dataclasses.replace(picture_samples().preprocessing, layout=layout)
    samples = dataclasses.replace(picture_samples(), fetch=lambda i: {"input": x[i]}, preprocessing=own)
    artifact = picture_artifact(tmp_path / "a", shape=(1, *x.shape[1:]), dtype="uint8")
    found = reference_statistics(artifact, samples, samples, SPEC, in_graph=own)["inputs"][0]
    assert found["axis"] == axis
    assert [channel["maximum"] for channel in found["channels"]] == [49.0, 99.0, 249.0]


def test_pictures_without_a_channel_axis_are_one_channel(tmp_path):
    x = pictures()[..., 0]
    own = Preprocessing(layout="NHW")
    samples = Samples(name="grey", count=200, fetch=lambda i: {"input": x[i]}, preprocessing=own)
    artifact = picture_artifact(tmp_path / "a", shape=(1, 8, 8), dtype="uint8")
    assert reference_statistics(artifact, samples, samples, SPEC, in_graph=own)["inputs"][0]["axis"] is None


def test_the_same_samples_give_the_same_statistics_in_json(tmp_path):
    first, second = (made(tmp_path / name) for name in "ab")
    assert json.dumps(to_json(first), allow_nan=False) == json.dumps(to_json(second))
    assert parse_statistics(to_json(first), Path("m")).inputs[0].name == "input"


def test_a_value_that_occurs_often_is_in_one_bin_however_it_is_rounded(tmp_path):
    x = np.where(np.random.default_rng(0).random((200, 3, 8, 8)) < 0.6, -0.4242, 1.1).astype(np.float32)
    samples = Samples(name="two", count=200, fetch=lambda i: {"input": x[i]})
    statistics = parse_statistics(to_json(made(tmp_path, samples)), Path("m"))
    window = TensorWindow("input", statistics.inputs[0], 64)
    for i in range(64):
        window.add(x[i : i + 1] * np.float32(1 + 2e-7))
    assert max(window.state()["drift"]) < 0.01


def test_windows_of_like_samples_stay_under_the_noise_and_moved_ones_do_not(tmp_path):
    statistics = parse_statistics(to_json(made(tmp_path)), Path("m"))
    tensor = statistics.inputs[0]
    above = 0
    for seed in range(1, 41):
        window = TensorWindow("input", tensor, 64)
        for i in range(64):
            window.add(picture_samples(64, seed=seed).tensors([i])["input"])
        above += max(window.state()["drift"]) > tensor.drift_noise
    assert above <= 4, "1 of 100 is expected"
    window = TensorWindow("input", tensor, 64)
    window.add(picture_samples(64).tensors(np.arange(64))["input"] + np.float32(0.1))
    assert max(window.state()["drift"]) > 10 * tensor.drift_noise


def test_random_inputs_are_no_statistics(tmp_path):
    artifact = null_artifact(tmp_path / "a")
    assert reference_statistics(artifact, None, dataclasses.replace(make_samples(), name=RANDOM), SPEC) is None


def test_without_calibration_it_is_the_test_samples(tmp_path):
    artifact = null_artifact(tmp_path / "a")
    assert reference_statistics(artifact, None, make_samples(), SPEC)["source"] == "test"


def test_outputs_that_are_not_finite_are_refused(tmp_path):
    artifact = null_artifact(tmp_path / "a", nan_at=3)
    with pytest.raises(EngineError, match="'logits' is not finite on every calibration sample"):
        reference_statistics(artifact, make_samples(), make_samples(), SPEC)


def test_a_recipe_may_want_none(tmp_path):
    assert made(tmp_path, spec=WatchSpec(statistics=False)) is None


def test_a_tensor_of_many_channels_is_one(tmp_path):
    x = np.zeros((9, 100, 2, 2), np.float32)
    samples = Samples(name="wide", count=9, fetch=lambda i: {"input": x[i]})
    found = made(tmp_path, samples, shape=(1, 100, 2, 2))["inputs"][0]
    assert (found["axis"], len(found["channels"])) == (None, 1)


def noisy(noise, values=10_000):
    tensor = {"drift_noise": noise, "values": values}
    return {"inputs": [tensor], "outputs": [tensor]}


def test_limits_are_numbers_with_every_default_decided():
    found = watch_settings(SPEC, quick_profile(p99_ms=20.0), noisy(0.01))["limits"]
    assert found == {
        "failed_share": 0.01,
        "saturated_share": 0.01,
        "not_finite_share": 0.0,
        "p99_ms": 20.0,
        "silence_s": 30.0,
        "drift": 0.25,
        "output_drift": 0.25,
    }
    assert watch_settings(SPEC, quick_profile(), noisy(1.0))["limits"]["drift"] == 1.5, "samples that differ by more"
    assert watch_settings(SPEC, quick_profile(), noisy(0.1, values=299))["limits"]["saturated_share"] == 0.02
    without = watch_settings(SPEC, quick_profile(), None)["limits"]
    assert not {"drift", "output_drift", "saturated_share"} & set(without)


def test_every_limit_of_a_recipe_is_one_that_a_watch_knows():
    assert set(WatchLimits.model_fields) == set(LIMITS)


def test_a_recipe_s_limits_go_before_and_false_takes_one_away():
    limits = WatchLimits(drift=0.1, p99_ms=False, silence_s=False, temperature_c=85.0)
    found = watch_settings(WatchSpec(limits=limits), quick_profile(p99_ms=20.0), noisy(1.0))["limits"]
    assert (found["drift"], found["temperature_c"]) == (0.1, 85.0)
    assert not {"p99_ms", "silence_s"} & set(found)


RECIPE = '[teacher]\nmodel = "nets:teacher"\n[watch]\nevery = 4\n[watch.limits]\ndrift = 0.2\nsilence_s = false\n'


def test_a_recipe_s_table_is_read(tmp_path):
    (tmp_path / "edgekit.toml").write_text(RECIPE)
    found = load_recipe(tmp_path).watch
    assert (found.every, found.limits.drift, found.limits.silence_s, found.limits.failed_share) == (4, 0.2, False, 0.01)


@pytest.mark.parametrize("limit", ["failed_share", "dropped_share", "not_finite_share", "restarts"])
def test_a_limit_of_nought_is_one(tmp_path, limit):
    """And not the false that takes one away, to which it is equal."""
    (tmp_path / "edgekit.toml").write_text(f'[teacher]\nmodel = "nets:teacher"\n[watch]\nlimits.{limit} = 0\n')
    spec = load_recipe(tmp_path).watch
    assert watch_settings(spec, quick_profile(), noisy(0.1))["limits"][limit] == 0.0


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("every = 0", "every"),
        ("drfit = 1", "drfit"),
        ("limits.drfit = 1.0", "drift"),
        ("limits.drift = true", "drift"),
        ("limits.failed_share = 1.5", "failed_share"),
        ("period_s = -1.0", "period_s"),
        ("period_s = inf", "period_s"),
        ("limits.temperature_c = nan", "temperature_c"),
        ("limits.drift = 0", "allowed: more than 0.0; or false, for none"),
        ("limits.failed_share = 2", "allowed: less than 1.0; or false, for none"),
        ('limits.drift = "little"', "allowed: a number; or false, for none"),
        ("limits.silence_s = 1", r"silence_s of period_s \(10\) or more"),
        ("limits = { p50_ms = 30, p99_ms = 20 }", r"p99_ms of p50_ms \(30\) or more"),
    ],
)
def test_a_recipe_that_is_wrong_is_told(tmp_path, wrong, named):
    (tmp_path / "edgekit.toml").write_text(f'[teacher]\nmodel = "nets:teacher"\n[watch]\n{wrong}\n')
    with pytest.raises(SpecError, match=named):
        load_recipe(tmp_path)
