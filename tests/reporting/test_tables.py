import pytest
from fake_line import quick_profile

from edgekit.reporting.tables import (
    bounds,
    candidates_table,
    count,
    facts,
    hundredths,
    interval,
    latency_table,
    limits_table,
    milliseconds,
    number,
    percent,
    percentile,
    points,
    remarks,
    scores_table,
    share,
    shipped_of,
    shortened,
)
from edgekit.specs import Limits


def test_unknown_figures_are_dashes():
    assert [number(None, 2), percent(None), share(None), count(None), interval(None), points(None)] == ["-"] * 6
    assert bounds(None, None, hundredths) == ""
    assert milliseconds(None) == "-"


def test_figures_read_as_people_write_them():
    assert (number(1.23456, 3), percent(0.9321), share(0.5), count(1234567)) == ("1.235", "93.21%", "50%", "1,234,567")
    drop = {"points": 0.5, "low": -0.25, "high": 1.0}
    assert (interval(drop), points(drop)) == ("0.50 [-0.25, 1.00]", "0.50")
    ends = [(-1.0, 2.0), (1.0, None), (None, 2.0)]
    assert [bounds(low, high, hundredths) for low, high in ends] == ["[-1.00, 2.00]", "≥ 1.00", "≤ 2.00"]
    times = (0.0, 0.02734, 1.23456, 12.3456, 123.456, 1234.56, 98765.4)
    assert [milliseconds(ms) for ms in times] == ["0.000", "0.027", "1.235", "12.35", "123.5", "1235", "98765"]


def test_candidates_and_which_ships(report, candidate):
    (target,) = report(
        candidate("openvino", "fp32", latency_ms=40.0, drop=(-0.1, 0.1)),
        candidate(),
        candidate(failure="no"),
        shipped=1,
    )["targets"]
    header, rows = candidates_table(target)
    assert header[0] == ""
    assert [row[0] for row in rows] == ["", "*", ""]
    assert [row[1] for row in rows] == ["openvino fp32", "onnxruntime int8", "onnxruntime int8"]
    assert rows[1][5:] == ["31", "0.20 [-0.52, 0.91]", "100%", "pass"]
    assert rows[2][2:] == ["-", "-", "-", "-", "-", "-", "fail"]
    assert all(len(row) == len(header) for row in rows)
    assert shipped_of(target)["engine"] == "onnxruntime"


def test_the_narrow_table_has_no_db_and_drops_as_points(report, candidate):
    header, rows = candidates_table(report(candidate())["targets"][0], narrow=True)
    assert "dB" not in header
    assert rows[0][header.index("drop, points")] == "0.20"
    assert len(rows[0]) == len(header)


def test_every_limit_has_a_name_and_a_unit(report, candidate):
    every = quick_profile(**dict.fromkeys(Limits.model_fields, 900.0))
    header, rows = limits_table(report(candidate(profile=every), profile=every)["targets"][0]["candidates"][0])
    assert len(rows) == len(Limits.model_fields)
    by_name = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert by_name["p99.9"]["allowed"] == "≤ 900 ms"
    assert by_name["peak memory"]["allowed"] == "≤ 900 MB"
    assert by_name["accuracy drop"]["allowed"] == "≤ 900 points"
    assert by_name["accuracy drop"]["interval"] == "[-0.52, 0.91]"
    assert by_name["size"] | {"verdict": ""} == {
        "limit": "size",
        "allowed": "≤ 900 MB",
        "seen": "12.34",
        "interval": "",
        "verdict": "",
        "confidence": "",
    }


def test_both_clocks_stand_side_by_side(report, candidate):
    header, rows = latency_table(report(candidate())["targets"][0]["candidates"][0]["measured"])
    assert [row[0] for row in rows] == ["application", "engine"]
    assert all(cell != "-" for row in rows for cell in row)
    assert float(rows[1][2]) < float(rows[0][2])
    assert latency_table(None) == (header, [])


def test_percentiles_without_enough_queries_are_dashes(candidate):
    measured = {"application": {"percentiles": {"50.0": {"ms": 1.5}}}}
    assert percentile({"measured": measured}, 50.0) == "1.500"
    assert percentile({"measured": measured}, 99.0) == "-"
    assert percentile({"measured": None}, 50.0) == "-"


