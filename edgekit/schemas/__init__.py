"""JSON Schemas of what EdgeKit writes for machines: of runs, profiles, comparisons, sensitivities, watches and bundles.

The files beside this one travel with the package. They are made by ``python -m edgekit.schemas`` of the types in
:mod:`edgekit.reporting.model`, :mod:`edgekit.schemas.manifest` and :mod:`edgekit.schemas.watch`; a test compares them.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from edgekit.artifact import SCHEMA_VERSION, write_json
from edgekit.reporting.compared import COMPARISON_SCHEMA_VERSION, Comparison
from edgekit.reporting.evidence import Figures
from edgekit.reporting.model import REPORT_SCHEMA_VERSION, Profile, Report
from edgekit.reporting.sensitivity_model import SENSITIVITY_SCHEMA_VERSION, SensitivityReport
from edgekit.runtime.watch.reading import READING_VERSION
from edgekit.schemas.manifest import Manifest
from edgekit.schemas.watch import WatchReading

# Name → its version, the type it is made of, and its title.
SCHEMAS: dict[str, tuple[int, Any, str]] = {
    "report": (REPORT_SCHEMA_VERSION, Report, "EdgeKit: report.json of a run"),
    "profile": (REPORT_SCHEMA_VERSION, Profile, "EdgeKit: what `edgekit profile --json` writes"),
    "comparison": (COMPARISON_SCHEMA_VERSION, Comparison, "EdgeKit: what `edgekit compare --json` writes"),
    "sensitivity": (
        SENSITIVITY_SCHEMA_VERSION,
        SensitivityReport,
        "EdgeKit: what `edgekit quantize --sensitivity` writes",
    ),
    "manifest": (SCHEMA_VERSION, Manifest, "EdgeKit: manifest.json of a bundle"),
    "watch": (READING_VERSION, WatchReading, "EdgeKit: what `edgekit watch --json` prints"),
}


def file_name(name: str) -> str:
    """The file of a schema: ``report-2.schema.json``."""
    return f"{name}-{SCHEMAS[name][0]}.schema.json"


def published(name: str) -> dict[str, Any]:
    """A schema as it is published with the package.

    Args:
        name: A key of ``SCHEMAS``.
    """
    found: dict[str, Any] = json.loads(files(__name__).joinpath(file_name(name)).read_text(encoding="utf-8"))
    return found


def generate(name: str) -> dict[str, Any]:
    """Makes a schema of its type: draft 2020-12; every object with named keys forbids others.

    Args:
        name: A key of ``SCHEMAS``.
    """
    version, kind, title = SCHEMAS[name]
    made = TypeAdapter(kind).json_schema()
    if "Measured" in made["$defs"]:
        # pydantic reads the text under a field in the class itself, not in the one it extends.
        extended = TypeAdapter(Figures).json_schema()["properties"]
        made["$defs"]["Measured"]["properties"] |= extended
    made = _on_one_line(made)
    head = {
        "$schema": GenerateJsonSchema.schema_dialect,
        "$id": f"urn:edgekit:schema:{name}:{version}",
        "title": f"{title}, version {version}",
    }
    return head | {key: value for key, value in made.items() if key != "title"}


def write(folder: Path) -> None:
    """Writes every schema into ``folder``."""
    for name in SCHEMAS:
        write_json(folder / file_name(name), generate(name))


def _on_one_line(value: Any) -> Any:
    """The same with every description on one line, as a docstring is not."""
    if isinstance(value, dict):
        return {
            key: " ".join(item.split()) if key == "description" and isinstance(item, str) else _on_one_line(item)
            for key, item in value.items()
        }
    return [_on_one_line(item) for item in value] if isinstance(value, list) else value
