"""Reports as one HTML page that needs nothing but a browser: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

REPORT_HTML = "report.html"
PAGE = Path(__file__).parent / "page"
# The icon's colour by verdict; the page's own colours are in its style sheet.
ICON = {"pass": "#1a7f4b", "fail": "#c62f3b", "inconclusive": "#b07400", "not measured": "#5b6b7f"}


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
    from edgekit.reporting.html_view import run_view, runs_grid

    runs = [run_view(report, f"r{i}") for i, report in enumerate(reports, start=1)]
    status = runs[0]["status"] if len(runs) == 1 else "not measured"
    overview = runs_grid(runs, reports) if len(runs) > 1 else None
    return render_page("page.html", status=status, runs=runs, overview=overview)


def render_page(template: str, *, status: str, **shown: Any) -> str:
    """Renders a page in the frame that all share: one style sheet, one script, nothing from elsewhere.

    Args:
        template: A template that fills ``frame.html``.
        status: The verdict that gives the icon its colour.
        shown: What the template shows; text in it is escaped.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    from edgekit import __version__
    from edgekit.reporting.pictures import visible

    environment = Environment(
        loader=FileSystemLoader(PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if isinstance(value, str) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"seconds": _seconds, "capitalize_first": lambda text: text[:1].upper() + text[1:]}
    style, script = ((PAGE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return environment.get_template(template).render(
        made_by=__version__,
        icon=_icon(ICON[status]),
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
        **shown,
    )


def _seconds(seconds: float) -> str:
    """How long a run took: ``12.3 s``, ``5 min 12 s``."""
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def _policy(style: str, script: str) -> str:
    """What the page may do: its own style and script by their hashes, pictures it holds itself, and nothing else."""
    hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script))
    style_hash, script_hash = hashes
    return (
        f"default-src 'none'; style-src 'sha256-{style_hash}'; script-src 'sha256-{script_hash}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _icon(colour: str) -> str:
    """Three bars in the verdict's colour, as a ``data:`` address."""
    square = f'<rect width="16" height="16" rx="4" fill="{colour}"/>'
    bars = '<path d="M4 12V8M8 12V4M12 12V6" stroke="#fff" stroke-width="2"/>'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">{square}{bars}</svg>'
    return f"data:image/svg+xml,{quote(svg)}"
