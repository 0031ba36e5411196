"""What happened between two looks at a machine, with counters as the kernel writes them."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time

import fake_machines
import pytest
from fake_machines import US, cpu_ticks, machine, process, seen_whole, thread

from edgekit.profiling.conditions import HostState
from edgekit.profiling.processes import read_all, ticks_per_second
from edgekit.profiling.watching import SHORTEST_SECONDS, conditions_between, observe

OURS = 200
OTHER = 300
INIT = process(1, 50, parent=0)
TWO_SECONDS = 2.0
"""On two CPUs: 400 ticks."""


@pytest.fixture
def between(tmp_path):
    """Conditions between a machine's files before and after; a path whose text is None is gone afterwards."""

    def run(before, after, *, ours=(OURS,), seconds=TWO_SECONDS, cpus=2, **kwargs):
        system = machine(tmp_path, before, cpus=cpus)
        first = observe(ours, system=system, at_s=5.0)
        for gone in [path for path, text in after.items() if text is None]:
            (tmp_path / gone).unlink()
            (tmp_path / gone).parent.rmdir()
        machine(tmp_path, {path: text for path, text in after.items() if text is not None}, cpus=cpus)
        return conditions_between(first, observe(ours, system=system, at_s=5.0 + seconds), **kwargs)

    return run


def gone(pid):
    return {f"proc/{pid}/stat": None}


def test_a_machine_that_tells_nothing(between):
    found = between({}, {})
    assert (found.before, found.after, found.seconds) == (HostState(), HostState(), TWO_SECONDS)
    assert (found.other_load, found.steal, found.waited) == (None, None, None)
    assert (found.cpu_limit, found.periods, found.throttled_periods, found.memory_limit_mb) == (None,) * 4


def test_others_use_what_ours_leave_of_the_busy_cpus(between):
    """In a container others cannot be seen: of 300 busy ticks ours had 200 + 10."""
    before = cpu_ticks((1000, 500, 0), (1000, 500, 0)) | process(US, 30) | process(OURS, 400)
    after = cpu_ticks((1200, 500, 0), (1100, 600, 0)) | process(US, 40) | process(OURS, 600)
    assert between(before, after).other_load == pytest.approx((300 - 210) / 400)


def test_nobody_else(between):
    before = cpu_ticks((1000, 500, 0), (1000, 500, 0)) | process(US, 30) | process(OURS, 400)
    after = cpu_ticks((1195, 505, 0), (1000, 700, 0)) | process(US, 35) | process(OURS, 595)
    found = between(before, after)
    assert (found.other_load, found.steal) == (0.0, 0.0)


def test_time_that_sampling_missed_is_seen_in_the_idle_time(between):
    """Busy ticks are samples; idle ones are exact on most kernels. Nobody was busy 390 of 400 by the samples."""
    before = cpu_ticks((1000, 500, 0), (1000, 500, 0)) | process(US, 0) | process(OURS, 0)
    after = cpu_ticks((1005, 600, 0), (1005, 600, 0)) | process(US, 0) | process(OURS, 100)
    assert between(before, after).other_load == pytest.approx((400 - 200 - 100) / 400)


def test_only_the_allowed_cpus_count(between):
    before = cpu_ticks((1000, 500, 0), (1000, 500, 0)) | process(US, 0) | process(OURS, 0)
    after = cpu_ticks((1200, 500, 0), (1200, 500, 0)) | process(US, 0) | process(OURS, 200)
    assert between(before, after, cpus=1).other_load == 0.0


def test_a_measuring_process_that_ended_is_charged_to_us(between):
    """It had used 400 before the run and 150 more in it; we waited for it."""
    before = cpu_ticks((1000, 500, 0), (1000, 500, 0)) | process(US, 30) | process(OURS, 400, parent=US)
    after = cpu_ticks((1150, 550, 0), (1100, 600, 0)) | process(US, 30, ended=550) | gone(OURS)
    assert between(before, after).other_load == pytest.approx((250 - 150) / 400)


def test_what_an_ended_process_used_is_unknown_where_nobody_was_charged(between):
    before = cpu_ticks((1000, 500, 0), (1000, 500, 0)) | process(US, 30) | process(OURS, 400)
    after = cpu_ticks((1150, 550, 0), (1100, 600, 0)) | process(US, 30) | gone(OURS)
    assert between(before, after).other_load is None


