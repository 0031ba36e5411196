from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import BundleError, MeasurementError
from edgekit.profiling.conditions import Conditions, HostState
from edgekit.profiling.host import this_host
from edgekit.profiling.measured import Measured, load_measured, save_measured, split_turns


@pytest.fixture
def measured() -> Measured:
    return Measured(
        status="ok",
        artifact_sha256="ab" * 32,
        load_ms=12.5,
        cold_load_ms=(12.5, 11.0),
        cached_load_ms=(4.0, 4.5),
        first_inference_ms=3.25,
        first_inferences_ms=(3.25, 3.0),
        warm_up_ms=np.array([5.0, 1 / 7, 1.0]),
        warm_up_queries=1,
        warm_up_settled=False,
        application_ms=np.array([1.000001, 2.5, 0.1 + 0.2]),
        engine_ms=np.array([0.9, 2.4, 0.25]),
        dropped_ms=np.array([7.0, 1 / 3]),
        turn_sizes=(2, 1),
        turn_started_s=(0.0, 0.75),
        peak_memory_mb={"load": 33.5, "steady": None},
        size_mb=0.0025,
        host=this_host(),
        engine_version="1.0",
        turns=2,
        conditions=Conditions(
            before=HostState(governor="performance", throttled=("too hot",)),
            after=HostState(load_average=1 / 3),
            seconds=0.1,
            other_load=0.25,
        ),
        cached_load_note="it was too slow",
        started_at="2026-11-20T12:00:00+00:00",
    )


def test_saved_and_read_again_to_the_last_bit(measured: Measured, tmp_path: Path) -> None:
    save_measured(measured, tmp_path / "deep" / "er")
    again = load_measured(tmp_path / "deep" / "er")
    for field in dataclasses.fields(Measured):
        before, after = getattr(measured, field.name), getattr(again, field.name)
        if isinstance(before, np.ndarray):
            assert after.dtype == np.float64
            np.testing.assert_array_equal(after, before)
        else:
            assert after == before, field.name


def test_a_crash_is_saved_too(tmp_path: Path) -> None:
    crash = Measured(
        status="crashed", reason="died of SIGSEGV", artifact_sha256="0", size_mb=1.0, host=this_host(), started_at=""
    )
    save_measured(crash, tmp_path)
    again = load_measured(tmp_path)
    assert (again.status, again.reason, again.load_ms) == ("crashed", "died of SIGSEGV", None)
    assert again.conditions is None
    assert again.application_ms.shape == again.warm_up_ms.shape == (0,)


def test_the_first_query_of_each_turn_is_dropped_and_kept_aside() -> None:
    raw = np.array([[9, 8], [1, 1], [2, 1], [7, 6], [3, 2]], dtype=np.int64) * 1_000_000
    found = split_turns(raw, (3, 2))
    assert found["application_ms"].tolist() == [1.0, 2.0, 3.0]
    assert found["engine_ms"].tolist() == [1.0, 1.0, 2.0]
    assert found["dropped_ms"].tolist() == [9.0, 7.0]
    assert found["turn_sizes"] == (2, 1)
    assert found["turns"] == 2


def test_no_turns_give_no_latencies() -> None:
    found = split_turns(np.empty((0, 2), dtype=np.int64), ())
    assert found["application_ms"].shape == found["dropped_ms"].shape == (0,)


def test_latencies_that_do_not_fit_the_turns_are_refused() -> None:
    with pytest.raises(MeasurementError, match=r"int64\[4, 2\]"):
        split_turns(np.zeros((3, 2), dtype=np.int64), (2, 2))
    with pytest.raises(MeasurementError, match="do not fit the turns"):
        split_turns(np.zeros((4, 2)), (2, 2))


def test_damage_is_told(measured: Measured, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"measured\.json: no such file"):
        load_measured(tmp_path)
    save_measured(measured, tmp_path)
    raw = json.loads((tmp_path / "measured.json").read_text())
    (tmp_path / "measured.json").write_text(json.dumps({k: v for k, v in raw.items() if k != "size_mb"}))
    with pytest.raises(MeasurementError, match=r"(?s)not a measurement.*size_mb"):
        load_measured(tmp_path)
    (tmp_path / "latencies.npy").write_bytes(b"not an array")
    with pytest.raises(MeasurementError, match=r"latencies\.npy: cannot be read"):
        load_measured(tmp_path)
    np.save(tmp_path / "latencies.npy", np.zeros(3))
    with pytest.raises(MeasurementError, match="not latencies"):
        load_measured(tmp_path)
    save_measured(measured, tmp_path)
    (tmp_path / "warm_up.npy").unlink()
    with pytest.raises(MeasurementError, match=r"warm_up\.npy: cannot be read"):
        load_measured(tmp_path)
