import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekit.data import Samples, load_samples
from edgekit.errors import DataError
from edgekit.processing_specs import Preprocessing

IMAGES = Preprocessing(layout="NHWC", scale=1 / 255)


def _load(spec: str | Path, base: Path, **options: Any) -> Samples:
    return load_samples(str(spec), base=base, **{"preprocessing": None, **options})


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "images" / "train" / name).mkdir(parents=True)
        for index in range(3):
            pixels = rng.integers(0, 255, (6, 5, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / "train" / name / f"{index}.png")
    return tmp_path / "images" / "train"


def _tar(folder: Path, path: Path, inside: str) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, arcname=inside)
    return path


def test_a_folder_of_images_by_class(image_folder: Path) -> None:
    samples = _load(image_folder, image_folder, preprocessing=IMAGES)
    assert samples.classes == ("cat", "dog")
    assert samples.targets is not None
    assert samples.targets.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(samples.raw([4])["input"][0], np.asarray(Image.open(image_folder / "dog" / "1.png")))
    assert samples.tensors([0, 5])["input"].shape == (2, 3, 6, 5)


def test_a_tar_reads_as_its_folder_and_extracts_nothing(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tar(image_folder.parent, tmp_path / "images.tar.gz", ".")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    packed = _load("images.tar.gz!train", tmp_path, preprocessing=IMAGES)
    assert packed.digests() == _load(image_folder, tmp_path, preprocessing=IMAGES).digests()
    assert packed.classes == ("cat", "dog")
    assert sorted(tmp_path.rglob("*")) == before


def test_images_decode_as_grey_without_a_channel_axis(image_folder: Path) -> None:
    samples = _load(image_folder, image_folder, preprocessing=Preprocessing(layout="NHW"))
    assert samples.raw([0])["input"].shape == (1, 6, 5)
    assert samples.tensors([0])["input"].shape == (1, 1, 6, 5)


def test_recipe_labels_give_the_order_of_classes(image_folder: Path) -> None:
    samples = _load(image_folder, image_folder, labels=("dog", "fox", "cat"))
    assert samples.targets is not None
    assert samples.targets.tolist() == [2, 2, 2, 0, 0, 0]
    with pytest.raises(DataError, match=r"class is not among the recipe's labels\n\s+found:\s+cat(.|\n)*'cats'"):
        _load(image_folder, image_folder, labels=("cats", "dog"))


def test_images_of_several_sizes_need_a_resize(image_folder: Path) -> None:
    Image.new("RGB", (9, 8), "red").save(image_folder / "dog" / "9.png")
    with pytest.raises(DataError, match=r"differ in size\n\s+found:\s+6 x 5 \(image 0\) and 8 x 9 \(image 6\)"):
        _load(image_folder, image_folder, preprocessing=IMAGES)
    samples = _load(image_folder, image_folder, preprocessing=Preprocessing(layout="NHWC", resize=(4, 4)))
    assert samples.raw([0, 6])["input"].shape == (2, 4, 4, 3)
    np.testing.assert_allclose(samples.tensors([6])["input"][0, 0], 255)


def test_a_resize_gives_the_same_numbers_in_mixed_sizes(image_folder: Path) -> None:
    settings = Preprocessing(layout="NHWC", resize=(4, 4))
    alone = _load(image_folder, image_folder, preprocessing=settings).tensors([2])["input"]
    Image.new("RGB", (9, 8), "red").save(image_folder / "dog" / "9.png")
    np.testing.assert_array_equal(
        _load(image_folder, image_folder, preprocessing=settings).tensors([2])["input"], alone
    )


def test_a_file_that_is_no_image_is_found_on_loading(image_folder: Path) -> None:
    (image_folder / "cat" / "7.jpg").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"7\.jpg: not a readable image"):
        _load(image_folder, image_folder)


def test_a_truncated_image(image_folder: Path, tmp_path: Path) -> None:
    whole = (image_folder / "dog" / "2.png").read_bytes()
    (image_folder / "dog" / "2.png").write_bytes(whole[:-40])
    samples = _load(image_folder, image_folder)
    with pytest.raises(DataError, match=r"2\.png: not a readable image"):
        samples.raw([5])
    _tar(image_folder, tmp_path / "images.tar", ".")
    with pytest.raises(DataError, match=r"images.tar!.*2.png: not a readable image"):
        _load("images.tar", tmp_path)


def test_deep_images_are_refused(image_folder: Path) -> None:
    Image.fromarray(np.full((6, 5), 40_000, np.uint16)).save(image_folder / "cat" / "0.png")
    with pytest.raises(DataError, match="more than 8 bits"):
        _load(image_folder, image_folder).raw([0])


def test_a_wrong_folder_says_what_was_found(image_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no images by class\n\s+found:\s+train/\n\s+allowed:\s+<class>/"):
        _load(image_folder.parent, tmp_path)
    _tar(image_folder, tmp_path / "images.tar.gz", "train")
    with pytest.raises(DataError, match=r"found:\s+train\n(.|\n)*images.tar.gz!train"):
        _load("images.tar.gz", tmp_path)


def test_one_folder_is_one_class(image_folder: Path) -> None:
    for file in (image_folder / "dog").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="all samples are of one class"):
        _load(image_folder, image_folder)


def test_images_with_a_layout_that_images_do_not_have(image_folder: Path) -> None:
    with pytest.raises(DataError, match=r"found:\s+layout = 'any'(.|\n)*layout = \"NHWC\""):
        _load(image_folder, image_folder, preprocessing=Preprocessing())


def test_a_damaged_archive(image_folder: Path, tmp_path: Path) -> None:
    whole = _tar(image_folder, tmp_path / "whole.tar.gz", ".").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.tar").write_text("hello")
    for name in ("cut.tar.gz", "text.tar"):
        with pytest.raises(DataError, match=f"{name}: the archive cannot be read"):
            _load(name, tmp_path)
