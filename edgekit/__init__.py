"""EdgeKit: from a trained PyTorch model to a bundle proven to meet a latency budget on an edge device."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Imported when first asked for (PEP 562), so that `import edgekit` and the command line start at once.
_PUBLIC = {
    "Artifact": "edgekit.artifact:Artifact",
    "Candidate": "edgekit.candidate:Candidate",
    "Choices": "edgekit.pipeline:Choices",
    "EdgeKitError": "edgekit.errors:EdgeKitError",
    "Plan": "edgekit.candidate:Plan",
    "Task": "edgekit.candidate:Task",
    "best": "edgekit.choosing:best",
    "check": "edgekit.checking:check",
    "choose": "edgekit.candidate:choose",
    "compare": "edgekit.comparing:compare",
    "deploy": "edgekit.pipeline:deploy",
    "distill": "edgekit.distillation.students:distill",
    "inspect_model": "edgekit.inspecting:inspect_model",
    "judge": "edgekit.verdict:judge",
    "list_profiles": "edgekit.catalog:list_profiles",
    "list_targets": "edgekit.catalog:list_targets",
    "load_profile": "edgekit.catalog:load_profile",
    "load_recipe": "edgekit.recipe:load_recipe",
    "load_report": "edgekit.reporting.report:load_report",
    "load_samples": "edgekit.data:load_samples",
    "load_target": "edgekit.catalog:load_target",
    "make_references": "edgekit.checking:make_references",
    "measure": "edgekit.profiling.measure:measure",
    "measure_all": "edgekit.candidate:measure_all",
    "measure_sensitivity": "edgekit.sensitivity:measure_sensitivity",
    "open_bundle": "edgekit.runtime:open_bundle",
    "open_stream": "edgekit.runtime.stream:open_stream",
    "plans_for": "edgekit.planning:plans_for",
    "prepare": "edgekit.candidate:prepare",
    "profile_bundle": "edgekit.timing:profile_bundle",
    "recipe_for_model": "edgekit.recipe:recipe_for_model",
    "run_file": "edgekit.runtime.files:run_file",
    "search": "edgekit.searching:search",
    "start_watch": "edgekit.runtime.watch:start_watch",
    "this_host": "edgekit.profiling.host:this_host",
    "to_onnx": "edgekit.conversion.onnx_export:to_onnx",
    "try_plan": "edgekit.candidate:try_plan",
    "verify_bundle": "edgekit.runtime:verify_bundle",
    "write_bundle": "edgekit.bundle:write_bundle",
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'edgekit' has no attribute {name!r}")
    module, _, attr = _PUBLIC[name].partition(":")
    found = getattr(importlib.import_module(module), attr)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
