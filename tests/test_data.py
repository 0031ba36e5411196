import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.artifact import TensorSpec
from edgekit.data import (
    Samples,
    check_disjoint,
    check_inputs,
    draw_calibration,
    load_samples,
    renamed,
    split_validation,
)
from edgekit.errors import DataError
from edgekit.processing_specs import Preprocessing
from edgekit.random_inputs import random_samples


def _npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def _load(spec: str | Path, base: Path, **options: Any) -> Samples:
    return load_samples(str(spec), base=base, **{"preprocessing": None, **options})


def _of(x: np.ndarray, y: np.ndarray | None = None, name: str = "memory") -> Samples:
    return Samples(name=name, count=len(x), fetch=lambda indices: {"input": x[indices]}, targets=y)


def _digits(n: int = 12) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"x": rng.integers(0, 255, (n, 4, 4), dtype=np.uint8), "y": np.arange(n) % 3}


def test_missing_files_and_unknown_kinds(tmp_path: Path) -> None:
    _npz(tmp_path / "train.npz", **_digits())
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"trian.npz: no such file or folder(.|\n)*did you mean 'train.npz'"):
        _load("trian.npz", tmp_path)
    with pytest.raises(DataError, match=r"found:\s+.txt\n\s+allowed:\s+an .npz file, a folder"):
        _load("notes.txt", tmp_path)
    with pytest.raises(DataError, match="is not an archive"):
        _load("train.npz!train", tmp_path)


def test_environment_variables_in_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _npz(tmp_path / "d.npz", **_digits())
    monkeypatch.setenv("SOME_FOLDER", str(tmp_path))
    monkeypatch.delenv("NO_FOLDER", raising=False)
    samples = _load("$SOME_FOLDER/d.npz", Path("/nowhere"))
    assert (len(samples), samples.name) == (12, "$SOME_FOLDER/d.npz")
    with pytest.raises(DataError, match="the environment variable NO_FOLDER is not set"):
        _load("${NO_FOLDER}/d.npz", tmp_path)


