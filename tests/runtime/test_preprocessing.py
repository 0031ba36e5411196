import numpy as np
import pytest

from edgekit.errors import FeedError
from edgekit.processing_specs import Preprocessing
from edgekit.runtime.preprocessing import preprocess, resize_bilinear

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (2, 6, 5, 3), dtype=np.uint8)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


def test_scale_mean_and_std_are_applied_in_that_order():
    settings = Preprocessing(layout="NHWC", scale=1 / 255, mean=MEAN, std=STD)
    expected = ((IMAGES / 255 - MEAN) / STD).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(preprocess(IMAGES, settings), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "NHW"])
@pytest.mark.parametrize("model_layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float64", "bool"])
def test_every_layout_and_dtype_becomes_contiguous_float32(layout, model_layout, dtype):
    raw = {"NHWC": IMAGES, "NCHW": IMAGES.transpose(0, 3, 1, 2), "NHW": IMAGES[..., 0]}[layout].astype(dtype)
    found = preprocess(raw, Preprocessing(layout=layout, model_layout=model_layout, scale=0.5))
    channels_last = (IMAGES[..., :1] if layout == "NHW" else IMAGES).astype(dtype)
    expected = channels_last if model_layout == "NHWC" else channels_last.transpose(0, 3, 1, 2)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected * np.float32(0.5))


def test_any_layout_keeps_the_axes():
    raw = RNG.normal(size=(3, 7))
    found = preprocess(raw, Preprocessing(scale=2.0, mean=(1.0,), std=(4.0,)))
    np.testing.assert_allclose(found, (raw * 2 - 1) / 4, rtol=1e-6, atol=1e-6)


def test_nothing_to_do_copies_nothing():
    raw = RNG.normal(size=(3, 7)).astype(np.float32)
    assert preprocess(raw, Preprocessing()) is raw


@pytest.mark.parametrize("size", [(6, 5), (12, 10), (3, 2), (7, 11), (1, 1), (4, 9)])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "NHW"])
def test_resize_is_torchs_bilinear(size, layout):
    import torch

    raw = {"NHWC": IMAGES, "NCHW": IMAGES.transpose(0, 3, 1, 2), "NHW": IMAGES[..., 0]}[layout]
    channels_first = IMAGES[..., :1] if layout == "NHW" else IMAGES
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(channels_first.transpose(0, 3, 1, 2).astype(np.float32)),
        size=size,
        mode="bilinear",
        align_corners=False,
    ).numpy()
    found = preprocess(raw, Preprocessing(layout=layout, resize=size))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-3)


def test_resize_to_the_same_size_is_the_batch_itself():
    assert resize_bilinear(IMAGES, (6, 5), axes=(1, 2)) is IMAGES


@pytest.mark.parametrize("raw", [IMAGES[0], IMAGES[np.newaxis], IMAGES[..., 0]])
def test_a_wrong_rank_is_an_error(raw):
    with pytest.raises(FeedError, match="wrong number of axes") as caught:
        preprocess(raw, Preprocessing(input="pixels", layout="NHWC"))
    assert "4 axes: NHWC" in str(caught.value.allowed)


@pytest.mark.parametrize(("mean", "std"), [(MEAN, (1.0,)), ((0.0,), STD)])
def test_a_wrong_channel_count_is_an_error(mean, std):
    with pytest.raises(FeedError, match="does not fit the number of channels") as caught:
        preprocess(IMAGES[..., :2], Preprocessing(layout="NHWC", mean=mean, std=std))
    assert "2 channels" in str(caught.value.found)


@pytest.mark.parametrize("settings", [{"mean": MEAN}, {"std": STD}, {"resize": (4, 4)}])
def test_any_layout_has_no_axes_to_resize_or_normalise(settings):
    with pytest.raises(FeedError, match="need to know the axes"):
        preprocess(IMAGES, Preprocessing(layout="any", **settings))


@pytest.mark.parametrize("raw", [np.array([["a"]]), np.array([[None]], object), [[1.0]], None])
def test_what_is_not_numbers_is_an_error(raw):
    with pytest.raises(FeedError, match="must be an array of numbers"):
        preprocess(raw, Preprocessing())


def test_an_empty_batch_is_an_error():
    with pytest.raises(FeedError, match="is empty"):
        preprocess(IMAGES[:0], Preprocessing(layout="NHWC"))


@pytest.mark.parametrize("settings", [{"layout": "CHW"}, {"layout": "NHWC", "model_layout": "NCWH"}])
def test_an_unknown_layout_is_an_error(settings):
    with pytest.raises(FeedError, match=r"unknown (model )?layout"):
        preprocess(IMAGES, Preprocessing(**settings))
