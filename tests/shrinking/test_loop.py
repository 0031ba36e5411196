"""The loop that prunes to a budget, with scripted latencies and scores: what it keeps, what it undoes, when it ends."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fake_line import fake_target, ingredients_of, make_recipe, make_samples, make_task, quick_profile
from torch import nn

from edgekit.artifact import to_json
from edgekit.candidate import Candidate
from edgekit.checking import Proof
from edgekit.errors import Diverged, SpecError
from edgekit.latency_table import LatencyTable, Row
from edgekit.metrics import Drop
from edgekit.profiling.comparison import Ratio
from edgekit.profiling.host import this_host
from edgekit.progress import silent
from edgekit.pruning.criteria import Evidence
from edgekit.quantization.schemes import Plan
from edgekit.recipe import Quantization
from edgekit.reporting.tables import MOST_NOTE
from edgekit.shipping import Job
from edgekit.shrinking import loop, shapes
from edgekit.shrinking.report import met, pruning_report
from edgekit.shrinking.scores import Line, Times
from edgekit.shrinking.steps import Pruned
from edgekit.teaching import TrainedModel

WHOLE_MS = 8.0  # eight blocks of a millisecond


def candidate(drop: float | None, name: str = "first") -> Candidate:
    """A candidate that lost so many points."""
    lost = (
        None
        if drop is None
        else Drop(points=drop, low=drop - 0.1, high=drop + 0.1, n=1000, disagreements=10, confidence=0.95)
    )
    proof = Proof(samples=1000, engine="null", reference_db=40.0, max_error=0.1, broken=None, artifact=0.9, drop=lost)
    artifact: Any = SimpleNamespace(sha256=name)
    return Candidate(plan=Plan(engine="null", precision="int8"), artifact=artifact, proof=proof)


def ratio(value: float, noise: float = 0.0) -> Ratio:
    fields = {field.name: 0 for field in dataclasses.fields(Ratio)} | {"settled": True}
    return Ratio(**fields | {"ratio": value, "low": value - noise, "high": value + noise})  # type: ignore[arg-type]


class Block(nn.Module):
    """A residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layer(x)


class Net(nn.Module):
    """Eight blocks, each of which takes a millisecond."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block() for _ in range(8)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)


def left_in(model: TrainedModel) -> int:
    assert model.module is not None
    return len(model.module.blocks)  # type: ignore[arg-type]


class Scripted:
    """How long what is left takes, and what it loses once it has learnt."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, drops: Any = lambda left, epochs: 0.0) -> None:
        self.drops, self.learnt, self.asked, self.kept_as = drops, [], [], []
        self.faster, self.first_drop, self.saves_ms, self.table_us, self.noise = True, 0.0, 1.0, 1000.0, 0.0
        monkeypatch.setattr(loop, "first_plan", lambda line: (candidate(self.first_drop, "8"), make_task()))
        crossed = SimpleNamespace(inputs=(), outputs=())
        monkeypatch.setattr(loop, "exported", lambda line, model: crossed)
        monkeypatch.setattr(loop, "check_floor", lambda *args: None)
        monkeypatch.setattr(loop, "train_student", self.train)
        monkeypatch.setattr(loop, "score", self.score)
        monkeypatch.setattr(loop, "time_in_turns", lambda new, *others: self.times(int(new.sha256)))
        monkeypatch.setattr(shapes, "_shape_times", lambda search, model, *others: self.times(left_in(model)))
        monkeypatch.setattr(shapes, "table_of", self.table)
        monkeypatch.setattr("edgekit.pruning.worth.worth_of", self.worth)
        monkeypatch.setattr("edgekit.pruning.counting.macs_of", lambda module, inputs: 1000)
        monkeypatch.setattr(Line, "inputs", {"input": torch.zeros(2, 4)})
        monkeypatch.setattr(Line, "evidence", Evidence())

    def times(self, left: int) -> Times:
        share = 1 - (8 - left) * self.saves_ms / WHOLE_MS
        if left == 8:
            return Times(p50_ms=WHOLE_MS)
        return Times(p50_ms=share * WHOLE_MS, ratio=ratio(share, self.noise), faster=self.faster)

    def table(self, line: Any, model: Any, groups: Any, *others: Any) -> LatencyTable:
        rows = {
            group.alike: Row(
                alike=group.alike,
                kind="block",
                group=group.name,
                members=8,
                move="removed",
                saved_us=self.table_us,
                low_us=self.table_us - 10,
                high_us=self.table_us + 10,
            )
            for group in groups
        }
        return LatencyTable(
            engine="null",
            engine_version="1",
            precision="int8",
            source="measured",
            host=to_json(this_host()),
            batch=1,
            whole_us=8000.0,
            rows=tuple(rows.values()),
            classes=tuple(rows),
            notes=(),
            seconds=1.0,
        )

    def worth(self, module: nn.Module, inputs: Any, groups: Any, *others: Any, **more: Any) -> Any:
        self.asked.append(len(module.blocks))  # type: ignore[arg-type]
        # Once the first blocks are gone, the last ones count less than those in the middle.
        order = range(8) if len(module.blocks) > 6 else range(8, 0, -1)  # type: ignore[arg-type]
        return {g.name: {"removed": 0.1 * (1 + order[int(g.name.rpartition(".")[2])])} for g in groups}

    def train(self, recipe: Any, model: Any, teachers: Any, *others: Any, step: str) -> TrainedModel:
        epochs = recipe.distillation.epochs
        self.kept_as.append((others[-1], step))
        self.learnt.append((left_in(model), epochs))
        if self.drops(left_in(model), epochs) is None:
            raise Diverged("pruned: the loss is nan")
        return dataclasses.replace(model, sha256=f"{model.sha256} learnt", training={"epochs": epochs})

    def score(self, line: Any, model: TrainedModel, plan: Plan) -> Candidate:
        assert model.training is not None
        return candidate(self.drops(left_in(model), model.training["epochs"]), str(left_in(model)))


