"""What is told of a pruning before anything is trained, though it hangs on the student."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_line import fake_target, ingredients_of, make_recipe, make_samples, quick_profile
from torch import nn

from edgekit.errors import ModelError, SpecError
from edgekit.ingredients import specs_of
from edgekit.progress import silent
from edgekit.recipe import Quantization
from edgekit.shipping import Job
from edgekit.shrinking import lines
from edgekit.shrinking.lines import check_line
from edgekit.shrinking.scores import Line, exported, output_specs
from edgekit.teaching import TrainedModel


class Block(nn.Module):
    """A residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(self.up(x))


def line_of(folder: Path, *, labelled: bool = True, engines: tuple[str, ...] = ("null",), **settings: Any) -> Line:
    recipe = make_recipe(teacher={"model": "nets:teacher", "weights": "factory"}, pruning={"ratio": 0.5} | settings)
    model = TrainedModel(name="nets:teacher", module=nn.Sequential(Block(), Block(), Block()), sha256="0")
    target = fake_target(engines=engines, channel_multiple=16)
    job = Job(target=target, profile=quick_profile(), engines=engines, quantization=Quantization())
    data = ingredients_of(make_samples(labelled=labelled))
    return Line(
        recipe=recipe, job=job, base=folder, data=data, teacher=model, student=model, steps=folder, progress=silent
    )


def test_a_student_of_which_something_can_be_left_out_is_taken_and_what_that_is_is_told(tmp_path):
    told: list[str] = []
    line = replace(line_of(tmp_path), progress=lambda step, done, total, note="": told.append(note))
    check_line(line, None)
    assert told == ["", "3 blocks, and channels in 0 places"]
    with pytest.raises(ModelError, match="a multiple of 16 channels is more than all 8"):
        check_line(line_of(tmp_path, blocks=False), None)


@pytest.mark.parametrize("criterion", ["taylor", "activation", "random"])
def test_no_sample_is_looked_at_to_see_what_can_be_left_out(tmp_path, monkeypatch, criterion):
    asked: list[Line] = []
    monkeypatch.setattr(Line, "evidence", property(asked.append))
    check_line(line_of(tmp_path, criterion=criterion, blocks=False, multiple=1), None)
    assert asked == []


def test_without_labels_the_teacher_alone_teaches_unless_the_recipe_asks_for_them(tmp_path):
    check_line(line_of(tmp_path, labelled=False), None)
    with pytest.raises(SpecError, match=r"needs labels(.|\n)*0\.5(.|\n)*set pruning\.train\.soft_weight = 1\.0"):
        check_line(line_of(tmp_path, labelled=False, train={"soft_weight": 0.5}), None)


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({"soft": "nope"}, r"pruning\.train\.soft: unknown soft loss 'nope'"),
        (
            {"features": [{"student": "9", "teacher": "0", "loss": "hints"}]},
            r"pruning\.train\.features: .* no module '9'",
        ),
    ],
)
def test_a_loss_or_layer_that_is_not_there_is_named_with_its_key(tmp_path, train, said):
    with pytest.raises(SpecError, match=said):
        check_line(line_of(tmp_path, train=train), None)


def test_an_empty_model_is_asked_for_where_the_budget_is_known_of_the_engines_that_run(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        lines, "check_floor", lambda budget_ms, inputs, outputs, engines, *others: asked.append(engines)
    )
    check_line(line_of(tmp_path), None)
    assert asked == []
    check_line(line_of(tmp_path, engines=("null", "tensorrt")), 2.0)
    assert asked == [["null"]]


def test_what_the_student_takes_and_gives_is_known_as_it_will_cross_to_onnx(tmp_path):
    line = line_of(tmp_path)
    crossed = exported(line, line.student)
    assert (crossed.inputs, crossed.outputs) == (specs_of(line.data.test), output_specs(line))
