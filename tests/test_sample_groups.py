"""Groups of samples: read, kept, and told where they are missing."""

import dataclasses

import numpy as np
import pytest
import torch
from fake_line import make_recipe, write_project

from edgekit._groups import numbered
from edgekit.data import Samples, load_samples, renamed, split_validation
from edgekit.errors import DataError
from edgekit.ingredients import load_data

X = np.arange(12, dtype=np.float32).reshape(6, 2)
LANGUAGES = np.array(["en", "de", "en", "fr", "de", "en"])


def load(spec, base, **options):
    return load_samples(str(spec), base=base, preprocessing=None, **options)


@pytest.mark.parametrize(
    ("values", "numbers", "names"),
    [
        (LANGUAGES, [1, 0, 1, 2, 0, 1], ("de", "en", "fr")),
        (list(LANGUAGES), [1, 0, 1, 2, 0, 1], ("de", "en", "fr")),
        (torch.tensor([10, 9, 10, 9, 9, 200]), [1, 0, 1, 0, 0, 2], ("9", "10", "200")),
    ],
)
def test_groups_are_numbered_and_named(values, numbers, names):
    found, named = numbered(values, 6, "here")
    assert (found.dtype, found.tolist(), named) == (np.int64, numbers, names)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (np.ones(6), "neither text nor whole numbers\n  found:   ndarray of float64"),
        ([[1], [1, 2]], "neither text nor whole numbers\n  found:   list of object"),
        (np.ones((6, 2), np.int64), r"differ in number\n\s+found:\s+6 samples, groups of shape \[6, 2\]"),
        (LANGUAGES[:4], r"differ in number\n\s+found:\s+6 samples, groups of shape \[4\]"),
    ],
)
def test_groups_of_another_kind_or_number(values, match):
    with pytest.raises(DataError, match=rf"^here(:| are) .*{match}"):
        numbered(values, 6, "here")


def test_groups_of_an_npz_are_no_input(tmp_path):
    np.savez(tmp_path / "d.npz", x=X, y=np.arange(6) % 2, language=LANGUAGES)
    samples = load("d.npz", tmp_path, groups="language")
    assert list(samples.raw([0])) == ["input"]
    assert samples.groups.tolist() == [1, 0, 1, 2, 0, 1]
    assert samples.group_names == ("de", "en", "fr")


def test_the_labels_may_be_the_groups(tmp_path):
    np.savez(tmp_path / "d.npz", x=X, y=np.arange(6) % 2)
    samples = load("d.npz", tmp_path, groups="y")
    assert samples.groups.tolist() == samples.targets.tolist() == [0, 1, 0, 1, 0, 1]


DATASETS = """
import torch

class Spoken:
    language = ["en", "de", "en"]
    def __len__(self):
        return 3
    def __getitem__(self, index):
        return torch.full((2,), float(index)), index % 2

class Owned(Spoken):
    def __init__(self):
        self.domain = torch.tensor([4, 4, 2])

short = Owned()
short.domain = short.domain[:2]
"""


@pytest.fixture
def datasets(tmp_path):
    name = f"spoken_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(DATASETS)
    return name


def test_groups_of_a_dataset(tmp_path, datasets):
    spoken = load(f"{datasets}:Spoken", tmp_path, groups="language")
    assert (spoken.groups.tolist(), spoken.group_names) == ([1, 0, 1], ("de", "en"))
    owned = load(f"{datasets}:Owned", tmp_path, groups="domain")
    assert (owned.groups.tolist(), owned.group_names) == ([1, 1, 0], ("2", "4"))


def test_groups_that_are_missing(tmp_path, datasets):
    np.savez(tmp_path / "d.npz", x=X, language=LANGUAGES)
    with pytest.raises(
        DataError, match=r"d.npz: no array 'langage' (.|\n)*x, language\n(.|\n)*did you mean 'language'"
    ):
        load("d.npz", tmp_path, groups="langage")
    with pytest.raises(DataError, match=r"Owned: no attribute 'domains' (.|\n)*did you mean 'domain'"):
        load(f"{datasets}:Owned", tmp_path, groups="domains")
    with pytest.raises(DataError, match=r"short: groups 'domain': samples and groups differ in number"):
        load(f"{datasets}:short", tmp_path, groups="domain")
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match=r"images by class have no groups\n\s+found:\s+data.groups = 'language'"):
        load("images", tmp_path, groups="language")


def grouped(count=60):
    return Samples(
        name="memory",
        count=count,
        fetch=lambda i: {"input": np.arange(count, dtype=np.float32)[i, None]},
        targets=np.arange(count) % 2,
        groups=np.arange(count) % 3,
        group_names=("a", "b", "c"),
    )


def test_groups_go_with_their_samples():
    for part in (*split_validation(grouped(), 0.2, 0), renamed(grouped(), "x").subset([7, 2])):
        rows = next(iter(part.raw(np.arange(len(part))).values()))[:, 0]
        np.testing.assert_array_equal(part.groups, rows % 3)
        assert part.group_names == ("a", "b", "c")


def test_a_fingerprint_counts_groups_only_where_there_are_some():
    samples = grouped()
    plain = dataclasses.replace(samples, groups=None, group_names=())
    other = dataclasses.replace(samples, groups=samples.groups[::-1].copy())
    named = dataclasses.replace(samples, group_names=("a", "b", "d"))
    assert len({s.fingerprint() for s in (samples, plain, other, named)}) == 4


def test_a_fingerprint_without_groups_is_what_it_was():
    """Caches and bundles of earlier versions know samples by it."""
    assert Samples(name="d", count=6, fetch=lambda i: {"input": X[i]}).fingerprint() == FINGERPRINT


FINGERPRINT = "0d0e960fce0f753d32a6b98fdbe4b03dd595ac817d1ba100ec16f8ed4e32ffdd"


def test_a_recipe_names_the_groups_of_both_sets(tmp_path):
    folder = write_project(tmp_path / "project")
    data = {"train": "train.npz", "test": "test.npz", "groups": "language"}
    sets = {name: dict(np.load(folder / f"{name}.npz")) for name in ("train", "test")}
    counts = {name: len(next(iter(arrays.values()))) for name, arrays in sets.items()}
    np.savez(folder / "train.npz", **sets["train"], language=np.resize(["de", "en"], counts["train"]))
    with pytest.raises(DataError, match=r"data.test: .*test.npz: no array 'language'"):
        load_data(make_recipe(data=data), folder, None)
    np.savez(folder / "test.npz", **sets["test"], language=np.resize(["fr", "en"], counts["test"]))
    found = load_data(make_recipe(data=data), folder, None)
    assert (found.train.group_names, found.test.group_names) == (("de", "en"), ("en", "fr"))
    assert len(found.train.groups) == len(found.train)
    assert len(found.validation.groups) == len(found.validation)
    assert len(found.test.groups) == len(found.test)
