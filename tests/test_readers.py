from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.data import Samples, load_samples
from edgekit.errors import DataError
from edgekit.processing_specs import Preprocessing


def _npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def _load(spec: str | Path, base: Path, **options: Any) -> Samples:
    return load_samples(str(spec), base=base, **{"preprocessing": None, **options})


def _digits(n: int = 12) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"x": rng.integers(0, 255, (n, 4, 4), dtype=np.uint8), "y": np.arange(n) % 3}


def test_npz_keeps_raw_samples_and_preprocesses_when_asked(tmp_path: Path) -> None:
    stored = _digits()
    _npz(tmp_path / "d.npz", **stored)
    samples = _load("d.npz", tmp_path, preprocessing=Preprocessing(input="image", layout="NHW", scale=1 / 255))
    assert len(samples) == 12
    raw = samples.raw([3, 1])["image"]
    assert raw.dtype == np.uint8
    np.testing.assert_array_equal(raw, stored["x"][[3, 1]])
    tensor = samples.tensors([3, 1])["image"]
    assert (tensor.dtype, tensor.shape) == (np.float32, (2, 1, 4, 4))
    np.testing.assert_allclose(tensor[:, 0], stored["x"][[3, 1]] / 255, rtol=1e-6)
    assert samples.targets is not None
    assert samples.targets.dtype == np.int64


def test_npz_with_arrays_by_input_name(tmp_path: Path) -> None:
    _npz(tmp_path / "d.npz", ids=np.ones((4, 7), np.int64), mask=np.ones((4, 7), bool), labels=[0, 1, 0, 1])
    samples = _load("d.npz", tmp_path)
    assert {name: array.dtype for name, array in samples.tensors([0]).items()} == {"ids": np.int64, "mask": np.bool_}


def test_a_lone_array_keeps_its_name_unless_the_recipe_names_the_input(tmp_path: Path) -> None:
    _npz(tmp_path / "d.npz", pixels=np.ones((4, 7), np.float32))
    assert list(_load("d.npz", tmp_path).raw([0])) == ["pixels"]
    assert list(_load("d.npz", tmp_path, input_name="data").raw([0])) == ["data"]


def test_preprocessing_of_one_of_several_inputs_is_found_by_name(tmp_path: Path) -> None:
    _npz(tmp_path / "d.npz", a=np.full((4, 2), 10.0), b=np.full((4, 2), 10.0))
    samples = _load("d.npz", tmp_path, preprocessing=Preprocessing(input="b", scale=0.1))
    found = samples.tensors([0])
    assert (found["a"][0, 0], found["b"][0, 0]) == (10, 1)
    with pytest.raises(DataError, match=r"found:\s+c\n\s+allowed:\s+a, b"):
        _load("d.npz", tmp_path, preprocessing=Preprocessing(input="c"))


def test_floats_reach_the_model_as_float32(tmp_path: Path) -> None:
    _npz(tmp_path / "d.npz", x=np.ones((4, 2)))
    samples = _load("d.npz", tmp_path)
    assert samples.raw([0])["input"].dtype == np.float64
    assert samples.tensors([0])["input"].dtype == np.float32


def test_whole_float_labels_are_class_labels_and_others_stay(tmp_path: Path) -> None:
    x = np.ones((4, 2), np.float32)
    classes = _load(_npz(tmp_path / "a.npz", x=x, y=np.array([0.0, 1.0, 2.0, 1.0])), tmp_path).targets
    column = _load(_npz(tmp_path / "b.npz", x=x, y=np.array([[0], [1], [2], [1]], np.uint8)), tmp_path).targets
    values = _load(_npz(tmp_path / "c.npz", x=x, y=np.array([0.5, 1.0, 2.0, 1.0])), tmp_path).targets
    assert classes is not None
    assert column is not None
    assert values is not None
    assert (classes.dtype, classes.tolist()) == (np.int64, [0, 1, 2, 1])
    assert (column.dtype, column.tolist()) == (np.int64, [0, 1, 2, 1])
    assert values.dtype == np.float64


