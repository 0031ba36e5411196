"""``edgekit doctor``: true here, and useful where only the base dependencies are installed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import fake_machines
import pytest
from click.testing import CliRunner

import edgekit.backends
import edgekit.cli.doctor
import edgekit.runtime
import edgekit.runtime.system
from edgekit.catalog import list_targets
from edgekit.cli.catalogue import needs
from edgekit.cli.main import cli
from edgekit.profiling.host import this_host
from edgekit.specs import mismatch

ROOT = Path(edgekit.__file__).parent.parent
BASE = ["numpy", "click", "pydantic", "rich"]
HEAVY = {"torch", "onnx", "onnxruntime", "openvino", "nncf", "tensorrt", "timm"}


@pytest.fixture(autouse=True)
def narrow_and_quick(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("EDGEKIT_CATALOG", raising=False)
    monkeypatch.setattr(edgekit.cli.doctor, "WATCH_SECONDS", 0.01)


def doctor(*args):
    return CliRunner().invoke(cli, ["doctor", *args])


@pytest.fixture
def engines(monkeypatch):
    """Scripts what each engine lacks: {"prepare": {engine: reason}, "execute": {engine: reason}}."""

    def script(prepare=None, execute=None):
        class Backend:
            def __init__(self, engine):
                self.engine = engine

            def missing(self, target):
                return (prepare or {}).get(self.engine)

        monkeypatch.setattr(edgekit.backends, "load_backend", Backend)
        monkeypatch.setattr(edgekit.runtime, "missing", (execute or {}).get)

    return script


def closure(names):
    """Installed distributions that these need, themselves included."""
    found: dict[str, metadata.Distribution] = {}
    todo = list(names)
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in found:
            continue
        found[name] = metadata.distribution(name)
        needs = [need for need in found[name].requires or [] if "extra ==" not in need]
        for need in needs:
            required = re.match(r"[\w.-]+", need).group()
            if "python_version <" not in need and "platform_system" not in need:
                todo.append(required)
    return found.values()


@pytest.fixture
def bare(tmp_path):
    """Runs a command of edgekit where nothing but the base dependencies can be imported."""
    for distribution in closure(BASE):
        for file in distribution.files or []:
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (tmp_path / top).exists():
                (tmp_path / top).symlink_to(Path(str(distribution.locate_file(top))))
    (tmp_path / "edgekit").symlink_to(ROOT / "edgekit")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from edgekit.cli.main import main; main()"

    def run(*args):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        return subprocess.run(
            [sys.executable, "-I", "-S", "-c", script, *args],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )

    return run


def test_with_the_base_dependencies_alone_it_says_what_to_install(bare):
    done = bare("doctor")
    assert done.stderr == ""
    assert "pip install 'edgekit[compress]'" in done.stdout
    assert "to run onnxruntime" in done.stdout
    assert "to run openvino" in done.stdout
    assert done.returncode == 1  # nothing can be prepared there


def test_with_the_base_dependencies_alone_the_rest_works(bare, tmp_path):
    assert bare("targets", "local").returncode == 0
    assert bare("profiles").returncode == 0
    assert bare("init", str(tmp_path / "new")).returncode == 0


def test_it_imports_nothing_heavy():
    script = (
        "import sys\nfrom edgekit.cli.main import cli\n"
        "try:\n    cli(['doctor'])\nexcept SystemExit:\n    pass\n"
        "import json; print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not HEAVY & set(json.loads(done.stdout.splitlines()[-1]))


def test_json_holds_the_facts(engines):
    engines(execute={"tensorrt": "no GPU: buy one"})
    shown = doctor("--json")
    report = json.loads(shown.output)
    assert shown.exit_code == 0
    assert report["host"]["cpu_model"] == this_host().cpu_model
    assert report["installed"]["base"]["numpy"] == metadata.version("numpy")
    for row, target in zip(report["targets"], list_targets(), strict=True):
        assert (row["name"], row["mismatch"]) == (target.name, mismatch(target, this_host()))
        assert [engine["engine"] for engine in row["engines"]] == list(target.engines)
        for engine in row["engines"]:
            assert engine["prepare"] is None
            assert engine["execute"] == ("no GPU: buy one" if engine["engine"] == "tensorrt" else None)


def test_every_remedy_is_told_once(engines):
    reason = "openvino is not installed: pip install 'edgekit[openvino]'"
    engines(prepare={"openvino": reason}, execute={"openvino": reason})
    shown = doctor()
    assert shown.exit_code == 0
    told = " ".join(shown.output.split())
    assert told.count(reason) == 1
    assert f"to prepare for openvino, run openvino: {reason}" in told
    assert "pip install 'edgekit[openvino]'" in shown.output, "whole, to be copied"
    assert max(map(len, shown.output.partition("base:")[2].splitlines())) <= 80


def test_a_target_without_an_engine_here_cannot_be_measured_here(engines):
    engines(execute=dict.fromkeys(["openvino", "onnxruntime", "tensorrt"], "gone: fetch it"))
    local = next(line for line in doctor().output.splitlines() if line.split()[:1] == ["local"])
    assert "no engine runs here" in local


def test_it_fails_only_when_nothing_can_be_prepared(engines):
    engines(prepare={"openvino": "x", "onnxruntime": "x"})
    assert doctor().exit_code == 0
    engines(prepare=dict.fromkeys(["openvino", "onnxruntime", "tensorrt"], "x"))
    assert doctor().exit_code == 1


def test_a_package_that_is_not_there_is_named(monkeypatch):
    from edgekit.cli import doctor as module

    monkeypatch.setitem(module.PACKAGES, "vision", ("no-such-package-anywhere",))
    assert "vision:   -; not installed: no-such-package-anywhere" in doctor().output
    assert json.loads(doctor("--json").output)["installed"]["vision"] == {"no-such-package-anywhere": None}


def test_what_each_engine_can_do_here(engines, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    engines(prepare={"onnxruntime": "x"}, execute={"openvino": "y"})
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in doctor().output.splitlines() if line.strip()}
    assert rows["local"] == "openvino (prepares only), onnxruntime (runs only) yes"
    engines(prepare=dict.fromkeys(["openvino", "onnxruntime"], "x"), execute={"openvino": "y", "onnxruntime": "y"})
    assert next(line for line in doctor().output.splitlines() if line.split()[:2] == ["local", "none"])


@pytest.mark.parametrize("columns", [80, 100])
def test_the_table_has_a_line_a_target(engines, monkeypatch, columns):
    """The whole sentence of why a host is not the target stays in --json."""
    monkeypatch.setenv("COLUMNS", str(columns))
    engines(execute={"tensorrt": "no GPU: buy one"})
    lines = doctor().output.partition("measure here")[2].partition("to run")[0].splitlines()
    rows = [line for line in lines if line.strip()][1:]
    assert [row.split()[0] for row in rows] == [target.name for target in list_targets()]
    for row, target in zip(rows, list_targets(), strict=True):
        assert row.rstrip().endswith(needs(target) or "yes")
    assert max(map(len, lines)) <= columns


@pytest.fixture
def on(tmp_path, monkeypatch):
    """Runs doctor on a machine written as files: its first lines, up to what is installed, and its JSON's timing."""

    def run(files, *, cpus=4, columns=80):
        system = fake_machines.machine(tmp_path, files, cpus=cpus)
        monkeypatch.setattr(edgekit.runtime.system, "this_system", lambda: system)
        monkeypatch.setenv("COLUMNS", str(columns))
        text = doctor().output.partition("timing:")[2].partition("base:")[0]
        assert max(map(len, text.splitlines())) <= columns
        return " ".join(text.split()), json.loads(doctor("--json").output)["timing"]

    return run


