"""Views of samples: what each change does, and what decides it."""

import numpy as np
import pytest
import torch

from edgekit.distillation.augmentation import crop, erase, flip, make_view
from edgekit.distillation.sample_draws import Draws
from edgekit.errors import SpecError, TrainingError
from edgekit.recipe_augmentation import Augmentation

ALONE = [{"flip": True}, {"crop": 2}, {"erase": 0.7}, {"noise": 0.3}]
ALL = {"flip": True, "crop": 2, "erase": 0.7, "noise": 0.3}
MIXED = [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 1.0}]


def draws(count, view=0):
    return Draws(seed=0, view=view, indices=np.arange(count))


def pixels(count=20, channels=3, height=8, width=10, seed=0):
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(seed)) + 0.5


def viewed(settings, images, labels=None, indices=None, view=0, *, seed=0, base=None):
    made = make_view(Augmentation(**settings), seed=seed, classes=3, base=base)
    return made({"input": images}, labels, np.arange(len(images)) if indices is None else indices, view)


# ---- what decides it ----


@pytest.mark.parametrize("settings", [*ALONE, ALL, *MIXED])
def test_the_same_view_twice_is_identical_and_another_differs(settings):
    labels = torch.arange(20) % 3
    first, again, other = (viewed(settings, pixels(), labels, view=view) for view in (0, 0, 1))
    assert torch.equal(first[0]["input"], again[0]["input"])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0]["input"], other[0]["input"])
    assert not torch.equal(first[0]["input"], viewed(settings, pixels(), labels, seed=1)[0]["input"])


@pytest.mark.parametrize("settings", [*ALONE, ALL])
def test_a_sample_is_varied_alike_in_every_batch(settings):
    whole = viewed(settings, pixels())[0]["input"]
    some = np.array([13, 2, 7])
    assert torch.equal(viewed(settings, pixels()[some], indices=some)[0]["input"], whole[some])


@pytest.mark.parametrize("settings", [ALL, *MIXED])
def test_global_random_state_is_neither_read_nor_changed(settings):
    torch.manual_seed(1), np.random.seed(1)
    first = viewed(settings, pixels())[0]["input"]
    expected = torch.rand(1).item(), np.random.rand()
    torch.manual_seed(1), np.random.seed(1)
    assert (torch.rand(1).item(), np.random.rand()) == expected
    assert torch.equal(viewed(settings, pixels())[0]["input"], first)


@pytest.mark.parametrize("settings", [*ALONE, *MIXED])
def test_the_samples_given_stay(settings):
    images = pixels()
    viewed(settings, images)
    assert torch.equal(images, pixels())


def test_nothing_to_do_gives_the_samples_back():
    labels = torch.arange(20)
    inputs, kept = viewed({}, pixels(), labels)
    assert torch.equal(inputs["input"], pixels())
    assert kept is labels


def test_labels_stay_unless_the_batch_is_mixed():
    labels = torch.arange(20) % 3
    assert viewed(ALL, pixels(), labels)[1] is labels
    mixed = viewed(ALL | {"mixup": 1.0}, pixels(), labels)[1]
    assert (mixed.dtype, mixed.shape) == (torch.float32, (20, 3))


# ---- flip ----


def test_half_of_the_images_are_mirrored_exactly():
    images = pixels(1000, 1, 2, 4)
    found = flip(images, draws(1000))
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(found, images, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(found, images, strict=True)]
    assert all(m != k for m, k in zip(mirrored, kept, strict=True))
    assert 430 < sum(mirrored) < 570


# ---- crop ----


def test_a_crop_is_the_image_moved_with_zeros_coming_in():
    images, pad = pixels(300, 2, 5, 7), 2
    found = crop(images, pad, draws(300))
    moves = []
    for image, moved in zip(images, found, strict=True):
        framed = torch.nn.functional.pad(image, (pad,) * 4)
        places = [(y, x) for y in range(5) for x in range(5) if torch.equal(framed[:, y : y + 5, x : x + 7], moved)]
        assert len(places) == 1
        moves += places
    counts = np.unique(np.array(moves) @ [5, 1], return_counts=True)[1]
    assert len(counts) == 25
    assert ((counts - 12) ** 2 / 12).sum() < 51  # chi-square of 24 degrees of freedom: 1 in 1000 is above


def test_images_cannot_be_moved_out_of_sight():
    with pytest.raises(TrainingError, match=r"out of sight\n\s+found:\s+crop = 8 pixels for images of 8 x 10"):
        viewed({"crop": 8}, pixels())


# ---- erase ----


def test_one_rectangle_is_blanked_in_that_share_of_the_images():
    images = pixels(600, 2, 32, 32)
    found = erase(images, 0.4, draws(600))
    touched = 0
    areas = []
    for image, erased in zip(images, found, strict=True):
        blank = (erased == 0).all(0)
        assert torch.equal(erased, image * ~blank)
        if blank.any():
            touched += 1
            rows, columns = blank.any(1).nonzero(), blank.any(0).nonzero()
            high, wide = (int(span.max() - span.min()) + 1 for span in (rows, columns))
            assert high * wide == blank.sum()  # a full rectangle
            areas.append(high * wide / 32**2)
            assert 0.2 < high / wide < 5  # 0.3 to 3.3, to the pixel
    assert touched == pytest.approx(240, abs=48)
    assert min(areas) > 0.01
    assert max(areas) < 0.42
    assert np.mean(areas) == pytest.approx(0.21, abs=0.02)  # evenly between 2% and 40%