def test_a_number_used_again_is_another_process(between):
    before = cpu_ticks((1000, 500, 0), (1000, 500, 0)) | process(US, 30) | process(OURS, 400, started=10)
    after = cpu_ticks((1150, 550, 0), (1100, 600, 0)) | process(US, 30, ended=500) | process(OURS, 7, started=99)
    assert between(before, after).other_load == pytest.approx((250 - 100) / 400)


def test_without_ourselves_there_is_no_saying(between):
    ticks = cpu_ticks((1000, 500, 0), (1000, 500, 0))
    assert between(ticks, ticks).other_load is None


@pytest.fixture
def whole(tmp_path):
    seen_whole(tmp_path)
    return INIT | process(US, 30) | process(OURS, 400, parent=US) | process(OTHER, 70)


def test_where_everyone_is_seen_others_are_summed(between, whole):
    """CPU samples say 260 busy; the other process's own clock says 40."""
    before = whole | cpu_ticks((1000, 500, 0), (1000, 500, 0))
    after = cpu_ticks((1130, 570, 0), (1130, 570, 0)) | process(OTHER, 110) | process(OURS, 500, parent=US)
    assert between(before, after).other_load == pytest.approx(40 / 400)


def test_one_that_came_and_one_that_came_and_went_are_seen(between, whole):
    """301 came, used 20 and stays; a compiler came under 300, used 55 and ended."""
    before = whole | cpu_ticks((1000, 500, 0), (1000, 500, 0))
    after = cpu_ticks((1200, 500, 0), (1000, 700, 0)) | process(301, 20, started=900) | process(OTHER, 70, ended=55)
    assert between(before, after).other_load == pytest.approx((20 + 55) / 400)


def test_what_one_had_used_before_the_run_is_not_of_the_run(between, whole):
    """301 had used 5000 before and 30 in the run; its parent is charged with both."""
    before = whole | cpu_ticks((1000, 500, 0), (1000, 500, 0)) | process(301, 5000, parent=OTHER)
    after = cpu_ticks((1100, 600, 0), (1000, 700, 0)) | process(OTHER, 70, ended=5030) | gone(301)
    assert between(before, after).other_load == pytest.approx(30 / 400)


def test_one_that_changed_parents_counts_no_more_than_the_cpus_were_busy(between, whole):
    """301's parent ended too, so that init is charged with all that 301 ever used."""
    before = whole | cpu_ticks((1000, 500, 0), (1000, 500, 0)) | process(301, 5000, parent=OTHER)
    after = cpu_ticks((1004, 696, 0), (1004, 696, 0)) | gone(301) | gone(OTHER) | process(1, 50, parent=0, ended=9000)
    assert between(before, after).other_load == pytest.approx(8 / 400)


def test_what_a_measuring_process_started_is_ours(between, whole):
    before = whole | cpu_ticks((1000, 500, 0), (1000, 500, 0))
    after = cpu_ticks((1200, 500, 0), (1200, 500, 0)) | process(201, 90, parent=OURS) | process(202, 80, parent=201)
    assert between(before, after).other_load == 0.0


def test_measuring_processes_that_ended_are_not_others(between, whole):
    before = whole | cpu_ticks((1000, 500, 0), (1000, 500, 0)) | process(OTHER, 70, ended=10)
    after = cpu_ticks((1200, 500, 0), (1200, 500, 0)) | gone(OURS) | process(US, 30, ended=590)
    assert between(before, after | process(OTHER, 70, ended=40)).other_load == pytest.approx(30 / 400)


def test_in_a_container_others_are_not_summed(tmp_path):
    system = machine(tmp_path, INIT | cpu_ticks((9, 9, 9)), cpus=1)
    seen_whole(tmp_path, namespace=4026532000)
    assert read_all(system) is None


def test_on_some_of_the_cpus_others_are_not_summed(tmp_path):
    system = machine(tmp_path, INIT | cpu_ticks((9, 9, 9), (9, 9, 9)), cpus=1)
    seen_whole(tmp_path)
    assert read_all(system) is None


def test_where_others_are_hidden_they_are_not_summed(tmp_path):
    system = machine(tmp_path, process(US, 1) | cpu_ticks((9, 9, 9)), cpus=1)
    seen_whole(tmp_path)
    assert read_all(system) is None


def test_a_process_that_ends_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    """Its parent may hold its time, or not yet: the whole is read until nobody ends meanwhile."""
    from edgekit.profiling import processes

    system = machine(tmp_path, INIT | process(OTHER, 7) | cpu_ticks((9, 9, 9)), cpus=1)
    seen_whole(tmp_path)
    names = processes.os.listdir(system.proc)
    listings = iter([[*names, "999"], names, names])  # 999 ended before it could be read
    monkeypatch.setattr(processes.os, "listdir", lambda path: next(listings))
    found = read_all(system)
    assert found is not None
    assert sorted(found) == [1, OTHER]
    assert next(listings, None) is None


