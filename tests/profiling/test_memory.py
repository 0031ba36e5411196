from __future__ import annotations

import mmap
import sys
from pathlib import Path

import pytest

from edgekit.profiling import memory

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="VmHWM is Linux's")


@linux
def test_each_phase_has_a_peak_of_its_own() -> None:
    peaks: dict[str, float | None] = {}
    with memory.peak_of("before", peaks):
        pass
    # An array's memory would stay with malloc, where a library of this process set it so.
    with memory.peak_of("large", peaks), mmap.mmap(-1, 100_000_000) as block:
        for start in range(0, len(block), mmap.PAGESIZE):
            block[start] = 1
    with memory.peak_of("after", peaks):
        pass
    assert peaks["large"] > peaks["before"] + 90
    assert peaks["after"] < peaks["large"] - 90, "the mark is reset"


@linux
def test_a_peak_is_in_millions_of_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tx\nVmHWM:\t  125000 kB\nVmRSS:\t 1 kB\n")
    monkeypatch.setattr(memory, "_STATUS", status)
    assert memory.peak_mb() == 128.0


def test_a_system_without_the_mark_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none")
    assert memory.peak_mb() is None
    (tmp_path / "bare").write_text("Name:\tx\n")
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "bare")
    assert memory.peak_mb() is None


@linux
def test_a_mark_that_cannot_be_reset_is_not_a_phase_peak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CLEAR_REFS", tmp_path / "none" / "clear_refs")
    peaks: dict[str, float | None] = {}
    with memory.peak_of("load", peaks):
        pass
    assert peaks == {"load": None}