@pytest.fixture
def line(monkeypatch):
    return Scripted(monkeypatch)


def prune(tmp_path: Path, *, limits: dict[str, float] | None = None, **settings: Any) -> Pruned:
    table = {"train": {"epochs": 2}, "steps": 2, "criterion": "l2"} | settings
    recipe = make_recipe(teacher={"model": "nets:teacher", "weights": "factory"}, pruning=table)
    samples = make_samples()
    data = ingredients_of(samples)
    model = TrainedModel(name="nets:teacher", module=Net(), sha256="8", parameters=160)
    job = Job(
        target=fake_target(),
        profile=quick_profile(**(limits or {})),
        engines=("null",),
        quantization=Quantization(),
    )
    line = Line(
        recipe=recipe, job=job, base=tmp_path, data=data, teacher=model, student=model, steps=tmp_path, progress=silent
    )
    return loop.prune_student(line)


def left(pruned: Pruned) -> list[tuple[int, bool]]:
    """Blocks after each step, and whether it was kept."""
    return [(left_in(step.model), step.kept) for step in pruned.steps]


def test_it_nears_the_budget_in_steps_of_one_factor_and_ends_there(line, tmp_path):
    found = prune(tmp_path, ratio=0.5)
    assert left(found) == [(8, True), (5, True), (4, True)]
    assert [round(step.aim_ms, 3) for step in found.steps[1:]] == [5.657, 4.0]
    assert found.stopped == "the budget is met"
    assert found.best.number == 2
    assert met(found)
    assert [len(step.changes) for step in found.steps] == [0, 3, 4]


def test_the_least_important_blocks_go_first(line, tmp_path):
    found = prune(tmp_path, ratio=0.75, steps=1)
    assert [change.blocks for change in found.best.changes] == [{"blocks": (0,)}, {"blocks": (0,)}]


def test_what_a_move_loses_is_asked_again_once_others_were_made(line, tmp_path):
    found = prune(tmp_path, ratio=0.5, steps=1)
    assert line.asked == [8, 7, 6, 5]
    gone = [change.blocks["blocks"] for change in found.best.changes]
    assert gone == [(0,), (0,), (5,), (4,)]


def test_the_last_step_learns_longer(line, tmp_path):
    prune(tmp_path, ratio=0.5, last_epochs=9)
    assert line.learnt == [(5, 2), (4, 9)]


def test_the_budget_is_that_of_the_profile_where_none_is_given(line, tmp_path):
    found = prune(tmp_path, limits={"p50_ms": 6.0}, steps=1)
    assert (found.budget_ms, left(found)) == (6.0, [(8, True), (6, True)])
    assert pruning_report(found)["budget"] == "p50_ms of profile quick"