X = np.ones((4, 2), np.float32)
BROKEN = X.copy()
BROKEN[2, 1] = np.nan

BAD_NPZ: list[tuple[dict[str, Any], str]] = [
    ({"x": X, "y": np.arange(3)}, r"differ in number\n\s+found:\s+4 samples, 3 labels"),
    ({"a": X, "b": X[:2]}, r"different numbers of samples\n\s+found:\s+a: 4, b: 2"),
    ({"x": X[:0], "y": np.arange(0)}, r"'input' is empty\n\s+found:\s+shape \[0, 2\]"),
    ({"x": np.float32(3)}, "'input' is empty"),
    ({"y": np.arange(3)}, "no samples"),
    ({"x": BROKEN}, r"'input' holds NaN or infinity\n\s+found:\s+sample 2: nan"),
    ({"x": np.where(X > 0, np.inf, X)}, "sample 0: inf"),
    ({"x": X, "y": [0.5, np.nan, 1, 2]}, "'labels' holds NaN"),
    ({"x": X, "y": [0, 1, -1, 2]}, r"label is out of range\n\s+found:\s+-1 at sample 2 \(1 in all\)"),
    ({"x": X, "y": [1, 1, 1, 1]}, r"all samples are of one class\n\s+found:\s+4 samples of class 1"),
    ({"x": X, "y": ["cat", "dog", "cat", "dog"]}, r"the labels are text\n(.|\n)*data.labels"),
    ({"x": np.array(["a", "b"])}, "'input' is not numbers"),
    ({"x": np.ones(4, np.complex64)}, "complex64"),
]


@pytest.mark.parametrize(("arrays", "match"), BAD_NPZ)
def test_bad_npz_says_file_and_problem(tmp_path: Path, arrays: dict[str, Any], match: str) -> None:
    _npz(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match=rf"^edgekit.toml: data.train: .*bad.npz: (.|\n)*{match}"):
        _load("bad.npz", tmp_path, where="edgekit.toml: data.train")


def test_labels_are_bounded_by_the_class_names(tmp_path: Path) -> None:
    _npz(tmp_path / "d.npz", x=X, y=[0, 1, 2, 3])
    assert _load("d.npz", tmp_path, labels=("a", "b", "c", "d")).classes == ("a", "b", "c", "d")
    with pytest.raises(DataError, match=r"3 at sample 3 \(1 in all\)\n\s+allowed:\s+0 to 2 \(3 class names\)"):
        _load("d.npz", tmp_path, labels=("a", "b", "c"))


