"""What is wrong with a pruning whatever the student is: told before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_line import fake_target, quick_profile

from edgekit.artifact import to_json
from edgekit.catalog import load_target
from edgekit.errors import EdgeKitError, SpecError
from edgekit.latency_table import LatencyTable, write_table
from edgekit.profiling.host import this_host
from edgekit.recipe import Quantization
from edgekit.recipe_pruning import Pruning
from edgekit.shipping import Job
from edgekit.shrinking.checks import NOTES, check_budget, check_least, check_pruning


def job(*, elsewhere: bool = False, precision: str = "auto") -> Job:
    target = load_target("raspberry-pi-4", ()) if elsewhere else fake_target()
    settings = Quantization.model_validate({"precision": precision})
    return Job(target=target, profile=quick_profile(), engines=("onnxruntime",), quantization=settings)


def table(path: Path, engine: str, batch: int = 1, *, measured: bool = False) -> Path:
    made = LatencyTable(
        engine=engine,
        precision="fp32",
        batch=batch,
        source="measured" if measured else "estimate: roofline",
        host=to_json(this_host()) if measured else None,
        whole_us=100.0,
        rows=(),
        classes=(),
        seconds=1.0,
    )
    write_table(made, path)
    return path


def test_there_must_be_a_budget():
    with pytest.raises(SpecError, match=r"no budget(.|\n)*'quick' has no p50_ms(.|\n)*--ratio SHARE"):
        check_budget(Pruning(), quick_profile())
    check_budget(Pruning(), quick_profile(p50_ms=2.0))
    check_budget(Pruning(ratio=0.5), quick_profile())


def test_a_budget_that_the_clock_cannot_tell_from_nothing_is_refused():
    with pytest.raises(SpecError, match=r"budget_ms is below the clock's resolution\n.*1e-09 ms(.|\n)*in seconds"):
        check_budget(Pruning(budget_ms=1e-9), quick_profile())
    check_budget(Pruning(budget_ms=1.0), quick_profile())


def test_a_criterion_of_ones_own_must_be_there(tmp_path):
    with pytest.raises(EdgeKitError, match="nowhere_at_all"):
        check_pruning(Pruning(criterion="nowhere_at_all:criterion"), job(), tmp_path)
    (tmp_path / "own_criterion.py").write_text("def mine(module, groups, evidence):\n    return []\n")
    check_pruning(Pruning(criterion="own_criterion:mine"), job(), tmp_path)


def test_a_table_for_another_machine_must_be_there_whole_and_of_a_candidate_engine(tmp_path):
    with pytest.raises(SpecError, match=r"none\.json: no such file(.|\n)*--table-only"):
        check_pruning(Pruning(table="none.json"), job(elsewhere=True), tmp_path)
    (tmp_path / "half.json").write_text('{"schema_version": 1, ')
    with pytest.raises(SpecError, match=r"half\.json: not JSON"):
        check_pruning(Pruning(table="half.json"), job(elsewhere=True), tmp_path)
    table(tmp_path / "other.json", "openvino")
    with pytest.raises(SpecError, match=r"another engine\n.*openvino\n.*onnxruntime"):
        check_pruning(Pruning(table="other.json"), job(elsewhere=True), tmp_path)
    table(tmp_path / "other.json", "onnxruntime", batch=4)
    with pytest.raises(SpecError, match=r"another batch\n.*4\n.*1"):
        check_pruning(Pruning(table="other.json"), job(elsewhere=True), tmp_path)
    table(tmp_path / "other.json", "onnxruntime", measured=True)
    with pytest.raises(SpecError, match="another machine"):
        check_pruning(Pruning(table="other.json"), job(elsewhere=True), tmp_path)
    table(tmp_path / "good.json", "onnxruntime")
    with pytest.raises(SpecError, match=r"another precision\n.*fp32\n.*int8"):
        check_pruning(Pruning(table="good.json"), job(elsewhere=True, precision="int8"), tmp_path)
    check_pruning(Pruning(table="good.json"), job(elsewhere=True), tmp_path)


def test_a_table_is_not_looked_at_where_this_host_is_the_target(tmp_path, monkeypatch):
    read: list[Path] = []
    monkeypatch.setattr("edgekit.shrinking.checks.load_table", read.append)
    check_pruning(Pruning(table="none.json"), job(), tmp_path)
    assert read == []


def test_a_budget_below_the_smallest_network_names_what_stays_and_the_budget_that_can_be():
    stays = [f"rnn{i}: all 64 channels stay: goes through an LSTM" for i in range(NOTES + 2)]
    said = r"smallest network(.|\n)*1 ms, 0.25 of(.|\n)*rnn0: all 64(.|\n)*and 2 more(.|\n)*3 ms or more, 0.75 of it"
    with pytest.raises(SpecError, match=said):
        check_least(1.0, 4.0, 3.0, stays)
    check_least(3.0, 4.0, 3.0, stays)
