"""Whole machines as files: the parts of ``/proc`` and ``/sys`` that are read, written as Linux writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgekit.runtime.system import System

US = 100
"""The process id of the process that observes."""

CPUINFO_PI_5 = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
"""
CPUINFO_XEON = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R)  Platinum\nflags\t\t: fpu avx2 avx512f avx512_vnni\n"

NOTHING: dict[str, str] = {}


def cpufreq(cpus: int, governor: str, khz: tuple[int, int, int], hardware_max: int) -> dict[str, str]:
    """cpufreq of CPUs 0 to ``cpus - 1``: governor, clocks now, lowest and highest allowed, highest made for."""
    files = {}
    for cpu in range(cpus):
        folder = f"sys/devices/system/cpu/cpu{cpu}/cpufreq"
        for name, value in zip(("cur", "min", "max"), khz, strict=True):
            files[f"{folder}/scaling_{name}_freq"] = f"{value}\n"
        files |= {f"{folder}/scaling_governor": f"{governor}\n", f"{folder}/cpuinfo_max_freq": f"{hardware_max}\n"}
    return files


RASPBERRY_PI_5 = {
    **cpufreq(4, "ondemand", (1500000, 1500000, 2400000), 2400000),
    "proc/cpuinfo": CPUINFO_PI_5,
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "proc/loadavg": "0.31 0.20 0.11 1/190 4711\n",
    "proc/meminfo": "MemTotal:        8245824 kB\nMemFree:  1 kB\nMemAvailable:    7000000 kB\n",
    "proc/self/cgroup": "0::/user.slice/user-1000.slice/session-3.scope\n",
    "sys/class/thermal/thermal_zone0/temp": "61750\n",
    "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
    "sys/class/thermal/cooling_device0/cur_state": "2\n",
    # Under-voltage and throttled since boot, nothing now.
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n",
}

JETSON_ORIN_NANO = {
    **cpufreq(6, "schedutil", (1036800, 115200, 1036800), 1510400),
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "proc/loadavg": "1.04 0.80 0.70 1/400 999\n",
    "proc/meminfo": "MemTotal:        7800000 kB\nMemAvailable:    5000000 kB\n",
    "sys/class/thermal/thermal_zone0/temp": "48500\n",
    "sys/class/thermal/thermal_zone1/temp": "51062\n",
    "sys/class/thermal/thermal_zone2/temp": "-256000\n",  # a zone that is off
    "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0\n",
    "sys/class/thermal/cooling_device0/cur_state": "0\n",
    "sys/class/thermal/cooling_device1/type": "gpu-throttle-alert\n",
    "sys/class/thermal/cooling_device1/cur_state": "1\n",
}

INTEL_NUC = {
    **cpufreq(4, "powersave", (800000, 400000, 4600000), 4600000),
    "proc/loadavg": "0.00 0.01 0.05 1/300 12345\n",
    "proc/meminfo": "MemTotal:       16000000 kB\nMemAvailable:   12000000 kB\n",
    "sys/class/thermal/thermal_zone0/temp": "45000\n",
    "sys/class/hwmon/hwmon0/name": "coretemp\n",
    "sys/class/hwmon/hwmon0/temp1_input": "47000\n",
    "sys/class/hwmon/hwmon1/name": "nvme\n",
    "sys/class/hwmon/hwmon1/temp1_input": "71000\n",  # a disk, not a CPU
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
    **{
        f"sys/devices/system/cpu/cpu{cpu}/{name}": text
        for cpu, core in enumerate((3, 0, 4, 0))
        for name, text in {
            "thermal_throttle/core_throttle_count": f"{core}\n",
            "thermal_throttle/package_throttle_count": "20\n",
            "topology/physical_package_id": "0\n",
        }.items()
    },
}

CONTAINER = {
    "proc/cpuinfo": CPUINFO_XEON,
    "proc/loadavg": "12.50 11.00 10.00 3/2000 77\n",
    "proc/meminfo": "MemTotal:       65536000 kB\nMemAvailable:   40000000 kB\n",
    "proc/self/cgroup": "0::/\n",
    "sys/fs/cgroup/cpu.max": "250000 100000\n",
    "sys/fs/cgroup/cpu.stat": "usage_usec 900\nnr_periods 1000\nnr_throttled 40\nthrottled_usec 5\n",
    "sys/fs/cgroup/memory.max": "4000000000\n",
}

OLD_CONTAINER = {  # control groups of version 1; the path is the host's, which the container does not see
    "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpu/cpu.stat": "nr_periods 30\nnr_throttled 2\nthrottled_time 1\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "512000000\n",
}


def machine(root: Path, files: Mapping[str, str], *, cpus: int = 4) -> System:
    """Writes a machine's files below ``root`` (over those that are there) and says where they are."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return System(proc=root / "proc", sys=root / "sys", cpus=tuple(range(cpus)), pid=US)


def cpu_ticks(*rows: tuple[int, int, int]) -> dict[str, str]:
    """``/proc/stat``: busy, idle and stolen ticks of each CPU."""
    # user nice system idle iowait irq softirq steal guest guest_nice; guests are in user too
    lines = [f"cpu{cpu} {busy - 4} 1 1 {idle - 2} 2 1 1 {stolen} 7 7" for cpu, (busy, idle, stolen) in enumerate(rows)]
    return {"proc/stat": "\n".join(["cpu  1 2 3 4 5 6 7 8 9 10", *lines, "intr 5 0 0", "ctxt 99"]) + "\n"}


def process(pid: int, own: int, *, parent: int = 1, ended: int = 0, started: int = 10) -> dict[str, str]:
    """``/proc/PID/stat``: ticks of its own and of its ended children."""
    user, ended_user = own // 2, ended // 3
    tail = f"{parent} 1 1 0 -1 0 0 0 0 0 {user} {own - user} {ended_user} {ended - ended_user} 20 0 1 0 {started} 1 1"
    return {f"proc/{pid}/stat": f"{pid} (a (b) c) S {tail} 0 0 0\n"}


def thread(pid: int, tid: int, ran_ns: int, waited_ns: int) -> dict[str, str]:
    """``/proc/PID/task/TID/schedstat``."""
    return {f"proc/{pid}/task/{tid}/schedstat": f"{ran_ns} {waited_ns} 17\n"}


def seen_whole(root: Path, *, namespace: int = 4026531836) -> None:
    """Makes the machine one on which every process is seen (or, with another number, a container)."""
    link = root / "proc/self/ns/pid"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(f"pid:[{namespace}]")