@pytest.mark.parametrize("spec", ["$NO_FOLDER/d.npz", "d.npz"])
def test_missing_samples_say_where_they_can_be_had(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_FOLDER", raising=False)
    with pytest.raises(DataError, match=r"the samples can be had from https://example\.org") as told:
        _load(spec, tmp_path, origin="https://example.org")
    assert ("export NO_FOLDER=" in str(told.value)) == spec.startswith("$")


def test_the_name_holds_no_absolute_path(tmp_path: Path) -> None:
    assert _load(_npz(tmp_path / "d.npz", **_digits()), tmp_path).name == "d.npz"


def test_subsets_compose() -> None:
    samples = _of(np.arange(10), np.arange(10)).subset([8, 6, 4, 2]).subset([3, 0])
    assert samples.raw([0, 1])["input"].tolist() == [2, 8]
    assert samples.targets is not None
    assert samples.targets.tolist() == [2, 8]
    assert len(samples) == 2


def test_batches_can_be_walked_again() -> None:
    batches = _of(np.arange(7)).batches(3)
    assert len(batches) == 3
    for _ in range(2):
        assert [batch["input"].tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]


def test_the_fingerprint_is_of_content(tmp_path: Path) -> None:
    x, y = _digits()["x"], _digits()["y"]
    mark = _of(x, y).fingerprint()
    assert mark == _of(x.copy(), y.copy(), name="elsewhere").fingerprint()
    changed = x.copy()
    changed[11, 3, 3] += 1
    others = [_of(changed, y), _of(x, y[::-1]), _of(x), _of(x[::-1], y), _of(x[:-1], y[:-1])]
    assert mark not in {samples.fingerprint() for samples in others}


def test_renamed_takes_the_preprocessing_along(tmp_path: Path) -> None:
    _npz(tmp_path / "d.npz", **_digits())
    samples = renamed(_load("d.npz", tmp_path, preprocessing=Preprocessing(scale=2.0)), "pixels")
    np.testing.assert_array_equal(samples.tensors([1])["pixels"], samples.raw([1])["pixels"] * 2.0)
    _npz(tmp_path / "two.npz", a=np.ones((2, 2)), b=np.ones((2, 2)))
    with pytest.raises(DataError, match=r"several inputs(.|\n)*a, b"):
        renamed(_load("two.npz", tmp_path), "c")


def test_validation_is_split_off_by_class() -> None:
    y = np.repeat([0, 1, 2], [50, 40, 10])
    kept, validation = split_validation(_of(np.arange(100), y), 0.2, seed=0)
    assert validation.targets is not None
    assert np.bincount(validation.targets).tolist() == [10, 8, 2]
    both = np.concatenate([s.raw(np.arange(len(s)))["input"] for s in (kept, validation)])
    assert sorted(both.tolist()) == list(range(100))
    again = split_validation(_of(np.arange(100), y), 0.2, seed=0)[1]
    other = split_validation(_of(np.arange(100), y), 0.2, seed=1)[1]
    assert validation.digests() == again.digests() != other.digests()


def test_validation_leaves_a_sample_of_every_class_for_training() -> None:
    kept, validation = split_validation(_of(np.arange(12), np.array([0] * 10 + [1] + [2])), 0.5, seed=0)
    assert kept.targets is not None
    assert set(kept.targets) == {0, 1, 2}
    assert len(validation) == 6


def test_a_split_needs_two_samples() -> None:
    with pytest.raises(DataError, match="too few samples"):
        split_validation(_of(np.arange(1)), 0.5, seed=0)


def test_calibration_has_every_class() -> None:
    y = np.repeat([0, 1, 2], [900, 95, 5])
    drawn = draw_calibration(_of(np.arange(1000), y), 30, seed=0)
    assert drawn.targets is not None
    assert np.bincount(drawn.targets).tolist() == [27, 2, 1]
    assert len(draw_calibration(_of(np.arange(10), np.arange(10) % 2), 300, seed=0)) == 10


@pytest.mark.parametrize("count", [1, 2, 7, 39, 40])
def test_a_draw_is_of_the_size_asked_for(count: int) -> None:
    y = np.repeat(np.arange(8), [1, 1, 1, 1, 2, 4, 10, 20])
    drawn = draw_calibration(_of(np.arange(40), y), count, seed=3)
    assert len(set(drawn.raw(np.arange(count))["input"].tolist())) == count == len(drawn)


def test_an_unlabelled_draw() -> None:
    drawn = draw_calibration(_of(np.arange(100)), 10, seed=0).raw(np.arange(10))["input"]
    assert len(set(drawn.tolist())) == 10


def test_shared_samples_are_found() -> None:
    x = np.random.default_rng(0).random((40, 3))
    test = _of(x[20:], name="test.npz")
    check_disjoint(_of(x[:20]), test, "calibration")
    leaking = _of(np.concatenate([x[:5], x[[33, 21]]]))
    with pytest.raises(
        DataError,
        match=r"calibration samples are in the test set test.npz\n\s+found:\s+2 of 7, the first is "
        r"calibration sample 5 = test sample 13",
    ):
        check_disjoint(leaking, test, "calibration")


@pytest.mark.skipif("EDGEKIT_DATA" not in os.environ, reason="EDGEKIT_DATA names no folder of real data")
def test_real_images_are_split_and_shared_with_no_test_set() -> None:
    pixels = Preprocessing(layout="NHW", scale=1 / 255)
    train, test = (
        load_samples(f"$EDGEKIT_DATA/fashion-mnist/{part}.npz", base=Path(), preprocessing=pixels)
        for part in ("train", "test")
    )
    kept, validation = split_validation(train, 0.1, seed=0)
    assert (len(kept), len(validation), len(test)) == (54_000, 6_000, 10_000)
    assert validation.targets is not None
    assert set(np.bincount(validation.targets)) == {600}
    check_disjoint(train, test, "training")
    with pytest.raises(DataError, match="10000 of 10000"):
        check_disjoint(test, test, "calibration")


SPECS = (
    TensorSpec(name="x", dtype="float32", shape=("batch", 3, 2)),
    TensorSpec(name="ids", dtype="int64", shape=(1, 4)),
)


def test_random_samples_fit_the_model() -> None:
    samples = random_samples(SPECS, count=500, seed=0)
    check_inputs(samples, SPECS)
    assert (samples.name, len(samples), samples.targets) == ("random", 500, None)
    drawn = samples.raw(np.arange(500))
    assert abs(drawn["x"].mean()) < 0.1
    assert abs(drawn["x"].std() - 1) < 0.1
    assert set(drawn["ids"].ravel()) == {0, 1}
    np.testing.assert_array_equal(samples.raw([7])["x"][0], drawn["x"][7])
    assert samples.fingerprint() != random_samples(SPECS, count=500, seed=1).fingerprint()


def test_random_samples_need_sizes() -> None:
    spec = TensorSpec(name="ids", dtype="int64", shape=("batch", "length"))
    with pytest.raises(DataError, match=r"input 'ids' has no fixed shape(.|\n)*--input ids="):
        random_samples([spec])


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"x": np.ones((2, 3, 2), np.float32)}, "'ids' has no samples"),
        (
            {"x": np.ones((2, 3, 2), np.float32), "id": np.ones((2, 4), np.int64)},
            r"'id' is not an input of the model(.|\n)*did you mean 'ids'",
        ),
        (
            {"x": np.ones((2, 3, 2), np.uint8), "ids": np.ones((2, 4), np.int64)},
            r"input 'x' has the wrong dtype\n\s+found:\s+uint8\[batch, 3, 2\]\n\s+allowed:\s+x: float32",
        ),
        (
            {"x": np.ones((2, 2, 3), np.float32), "ids": np.ones((2, 4), np.int64)},
            r"input 'x' has the wrong shape\n\s+found:\s+float32\[batch, 2, 3\]",
        ),
    ],
)
def test_inputs_that_do_not_fit_the_model(arrays: dict[str, np.ndarray], match: str) -> None:
    samples = Samples(name="d.npz", count=2, fetch=lambda i: {name: array[i] for name, array in arrays.items()})
    with pytest.raises(DataError, match=f"d.npz: {match}"):
        check_inputs(samples, SPECS)
