import math

import numpy as np
import pytest

from edgekit import runtime
from edgekit.errors import EngineError, FeedError, ParityError
from edgekit.runtime.numbers import max_error, run_batched, snr_db


def test_snr_is_the_textbook_ratio():
    reference, actual = np.array([3.0, 4.0], np.float32), np.array([3.0, 4.5], np.float32)
    assert snr_db(reference, actual) == pytest.approx(10 * math.log10(25 / 0.25))


def test_half_the_signal_as_noise_is_six_db():
    assert snr_db(np.ones(5), np.full(5, 0.5)) == pytest.approx(20 * math.log10(2))


def test_identical_is_300_and_not_finite_is_minus_300():
    ones = np.ones(3, np.float32)
    assert snr_db(ones, ones.copy()) == 300.0
    for bad in (np.nan, np.inf, -np.inf):
        assert snr_db(ones, np.array([1, bad, 1], np.float32)) == -300.0
        assert max_error(ones, np.array([1, bad, 1], np.float32)) == 1e300


def test_nan_in_both_is_still_not_a_number_to_ship():
    both = np.array([1, np.nan], np.float32)
    assert snr_db(both, both.copy()) == -300.0


def test_infinities_at_the_same_places_are_identical():
    masked = np.array([1, -np.inf], np.float32)
    assert snr_db(masked, masked.copy()) == 300.0


def test_a_silent_reference_has_no_signal():
    assert snr_db(np.zeros(3), np.zeros(3)) == 300.0
    assert snr_db(np.zeros(3), np.full(3, 1e-9)) == -300.0


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30, 1e38])
def test_snr_does_not_depend_on_the_scale(size):
    reference = np.array([1.0, 2.0], np.float32) * np.float32(size)
    assert snr_db(reference, reference * np.float32(1.5)) == pytest.approx(20 * math.log10(2), rel=1e-5)


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool"])
def test_integers_and_booleans_count_as_numbers(dtype):
    reference = np.array([1, 0, 1, 1], dtype)
    assert snr_db(reference, reference.copy()) == 300.0
    assert snr_db(reference, np.array([1, 1, 1, 1], dtype)) == pytest.approx(10 * math.log10(3))
    assert max_error(reference, np.array([1, 1, 1, 1], dtype)) == 1.0


def test_shapes_that_would_broadcast_are_an_error():
    with pytest.raises(ParityError, match="another shape"):
        snr_db(np.ones((2, 1)), np.ones((1, 2)))
    with pytest.raises(ParityError, match="another shape"):
        max_error(np.ones(1), np.ones(2))


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("model", ["conv", "conv_batch2"])
def test_run_batched_gives_one_result_a_sample(tiny_artifact, count, model):
    feeds = {"input": np.random.default_rng(0).normal(size=(count, 3, 8, 8)).astype(np.float32)}
    expected = runtime.open_artifact(tiny_artifact("conv")).run(feeds)["output"]
    found = run_batched(runtime.open_artifact(tiny_artifact(model)), feeds, chunk=3)["output"]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_run_batched_refuses_no_samples_and_uneven_ones(tiny_artifact):
    session = runtime.open_artifact(tiny_artifact("two_inputs"))
    for sizes in ((0, 0), (2, 3)):
        feeds = {name: np.zeros((n, 4), np.float32) for name, n in zip(("left", "right"), sizes, strict=True)}
        with pytest.raises(FeedError, match="same number of samples"):
            run_batched(session, feeds)
    with pytest.raises(FeedError, match="same number of samples"):
        run_batched(session, {})


def test_run_batched_refuses_an_output_without_batch_axis(tiny_artifact):
    session = runtime.open_artifact(
        tiny_artifact("""total (float["batch", 4] input) => (float total) { total = ReduceSum<keepdims=0>(input) }""")
    )
    with pytest.raises(EngineError, match="output 'total' has no batch axis"):
        run_batched(session, {"input": np.ones((3, 4), np.float32)})


def test_run_batched_refuses_an_output_whose_size_differs_between_samples(tiny_artifact):
    text = """large (float["batch", 4] input) => (int64["batch", "found"] where)
    <int64[1] first = {0}, int64[1] end = {1}> {
        found = NonZero(input)
        where = Slice(found, first, end)
    }"""
    session = runtime.open_artifact(tiny_artifact(text))
    values = np.array([[1, 0, 0, 0], [1, 1, 0, 0]], np.float32)
    with pytest.raises(EngineError, match="output 'where' has another size for other samples") as caught:
        run_batched(session, {"input": values}, chunk=1)
    assert caught.value.found == "[1], [2]"
