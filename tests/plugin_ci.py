"""In CI a skipped engine is a failure: these folders must run whole."""

import os
from collections.abc import Iterator

import pytest

MUST_RUN = (
    "tests/runtime/",
    "tests/backends/",
    "tests/conversion/",
    "tests/profiling/",
    "tests/cli/",
    "tests/devices/",
    "tests/reporting/",
    "tests/test_no_",
)
# Hardware that no CI machine has may still be skipped; the reason says which.
ALLOWED = ("needs a host", "needs EDGEKIT_DATA", "needs EDGEKIT_ARM64_DEVICE")


class SkippedEngines:
    def __init__(self) -> None:
        self.found: list[str] = []

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.pytest_runtest_logreport(report)  # a whole file may be skipped as it is read

    def pytest_runtest_logreport(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and report.nodeid.startswith(MUST_RUN) and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            if not any(text in reason for text in ALLOWED):
                self.found.append(f"{report.nodeid}: {reason}")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.found:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Iterator[None] | None:
        for line in self.found:
            terminalreporter.write_line(f"skipped in CI, which counts as a failure: {line}", red=True)
        return None


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("EDGEKIT_CI"):
        config.pluginmanager.register(SkippedEngines(), "edgekit-skipped-engines")