def test_of_two_budgets_the_smaller_counts(line, tmp_path):
    assert prune(tmp_path, ratio=0.5, budget_ms=6.5, steps=1).budget_ms == 4.0
    found = prune(tmp_path, ratio=0.5, budget_ms=3.5, steps=1)
    assert (found.budget_ms, pruning_report(found)["budget"]) == (3.5, "pruning.budget_ms")


def test_what_of_the_recipe_counts_for_nothing_is_told(monkeypatch, tmp_path):
    Scripted(monkeypatch, drops=lambda left, epochs: -1.0).first_drop = None
    found = prune(tmp_path, ratio=0.75, max_drop_points=1.0, table="of_a_device.json")
    assert any("the limit of 1 points is not held: there are no labels" in note for note in found.notes)
    assert any("of_a_device.json is not read" in note for note in found.notes)
    assert pruning_report(found)["samples"] is None


def test_the_budget_is_not_exceeded_however_little(line, tmp_path):
    found = prune(tmp_path, budget_ms=5.96, steps=1)
    assert left(found) == [(8, True), (5, True)]
    assert met(found)


def test_a_shape_that_no_measuring_shows_to_be_within_the_budget_is_not_trained(line, tmp_path):
    line.noise = 0.01
    found = prune(tmp_path, ratio=0.505, steps=1)  # four of eight blocks take 0.49 to 0.51 of the time
    assert left(found) == [(8, True), (3, True)]
    assert line.learnt == [(3, 2)]


def test_on_the_way_to_the_budget_the_median_is_enough(line, tmp_path):
    line.noise = 0.01
    found = prune(tmp_path, ratio=0.45, steps=2)  # an aim of 5.37 ms, then 3.6
    assert left(found) == [(8, True), (5, True), (3, True)]


def test_a_training_is_found_again_whatever_number_its_step_has(line, tmp_path):
    prune(tmp_path, ratio=0.5)
    assert line.kept_as == [("pruned-1", "pruned"), ("pruned-2", "pruned")]


def test_the_engine_of_the_job_counts_that_the_command_line_may_have_named(line, tmp_path):
    from edgekit.shrinking import scores

    with pytest.MonkeyPatch.context() as patch:
        asked = []
        patch.setattr(scores, "exported", lambda line, model: None)
        patch.setattr(scores, "task_for", lambda *args: make_task())
        patch.setattr(scores, "plans_for", lambda target, engines, settings, place: asked.append(engines) or [])
        patch.setattr(scores, "try_plans", lambda *args: [candidate(0.0, "8")])
        patch.setattr(scores, "best", lambda candidates: candidates[0])
        patch.setattr(loop, "first_plan", scores.first_plan)
        prune(tmp_path, budget_ms=9.0, engine="openvino")
    assert asked == [("null",)]


def test_a_student_within_the_budget_stays_whole(line, tmp_path):
    found = prune(tmp_path, budget_ms=9.0)
    assert left(found) == [(8, True)]
    assert found.stopped == "the unpruned student is within the budget"
    assert met(found)


def test_without_any_budget_it_says_how_to_give_one(line, tmp_path):
    with pytest.raises(SpecError, match=r"no budget.*\n.*'quick' has no p50_ms(.|\n)*--ratio"):
        prune(tmp_path)


def test_it_ends_at_the_accuracy_limit_with_the_last_good_step(monkeypatch, tmp_path):
    line = Scripted(monkeypatch, drops=lambda left, epochs: {5: 0.4, 4: 1.7}[left])
    found = prune(tmp_path, ratio=0.5, max_drop_points=1.0)
    assert left(found) == [(8, True), (5, True), (4, False)]
    assert found.best.number == 1
    assert "lost 1.70 points [1.60, 1.80], more than 1" in found.stopped
    assert found.steps[2].why.startswith("lost 1.70 points")
    assert not met(found)
    assert line.learnt == [(5, 2), (4, 2)]


def test_a_step_beyond_the_limit_learns_longer_before_it_is_given_up(monkeypatch, tmp_path):
    line = Scripted(monkeypatch, drops=lambda left, epochs: 1.7 if epochs == 2 else 0.5)
    found = prune(tmp_path, ratio=0.5, max_drop_points=1.0, last_epochs=6)
    assert line.learnt == [(5, 2), (5, 6), (4, 6)]
    assert left(found) == [(8, True), (5, True), (4, True)]
    assert [step.epochs for step in found.steps] == [0, 8, 6]


