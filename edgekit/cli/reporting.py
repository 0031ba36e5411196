"""``report``: finished runs again, on the terminal or in the forms that others read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

STDOUT = "-"
Reports = Sequence[Mapping[str, Any]]


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--html", metavar="FILE", help="Write a page that needs nothing but a browser.")
@click.option("--md", metavar="FILE", help="Write Markdown that fits a comment of a pull request.")
@click.option("--junit", metavar="FILE", help="Write JUnit XML: a suite a target, a test case a limit.")
@click.option("--github", is_flag=True, help="Print annotations for a step of GitHub Actions.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; a list where there are several RUNs.")
def report(
    runs: tuple[Path, ...], html: str | None, md: str | None, junit: str | None, github: bool, as_json: bool
) -> int:
    """Show the reports of finished RUNs again, and exit as the worst of them did.

    A RUN is the folder of a deploy, a bundle, a report.json, or what `edgekit profile --json` or `edgekit compare
    --json` wrote. Without options it is printed for people; FILE may be - for standard output.
    """
    from edgekit.pipeline import worst

    asked = {"html": html, "md": md, "junit": junit}
    sinks = {kind: sink for kind, sink in asked.items() if sink is not None}
    _check(sinks, [flag for flag, given in (("--github", github), ("--json", as_json)) if given])
    reports = [_read(run) for run in runs]
    # Everything is made before anything is written.
    texts = {kind: _FORMS[kind](reports) for kind in sinks}
    printed = github or as_json or STDOUT in sinks.values()
    for kind, sink in sinks.items():
        _write(texts[kind], sink)
        if not printed:
            click.echo(f"{kind}: {sink}")
    if github:
        from edgekit.reporting.annotations import to_annotations

        click.echo(to_annotations(reports), nl=False)
    elif as_json:
        from edgekit.cli._output import print_json

        print_json(reports[0] if len(reports) == 1 else reports)
    elif not sinks:
        _print(reports)
    return worst([int(found["exit_code"]) for found in reports])


def _check(sinks: Mapping[str, str], printers: Sequence[str]) -> None:
    """Refuses, before any work, two things in one place and files that cannot be written.

    Raises:
        click.UsageError: Two go to standard output or to one file.
        EdgeKitError: A file cannot be written.
    """
    from edgekit.runtime.files import check_sink

    printers = [*(f"--{kind} -" for kind, sink in sinks.items() if sink == STDOUT), *printers]
    if len(printers) > 1:
        raise click.UsageError(f"{' and '.join(printers)} both go to standard output; give one of them alone")
    files = [Path(sink).resolve() for sink in sinks.values() if sink != STDOUT]
    if len(set(files)) < len(files):
        raise click.UsageError(f"{' and '.join(f'--{kind}' for kind in sinks)} go to the same file")
    for file in files:
        if not _is_stream(file):
            check_sink(file)


def _read(run: Path) -> Mapping[str, Any]:
    """The report of a run's folder, of a bundle, or in a file.

    Raises:
        BundleError: There is none, or it is not JSON.
        SpecError: It is of another schema, or something in it is wrong.
    """
    from edgekit.artifact import MANIFEST_FILE, read_json
    from edgekit.reporting.report import REPORT_JSON
    from edgekit.reporting.validation import validate

    path = run / REPORT_JSON if run.is_dir() else run
    if (run / MANIFEST_FILE).is_file():
        # Beside the bundle: under its name after an export, under its own after a deploy.
        exported = run.resolve().with_name(f"{run.resolve().name}.{REPORT_JSON}")
        path = exported if exported.is_file() else run.resolve().parent / REPORT_JSON
    return validate(read_json(path), path)


def _html(reports: Reports) -> str:
    from edgekit.errors import SpecError
    from edgekit.reporting.html import to_html_many

    for found in reports:
        if found["kind"] != "run":
            raise SpecError(
                "--html shows runs", found=f"a {found['kind']}", allowed="folders and report.json files of runs"
            )
    return to_html_many(reports)


def _markdown(reports: Reports) -> str:
    from edgekit.reporting.markdown import to_markdown

    return to_markdown(*reports)


def _junit(reports: Reports) -> str:
    from edgekit.reporting.junit import to_junit

    return to_junit(reports)


_FORMS: dict[str, Callable[[Reports], str]] = {"html": _html, "md": _markdown, "junit": _junit}


def _print(reports: Reports) -> None:
    from edgekit.cli._output import console
    from edgekit.reporting.comparison import print_comparison
    from edgekit.reporting.terminal import print_profile, print_report

    printers = {"run": print_report, "profile": print_profile, "comparison": print_comparison}
    for found in reports:
        printers[found["kind"]](found, console())


def _write(text: str, sink: str) -> None:
    """Writes a file whole or not at all; a device or a pipe, which cannot be replaced, is written to."""
    from edgekit.disk import whole

    if sink == STDOUT:
        click.echo(text, nl=False)
        return
    path = Path(sink).resolve()
    if _is_stream(path):
        path.write_text(text, encoding="utf-8")
        return
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _is_stream(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()
