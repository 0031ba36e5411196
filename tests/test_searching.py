"""The search of ``auto``: in which order plans are tried, when it ends, and what is measured."""

import dataclasses

import numpy as np
import pytest
from fake_line import fake_target, fp32_artifact, make_task, quick_profile
from test_best import judged

from edgekit import searching
from edgekit.candidate import Candidate
from edgekit.checking import Proof
from edgekit.errors import EngineError
from edgekit.metrics import Drop
from edgekit.recipe import Quantization
from edgekit.searching import search, within

LAYERS = 6
AUTO = Quantization()


def drop(points, high=None):
    return Drop(
        points=points,
        low=points - 1,
        high=points + 1 if high is None else high,
        n=100,
        disagreements=5,
        confidence=0.95,
    )


def proof(db, lost=None, *, high=None, before=0.0, broken=None):
    return Proof(
        samples=100,
        engine="null",
        reference_db=db,
        max_error=0.1,
        broken=broken,
        metric=None if lost is None else "accuracy",
        drop=None if lost is None else drop(lost + before, high),
        drop_from_fp32=None if lost is None else drop(lost),
    )


@pytest.fixture
def model(tmp_path):
    """A chain of matrix products: as many groups."""
    names = ["input", *(f"t{i}" for i in range(1, LAYERS)), "logits"]
    weights = ", ".join(map(str, np.eye(4).ravel()))
    body = " ".join(f"[n{i}] {names[i + 1]} = MatMul({names[i]}, w)" for i in range(LAYERS))
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
    chain (float["batch", 4] input) => (float["batch", 4] logits) <float[4, 4] w = {{{weights}}}> {{ {body} }}"""
    return fp32_artifact(tmp_path / "model", text)


@pytest.fixture
def run(model, tmp_path, monkeypatch):
    """Searches with proofs that a function of the plan gives; returns candidates, trials and how often it prepared."""

    def searching_for(prove, settings=AUTO, times=None, **profile):
        task = make_task(fake_target(), profile=quick_profile(**profile))
        prepared = []

        def prepare(model, plan, task, out):
            prepared.append(str(plan))
            found = proof(120.0, 0.0) if plan.precision == "fp32" else prove(plan)
            if isinstance(found, Exception):
                raise found
            return Candidate(plan=plan, proof=found)

        def measure_all(candidates, task, out):
            # The 99% bounds of two medians decide, as there are no turns here.
            ms = times or (lambda plan: 2.0 if plan.precision == "fp32" else 1.0)
            made = [judged("pass", ms(c.plan)) for c in candidates]
            return [
                dataclasses.replace(c, measured=m.measured, verdict=m.verdict)
                for c, m in zip(candidates, made, strict=True)
            ]

        monkeypatch.setattr(searching, "prepare", prepare)
        monkeypatch.setattr(searching, "measure_all", measure_all)
        candidates, trials = search(model, ["null"], settings, task, task, tmp_path / "steps")
        return [str(c.plan) for c in candidates], trials, prepared

    return searching_for


def test_where_the_usual_int8_loses_little_nothing_else_is_tried(run):
    candidates, trials, _ = run(lambda plan: proof(30.0, 0.1))
    assert candidates == ["null fp32", "null int8"]
    assert [(str(trial.plan), trial.within) for trial in trials] == [("null fp32", True), ("null int8", True)]


def test_other_methods_are_tried_until_one_loses_little(run):
    dbs = {"minmax": 5.0, "mse": 8.0, "percentile": 30.0}
    candidates, trials, _ = run(lambda plan: proof(dbs[plan.method], 0.1 if dbs[plan.method] > 20 else 9.0))
    assert candidates == ["null fp32", "null int8 percentile"]
    assert [str(trial.plan) for trial in trials][2:] == ["null int8 mse", "null int8 percentile"]


def test_corrections_are_added_to_the_best_method(run, monkeypatch):
    monkeypatch.setattr("edgekit.backends.null.CORRECTIONS", ("bias-correction", "smooth-quant"))

    def prove(plan):
        good = plan.method == "entropy" and "smooth-quant" in plan.corrections
        return proof(30.0, 0.0) if good else proof({"entropy": 9.0}.get(plan.method, 5.0) + len(plan.corrections), 9.0)

    candidates, _, _ = run(prove)
    assert candidates[1] == "null int8 entropy +bias-correction +smooth-quant"


@pytest.mark.parametrize(("smoothed", "ships"), [(25.0, ["null int8 dynamic +smooth-quant"]), (9.0, [])])
def test_dynamic_int8_is_smoothed_where_it_loses_too_much(run, monkeypatch, smoothed, ships):
    monkeypatch.setattr("edgekit.backends.null.METHODS", {"int8": ("minmax", "dynamic")})
    monkeypatch.setattr("edgekit.backends.null.CORRECTIONS", ("smooth-quant",))
    dbs = {(): 10.0, ("smooth-quant",): smoothed}

    def prove(plan):
        db = dbs[plan.corrections] if plan.method == "dynamic" else 5.0
        return proof(db, 0.1 if db > 20 else 9.0)

    candidates, trials, _ = run(prove, Quantization(trials=4))  # before the static plan takes all that are left
    assert [name for name in candidates if "dynamic" in name] == ships
    assert len(trials) == 4


def test_the_groups_that_lose_most_go_back_to_float(run):
    def prove(plan):
        in_int8 = {f"n{i}" for i in range(LAYERS)} - set(plan.float_groups)
        hurt = in_int8 & {"n2", "n4"}
        return proof(30.0 - 12.0 * len(hurt), 9.0 * len(hurt))

    candidates, trials, _ = run(prove, Quantization(method="minmax"))
    assert candidates[1] == "null int8 (2 nodes in float)"
    (chosen,) = [trial.plan for trial in trials if str(trial.plan) == candidates[1]]
    assert set(chosen.float_groups) == {"n2", "n4"}


def test_what_cannot_be_mended_is_shown_as_it_is_best(run):
    candidates, trials, _ = run(lambda plan: proof(6.0 if plan.method == "mse" else 5.0, 9.0))
    assert candidates[1].startswith("null int8 mse")
    assert not any(trial.within for trial in trials if trial.plan.precision == "int8")


def test_no_more_plans_are_tried_than_allowed(run):
    _, trials, _ = run(lambda plan: proof(5.0, 9.0), Quantization(trials=4))
    assert len(trials) == 4


def test_a_plan_that_cannot_be_made_is_a_trial_with_a_reason_and_nothing_else_is_tried(run):
    candidates, trials, _ = run(lambda plan: EngineError("null cannot do this"))
    assert candidates == ["null fp32", "null int8"]
    assert [(trial.failure, trial.within) for trial in trials] == [(None, True), ("null cannot do this", False)]


def test_nothing_is_tried_twice(run):
    _, trials, prepared = run(lambda plan: proof(5.0, 9.0))
    assert len({str(trial.plan) + str(trial.plan.float_groups) for trial in trials}) == len(trials)
    finalists = 2
    assert len(prepared) == len(trials) + finalists


def test_where_only_numbers_are_known_a_collapse_is_mended(run):
    dbs = {"minmax": 4.0, "mse": 25.0}
    candidates, _, _ = run(lambda plan: proof(dbs[plan.method]))
    assert candidates == ["null fp32", "null int8 mse"]


@pytest.mark.parametrize(
    ("seen", "limit", "is_within"),
    [
        (proof(30.0, 0.4), 1.0, True),
        (proof(30.0, 0.6), 1.0, False),
        (proof(30.0, 0.6, high=0.9), 1.0, True),  # the whole interval is within
        (proof(30.0, 0.4, before=0.5), 1.0, False),  # the student had lost half of it already
        (proof(30.0, 0.2, before=0.5), 1.0, True),
        (proof(30.0, 0.05, before=3.0), 1.0, True),  # nothing that int8 does makes up for that
        (proof(30.0, 0.4), None, True),
        (proof(30.0, 0.6), None, False),
        (proof(14.9), 1.0, False),
        (proof(15.1), 1.0, True),
        (proof(99.0, 0.0, broken="NaN"), 1.0, False),
    ],
)
def test_how_much_may_be_lost(seen, limit, is_within):
    task = make_task(profile=quick_profile() if limit is None else quick_profile(max_drop_points=limit))
    assert within(seen, task) is is_within
