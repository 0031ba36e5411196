"""A machine at one moment, read from whole machines written as files."""

from __future__ import annotations

import fake_machines
import pytest
from fake_machines import machine

from edgekit.profiling.cgroup import cpu_limit, memory_limit_mb, throttled_periods
from edgekit.profiling.conditions import HostState
from edgekit.profiling.host_state import clock_source, read_state
from edgekit.runtime.system import this_system

FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"


def test_a_raspberry_pi_tells_what_throttled_it_since_boot(tmp_path):
    state = read_state(machine(tmp_path, fake_machines.RASPBERRY_PI_5))
    assert state == HostState(
        governor="ondemand",
        frequency_mhz=1500.0,
        min_frequency_mhz=1500.0,
        max_frequency_mhz=2400.0,
        hardware_max_mhz=2400.0,
        temperature_c=61.75,
        throttle_count=None,
        throttled=(),
        throttled_since_boot=("under-voltage", "throttled"),
        load_average=0.31,
        memory_available_mb=7168.0,
    )


@pytest.mark.parametrize(
    ("word", "now", "since_boot"),
    [
        ("0", (), ()),
        ("80008", ("soft temperature limit",), ("soft temperature limit",)),
        ("20002", ("clock capped",), ("clock capped",)),
        ("0x50005", ("under-voltage", "throttled"), ("under-voltage", "throttled")),
        ("no answer", None, None),
    ],
)
def test_the_firmwares_word_is_hexadecimal(tmp_path, word, now, since_boot):
    state = read_state(machine(tmp_path, {FIRMWARE: f"{word}\n"}))
    assert (state.throttled, state.throttled_since_boot) == (now, since_boot)


def test_a_raspberry_pi_5_names_its_folder_by_address(tmp_path):
    path = "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"
    assert read_state(machine(tmp_path, {path: "4\n"})).throttled == ("throttled",)


@pytest.mark.parametrize(("alarm", "held"), [("1", ("under-voltage",)), ("0", ())])
def test_newer_kernels_of_a_raspberry_pi_tell_under_voltage_by_an_alarm(tmp_path, alarm, held):
    files = {"sys/class/hwmon/hwmon1/name": "rpi_volt\n", "sys/class/hwmon/hwmon1/in0_lcrit_alarm": f"{alarm}\n"}
    state = read_state(machine(tmp_path, files))
    assert (state.throttled, state.throttled_since_boot) == (held, None)


def test_a_jetson_in_a_small_power_mode(tmp_path):
    system = machine(tmp_path, fake_machines.JETSON_ORIN_NANO, cpus=6)
    state = read_state(system)
    assert (state.max_frequency_mhz, state.hardware_max_mhz) == (1036.8, 1510.4)
    assert (state.temperature_c, state.throttled) == (51.062, ())
    machine(tmp_path, {"sys/class/thermal/cooling_device0/cur_state": "3\n"})
    assert read_state(system).throttled == ("cpufreq-cpu0 at step 3",)


def test_a_nuc_counts_a_packages_events_once(tmp_path):
    state = read_state(machine(tmp_path, fake_machines.INTEL_NUC))
    assert state.throttle_count == 3 + 0 + 4 + 0 + 20
    assert (state.governor, state.frequency_mhz, state.max_frequency_mhz) == ("powersave", 800.0, 4600.0)
    assert (state.temperature_c, state.throttled) == (47.0, None)


def test_only_the_allowed_cpus_count(tmp_path):
    files = fake_machines.cpufreq(4, "powersave", (1000000, 400000, 2000000), 3000000)
    files |= fake_machines.cpufreq(2, "performance", (3000000, 400000, 3000000), 3000000)
    state = read_state(machine(tmp_path, files, cpus=3))
    assert state.governor == "performance+powersave"
    assert state.frequency_mhz == pytest.approx((3000 + 3000 + 1000) / 3)
    assert read_state(machine(tmp_path, {}, cpus=2)).governor == "performance"


def test_a_machine_that_tells_nothing(tmp_path):
    system = machine(tmp_path, fake_machines.NOTHING)
    assert read_state(system) == HostState()
    assert clock_source(system) == "unknown"
    assert (cpu_limit(system), memory_limit_mb(system), throttled_periods(system)) == (None, None, None)


def test_this_machine_can_be_read():
    state = read_state(this_system())
    assert state.governor
    assert state.load_average is None or state.load_average >= 0
    assert len(this_system().cpus) >= 1


def test_the_clock_source(tmp_path):
    assert clock_source(machine(tmp_path, fake_machines.INTEL_NUC)) == "tsc"


def test_limits_of_a_container(tmp_path):
    system = machine(tmp_path, fake_machines.CONTAINER)
    assert (cpu_limit(system), memory_limit_mb(system), throttled_periods(system)) == (2.5, 4000.0, (1000, 40))


def test_limits_of_a_container_of_the_first_kind(tmp_path):
    system = machine(tmp_path, fake_machines.OLD_CONTAINER)
    assert (cpu_limit(system), memory_limit_mb(system), throttled_periods(system)) == (1.5, 512.0, (30, 2))


@pytest.mark.parametrize("quota", ["-1", "", "many"])
def test_no_limit_of_the_first_kind(tmp_path, quota):
    files = fake_machines.OLD_CONTAINER | {
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": f"{quota}\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    system = machine(tmp_path, files)
    assert (cpu_limit(system), memory_limit_mb(system), throttled_periods(system)) == (None, None, None)


def test_a_limit_of_a_group_above_counts(tmp_path):
    """systemd limits a slice; the process sits in a scope below it."""
    files = {
        "proc/self/cgroup": "0::/user.slice/edge.slice/run.scope\n",
        "sys/fs/cgroup/user.slice/edge.slice/run.scope/cpu.max": "max 100000\n",
        "sys/fs/cgroup/user.slice/edge.slice/run.scope/memory.max": "max\n",
        "sys/fs/cgroup/user.slice/edge.slice/run.scope/cpu.stat": "nr_periods 0\nnr_throttled 0\n",
        "sys/fs/cgroup/user.slice/edge.slice/cpu.max": "50000 100000\n",
        "sys/fs/cgroup/user.slice/edge.slice/memory.max": "300000000\n",
        "sys/fs/cgroup/user.slice/edge.slice/cpu.stat": "nr_periods 9\nnr_throttled 4\n",
        "sys/fs/cgroup/user.slice/cpu.max": "200000 100000\n",
    }
    system = machine(tmp_path, files)
    assert (cpu_limit(system), memory_limit_mb(system), throttled_periods(system)) == (0.5, 300.0, (9, 4))


def test_a_path_outside_of_what_the_container_sees_is_not_followed(tmp_path):
    files = {"proc/self/cgroup": "0::/../../other\n", "sys/fs/cgroup/cpu.max": "100000 100000\n", "sys/cpu.max": "1 9"}
    assert cpu_limit(machine(tmp_path, files)) == 1.0


def test_a_clock_file_that_cannot_be_read_is_unknown(tmp_path):
    files = fake_machines.INTEL_NUC | {
        f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq": "<unsupported>\n" for cpu in range(4)
    }
    state = read_state(machine(tmp_path, files))
    assert (state.frequency_mhz, state.max_frequency_mhz) == (None, 4600.0)
