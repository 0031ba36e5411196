"""``inspect --rules``: the places where a model breaks an engine's rules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgekit.backends.tensorrt_rules import Violation


def show_rules(model: Path, rules: str, *, as_json: bool) -> int:
    """Prints every place where a model breaks a rule; the exit code is 1 if there is one.

    Raises:
        EdgeKitError: See :func:`edgekit.ruling.broken_rules`.
    """
    from edgekit.cli._output import ERROR, MET, print_json
    from edgekit.ruling import broken_rules

    found = broken_rules(model, rules)
    if as_json:
        print_json({"model": str(model), "rules": rules, "violations": found})
    elif found:
        _print(model, rules, found)
    else:
        click.echo(f"{model}: no rule of {rules} is broken")
    return ERROR if found else MET


def _print(model: Path, rules: str, found: Sequence[Violation]) -> None:
    """A table a rule and fix, so that what is the same of all its places is said once."""
    from edgekit.cli._output import console

    out = console()
    alike: dict[tuple[str, str], list[Violation]] = {}
    for one in found:
        alike.setdefault((one.rule, one.fix), []).append(one)
    count = len({one.rule for one in found})
    told = "a rule is broken" if count == 1 else f"{count} rules are broken"
    out.print(f"{model}: {told} of {rules}, at {len(found)} {'place' if len(found) == 1 else 'places'}")
    for broken in alike.values():
        out.print()
        out.print(_head(broken))
        out.print(_places(broken))


def _head(broken: Sequence[Violation]) -> object:
    """A rule's name, what it allows, what mends it and where it is written."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    one = broken[0]
    for label, text in (("rule", one.rule), ("allowed", one.allowed), ("fix", one.fix), ("source", one.source)):
        grid.add_row(f"{label}:", text)
    return grid


def _places(broken: Sequence[Violation]) -> object:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("node", overflow="fold", ratio=2)
    table.add_column("found", overflow="fold", ratio=3)
    for one in broken:
        table.add_row(one.node, one.found)
    return table
