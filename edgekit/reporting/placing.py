"""What engines really ran in int8, in words: shares of the arithmetic, the nodes and the time, and what fell out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SHOWN = 6  # names


def int8_share(proof: Mapping[str, Any] | None) -> float | None:
    """Share of the multiply-accumulates run in int8, 0 to 1; where they are not known, of the nodes that do them."""
    proof = proof or {}
    found: float | None = proof.get("int8_share_macs")
    return proof.get("int8_share") if found is None else found


def placement_facts(target: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """For every candidate that was to run in int8, name and text: how much of it did, and which nodes did not."""
    told, device = False, (target.get("device") or {}).get("name")
    for candidate in target["candidates"]:
        proof = candidate.get("proof") or {}
        if candidate.get("precision") != "int8" or proof.get("int8_share") is None:
            continue
        told = True
        known = [("int8_share_macs", "multiply-accumulates"), ("int8_share", "nodes"), ("int8_share_time", "time")]
        shares = [f"{proof[key]:.0%} of the {what}" for key, what in known if proof.get(key) is not None]
        name = f"{candidate.get('plan') or candidate['engine'] + ' int8'}"
        where = f", on {device}" if device and proof.get("placed_there") else ""
        yield f"{name} ran in int8", ", ".join(shares) + where
        floats = proof.get("ran_in_float") or []
        if floats:
            more = f" and {len(floats) - SHOWN} more" if len(floats) > SHOWN else ""
            yield f"{name} ran in float, though quantised", ", ".join(floats[:SHOWN]) + more
    if told and target.get("not_measured"):
        yield "int8", "the share is of this host's run, not of the target's"
    here = [c for c in target["candidates"] if device and (c.get("proof") or {}).get("int8_share") is not None]
    here = [c for c in here if c.get("precision") == "int8" and not c["proof"].get("placed_there")]
    if here:
        names = ", ".join(str(c.get("plan") or c["engine"]) for c in here)
        yield "int8 of this host", f"{names}: {device} did not tell what it ran, which may be something else"
