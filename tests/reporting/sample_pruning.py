"""How a student was pruned, as a report holds it, made up but of the right shape."""

from __future__ import annotations

import json
from typing import Any

WHOLE_MS = 2.672
SAMPLES = 5000
BEYOND = "1.61 [1.12, 2.10] points lost, at most 1.5 allowed"
SLOWER = "71% of the operations but 1.00 [0.99, 1.01] of the latency: not shown faster"


def step(
    number: int,
    share: float | None,
    lost: float | None,
    changes: list[str],
    *,
    kept: bool = True,
    why: str = "within every limit",
    sharp: float = 0.012,
) -> dict[str, Any]:
    """A step that takes ``share`` of the unpruned latency and loses so many points."""
    p50 = None if share is None else WHOLE_MS * share
    score = None if lost is None else 0.8947 - lost / 100
    drop = None if lost is None or not number else {
        "points": lost, "low": lost - 0.42, "high": lost + 0.45, "n": SAMPLES, "disagreements": 188, "confidence": 0.95
    }  # fmt: skip
    return {
        "number": number, "aim_ms": WHOLE_MS * 0.9**number if number else None, "p50_ms": p50,
        "p50_low_ms": None if p50 is None else p50 * 0.985, "p50_high_ms": None if p50 is None else p50 * 1.012,
        "estimated": False,
        "ratio": None if share is None or not number
        else {"ratio": share, "low": share - sharp, "high": share + sharp},
        "score": score, "drop": drop, "parameters": int(855_770 * 0.86**number), "macs": int(126e6 * 0.85**number),
        "changes": changes, "epochs": 5 if number else 0, "kept": kept, "why": why if number else "the unpruned model",
    }  # fmt: skip


def row(group: str, move: str, saved: float, *, members: int = 1, kind: str = "block") -> dict[str, Any]:
    return {"group": group, "kind": kind, "members": members, "move": move, "saved_ms": saved, "low_ms": saved - 0.012,
            "high_ms": saved + 0.011, "shown": saved > 0.012}  # fmt: skip