class _Planted:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_objects_in_npz_are_refused_and_never_run(tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    _npz(tmp_path / "d.npz", x=np.array([_Planted(planted), None], dtype=object))
    with pytest.raises(DataError, match="Python objects"):
        _load("d.npz", tmp_path)
    assert not planted.exists()


def test_a_damaged_npz(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DataError, match=r"text.npz: not an .npz file\n\s+found:\s+5 bytes"):
        _load("text.npz", tmp_path)
    whole = _npz(tmp_path / "whole.npz", **_digits()).read_bytes()
    (tmp_path / "flipped.npz").write_bytes(whole[:200] + bytes(64) + whole[264:])
    with pytest.raises(DataError, match="cannot be read"):
        _load("flipped.npz", tmp_path)


def test_finite_check_reports_the_index_beyond_its_first_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit._readers.CHUNK_BYTES", 64)
    x = np.ones((50, 4), np.float32)
    x[37, 2] = -np.inf
    _npz(tmp_path / "d.npz", x=x)
    with pytest.raises(DataError, match="sample 37: -inf"):
        _load("d.npz", tmp_path)


def test_samples_that_do_not_fit_the_preprocessing(tmp_path: Path) -> None:
    _npz(tmp_path / "d.npz", x=np.ones((4, 8, 8), np.uint8))
    with pytest.raises(DataError, match=r"d.npz: the samples do not fit the recipe's \[input\](.|\n)*NHWC"):
        _load("d.npz", tmp_path, preprocessing=Preprocessing(layout="NHWC"))


DATASETS = """
import numpy as np
import torch
from torch.utils.data import Dataset, TensorDataset

x = torch.arange(24, dtype=torch.float32).reshape(6, 4)
y = torch.tensor([0, 1, 2, 0, 1, 2])
pairs = TensorDataset(x, y)
alone = TensorDataset(x)
bare = list(x)
bad = {"ragged": [(torch.ones(2), 0), (torch.ones(3), 1)]}

def make():
    return pairs

class Named(Dataset):
    classes = ["a", "b", "c"]
    def __len__(self):
        return 3
    def __getitem__(self, index):
        return {"ids": torch.full((5,), index), "mask": np.ones(5, bool)}, index

class Failing(Named):
    def __getitem__(self, index):
        return super().__getitem__(index) if index < 2 else 1 / 0

class Poisoned(Named):
    def __getitem__(self, index):
        return torch.full((2,), 1.0 if index < 2 else float("nan")), index

def stream():
    yield x[0]

ragged = [(torch.ones(2), 0), (torch.ones(3), 1)]
triples = [(torch.ones(2), 0, 1)]
half = [(torch.ones(2), 0), (torch.ones(2), None)]
texts = [("a sentence", 0), ("another", 1)]
named_labels = [(torch.ones(2), "cat"), (torch.ones(2), "dog")]
small = [(torch.ones(2, dtype=torch.bfloat16), 0)]
empty = []
number = 3
"""


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"sets_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(DATASETS)
    return name


@pytest.mark.parametrize("attr", ["pairs", "make"])
def test_a_dataset_yields_model_tensors(tmp_path: Path, datasets: str, attr: str) -> None:
    samples = _load(f"{datasets}:{attr}", tmp_path, preprocessing=Preprocessing(input="data", scale=9))
    assert samples.preprocessing is None
    assert samples.targets is not None
    assert samples.targets.tolist() == [0, 1, 2, 0, 1, 2]
    np.testing.assert_array_equal(samples.tensors([2, 0])["data"], [[8, 9, 10, 11], [0, 1, 2, 3]])


@pytest.mark.parametrize("attr", ["alone", "bare"])
def test_a_dataset_without_labels(tmp_path: Path, datasets: str, attr: str) -> None:
    samples = _load(f"{datasets}:{attr}", tmp_path)
    assert samples.targets is None
    assert samples.tensors([0])["input"].shape == (1, 4)


def test_a_dataset_class_with_named_inputs(tmp_path: Path, datasets: str) -> None:
    samples = _load(f"{datasets}:Named", tmp_path)
    assert samples.classes == ("a", "b", "c")
    assert {name: (a.dtype, a.shape) for name, a in samples.tensors([0, 1]).items()} == {
        "ids": (np.int64, (2, 5)),
        "mask": (np.bool_, (2, 5)),
    }


@pytest.mark.parametrize(
    ("attr", "match"),
    [
        ("Failing", r"sample 2 cannot be read\n\s+found:\s+ZeroDivisionError"),
        ("Poisoned", "sample 2: nan"),
        ("stream", r"not a Dataset\n\s+found:\s+generator"),
        ("number", "not a Dataset"),
        ("empty", "no samples"),
        ("ragged", r"sample 1 differs from sample 0\n\s+found:\s+input: float32\[3\]"),
        ("triples", "sample 0 is a tuple of 3"),
        ("half", "only some samples have labels"),
        ("texts", r"sample 0 is not a model tensor\n\s+found:\s+builtins.str"),
        ("named_labels", "the labels are text"),
        ("small", "torch.bfloat16"),
    ],
)
def test_bad_datasets(tmp_path: Path, datasets: str, attr: str, match: str) -> None:
    with pytest.raises(DataError, match=match):
        _load(f"{datasets}:{attr}", tmp_path)
