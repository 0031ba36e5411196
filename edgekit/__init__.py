"""EdgeKit: from a trained PyTorch model to a bundle proven to meet a latency budget on an edge device."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Imported when first asked for (PEP 562), so that `import edgekit` and the command line start at once.
_PUBLIC = {
    "EdgeKitError": "edgekit.errors:EdgeKitError",
    "list_profiles": "edgekit.catalog:list_profiles",
    "list_targets": "edgekit.catalog:list_targets",
    "load_profile": "edgekit.catalog:load_profile",
    "load_recipe": "edgekit.recipe:load_recipe",
    "load_target": "edgekit.catalog:load_target",
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
