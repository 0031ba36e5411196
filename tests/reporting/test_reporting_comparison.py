import io

import pytest
from rich.console import Console

from edgekit.reporting.comparison import change, pairs_table, print_comparison, remarks, sentence, sides_table, verdict


def ratio(value, low, high, *, percentile=50.0, finding=None):
    found = finding or ("slower" if low > 1 else "faster" if high < 1 else "no difference shown")
    return {"percentile": percentile, "ratio": value, "low": low, "high": high, "confidence": 0.995, "finding": found}


def side(label, **fields):
    known = {"label": label, "name": "digits onnxruntime int8", "kind": "bundle", "queries": 12345, "status": "ok"}
    known |= {"percentiles_ms": {"50.0": 1.2345, "90.0": 2.0}, "spoiled": None, "drift": None, "reason": None}
    return known | fields


def comparison(*ratios, sides=None, pair=None, **fields):
    found = {"base": "A", "other": "B", "in_turns": True, "ratios": list(ratios), "unsupported": {}, "reason": ""}
    found |= {"finding": ratios[0]["finding"] if ratios else "not compared", "status": None} | (pair or {})
    known = {"sides": sides or [side("A"), side("B")], "pairs": [found], "notes": [], "not_in_turns": None}
    known |= {"load": {"min_seconds": 15.0, "batch": 1}, "inputs": "golden samples of x", "in_turns": True}
    return known | {"status": "compared", "max_regression": None, "judged": [50.0]} | fields


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (ratio(0.61, 0.60, 0.62), "39% less time"),
        (ratio(1.12, 1.10, 1.14), "12% slower"),
        (ratio(1.032, 1.03, 1.034), "3.2% slower"),
        (ratio(2.4, 2.3, 2.5), "2.4 times as long"),
        (ratio(1.01, 0.99, 1.02), "no difference shown"),
        (ratio(1.2, 1.1, 1.3, finding="unsettled"), "unsettled"),
    ],
)
def test_a_ratio_in_words(found, words):
    assert change(found) == words


def test_the_sentence_of_a_pair():
    found = comparison(ratio(0.61, 0.60, 0.62))
    assert (
        sentence(found["pairs"][0]) == "B takes 0.61\N{MULTIPLICATION SIGN} the time of A [0.60, 0.62]: 39% less time"
    )
    sharp = comparison(ratio(1.0321, 1.0301, 1.0341), pair={"in_turns": False})
    assert sentence(sharp["pairs"][0]) == (
        "B takes 1.032\N{MULTIPLICATION SIGN} the time of A [1.030, 1.034]: 3.2% slower (not in turns)"
    )
    failed = comparison(pair={"reason": "B crashed: it died"})
    assert sentence(failed["pairs"][0]) == "B and A are not compared: B crashed: it died"
    few = comparison(pair={"unsupported": {"50.0": "p50: 10 queries"}})
    assert sentence(few["pairs"][0]) == "B and A are not compared: p50: 10 queries"


def test_tables_have_a_row_a_side_and_a_percentile():
    found = comparison(
        ratio(0.61, 0.60, 0.62),
        ratio(0.7, 0.5, 1.1, percentile=90.0),
        pair={"unsupported": {"99.0": "p99: too few"}},
    )
    assert sides_table(found)[1][0] == ["A", "digits onnxruntime int8", "bundle", "1.234", "2.000", "-", "12,345"]
    assert pairs_table(found)[1] == [
        ["B / A", "p50", "0.61", "[0.60, 0.62]", "faster"],
        ["B / A", "p90", "0.70", "[0.50, 1.10]", "no difference shown"],
        ["B / A", "p99", "-", "", "not supported"],
    ]
    assert pairs_table(comparison())[1] == [["B / A", "", "-", "", "not compared"]]


def test_remarks_say_how_it_was_measured_and_what_is_missing():
    found = comparison(
        ratio(1.0, 0.9, 1.1),
        sides=[side("A", drift="slower over time"), side("B")],
        pair={"unsupported": {"99.0": "p99: too few"}},
        notes=["the bundle was measured anew"],
    )
    said = list(remarks(found))
    assert said[:3] == [
        "intervals: 99.5%, in turns, 15 s a side, batch 1",
        "inputs: golden samples of x",
        "the bundle was measured anew",
    ]
    assert "drift, which cancels where both sides see it: A: slower over time" in said
    assert said[-1] == "B / A: p99: too few"
    apart = comparison(ratio(1.0, 0.9, 1.1), in_turns=False, not_in_turns="not in turns: so it is", inputs=None)
    assert "not in turns: so it is" in list(remarks(apart))


def test_the_verdict_is_the_last_word():
    assert verdict(comparison(ratio(1.0, 0.9, 1.1))) is None
    limited = {"max_regression": 0.05}
    passed = comparison(ratio(1.0, 0.9, 1.1), pair={"status": "pass", "reason": "within"}, status="pass", **limited)
    assert verdict(passed) == "PASS (at most 5% slower): B: within"
    dead = comparison(pair={"reason": "B crashed"}, status="failed")
    assert verdict(dead) == "FAILED: not every side was compared"
    twice = comparison(
        ratio(1.0, 0.9, 1.1), pair={"status": "inconclusive", "reason": "spoiled"}, status="inconclusive"
    )
    twice["pairs"].append({**twice["pairs"][0], "other": "C"})
    assert verdict(twice) == "INCONCLUSIVE: B, C: spoiled"


def test_everything_fits_80_columns():
    found = comparison(
        ratio(123.456, 99.1234, 234.5678),
        ratio(123.456, 0.1234, 234.5678, percentile=99.9),
        sides=[side("A", name="a-rather-long-recipe-name onnxruntime int8"), side("B", queries=12_345_678)],
        notes=["the baseline's bundle lies beside its report and was measured anew, in turns " * 2],
    )
    out = io.StringIO()
    print_comparison(found, Console(file=out, width=80, markup=False, emoji=False, highlight=False))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any("B / A" in line and "slower" in line for line in lines)
    assert any("B takes 123.46\N{MULTIPLICATION SIGN} the time of A [99.12, 234.57]" in line for line in lines)
