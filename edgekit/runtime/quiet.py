"""The one switch that keeps engines and quantisers from reporting home."""

from __future__ import annotations

import os
import sys

_SWITCHES = {
    "NNCF_CI": "1",  # NNCF replaces its reporter by a stub, when set before its import
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime's Linux builds, when set before their import
}
_REPORTER = "openvino_telemetry"  # what OpenVINO's and NNCF's Python packages report through


def silence_telemetry() -> None:
    """Switches off the telemetry of ONNX Runtime, OpenVINO and NNCF in this process and its children.

    Call it before any of them is imported: ``import openvino`` alone sends an event. OpenVINO has no switch of its
    own in the environment (its opt-out is a file in the home folder), but does without the reporter's package
    where that cannot be imported: so it cannot. Where the package was imported before, its methods are emptied.
    """
    os.environ.update(_SWITCHES)
    reporter = sys.modules.get(_REPORTER)
    if reporter is None:
        sys.modules[_REPORTER] = None  # type: ignore[assignment]  # the import system reads None as "not importable"
        return
    for method in ("send_event", "send_error", "send_stack_trace", "start_session", "end_session"):
        setattr(reporter.Telemetry, method, _nothing)


def _nothing(*args: object, **kwargs: object) -> None:
    """Sends nothing."""
