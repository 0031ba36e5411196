import dataclasses
import json

import numpy as np
import pytest

from edgekit.errors import BundleError, SpecError
from edgekit.profiling.load import LoadSpec
from edgekit.reporting.measurement import histogram, measured_report, timeline
from edgekit.reporting.model import REPORT_SCHEMA_VERSION
from edgekit.reporting.report import load_report


def test_a_row_tells_everything_of_a_candidate(report, candidate):
    (row,) = report(candidate())["targets"][0]["candidates"]
    assert (row["engine"], row["precision"], row["shipped"], row["status"]) == ("onnxruntime", "int8", True, "pass")
    assert row["proof"]["drop"]["n"] == 10_000
    (conv,) = row["proof"]["placement"]
    assert conv == {"op": "Conv", "precision": "int8", "compute": True, "count": 20, "macs": None, "time_us": None}
    assert {limit["limit"]: limit["status"] for limit in row["limits"]} == {
        "max_drop_points": "pass",
        "p50_ms": "pass",
        "p99_ms": "pass",
        "first_inference_ms": "pass",
        "peak_memory_mb": "pass",
    }
    measured = row["measured"]
    assert (measured["load_ms"], measured["turns"], measured["highest_memory_mb"]) == (123.4, 40, 512.5)
    percentiles = measured["application"]["percentiles"]
    assert set(percentiles) == {"50.0", "90.0", "95.0", "99.0", "99.9"}
    assert percentiles["99.0"]["upper_ms"] >= percentiles["99.0"]["ms"] >= percentiles["99.0"]["lower_ms"]
    assert measured["engine"]["mean_ms"] < measured["application"]["mean_ms"]


def test_a_failed_row_says_why(report, candidate):
    rows = report(candidate(), candidate("openvino", failure="openvino cannot run operator Foo"))["targets"][0][
        "candidates"
    ]
    assert (rows[1]["status"], rows[1]["failure"]) == ("fail", "openvino cannot run operator Foo")
    assert rows[1]["reason"] == rows[1]["failure"]
    assert (rows[1]["proof"], rows[1]["measured"], rows[1]["limits"], rows[1]["shipped"]) == (None, None, [], False)


def test_a_target_tells_what_was_asked_and_what_ships(report, candidate):
    (target,) = report(candidate())["targets"]
    assert (target["target"], target["profile"], target["threads"], target["status"]) == ("local", "quick", 4, "pass")
    assert target["limits"]["max_drop_points"] == 1.0
    assert "size_mb" not in target["limits"]
    assert target["load"]["batch"] == 1
    assert target["bundle"]["id"].startswith("0123456789abcdef")


def test_where_nothing_ships_the_target_fails(report, candidate):
    (target,) = report(candidate(drop=(3.0, 5.0)), shipped=None)["targets"]
    assert (target["status"], target["bundle"]) == ("fail", None)
    assert target["candidates"][0]["reason"] == "not met: max_drop_points"


def test_a_measurement_that_failed_has_no_latencies(candidate):
    crashed = dataclasses.replace(candidate().measured, status="crashed", reason="died of SIGSEGV")
    found = measured_report(crashed, LoadSpec())
    assert (found["status"], found["reason"], found["application"], found["engine"]) == (
        "crashed",
        "died of SIGSEGV",
        None,
        None,
    )
    assert measured_report(None, LoadSpec()) is None


# ---- reading ----


def write(tmp_path, value):
    (tmp_path / "report.json").write_text(value if isinstance(value, str) else json.dumps(value))
    return tmp_path


def test_a_report_is_read_from_its_folder_or_its_file(tmp_path, report, candidate):
    whole = report(candidate())
    folder = write(tmp_path, whole)
    assert load_report(folder) == load_report(folder / "report.json") == whole


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"schema_version": REPORT_SCHEMA_VERSION + 1, "kind": "run"}, "not a report this version can read"),
        ({"schema_version": 1, "targets": []}, "not a report this version can read"),
        ({"schema_version": REPORT_SCHEMA_VERSION, "kind": "run"}, "is missing"),
        ({}, "not a report of EdgeKit"),
        ([], "not a report of EdgeKit"),
        ("3", "not a report of EdgeKit"),
    ],
)
def test_another_schema_or_another_file_is_refused(tmp_path, value, problem):
    with pytest.raises(SpecError, match=problem) as caught:
        load_report(write(tmp_path, value))
    assert "report.json" in str(caught.value)


def test_a_missing_or_damaged_report_is_told(tmp_path):
    with pytest.raises(BundleError, match=r"report.json: no such file"):
        load_report(tmp_path)
    with pytest.raises(BundleError, match="not JSON"):
        load_report(write(tmp_path, '{"schema_version": 1, "targ'))


# ---- pictures ----


def test_a_histogram_counts_every_query(candidate):
    latencies = candidate().measured.application_ms
    drawn = histogram(latencies)
    assert drawn["below"] + sum(drawn["counts"]) + drawn["above"] == len(latencies)
    assert len(drawn["edges_ms"]) == len(drawn["counts"]) + 1
    assert 0 < drawn["above"] <= len(latencies) / 500
    assert histogram(np.full(10, 2.0))["above"] == 0


def test_a_timeline_follows_the_turns(candidate):
    measured = candidate().measured
    drawn = timeline(measured)
    assert drawn["seconds"] == [round(start, 4) for start in measured.turn_started_s]
    turns = np.split(measured.application_ms, 40)
    assert drawn["max_ms"] == [round(float(turn.max()), 6) for turn in turns]
    assert all(
        p50 < p90 < most for p50, p90, most in zip(drawn["p50_ms"], drawn["p90_ms"], drawn["max_ms"], strict=True)
    )
    long = dataclasses.replace(measured, turn_sizes=(10,) * 2000, turn_started_s=())
    drawn = timeline(long)
    assert len(drawn["seconds"]) == 120
    assert drawn["seconds"] == sorted(drawn["seconds"])