def test_a_raspberry_pi_hears_of_its_governor_and_its_power_supply(on):
    text, timing = on(fake_machines.RASPBERRY_PI_5)
    assert "governor ondemand, clock source unknown, 1500 to 2400 MHz, 62 °C, no container limit" in text
    assert "`sudo cpupower frequency-set -g performance` holds them" in text
    assert "this board has shown under-voltage, throttled" in text
    assert timing["conditions"]["after"]["throttled_since_boot"] == ["under-voltage", "throttled"]
    assert any("governor is ondemand" in line for line in timing["advice"])


def test_a_nuc_hears_how_often_it_throttled(on):
    text, timing = on(fake_machines.INTEL_NUC)
    assert "throttled 27 times since it started" in text
    assert timing["clock_source"] == "tsc"


def test_a_container_hears_its_limits(on):
    text, timing = on(fake_machines.CONTAINER)
    assert "the container's limit is 2.5 CPUs and 4000 MB" in text
    assert timing["conditions"]["cpu_limit"] == 2.5


def test_a_machine_that_tells_nothing_hears_what_that_means(on):
    text, timing = on(fake_machines.NOTHING)
    assert text.startswith("governor unknown, clock source unknown, no container limit - this system does not tell")
    assert timing["conditions"]["other_load"] is None


@pytest.mark.parametrize(
    ("name", "slow"), [("hpet", True), ("acpi_pm", True), ("tsc", False), ("arch_sys_counter", False)]
)
def test_a_slow_clock_is_named(on, name, slow):
    files = {"sys/devices/system/clocksource/clocksource0/current_clocksource": f"{name}\n"}
    text, timing = on(files)
    assert f"clock source {name}" in text
    assert any(f"the clock source is {name}" in line for line in timing["advice"]) is slow


def test_a_board_that_is_held_down_hears_that_a_run_would_be_spoiled(on):
    word = {"sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n"}
    text, _ = on(fake_machines.RASPBERRY_PI_5 | word)
    assert "- a run now would be spoiled: the clocks were held down while this was measured: throttled, under" in text


def test_others_are_seen_at_once(on, monkeypatch):
    """All four CPUs were busy for the 0.3 s, and not with this process."""
    fresh = fake_machines.cpu_ticks(*[(1000, 500, 0)] * 4) | fake_machines.process(fake_machines.US, 5)
    text, timing = on(fresh)
    assert "others use 100% of the CPUs now" in text
    assert "a run now would be spoiled: others used 100% of the CPUs" in text
    assert timing["conditions"]["other_load"] == 1.0


def test_a_command_stays_on_one_line(on):
    """Broken in two it could not be copied."""
    on(fake_machines.RASPBERRY_PI_5, columns=60)
    assert "`sudo cpupower frequency-set -g performance`" in doctor().output
