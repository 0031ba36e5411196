"""Reports as one HTML page that needs nothing but a browser: no network, no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def to_html(report: Mapping[str, Any]) -> str:
    """Renders the report of one run as a self-contained page.

    Args:
        report: The values of ``report.json``, schema version 1 or 2.
    """
    return to_html_many([report])


def to_html_many(reports: Sequence[Mapping[str, Any]]) -> str:
    """Renders the reports of several runs on one page, a table of all verdicts first.

    Args:
        reports: The values of each ``report.json``, in the order to show; at least one.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("edgekit.reporting", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(reports=reports)
