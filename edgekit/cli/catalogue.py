"""``edgekit targets`` and ``edgekit profiles``: what can be deployed on, and what can be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli._output import console, print_json, print_table

if TYPE_CHECKING:
    from edgekit.profiling.host import Host
    from edgekit.specs import Profile, Target

catalog_option = click.option(
    "--catalog",
    "folders",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder with targets/ and profiles/ of your own; may be given again.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command()
@click.argument("name", required=False)
@catalog_option
@json_option
def targets(name: str | None, folders: tuple[Path, ...], as_json: bool) -> None:
    """List the targets, or show all of the target NAME (or of a .toml file)."""
    from edgekit.catalog import list_targets, load_target
    from edgekit.profiling.host import this_host

    if name is not None:
        shown = _target(load_target(name, folders))
        print_json(shown) if as_json else _show(shown)
        return
    found = list_targets(folders)
    if as_json:
        print_json([_target(target) for target in found])
        return
    print_table(("target", "engines", "what it is", "measure here"), [_target_row(target) for target in found])
    console().print(f"host: {host_line(this_host())}")


@click.command()
@click.argument("name", required=False)
@catalog_option
@json_option
def profiles(name: str | None, folders: tuple[Path, ...], as_json: bool) -> None:
    """List the profiles, or show all of the profile NAME (or of a .toml file)."""
    from edgekit.catalog import list_profiles, load_profile

    if name is not None:
        shown = _profile(load_profile(name, folders))
        print_json(shown) if as_json else _show(shown)
        return
    rows = [_profile(profile) for profile in list_profiles(folders)]
    if as_json:
        print_json(rows)
        return
    print_table(("profile", "limits", "load"), [_profile_row(row) for row in rows])


def _target(target: Target) -> dict[str, Any]:
    from edgekit.profiling.host import this_host
    from edgekit.specs import mismatch

    why_not = mismatch(target, this_host())
    return target.model_dump(mode="json") | {"is_this_host": why_not is None, "mismatch": why_not}


def _profile(profile: Profile) -> dict[str, Any]:
    return profile.model_dump(mode="json")


def _target_row(target: Target) -> tuple[str, ...]:
    return target.name, ", ".join(target.engines), target.description, needs(target) or "yes"


def needs(target: Target) -> str | None:
    """What this host would have to be for a verdict on the target, in a few words; None: it is the target."""
    from edgekit.profiling.host import this_host
    from edgekit.specs import difference

    differs = difference(target, this_host())
    return None if differs is None else f"needs {differs.what} {differs.wanted}"


def host_line(host: Host) -> str:
    """What a target is compared with, on one line."""
    extras = [extra for extra in (host.board, *host.gpus) if extra]
    cores = f"{host.cores} core{'' if host.cores == 1 else 's'}"
    facts = [f"{host.cpu_model} ({host.arch}, {host.isa})", cores, f"{host.memory_mb / 1000:.1f} GB"]
    return ", ".join([*facts, *extras])


def _profile_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    load = row["load"]
    return row["name"], "\n".join(_given(row["limits"])), f"{load['scenario']}, batch {load['batch']}"


def _given(values: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {value}" for key, value in values.items() if value is not None]


def _show(fields: Mapping[str, Any]) -> None:
    """Prints every field, a line each; one that is not set is a dash."""
    width = max(len(key) for key in fields)
    out = console()
    for key, value in fields.items():
        out.print(f"{key:<{width}}  {_text(value)}", soft_wrap=True)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(_given(value)) or "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
