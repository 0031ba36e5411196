"""A teacher that is a file: it answers as the module it was exported from, and a student learns from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import CLASSES, Net, make_blobs

from edgekit.conversion.onnx_export import to_onnx
from edgekit.distillation.forward import call, forward, logits_of
from edgekit.distillation.onnx_teacher import OnnxTeacher
from edgekit.distillation.students import distill
from edgekit.distillation.trainer import train
from edgekit.errors import TrainingError
from edgekit.recipe_training import Distillation, Training


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A trained module, and the file it was exported to."""
    module, data = Net(), make_blobs(96)
    train(module, data, data, Training(epochs=8, batch_size=16, learning_rate=0.02), seed=0)
    folder = tmp_path_factory.mktemp("teacher")
    to_onnx(module, data.tensors(range(2)), folder)
    return module, folder / "model.onnx"


def test_it_answers_as_the_module_it_was(taught):
    module, path = taught
    data = make_blobs(50, seed=1)
    ours, theirs = forward(OnnxTeacher(path), data, 16), forward(module, data)
    np.testing.assert_allclose(next(iter(ours.values())), next(iter(theirs.values())), rtol=1e-4, atol=1e-5)


def test_a_student_learns_from_it(taught):
    _, path = taught
    data = make_blobs(96, labelled=False)
    settings = Distillation(epochs=8, batch_size=16, learning_rate=0.02, soft_weight=1.0)
    student, history = distill(OnnxTeacher(path), Net(8, seed=5), data, data, settings, seed=0)
    assert history.scores[history.best_epoch - 1] > 0.9  # agreement with the teacher
    test = make_blobs(60, seed=2)
    found = next(iter(forward(student, test).values())).argmax(1)
    assert (found == test.targets).mean() > 0.9


def test_a_fixed_batch_is_filled_up(taught, tmp_path):
    import onnx

    proto = onnx.load(taught[1])
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].ClearField("dim_param")
        value.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(proto, tmp_path / "fixed.onnx")
    x = torch.randn(6, 4)
    whole, parts = (logits_of(OnnxTeacher(path), {"input": x}) for path in (taught[1], tmp_path / "fixed.onnx"))
    assert parts.shape == (6, CLASSES)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)


def test_inputs_it_does_not_have_are_named(taught):
    with pytest.raises(TrainingError, match="takes other inputs") as caught:
        call(OnnxTeacher(taught[1]), {"a": torch.randn(2, 4), "b": torch.randn(2, 4)})
    assert caught.value.found == "a, b"
