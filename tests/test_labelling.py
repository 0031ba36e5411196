from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tiny_recipe import edgekit, stripes

from edgekit.data import Samples
from edgekit.errors import DataError
from edgekit.labelling import joined, keep_labels, only_labelled


def samples(count: int = 30, start: int = 0, name: str = "x", **fields) -> Samples:
    x = np.arange(start, start + count, dtype=np.float32)[:, None]
    given = {"targets": np.arange(count) % 3} | fields
    return Samples(name="numbers", count=count, fetch=lambda indices: {name: x[indices]}, **given)


def test_a_share_of_the_labels_is_kept_by_class():
    few = keep_labels(samples(), 0.2, seed=1)
    kept = few.targets >= 0
    assert kept.sum() == 6
    assert np.bincount(few.targets[kept]).tolist() == [2, 2, 2]
    assert np.array_equal(few.targets[kept], samples().targets[kept])
    assert np.array_equal(few.raw(range(30))["x"], samples().raw(range(30))["x"])
    assert not np.array_equal(kept, keep_labels(samples(), 0.2, seed=2).targets >= 0)
    assert len(only_labelled(few)) == 6
    assert only_labelled(samples()).count == 30


def test_joined_samples_come_in_the_order_they_are_asked_for():
    both = joined(samples(), samples(10, start=100))
    assert len(both) == 40
    assert both.raw([35, 2, 39, 0])["x"][:, 0].tolist() == [105, 2, 109, 0]
    assert both.raw([30])["x"][:, 0].tolist() == [100]
    assert both.raw([1, 3])["x"][:, 0].tolist() == [1, 3]
    assert (both.targets[30:] == -1).all()
    assert both.subset([39, 1]).raw([0, 1])["x"][:, 0].tolist() == [109, 1]
    assert joined(samples(targets=None), samples(4)).targets is None


def test_what_does_not_go_together_is_refused():
    with pytest.raises(DataError, match=r"(?s)data.unlabelled: the samples are not like those.*no input of that name"):
        joined(samples(), samples(name="y"))
    wide = dataclasses.replace(samples(), fetch=lambda indices: {"x": np.zeros((len(indices), 2), np.float32)})
    with pytest.raises(DataError, match=r"(?s)x: float32\[2\].*x: float32\[1\]"):
        joined(samples(), wide)
    grouped = samples(groups=np.zeros(30, np.int64), group_names=("a",))
    with pytest.raises(DataError, match="not of the same groups"):
        joined(grouped, samples())
    assert joined(grouped, grouped).groups.tolist() == [0] * 60
    with pytest.raises(DataError, match="there are none"):
        keep_labels(samples(targets=None), 0.5, seed=0)


def test_a_recipe_learns_from_few_labels_and_more_samples(project):
    images, _ = stripes(96, seed=7)
    np.savez(project / "more.npz", x=images)
    few = ("--set", "data.labelled=0.1", "--set", "data.unlabelled=more.npz", "--set", "distillation.epochs=3")
    result = edgekit("distill", project, "--out", project / "out", *few)
    assert result.exit_code == 0, result.stderr
    without = edgekit("distill", project, "--out", project / "out", *few[2:])
    assert without.exit_code == 0, without.stderr
    assert len(list((project / "out").glob(".steps/student-*"))) == 2
    assert len(list((project / "out").glob(".steps/teacher-*"))) == 2