def pruning(*steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The part ``pruning`` of a report: of these steps after the unpruned model, or of five, two of them undone."""
    later = list(steps) or [
        step(1, 0.74, 0.18, ["layer1: blocks 1, 2 left out", "layer2: block 4 left out"]),
        step(2, 1.0, 0.2, ["layer3.0.conv1: 48 of 64 channels"], kept=False, why=SLOWER),
        step(3, 0.56, 0.47, ["layer1: blocks 2, 3, 5 left out", "layer2.1.conv1: 24 of 32 channels"]),
        step(4, 0.47, 0.92, ["layer3: blocks 6, 7 left out", "layer2: block 3 left out", "fc: 48 of 64 channels",
                             "layer3.2.conv1: 48 of 64 channels", "layer1.0.conv1: 12 of 16 channels"]),
        step(5, 0.43, 1.61, ["layer2: block 2 left out"], kept=False, why=BEYOND),
    ]  # fmt: skip
    whole = {
        "target": "local", "plan": "openvino int8", "samples": SAMPLES, "budget_ms": 1.202,
        "budget": "0.45 of the unpruned model's 2.67 ms", "max_drop_points": 1.5, "criterion": "taylor",
        "estimate": None, "stopped": "the accuracy limit is reached", "seconds": 4012.3,
        "best": next((one["number"] for one in reversed(later) if one["kept"]), 0),
        "table": {
            "source": "measured", "whole_ms": WHOLE_MS, "seconds": 140.2,
            "rows": [row("layer1.1", "removed", 0.112, members=8), row("layer2.1", "removed", 0.094, members=8),
                     row("layer3.1", "removed", 0.121, members=8),
                     row("layer2.1.conv1", "24 of 32 channels", 0.021, members=9, kind="channels"),
                     row("layer2.1.conv1", "16 of 32 channels", 0.048, members=9, kind="channels"),
                     row("layer3.0.conv1", "48 of 64 channels", -0.004, kind="channels")],
        },
        "steps": [step(0, 1.0, 0.0, []), *later],
        "notes": ["layer2.0: not removed, its shortcut changes the shape (Conv downsample.0)",
                  "layer3.0.conv1, 48 of 64 channels: fewer operations are not shown faster"],
    }  # fmt: skip
    read: dict[str, Any] = json.loads(json.dumps(whole | fields, allow_nan=False))
    return read


def estimated() -> dict[str, Any]:
    """On another host than the target: latencies are those of a roofline, without intervals."""
    found = pruning(target="raspberry-pi-4", estimate="estimate: roofline")
    for one in found["steps"]:
        one |= {"estimated": True, "p50_low_ms": None, "p50_high_ms": None, "ratio": None}
    found["table"]["source"] = "estimate: roofline"
    for one in found["table"]["rows"]:
        one |= {"low_ms": None, "high_ms": None}
    return found


def unlabelled() -> dict[str, Any]:
    """No labels: nothing is known of scores."""
    found = pruning(samples=None, max_drop_points=None)
    for one in found["steps"]:
        one |= {"score": None, "drop": None}
    return found


def crowd() -> dict[str, Any]:
    """Many steps, several of them nearly in one place."""
    made = [step(i, 0.9 - 0.02 * i - 0.015 * (i % 3), 0.1 + 0.05 * i * (i % 4 != 1), ["layer1: block 1 left out"],
                 kept=i % 4 != 1, why=SLOWER if i % 4 == 1 else "within every limit", sharp=0.0004)
            for i in range(1, 19)]  # fmt: skip
    near = [step(i, 0.44 + 0.002 * (i % 2), 1.0 + 0.01 * i / 4, ["fc: 60 of 64 channels"]) for i in range(19, 25)]
    return pruning(*made, *near)


def diverged() -> dict[str, Any]:
    """The last fine-tuning went to ruin: its score is that of guessing."""
    return pruning(step(1, 0.62, 0.4, ["layer1: block 1 left out"]),
                   step(2, 0.5, 79.47, ["layer2: block 2 left out"], kept=False, why="the loss is not finite"),
                   stopped="the fine-tuning diverged")  # fmt: skip


def taught() -> dict[str, Any]:
    """Drops are from a teacher that is not the unpruned model."""
    found = pruning()
    for one in found["steps"]:
        lost = round(89.47 + 0.35 - 100.0 * one["score"], 6)
        one["drop"] = {"points": lost, "low": lost - 0.4, "high": lost + 0.4, "n": SAMPLES, "disagreements": 201,
                       "confidence": 0.95}  # fmt: skip
    return found


def hostile(text: str) -> dict[str, Any]:
    """Every text is an attack, and long."""
    found = pruning(target=text, plan=text, budget=text, criterion=text, estimate=text, stopped=text, notes=[text] * 3)
    for one in found["steps"]:
        one |= {"changes": [text] * 5, "why": text}
    for one in found["table"]["rows"]:
        one |= {"group": text, "move": text}
    return found


PRUNINGS = {
    "usual": pruning,
    "near": lambda: pruning(step(1, 0.99, 0.02, ["fc: 60 of 64 channels"]), step(2, 0.985, 0.03, ["fc: 56 of 60"]),
                            step(3, 0.988, 0.01, ["layer1: block 1 left out"], kept=False, why=SLOWER),
                            step(4, 0.983, -0.35, ["layer1: block 1 left out"])),
    "met": lambda: pruning(step(1, 0.44, 0.31, ["layer1: blocks 1, 2, 3 left out"]), stopped="the budget is met"),
    "undone": lambda: pruning(step(1, 1.0, 0.2, ["fc: 60 of 64 channels"], kept=False, why=SLOWER)),
    "untimed": lambda: pruning(step(1, None, 0.4, []), step(2, None, None, [], kept=False, why="not finite"),
                               budget_ms=None, table=None),
    "estimated": estimated,
    "unlabelled": unlabelled,
    "nothing": lambda: pruning(steps=[step(0, 1.0, 0.0, [])], best=0, notes=[], stopped="nothing can be pruned"),
    "empty": lambda: pruning(steps=[], best=0, notes=[], table=None, budget_ms=None, budget="", max_drop_points=None),
    "crowd": crowd,
    "diverged": diverged,
    "taught": taught,
}  # fmt: skip
