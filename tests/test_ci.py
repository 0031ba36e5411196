import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).with_name("plugin_ci.py")
SKIPS = """
import pytest

@pytest.mark.skip(reason={reason!r})
def test_engine():
    pass

def test_other():
    pass
"""


def run(folder: Path, reason: str, environment: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    tests = folder / "tests" / "runtime"
    tests.mkdir(parents=True)
    (tests / "test_engine.py").write_text(SKIPS.format(reason=reason))
    (folder / "plugin_ci.py").write_text(PLUGIN.read_text())
    command = [sys.executable, "-m", "pytest", "-p", "plugin_ci", "-p", "no:cacheprovider", *options, "tests"]
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": path, **environment}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one process", "two"])
def test_a_skipped_engine_fails_in_ci(options: tuple[str, ...], tmp_path: Path) -> None:
    found = run(tmp_path, "onnxruntime is not installed", {"EDGEKIT_CI": "1"}, *options)
    assert found.returncode == 1
    assert "tests/runtime/test_engine.py::test_engine: Skipped: onnxruntime is not installed" in found.stdout


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one process", "two"])
def test_a_whole_file_that_is_skipped_fails_in_ci(options: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "tests" / "reporting"
    folder.mkdir(parents=True)
    (folder / "test_browser.py").write_text(
        "import pytest\n\npytest.importorskip('no_such_module', reason='no browser')\n"
    )
    found = run(tmp_path, "needs a host with VNNI", {"EDGEKIT_CI": "1"}, *options)
    assert found.returncode == 1
    assert "tests/reporting/test_browser.py: Skipped: no browser" in found.stdout


@pytest.mark.parametrize(("reason", "environment"), [("any", {}), ("needs a host with VNNI", {"EDGEKIT_CI": "1"})])
def test_a_skip_elsewhere_or_for_hardware_does_not(reason: str, environment: dict[str, str], tmp_path: Path) -> None:
    assert run(tmp_path, reason, environment).returncode == 0