def test_what_is_lost_without_a_limit_is_told_with_what_limits_it(monkeypatch, tmp_path):
    Scripted(monkeypatch, drops=lambda left, epochs: {5: 0.4, 4: 21.7}[left]).first_drop = 0.3
    found = prune(tmp_path, ratio=0.5)
    assert left(found) == [(8, True), (5, True), (4, True)]
    (note,) = (
        note for note in found.notes if note.startswith("nothing limits what is lost (pruning.max_drop_points would)")
    )
    assert "step 2 is kept and lost 21.70 points [21.60, 21.80] against the teacher (the unpruned student 0.30)" in note
    assert len(note) <= MOST_NOTE, "a terminal shows it whole"
    assert found.best.why == "nothing limits what it loses"


@pytest.mark.parametrize(("limit", "drop"), [(30.0, 21.7), (None, -0.2)])
def test_nothing_is_said_of_a_limit_where_there_is_one_or_nothing_was_lost(monkeypatch, tmp_path, limit, drop):
    Scripted(monkeypatch, drops=lambda left, epochs: drop)
    found = prune(tmp_path, ratio=0.5, max_drop_points=limit)
    assert found.best.number == 2
    assert not [note for note in found.notes if "nothing limits" in note]


def test_the_limit_is_that_of_the_profile_where_none_is_given(monkeypatch, tmp_path):
    Scripted(monkeypatch, drops=lambda left, epochs: 0.8)
    assert left(prune(tmp_path, limits={"max_drop_points": 0.5}, ratio=0.5))[-1] == (5, False)


def test_a_limit_that_the_unpruned_student_breaks_is_told_before_anything_is_done(line, tmp_path):
    line.first_drop = 2.0
    with pytest.raises(SpecError, match=r"broken already by the unpruned student(.|\n)*2\.00 points \[1\.90, 2\.10\]"):
        prune(tmp_path, ratio=0.5, max_drop_points=1.0)
    assert line.learnt == []


def test_fine_tuning_that_diverges_leaves_the_last_good_step(monkeypatch, tmp_path):
    Scripted(monkeypatch, drops=lambda left, epochs: 0.1 if left == 5 else None)
    found = prune(tmp_path, ratio=0.5)
    assert left(found) == [(8, True), (5, True), (4, False)]
    assert found.stopped == "fine-tuning of step 2 failed, and the step before is kept: pruned: the loss is nan"


def test_a_shape_not_shown_to_be_faster_is_undone_before_it_is_trained(line, tmp_path):
    line.faster = False
    found = prune(tmp_path, ratio=0.5)
    assert left(found) == [(8, True), (5, False), (4, False)]
    assert "not shown to be faster" in found.steps[1].why
    assert found.stopped == "nothing that is left to leave out is shown to make it faster"
    assert line.learnt == []
    assert not met(found)
    assert found.best.number == 0
    assert line.asked == [8, 7, 6, 5], "of a student that is as it was, what a move loses is not asked again"


def test_a_shape_that_misses_its_aim_is_made_smaller(monkeypatch, tmp_path):
    line = Scripted(monkeypatch)
    line.saves_ms = 0.5  # the table says a millisecond
    assert left(prune(tmp_path, ratio=0.75, steps=1)) == [(8, True), (4, True)]


def test_a_budget_below_the_smallest_network_is_told_before_anything_is_trained(line, tmp_path):
    line.table_us = 900.0  # 0.8 ms are no block's
    with pytest.raises(SpecError, match="below what the smallest network takes"):
        prune(tmp_path, budget_ms=0.5)
    assert line.learnt == []


def test_the_report_holds_every_step(monkeypatch, tmp_path):
    Scripted(monkeypatch, drops=lambda left, epochs: {5: 0.4, 4: 1.7}[left])
    report = pruning_report(prune(tmp_path, ratio=0.5, max_drop_points=1.0))
    assert [step["kept"] for step in report["steps"]] == [True, True, False]
    assert [step["parameters"] for step in report["steps"]] == [160, 100, 80]
    assert report["best"] == 1
    assert report["budget"] == "0.5 of the unpruned student's 8.000 ms"
    assert report["steps"][1]["ratio"]["ratio"] == pytest.approx(5 / 8)
    assert report["steps"][1]["drop"]["points"] == 0.4
    assert report["steps"][0]["ratio"] is None
    assert np.isfinite(report["seconds"])