def test_rectangles_fit_long_images():
    images = pixels(200, 1, 4, 200)
    blanked = (erase(images, 1.0, draws(200)) == 0).flatten(1).float().mean(1)
    assert blanked.min() > 0.01
    assert blanked.mean() == pytest.approx(0.21, abs=0.03)


def test_all_or_none_are_erased():
    images = pixels(50)
    assert (erase(images, 1.0, draws(50)) == 0).flatten(1).any(1).all()
    assert torch.equal(erase(images, 0.0, draws(50)), images)


# ---- noise ----


def test_noise_has_its_deviation_in_every_float_input():
    view = make_view(Augmentation(noise=0.25), seed=0, classes=3, base=None)
    inputs = {
        "a": torch.zeros(100, 50),
        "b": torch.zeros(100, 50, dtype=torch.float64),
        "ids": torch.ones(100, 2, dtype=torch.int64),
    }
    found = view(inputs, None, np.arange(100), 0)[0]
    for name in ("a", "b"):
        assert found[name].std() == pytest.approx(0.25, abs=0.01)
        assert found[name].dtype == inputs[name].dtype
    assert not torch.equal(found["a"], found["b"].float())
    assert torch.equal(found["ids"], inputs["ids"])


# ---- what they apply to ----


def test_images_of_one_sample_are_varied_alike_and_other_inputs_stay():
    images = pixels()
    view = make_view(Augmentation(flip=True, crop=2, erase=1.0), seed=0, classes=3, base=None)
    inputs = {"left": images, "right": 2 * images, "vector": torch.ones(20, 5), "ids": torch.ones(20, 2).long()}
    found = view(inputs, None, np.arange(20), 0)[0]
    assert torch.equal(found["right"], 2 * found["left"])
    assert not torch.equal(found["left"], images)
    assert found["vector"] is inputs["vector"]
    assert found["ids"] is inputs["ids"]


@pytest.mark.parametrize("key", ["flip", "crop", "erase"])
def test_samples_without_images(key):
    for images in (torch.ones(4, 8), torch.ones(4, 3, 8, 8, dtype=torch.uint8)):
        with pytest.raises(TrainingError, match=rf"augmentation.{key}: the samples have no input(.|\n)*input: "):
            viewed({key: True if key == "flip" else 1}, images)


def test_samples_without_floats():
    with pytest.raises(TrainingError, match=r"augmentation.noise: the samples have no input(.|\n)*int64\[n, 8\]"):
        viewed({"noise": 0.1}, torch.ones(4, 8, dtype=torch.int64))


# ---- the user's own ----

OWN = """
import torch

def louder(inputs, labels, generator):
    return {"input": inputs["input"] * torch.rand(1, generator=generator)}

def softer(inputs, labels, generator):
    return inputs, torch.nn.functional.one_hot(labels, 3).float() * 0.9 + 0.1 / 3

def relabelled(inputs, labels, generator):
    return inputs, 2 - labels

def grown(inputs, labels, generator):
    inputs["more"] = inputs["input"]
    return inputs

def shorter(inputs, labels, generator):
    return {"input": inputs["input"][1:]}

def double(inputs, labels, generator):
    return {"input": inputs["input"].double()}

def alone(inputs, labels, generator):
    return inputs["input"]

def bad_labels(inputs, labels, generator):
    return inputs, labels.float()

def made_labels(inputs, labels, generator):
    return inputs, torch.zeros(len(inputs["input"]), dtype=torch.int64)

def failing(inputs, labels, generator):
    return inputs["pixels"]
"""


@pytest.fixture
def own(tmp_path):
    name = f"views_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(OWN)

    def call(attr, labels=None, view=0, **settings):
        return viewed({"own": f"{name}:{attr}"} | settings, pixels(), labels, view=view, base=tmp_path)

    return call


def test_an_own_callable_draws_from_its_generator(own):
    first, again, other = (own("louder", view=view)[0]["input"] for view in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    ratio = first / pixels()
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio))


def test_an_own_callable_may_change_labels_before_they_are_mixed(own):
    labels = torch.arange(20) % 3
    assert torch.equal(own("relabelled", labels)[1], 2 - labels)
    soft = own("softer", labels)[1]
    torch.testing.assert_close(soft.sum(1), torch.ones(20))
    mixed = own("softer", labels, mixup=1.0)[1]
    torch.testing.assert_close(mixed.sum(1), torch.ones(20))
    assert mixed.min() >= 0.1 / 3 - 1e-6


@pytest.mark.parametrize(
    ("attr", "labelled", "match"),
    [
        ("grown", True, r"returns other inputs(.|\n)*found:\s+input: 20 of float32, more: 20 of float32"),
        ("shorter", True, r"returns other inputs(.|\n)*found:\s+input: 19 of float32"),
        ("double", True, r"returns other inputs(.|\n)*found:\s+input: 20 of float64"),
        ("alone", True, r"does not return inputs\n\s+found:\s+Tensor"),
        ("bad_labels", True, r"does not return labels\n\s+found:\s+labels: float32\[n\]"),
        ("made_labels", False, r"does not return labels(.|\n)*None for samples without labels"),
        ("failing", True, r"failed on a batch\n\s+found:\s+KeyError: 'pixels'"),
    ],
)
def test_own_callables_that_go_wrong(own, attr, labelled, match):
    with pytest.raises(TrainingError, match=rf"augmentation.own = 'views_\w+:{attr}' {match}"):
        own(attr, torch.arange(20) % 3 if labelled else None)


def test_an_own_callable_that_is_not_there(own):
    with pytest.raises(SpecError, match=r"augmentation.own: module .* has no 'loudr'(.|\n)*did you mean 'louder'"):
        own("loudr")