def test_a_machine_where_processes_never_stop_ending_is_not_summed(tmp_path, monkeypatch):
    from edgekit.profiling import processes

    system = machine(tmp_path, INIT | cpu_ticks((9, 9, 9)), cpus=1)
    seen_whole(tmp_path)
    monkeypatch.setattr(processes.os, "listdir", lambda path: ["1", "999"])
    assert read_all(system) is None


def test_steal_is_a_share_of_the_time_that_was_wanted(between):
    """One of two CPUs wanted 100 ticks and got 60: 40%, though 10% of the whole."""
    before = cpu_ticks((1000, 500, 7), (1000, 500, 7)) | process(US, 30)
    after = cpu_ticks((1060, 600, 47), (1000, 700, 7)) | process(US, 30)
    assert between(before, after).steal == pytest.approx(0.4)


def test_a_few_ticks_tell_no_steal(between):
    before = cpu_ticks((1000, 500, 7), (1000, 500, 7))
    assert between(before, cpu_ticks((1010, 690, 12), (1000, 700, 7))).steal is None


def test_threads_that_waited_for_a_cpu(between):
    """A thread that came in the run counts from its start; one that ended is left out."""
    before = thread(OURS, 200, 10**9, 10**8) | thread(OURS, 201, 5 * 10**9, 0)
    after = thread(OURS, 200, 2 * 10**9, 5 * 10**8) | {f"proc/{OURS}/task/201/schedstat": None}
    assert between(before, after | thread(OURS, 202, 10**9, 10**8)).waited == pytest.approx(0.5 / 2.5)


def test_a_kernel_without_schedstat_writes_noughts(between):
    assert between(thread(OURS, 200, 0, 0), thread(OURS, 200, 0, 0)).waited is None


def test_a_short_run_tells_no_shares(between):
    before = cpu_ticks((1000, 500, 0), (1000, 500, 0)) | process(US, 0) | thread(OURS, 200, 0, 0)
    after = cpu_ticks((1090, 500, 0), (1090, 500, 0)) | process(US, 0) | thread(OURS, 200, 10**8, 10**8)
    short = between(before, after, seconds=0.9)
    assert (short.other_load, short.steal, short.waited) == (None, None, None)
    assert between(before, after, seconds=0.9, shortest_s=0.2).other_load == pytest.approx(1.0)


def test_periods_in_which_the_container_was_stopped(between):
    later = {"sys/fs/cgroup/cpu.stat": "usage_usec 9\nnr_periods 1020\nnr_throttled 43\n"}
    found = between(fake_machines.CONTAINER, later)
    assert (found.cpu_limit, found.memory_limit_mb) == (2.5, 4000.0)
    assert (found.periods, found.throttled_periods) == (20, 3)


def test_states_are_those_of_either_end(between):
    found = between(fake_machines.RASPBERRY_PI_5, {"sys/class/thermal/thermal_zone0/temp": "80100\n"})
    assert (found.before.temperature_c, found.after.temperature_c) == (61.75, 80.1)


SPIN = "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"


def test_a_busy_process_is_others_load_unless_it_is_ours():
    """Really: one that spins. What else runs here is in both figures."""
    with subprocess.Popen([sys.executable, "-c", SPIN]) as spinning:
        try:
            before = observe([spinning.pid])
            time.sleep(SHORTEST_SECONDS + 0.2)
            after = observe([spinning.pid])
        finally:
            spinning.kill()
    if before.everyone is None or after.everyone is None:
        pytest.skip("not every process is seen here")
    used = after.everyone[spinning.pid].own - before.everyone[spinning.pid].own
    ours = conditions_between(before, after)
    another = conditions_between(dataclasses.replace(before, ours={}), dataclasses.replace(after, ours={}))
    assert ours.other_load is not None
    assert used > 0
    capacity = ours.seconds * ticks_per_second() * after.cpu_count
    idle = after.cpus.idle + after.cpus.stolen - before.cpus.idle - before.cpus.stolen
    # Of what ended meanwhile no more is counted than kept the CPUs busy: where they all were, less of it beside this.
    most = max(1 - idle / capacity, used / capacity)
    assert another.other_load == pytest.approx(min(ours.other_load + used / capacity, most), abs=0.01)  # a tick is 0.4%
