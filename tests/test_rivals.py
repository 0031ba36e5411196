"""Int8 that was trained beside int8 of calibration: which of the two ships."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_best import FACTORS, in_turns, judged

from edgekit.artifact import Artifact, hash_files
from edgekit.candidate import Candidate, Plan
from edgekit.checking import Proof
from edgekit.choosing import best
from edgekit.metrics import paired_drop
from edgekit.rivals import settle
from edgekit.searching import Trial

CALIBRATED = Plan(engine="null", precision="int8", method="minmax")
TRAINED = Plan(engine="null", precision="int8", method="qat")
FOUR_BITS = Plan(engine="null", precision="int8", method="qat-w4")
ALL_RIGHT = np.ones(400)


def right(wrong: int) -> np.ndarray:
    """Scores of 400 samples of which the first so many are wrong."""
    scores = ALL_RIGHT.copy()
    scores[:wrong] = 0
    return scores


def one(plan: Plan, status: str = "pass", p50_ms: float | None = 1.0, wrong: int | None = 0, **fields) -> Candidate:
    made = dataclasses.replace(judged(status, p50_ms, "int8", **fields), plan=plan)
    return dataclasses.replace(made, scores=None if wrong is None else right(wrong))


def tried(plan: Plan, score: float | None) -> Trial:
    proof = Proof(samples=64, engine="null", reference_db=30.0, max_error=1.0, broken=None, artifact=score)
    return Trial(plan=plan, within=True, proof=proof)


def shipped(candidates: list[Candidate], trials: list[Trial] | None = None) -> tuple[str, str]:
    """The method that ships, and what is said of the other."""
    settled = settle(candidates, trials or [])
    found = best(candidates, settled)
    assert found is not None
    return str(found.plan.method), "; ".join(pair.why for pair in settled)


def test_the_trained_one_ships_where_nothing_tells_them_apart():
    calibrated, trained = (
        dataclasses.replace(in_turns("int8", FACTORS, ms), plan=plan)
        for plan, ms in ((CALIBRATED, 0.999), (TRAINED, 1.0))
    )
    assert best([calibrated, trained]) is calibrated, "by the clock alone"
    said = "is not shown to be faster or better, and was not trained"
    assert shipped([calibrated, trained]) == ("qat", said)
    assert shipped([one(CALIBRATED, wrong=None), one(TRAINED, wrong=None)]) == ("qat", said)
    assert shipped([one(CALIBRATED, "not measured", None), one(TRAINED, "not measured", None)]) == ("qat", said)


def test_a_higher_score_on_the_test_samples_alone_does_not_decide():
    # 2 of 400: the interval of the difference reaches below zero.
    assert paired_drop(right(0), right(2)).low <= 0
    assert shipped([one(CALIBRATED), one(TRAINED, wrong=2)])[0] == "qat"


def test_the_samples_that_plans_are_chosen_on_decide():
    candidates = [one(CALIBRATED), one(TRAINED)]
    method, why = shipped(candidates, [tried(CALIBRATED, 0.91), tried(TRAINED, 0.9)])
    assert (method, why) == (
        "minmax",
        "is not shown to be faster or better, and has 90.0% where this one has 91.0% on the samples that plans are"
        " chosen on",
    )
    assert shipped(candidates, [tried(CALIBRATED, 0.9), tried(TRAINED, 0.91)])[0] == "qat"
    assert shipped(candidates, [tried(CALIBRATED, 0.9), tried(TRAINED, None)])[0] == "qat"


@pytest.mark.parametrize(("wrong", "ships"), [((40, 0), "qat"), ((0, 40), "minmax")])
def test_one_that_is_shown_to_score_worse_does_not_ship_whatever_else_speaks_for_it(wrong, ships):
    candidates = [one(CALIBRATED, wrong=wrong[0]), one(TRAINED, wrong=wrong[1])]
    flattering = [tried(CALIBRATED, 0.9 + wrong[0] / 1000), tried(TRAINED, 0.9 + wrong[1] / 1000)]
    method, why = shipped(candidates, flattering)
    assert method == ships
    assert why.startswith("is shown to score worse, by 10.00 [")


def test_one_that_scores_worse_ships_where_the_other_misses_a_limit():
    assert shipped([one(CALIBRATED, wrong=40), one(TRAINED, "fail")])[0] == "minmax"
    assert shipped([one(CALIBRATED, wrong=40), one(TRAINED, accuracy_failed=True)])[0] == "minmax"
    assert shipped([one(CALIBRATED, "fail"), one(TRAINED)]) == ("qat", "")


def test_one_that_is_shown_to_be_faster_ships():
    calibrated, trained = (
        dataclasses.replace(in_turns("int8", FACTORS, ms), plan=plan) for plan, ms in ((CALIBRATED, 0.8), (TRAINED, 1))
    )
    assert shipped([calibrated, trained]) == ("minmax", "is shown to be slower")


@pytest.mark.parametrize(("size", "ships"), [(900, "qat-w4"), (1100, "minmax")])
def test_4_bits_were_asked_for_because_of_their_size(tmp_path, size, ships):
    def sized(candidate: Candidate, size: int) -> Candidate:
        path = tmp_path / str(candidate.plan)
        path.mkdir()
        (path / "model.null").write_bytes(b"0" * size)
        files = hash_files(path, ["model.null"])
        made = Artifact(
            folder=path, model="model.null", files=files, engine="null", precision="int8", inputs=(), outputs=()
        )
        return dataclasses.replace(candidate, artifact=made)

    candidates = [sized(one(CALIBRATED), 1000), sized(one(FOUR_BITS, wrong=2), size)]
    method, why = shipped(candidates, [tried(CALIBRATED, 0.95), tried(FOUR_BITS, 0.9)])
    assert method == ships
    assert why.endswith("and its file is larger") == (ships == "qat-w4")
    worse = [candidates[0], dataclasses.replace(candidates[1], scores=right(40))]
    assert shipped(worse)[0] == "minmax"


def test_other_engines_and_precisions_are_left_to_the_clock():
    elsewhere = dataclasses.replace(TRAINED, engine="openvino")
    fp32 = judged("pass", 5.0)
    assert settle([one(CALIBRATED), one(elsewhere), fp32], []) == []
    assert settle([one(TRAINED), fp32], []) == []


def test_one_that_failed_is_no_rival():
    failed = Candidate(plan=TRAINED, failure="refused")
    assert shipped([one(CALIBRATED), failed]) == ("minmax", "")


def test_what_is_not_shown_to_be_faster_than_fp32_keeps_no_other_from_shipping():
    fp32 = in_turns("fp32", FACTORS)
    slow = dataclasses.replace(in_turns("int8", FACTORS, 0.999), plan=TRAINED)
    fast = dataclasses.replace(in_turns("int8", FACTORS, 0.9), plan=CALIBRATED)
    assert best([fp32, slow, fast], settle([fp32, slow, fast], [])) is fast
