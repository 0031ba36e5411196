"""What every command shows with: a console, JSON, progress, and the exit codes."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

    from edgekit.progress import Progress

MET = 0
ERROR = 1
USAGE = 2
MISSED = 3
UNDECIDED = 4

MAX_WIDTH = 100


def console(stream: TextIO | None = None) -> Console:
    """A console on ``stream`` (standard output), at most 100 columns; no colour when it is not a terminal.

    Text is shown as it is: brackets are not markup, numbers are not coloured.
    """
    from rich.console import Console

    class PlainConsole(Console):
        def on_broken_pipe(self) -> None:
            raise  # the pipe's own error, for the frame to answer; rich would exit with 1

    stream = stream or sys.stdout
    width = min(MAX_WIDTH, shutil.get_terminal_size((80, 24)).columns)
    terminal = stream.isatty()
    return PlainConsole(
        file=stream,
        width=width,
        no_color=not terminal,
        force_terminal=terminal,
        markup=False,
        emoji=False,
        highlight=False,
    )


def wrapped(text: str, first: str = "", later: str = "") -> list[str]:
    """A text on lines of the console's width; what is in backticks, or pip's to install, stays whole to be copied.

    Args:
        text: One paragraph.
        first: What its first line begins with.
        later: What the others begin with.
    """
    whole = re.sub(r"`[^`]*`|pip install \S+", lambda command: command.group().replace(" ", "\0"), text)
    lines = textwrap.wrap(
        whole,
        console().width,
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\0", " ") for line in lines]


def print_error(text: object) -> None:
    """Prints an error on standard error; on a terminal its long lines are wrapped beside their labels."""
    import click

    lines = f"error: {text}".splitlines()
    if sys.stderr.isatty():
        width = console().width
        lines = [part for line in lines for part in ([line] if len(line) <= width else _hanging(line))]
    click.echo("\n".join(lines), err=True)


def _hanging(line: str) -> list[str]:
    label = re.match(r"error: |  \w+: +| *", line)
    first = label.group() if label else ""
    return wrapped(line[len(first) :], first, " " * len(first))


def print_json(value: Any) -> None:
    """Prints a value as indented JSON on standard output."""
    import json

    import click

    from edgekit.artifact import to_json

    click.echo(json.dumps(to_json(value), indent=2, allow_nan=False, ensure_ascii=False))


def print_table(headings: Iterable[str], rows: Iterable[tuple[str, ...]]) -> None:
    """Prints a table on standard output; the first column is never broken."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, overflow="fold", no_wrap=index == 0)
    for row in rows:
        table.add_row(*row)
    console().print(table)


def print_verified(what: str, passed: bool, messages: Iterable[str]) -> None:
    """Prints what the golden samples of a bundle showed, a paragraph a rule."""
    import click

    click.echo(f"{what}: {'verified' if passed else 'NOT VERIFIED'}")
    for message in messages:
        for line in wrapped(message, "  ", "    "):
            click.echo(line)


@contextmanager
def show_progress(
    stream: TextIO | None = None,
    *,
    interval_s: float = 2.0,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Progress]:
    """Shows progress on ``stream`` (standard error) while the block runs.

    On a terminal: a bar a step, with the time left. Elsewhere: plain lines, the first and the last of a step
    and otherwise one every ``interval_s`` seconds.

    Yields:
        The callable to hand to long steps.
    """
    stream = stream or sys.stderr
    if stream.isatty():
        with _bars(stream) as progress:
            yield progress
    else:
        yield _lines(stream, interval_s, clock)


def _lines(stream: TextIO, interval_s: float, clock: Callable[[], float]) -> Progress:
    shown: dict[str, tuple[float, int]] = {}  # by step: when, and how many were done

    def progress(step: str, done: int, total: int, note: str = "") -> None:
        now = clock()
        when, before = shown.get(step, (float("-inf"), -1))
        finished = done >= total and before < total
        if finished or done < before or now - when >= interval_s:
            shown[step] = (now, done)
            print(f"{step}: {done}/{total} {note}".rstrip(), file=stream, flush=True)

    return progress


@contextmanager
def _bars(stream: TextIO) -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    bars = Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console(stream),
    )
    tasks: dict[str, TaskID] = {}

    def progress(step: str, done: int, total: int, note: str = "") -> None:
        if step not in tasks:
            tasks[step] = bars.add_task(step, total=total, note=note)
        bars.update(tasks[step], completed=done, total=total, note=note)

    with bars:
        yield progress