def test_scores_of_teacher_student_and_what_ships(report, candidate):
    whole = report(candidate())
    header, rows = scores_table(whole, whole["targets"][0]["candidates"][0])
    assert header == ["", "model", "parameters", "accuracy", "drop, points"]
    assert [row[0] for row in rows] == ["teacher", "fp32 student", "what ships", "against fp32"]
    assert rows[0][2:4] == ["1,234,567", "93.21%"]
    assert rows[2][3:] == ["92.80%", "0.20 [-0.52, 0.91]"]
    assert rows[3][3:] == ["", "0.20 [-0.52, 0.91]"], "the drop from the fp32 student"
    assert [row[0] for row in scores_table(whole | {"same_model": True}, shipped_of(whole["targets"][0]))[1]] == [
        "teacher",
        "what ships",
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"random": True, "held_out": False}, "random inputs: nothing is known of the accuracy"),
        ({"random": False, "held_out": False}, "there is no test set"),
        ({"random": False, "held_out": True}, None),
    ],
)
def test_facts_say_what_the_figures_rest_on(report, candidate, data, said):
    whole = report(candidate())
    whole["data"] |= data
    found = dict(facts(whole, whole["targets"][0]))
    assert found["host"] == "AMD EPYC 9654 96-Core Processor, 2 cores, avx512-vnni, governor unknown"
    assert found["engines"] == "onnxruntime 1.31.1, openvino 2026.4.1"
    assert found["driven"] == "single_stream, batch 1, 4 threads"
    assert found["load"].startswith("cold 123.4 ms (longest of 3), first query 45.60 ms (longest of 3)")
    assert "20000 queries in 40 turns" in found["measured"]
    assert (said is None) == ("data" not in found)
    assert said is None or said in found["data"]


def test_facts_say_what_could_mislead(report, candidate):
    whole = report(candidate())
    plain = dict(facts(whole, whole["targets"][0]))
    assert not {"weights", "int8"} & plain.keys()
    whole["untrained"], whole["targets"][0]["not_measured"] = True, "this host is x86_64"
    told = dict(facts(whole, whole["targets"][0]))
    assert told["weights"] == "none were given: they are as the factory made them"
    assert told["int8"] == "the share is of this host's run, not of the target's"
    whole["targets"][0]["candidates"][0]["proof"]["int8_share"] = None  # another engine stood in for the target's
    assert "int8" not in dict(facts(whole, whole["targets"][0]))


def test_facts_say_why_a_measurement_is_less_than_sure(report, candidate):
    whole = report(candidate())
    measured = shipped_of(whole["targets"][0])["measured"]
    assert not {"spoiled", "drift", "note"} & dict(facts(whole, whole["targets"][0])).keys()
    measured |= {"spoiled": "others used 46%", "drift": "latencies drifted", "caveats": ["clocks unknown"]}
    measured["warm_up"]["queries"], measured["cached_load_ms"] = 34, [20.0, 21.5]
    told = dict(facts(whole, whole["targets"][0]))
    assert (told["spoiled"], told["drift"], told["note"]) == ("others used 46%", "latencies drifted", "clocks unknown")
    assert told["measured"].startswith("34 queries of warm-up, 20000 queries")
    assert "from the engine's cache 21.50 ms (longest of 2)" in told["load"]


def test_remarks_say_why_candidates_failed_and_why_nothing_ships(report, candidate):
    beyond, refused = candidate(drop=(3.0, 5.0)), candidate("openvino", failure="cannot run operator Foo")
    assert remarks(report(beyond, refused, shipped=None)["targets"][0]) == [
        ("onnxruntime int8", "not met: max_drop_points"),
        ("openvino int8 failed", "cannot run operator Foo"),
    ]
    assert remarks(report(candidate(), beyond)["targets"][0]) == []


def test_a_long_note_is_cut_and_says_where_it_is_whole():
    assert shortened("left in float: a, b") == "left in float: a, b"
    long = "left in float: " + ", ".join(f"layer{i}" for i in range(100))
    assert shortened(long).endswith("… (whole in report.html)")
    assert len(shortened(long)) < 240
