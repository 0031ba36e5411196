from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import DataError, ParityError, SpecError, UnknownName
from edgekit.metrics import (
    METRICS,
    Drop,
    accuracy,
    agreement,
    load_metric,
    paired_drop,
    paired_drop_aggregate,
    score,
    top5,
)


def _scores(worse: int, better: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """0/1 scores of reference and artifact with the given numbers of disagreements."""
    reference, artifact = np.ones(n), np.ones(n)
    artifact[:worse] = 0
    reference[worse : worse + better] = 0
    return reference, artifact


def test_accuracy_counts_the_largest_output() -> None:
    outputs = np.array([[0.1, 0.9], [0.8, 0.2], [0.5, 0.5]])
    assert accuracy(outputs, np.array([1, 1, 0])).tolist() == [1, 0, 1]


def test_accuracy_breaks_ties_as_argmax_does() -> None:
    outputs = np.random.default_rng(0).integers(0, 3, (500, 4)).astype(np.float32)
    targets = np.random.default_rng(1).integers(0, 4, 500)
    np.testing.assert_array_equal(accuracy(outputs, targets), outputs.argmax(axis=1) == targets)


def test_top5_counts_the_five_largest() -> None:
    outputs = np.arange(10.0)[None].repeat(10, axis=0)
    assert top5(outputs, np.arange(10)).tolist() == [0] * 5 + [1] * 5


def test_accuracy_refuses_what_is_not_class_scores() -> None:
    with pytest.raises(DataError, match=r"class scores\n.*float64\[4, 1\]"):
        accuracy(np.zeros((4, 1)), np.zeros(4, dtype=np.int64))
    with pytest.raises(DataError, match=r"boxes: float64\[4, 2\], scores"):
        accuracy({"boxes": np.zeros((4, 2)), "scores": np.zeros((4, 2))}, np.zeros(4, dtype=np.int64))


def test_accuracy_refuses_a_label_beyond_the_outputs() -> None:
    with pytest.raises(DataError, match=r"7 at sample 1\n.*0 to 2"):
        accuracy(np.zeros((2, 3)), np.array([0, 7]))


def test_accuracy_refuses_targets_that_are_not_labels() -> None:
    with pytest.raises(DataError, match=r"float64\[2\]"):
        accuracy(np.zeros((2, 3)), np.zeros(2))


def test_a_metric_is_found_by_name_or_in_a_module(tmp_path: Path) -> None:
    (tmp_path / "own_metric.py").write_text("def half(outputs, targets):\n    return 0.5\nLIMIT = 3\n")
    assert load_metric("top5") is METRICS["top5"]
    half = load_metric("own_metric:half", tmp_path)
    assert score(half, np.zeros((3, 2)), np.zeros(3)) == 0.5
    with pytest.raises(SpecError, match="recipe: metric 'own_metric:LIMIT' cannot be called"):
        load_metric("own_metric:LIMIT", tmp_path, "recipe")
    with pytest.raises(UnknownName, match="did you mean 'accuracy'"):
        load_metric("acuracy")


def test_score_hands_over_a_single_output_bare_and_several_by_name() -> None:
    seen = []

    def metric(outputs: object, targets: np.ndarray) -> np.ndarray:
        seen.append(type(outputs))
        return np.ones(len(targets))

    score(metric, {"logits": np.zeros((3, 2))}, np.zeros(3))
    score(metric, {"a": np.zeros(3), "b": np.zeros(3)}, np.zeros(3))
    assert seen == [np.ndarray, dict]


@pytest.mark.parametrize(
    ("returned", "match"),
    [
        (np.ones((3, 2)), r"shape \[3, 2\]"),
        (np.ones(2), r"shape \[2\]"),
        (np.array([1, np.nan, 0]), "NaN or infinity"),
        ("good", "str"),
        (None, "NaN or infinity|NoneType"),
    ],
)
def test_score_refuses_what_is_not_scores(returned: object, match: str) -> None:
    with pytest.raises(SpecError, match=match):
        score(lambda outputs, targets: returned, np.zeros((3, 2)), np.zeros(3))


def test_score_refuses_nan_outputs_and_a_wrong_number_of_targets() -> None:
    with pytest.raises(ParityError, match="'output' holds NaN"):
        score(accuracy, np.array([[np.nan, 0.0]]), np.array([0]))
    with pytest.raises(DataError, match="3 outputs, 2 targets"):
        score(accuracy, np.zeros((3, 2)), np.zeros(2, dtype=np.int64))


def test_agreement_compares_the_largest_output() -> None:
    reference = np.array([[0.0, 1.0], [1.0, 0.0]])
    found = agreement({"out": np.array([[0.4, 0.6], [0.4, 0.6]])}, reference)
    assert found is not None
    assert found.tolist() == [1, 0]


def test_agreement_is_none_for_what_is_not_class_scores() -> None:
    boxes = np.zeros((4, 10, 2))
    assert agreement(boxes, boxes) is None
    assert agreement(np.zeros((4, 1)), np.zeros((4, 1))) is None
    assert agreement({"a": boxes, "b": boxes}, {"a": boxes, "b": boxes}) is None
    with pytest.raises(DataError, match="differ in shape"):
        agreement(np.zeros((4, 2)), np.zeros((4, 3)))


def test_tango_of_a_published_example() -> None:
    # Airway hyper-responsiveness, Bentur et al. 2009, in Fagerland, Lydersen & Laake 2014 ("Recommended tests and
    # confidence intervals for paired binomial proportions", Statistics in Medicine 33:2850-2875): (-0.517, -0.026).
    drop = paired_drop(*_scores(worse=1, better=7, n=21))
    assert drop.points == pytest.approx(-600 / 21)
    assert (drop.low, drop.high) == (pytest.approx(-51.7, abs=0.05), pytest.approx(-2.6, abs=0.05))
    assert (drop.n, drop.disagreements) == (21, 8)


@pytest.mark.parametrize("n", [1, 20, 360, 10_000])
def test_no_disagreement_still_has_an_interval(n: int) -> None:
    drop = paired_drop(*_scores(0, 0, n))
    z_squared = 1.959963985**2
    assert drop.high == pytest.approx(100 * z_squared / (n + z_squared))
    assert drop.low == pytest.approx(-drop.high)
    assert drop.points == 0


def test_total_disagreement_ends_at_100_points() -> None:
    drop = paired_drop(*_scores(50, 0, 50))
    assert drop.points == 100
    assert drop.high == pytest.approx(100)
    assert 80 < drop.low < 95


def test_the_interval_turns_with_its_sides_and_widens_with_confidence() -> None:
    there, back = paired_drop(*_scores(9, 3, 100)), paired_drop(*_scores(3, 9, 100))
    assert (there.low, there.high) == (pytest.approx(-back.high), pytest.approx(-back.low))
    wide = paired_drop(*_scores(9, 3, 100), confidence=0.995)
    assert wide.low < there.low < there.points < there.high < wide.high


def _coverage(n: int, p_worse: float, p_better: float, draws: int) -> float:
    """Share of simulated tests of n samples whose interval holds the true drop."""
    rng = np.random.default_rng([n, int(1000 * p_worse), int(1000 * p_better)])
    cells = rng.multinomial(n, [p_worse, p_better, 1 - p_worse - p_better], size=draws)
    found, counts = np.unique(cells[:, :2], axis=0, return_counts=True)
    drops = [paired_drop(*_scores(int(worse), int(better), n)) for worse, better in found]
    truth = 100 * (p_worse - p_better)
    held = np.array([drop.low <= truth <= drop.high for drop in drops])
    return float((held * counts).sum() / draws)


@pytest.mark.parametrize("n", [15, 40, 150])
@pytest.mark.parametrize(("p_worse", "p_better"), [(0.01, 0.0), (0.03, 0.03), (0.1, 0.02), (0.3, 0.1)])
def test_tango_covers_what_it_says(n: int, p_worse: float, p_better: float) -> None:
    assert _coverage(n, p_worse, p_better, draws=4000) >= 0.95 - 0.025


def _student_coverage(n: int, rare: float, draws: int) -> float:
    """The same for graded scores: a share of samples loses all, the others lose a little or nothing."""
    rng = np.random.default_rng([n, int(1000 * rare)])
    hits = 0
    for _ in range(draws):
        reference = rng.uniform(0.5, 1.0, n)
        lost = np.where(rng.random(n) < rare, reference, 0.0)
        drop = paired_drop(reference, reference - lost)
        hits += drop.low <= 100 * rare * 0.75 <= drop.high
    return hits / draws


@pytest.mark.parametrize("n", [12, 60])
@pytest.mark.parametrize("rare", [0.0, 0.02, 0.1, 0.4])
def test_graded_scores_are_covered_too(n: int, rare: float) -> None:
    assert _student_coverage(n, rare, draws=800) >= 0.95 - 0.025


def test_graded_scores_that_agree_are_not_proof_of_zero() -> None:
    scores = np.random.default_rng(0).random(360)
    drop = paired_drop(scores, scores)
    assert drop.points == 0
    assert drop.disagreements == 0
    assert 0.9 < drop.high < 1.3
    assert drop.low == pytest.approx(-drop.high)


def test_scores_of_a_wider_range_widen_the_pseudo_samples() -> None:
    scores = np.random.default_rng(0).uniform(0, 100, 50)
    assert paired_drop(scores, scores).high > 50 * paired_drop(scores / 100, scores / 100).high


def test_students_quantile_is_that_of_the_tables() -> None:
    # Twelve equal graded scores and four pseudo-samples leave 15 degrees of freedom: 2.131 at two-sided 95%.
    drop = paired_drop(np.full(12, 0.5), np.full(12, 0.5))
    spread = np.array([0.0] * 12 + [1, 1, -1, -1]).std(ddof=1) / np.sqrt(16)
    assert drop.high / 100 == pytest.approx(2.131 * spread, rel=1e-3)


def test_a_drop_needs_the_same_samples() -> None:
    with pytest.raises(DataError, match=r"reference \[3\], artifact \[2\]"):
        paired_drop(np.ones(3), np.ones(2))
    with pytest.raises(DataError, match=r"\[0\]"):
        paired_drop(np.ones(0), np.ones(0))


def _mean_accuracy(outputs: np.ndarray, targets: np.ndarray) -> float:
    return float((outputs.argmax(axis=1) == targets).mean())


def _outputs(n: int, wrong: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    targets = np.arange(n) % 3
    reference = np.eye(3)[targets]
    artifact = reference.copy()
    artifact[:wrong] = np.roll(artifact[:wrong], 1, axis=1)
    return reference, artifact, targets


def test_an_aggregate_is_bootstrapped_in_pairs() -> None:
    reference, artifact, targets = _outputs(n=300, wrong=60)
    drop = paired_drop_aggregate(_mean_accuracy, reference, artifact, targets)
    paired = paired_drop(accuracy(reference, targets), accuracy(artifact, targets))
    assert drop.points == pytest.approx(20)
    assert drop.disagreements == 60
    assert (drop.low, drop.high) == (pytest.approx(paired.low, abs=1), pytest.approx(paired.high, abs=1))


def test_an_aggregate_that_agrees_is_not_proof_of_zero() -> None:
    reference, artifact, targets = _outputs(n=360, wrong=0)
    drop = paired_drop_aggregate(_mean_accuracy, reference, artifact, targets)
    least = paired_drop(*_scores(0, 0, 360))
    assert drop == Drop(points=0, low=least.low, high=least.high, n=360, disagreements=0, confidence=0.95)


def _correlation(outputs: np.ndarray, targets: np.ndarray) -> float:
    return float(np.corrcoef(outputs[:, 0], targets)[0, 1])


def test_an_aggregate_repeats_with_its_seed() -> None:
    rng = np.random.default_rng(0)
    targets, noise = rng.standard_normal(40), rng.standard_normal((2, 40, 1))
    reference, artifact = targets[:, None] + 0.2 * noise[0], targets[:, None] + 0.6 * noise[1]
    drops = [paired_drop_aggregate(_correlation, reference, artifact, targets, seed=seed) for seed in (0, 0, 1)]
    assert drops[0] == drops[1] != drops[2]
    assert drops[0].disagreements is None  # one column: not class scores


def test_an_aggregate_without_a_value_on_some_draw_says_so() -> None:
    outputs = np.zeros((4, 2))
    targets = np.array([0.0, 0.0, 0.0, 1.0])

    def needs_both(outputs: np.ndarray, targets: np.ndarray) -> float:
        return 1.0 if len(set(targets)) == 2 else float("nan")

    with pytest.raises(SpecError, match="'needs_both' returned NaN"):
        paired_drop_aggregate(needs_both, outputs, outputs, targets)


def test_an_aggregate_must_be_one_number() -> None:
    reference, artifact, targets = _outputs(n=30, wrong=1)
    with pytest.raises(SpecError, match="use paired_drop"):
        paired_drop_aggregate(accuracy, reference, artifact, targets)
