"""When a run is called spoiled, what a reader is told, and the JSON form."""

from __future__ import annotations

import dataclasses
import json

import fake_machines
import pytest
from fake_machines import machine

from edgekit.artifact import to_json
from edgekit.errors import MeasurementError
from edgekit.profiling.conditions import Conditions, HostState, caveats, parse_conditions, spoiled
from edgekit.profiling.host_state import read_state
from edgekit.profiling.load import LoadSpec

LOAD = LoadSpec()
STEADY = HostState(
    governor="performance",
    frequency_mhz=2400.0,
    min_frequency_mhz=600.0,
    max_frequency_mhz=2400.0,
    hardware_max_mhz=2400.0,
    temperature_c=55.0,
    throttle_count=7,
    throttled=(),
    throttled_since_boot=(),
    load_average=0.4,
    memory_available_mb=4000.0,
)
QUIET = Conditions(before=STEADY, after=STEADY, seconds=3.0, other_load=0.01, steal=0.0, waited=0.01)


def over_a_run(after=None, before=None, **changes):
    """A quiet run with some of it changed."""
    states = {
        "before": dataclasses.replace(STEADY, **(before or {})),
        "after": dataclasses.replace(STEADY, **(after or {})),
    }
    return dataclasses.replace(QUIET, **states, **changes)


def test_a_quiet_run_is_neither_spoiled_nor_explained():
    assert spoiled(QUIET, LOAD) is None
    assert caveats(QUIET) == []


def test_a_machine_that_tells_nothing_is_not_spoiled_but_says_so():
    found = Conditions(before=HostState(), after=HostState(), seconds=0.3)
    assert spoiled(found, LOAD) is None
    assert caveats(found) == [
        "this system does not tell its clocks, temperature or throttling: slower clocks and heat may go unseen",
        "how much others used the CPUs in these 0.3 s is not known",
    ]


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (
            over_a_run(other_load=0.46),
            "others used 46% of the CPUs while this was measured (at most 10%): stop them, or measure again",
        ),
        (
            over_a_run(steal=0.14),
            "the hypervisor took 14% of the time this machine's CPUs wanted to work (at most 10%): "
            "measure on a machine that is not shared, or again later",
        ),
        (
            over_a_run(cpu_limit=1.5, periods=30, throttled_periods=2),
            "the container's limit of 1.5 CPUs stopped this run in 2 of 30 periods (at most 5%): "
            "raise the limit, or use fewer threads",
        ),
        (
            over_a_run({"throttle_count": 9, "temperature_c": 97.0}),
            "the CPUs throttled 2 times while this was measured (at most 0, at 97 °C): "
            "cool the machine, or let it rest, and measure again",
        ),
        (
            over_a_run({"throttled": ("throttled", "under-voltage"), "temperature_c": None}),
            "the clocks were held down while this was measured: throttled, under-voltage (allowed: nothing): "
            "give it a stronger power supply or better cooling, and measure again",
        ),
        (
            over_a_run({"governor": "powersave"}),
            "the governor changed from performance to powersave while this was measured (allowed: one): "
            "leave it as it is, and measure again",
        ),
        (
            over_a_run({"max_frequency_mhz": 1500.0}),
            "the highest clock allowed went from 2400 to 1500 MHz while this was measured (at most 10% apart): "
            "keep the power mode, and measure again",
        ),
    ],
    ids=["others", "hypervisor", "limit", "events", "held down", "governor", "highest clock"],
)
def test_what_spoils_a_run(found, reason):
    assert spoiled(found, LOAD) == reason


def test_what_spoils_a_run_is_not_told_again_as_a_caveat():
    assert caveats(over_a_run(cpu_limit=1.5, periods=30, throttled_periods=2)) == []


def test_every_reason_is_told():
    found = over_a_run({"governor": "schedutil"}, other_load=0.5, steal=0.2)
    assert len(str(spoiled(found, LOAD)).split("; ")) == 3


def test_what_was_held_down_before_the_run_spoils_it_too():
    found = over_a_run(before={"throttled": ("cpufreq-cpu0 at step 3",)})
    assert "cpufreq-cpu0 at step 3" in str(spoiled(found, LOAD))


def test_a_flag_that_rose_and_fell_in_the_run_spoils_it():
    found = over_a_run(
        {"throttled_since_boot": ("under-voltage", "throttled")}, {"throttled_since_boot": ("throttled",)}
    )
    assert "held down while this was measured: under-voltage (" in str(spoiled(found, LOAD))


@pytest.mark.parametrize("share", [0.0, 0.05, 0.10])
def test_up_to_what_the_load_bears_others_do_not_spoil(share):
    assert spoiled(over_a_run(other_load=share, steal=share), LOAD) is None


