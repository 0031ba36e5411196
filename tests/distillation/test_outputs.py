from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from edgekit.distillation import outputs
from edgekit.distillation.augmentation import make_view
from edgekit.distillation.batch import Batch
from edgekit.distillation.forward import forward
from edgekit.distillation.outputs import INDEX, StoredTeacher, read_outputs, write_outputs
from edgekit.distillation.students import distill
from edgekit.errors import DataError, TrainingError
from edgekit.recipe_augmentation import Augmentation
from edgekit.recipe_training import Distillation

SETTINGS = Distillation(epochs=4, batch_size=16, learning_rate=0.05)


def batch_of(samples, indices, view=0) -> Batch:
    inputs = {name: torch.from_numpy(array) for name, array in samples.tensors(indices).items()}
    return Batch(inputs=inputs, labels=None, indices=np.asarray(indices), view=view, share=0.0)


@pytest.fixture
def teacher(net):
    return net(width=32, seed=7).eval()


@pytest.fixture
def folder(tmp_path, teacher, blobs, monkeypatch):
    monkeypatch.setattr(outputs, "SHARD", 16)
    (tmp_path / "outputs").mkdir()
    write_outputs(tmp_path / "outputs", teacher, blobs(50), teacher_id="t", view=None, views=1)
    return tmp_path / "outputs"


def test_what_is_read_is_what_the_teacher_says(folder, teacher, blobs):
    data = blobs(50)
    answers = read_outputs(folder, data, teacher_id="t")
    indices = [49, 0, 17, 16, 31]
    expected = forward(teacher, data.subset(indices))["output"]
    assert np.allclose(answers(batch_of(data, indices)).numpy(), expected, atol=1e-6)
    assert len(json.loads((folder / INDEX).read_text())["shards"]) == 4


def test_every_view_has_its_own_answers(tmp_path, teacher, blobs):
    data = blobs(40)
    view = make_view(Augmentation(noise=0.5, views=2), seed=5, classes=3, base=None)
    told = []
    write_outputs(
        tmp_path, teacher, data, teacher_id="t", view=view, views=2, progress=lambda *given: told.append(given)
    )
    assert told == [
        ("ask teacher", 0, 80, "view 1 of 2"),
        ("ask teacher", 40, 80, "view 2 of 2"),
        ("ask teacher", 80, 80),
    ]
    answers = read_outputs(tmp_path, data, teacher_id="t")
    indices = np.array([3, 30])
    for number in (0, 1):
        inputs = {name: torch.from_numpy(array) for name, array in data.tensors(indices).items()}
        varied, _ = view(inputs, None, indices, number)
        with torch.no_grad():
            expected = teacher(varied["input"])
        assert torch.allclose(answers(batch_of(data, indices, number)), expected, atol=1e-6)
    assert not torch.equal(answers(batch_of(data, indices, 0)), answers(batch_of(data, indices, 1)))


def test_outputs_of_another_teacher_or_other_samples_are_refused(folder, blobs):
    with pytest.raises(DataError, match=r"(?s)of another teacher.*remove the folder"):
        read_outputs(folder, blobs(50), teacher_id="another")
    with pytest.raises(DataError, match="of another number of samples"):
        read_outputs(folder, blobs(49), teacher_id="t")


def test_a_damaged_or_missing_shard_is_told(folder, blobs):
    shard = sorted(folder.glob("*.npy"))[1]
    shard.write_bytes(shard.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(DataError, match=rf"{shard.name}: the stored outputs are damaged"):
        read_outputs(folder, blobs(50), teacher_id="t")
    shard.unlink()
    with pytest.raises(DataError, match=rf"{shard.name}: the stored outputs are missing"):
        read_outputs(folder, blobs(50), teacher_id="t")


def test_stored_answers_train_the_very_student_that_asking_trains(folder, teacher, net, blobs):
    data, validation = blobs(50), blobs(30, seed=1)
    told = read_outputs(folder, data, teacher_id="t")
    settings = SETTINGS.model_copy(update={"soft_weight": 1.0})
    follow = validation.__class__(name="v", count=30, fetch=validation.fetch)
    asked, _ = distill(teacher, net(6), data, follow, settings, seed=0)
    stored, _ = distill(teacher, net(6), data, follow, settings, seed=0, answers=told)
    for a, b in zip(asked.state_dict().values(), stored.state_dict().values(), strict=True):
        assert torch.allclose(a.float(), b.float(), atol=1e-5)


@pytest.fixture
def only_outputs(tmp_path, teacher, blobs):
    """A teacher of which there is nothing but what it said."""
    for name, samples in (("train", blobs(60)), ("test", blobs(30, seed=2))):
        np.save(tmp_path / f"{name}.npy", forward(teacher, samples)["output"])
    stored = StoredTeacher(tmp_path)
    stored.bind("train.npy", blobs(60))
    stored.bind("test.npy", blobs(30, seed=2))
    return stored


def test_a_folder_of_outputs_teaches(only_outputs, teacher, net, blobs):
    data = blobs(60)
    kept, validation = data.subset(range(12, 60)), data.subset(range(12))
    settings = SETTINGS.model_copy(update={"soft_weight": 1.0, "epochs": 12})
    follow = validation.__class__(name="v", count=12, fetch=validation.fetch)
    student, _ = distill(only_outputs, net(), kept, follow, settings, seed=0)
    test = blobs(30, seed=2)
    same = forward(student, test)["output"].argmax(1) == forward(teacher, test)["output"].argmax(1)
    assert same.mean() > 0.8
    assert np.array_equal(only_outputs.rows(test), forward(teacher, test)["output"])


def test_samples_without_stored_outputs_are_counted(only_outputs, blobs):
    with pytest.raises(DataError, match=r"(?s)lack samples of blobs.*found: +5 of 5"):
        only_outputs.rows(blobs(5, seed=9))
    with pytest.raises(TrainingError, match="only stored outputs"):
        only_outputs(torch.zeros(2, 4))


def test_a_folder_that_does_not_fit_is_told(tmp_path, blobs):
    with pytest.raises(DataError, match=r"(?s)no stored outputs of a teacher.*train.npy"):
        StoredTeacher(tmp_path)
    np.save(tmp_path / "train.npy", np.zeros((3, 2), np.int64))
    with pytest.raises(DataError, match=r"(?s)not a teacher's logits.*int64\[3, 2\]"):
        StoredTeacher(tmp_path)
    np.save(tmp_path / "train.npy", np.full((3, 2), np.nan))
    with pytest.raises(DataError, match="with NaN or infinity"):
        StoredTeacher(tmp_path)
    (tmp_path / "train.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match=r"not a \.npy file of numbers"):
        StoredTeacher(tmp_path)
    np.save(tmp_path / "train.npy", np.zeros((3, 2), np.float32))
    with pytest.raises(DataError, match=r"(?s)not as many outputs as samples.*3 rows, 4 samples"):
        StoredTeacher(tmp_path).bind("train.npy", blobs(4))