def test_the_load_says_how_much_of_others_it_bears():
    assert spoiled(over_a_run(other_load=0.9, steal=0.9), LoadSpec(max_other_load=1.0)) is None
    strict = LoadSpec(max_other_load=0.02)
    assert "others used 3.0% of the CPUs while this was measured (at most 2%)" in str(
        spoiled(over_a_run(other_load=0.03), strict)
    )


@pytest.mark.parametrize(("periods", "stopped"), [(30, 1), (100, 5), (0, 0)])
def test_a_container_that_is_seldom_stopped_is_not_spoiled(periods, stopped):
    assert spoiled(over_a_run(cpu_limit=2.0, periods=periods, throttled_periods=stopped), LOAD) is None


def test_clocks_that_follow_the_load_do_not_spoil():
    """A laptop's clock is low while it waits and high when it has worked: that is no change of the settings."""
    lazy = {"governor": "powersave", "frequency_mhz": 800.0}
    found = over_a_run(lazy | {"frequency_mhz": 2400.0}, lazy)
    assert spoiled(found, LOAD) is None
    (line,) = caveats(found)
    assert line.startswith("the governor is powersave, not performance: clocks may follow the load; ")
    assert line.endswith("`sudo cpupower frequency-set -g performance` holds them")


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (
            over_a_run(before={"max_frequency_mhz": 1000.0}, after={"max_frequency_mhz": 1000.0}),
            "the settings allow 1000 of 2400 MHz: a power mode or a limit holds the clocks down",
        ),
        (
            over_a_run(before={"throttled_since_boot": ("under-voltage",)}),
            "since it started, this board has shown under-voltage: its power supply or cooling may fail it under load",
        ),
        (
            over_a_run(waited=0.12),
            "for 12% of their time the measured threads were ready and no CPU was free (up to 5% is usual): "
            "stop what else runs, or use fewer threads",
        ),
        (over_a_run(steal=0.07), "the hypervisor took 7.0% of the time this machine's CPUs wanted to work"),
        (
            over_a_run(cpu_limit=0.5, periods=99, throttled_periods=1),
            "the container's limit of 0.5 CPUs stopped this run in 1 period",
        ),
        (
            over_a_run({"memory_available_mb": 31.0}),
            "only 31 MB of memory were left: the machine may have swapped",
        ),
    ],
    ids=["settings", "since boot", "waited", "hypervisor", "limit", "memory"],
)
def test_what_a_reader_must_know_though_it_spoils_nothing(found, line):
    assert caveats(found) == [line]
    assert spoiled(found, LOAD) is None


@pytest.mark.parametrize("name", ["RASPBERRY_PI_5", "JETSON_ORIN_NANO", "INTEL_NUC", "CONTAINER", "NOTHING"])
def test_whole_machines(tmp_path, name):
    """What each must say of itself, and that it does not call a quiet run spoiled."""
    state = read_state(machine(tmp_path, getattr(fake_machines, name)))
    found = Conditions(before=state, after=state, seconds=3.0, other_load=0.0)
    said = "\n".join(caveats(found))
    assert spoiled(found, LOAD) is None
    expected = {
        "RASPBERRY_PI_5": ["governor is ondemand", "this board has shown under-voltage, throttled"],
        "JETSON_ORIN_NANO": ["governor is schedutil", "the settings allow 1037 of 1510 MHz"],
        "INTEL_NUC": ["governor is powersave"],
        "CONTAINER": ["does not tell its clocks, temperature or throttling"],
        "NOTHING": ["does not tell its clocks, temperature or throttling"],
    }[name]
    assert len(said.splitlines()) == len(expected)
    for line, part in zip(said.splitlines(), expected, strict=True):
        assert part in line


@pytest.mark.parametrize("found", [QUIET, over_a_run({"throttled": None, "throttled_since_boot": ("throttled",)})])
def test_json_gives_the_same_back(found):
    assert parse_conditions(json.loads(json.dumps(to_json(found), allow_nan=False))) == found


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw.pop("before"),
        lambda raw: raw.pop("seconds"),
        lambda raw: raw.update(before=None),
        lambda raw: raw.update(others=0.5),
        lambda raw: raw["after"].pop("throttled"),
        lambda raw: raw["after"].update(throttled=3),
        lambda raw: raw["after"].update(heat=3),
    ],
)
def test_json_of_something_else_is_named(damage):
    raw = to_json(QUIET)
    damage(raw)
    with pytest.raises(MeasurementError, match="not the conditions of a run"):
        parse_conditions(raw)
