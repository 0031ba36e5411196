"""What ``auto`` tries, as a report keeps it."""

from __future__ import annotations

from typing import Any

LONG_PLAN = "onnxruntime int8 percentile +equalize +bias-correction (12 nodes in float)"


def trial(plan: str, db: float | None, lost: float | None, *, failure: str | None = None) -> dict[str, Any]:
    found = None if lost is None else {
        "points": lost, "low": lost - 0.31, "high": lost + 0.34, "n": 512, "disagreements": 9, "confidence": 0.95
    }  # fmt: skip
    return {"plan": plan, "within": failure is None and (lost or 0.0) < 0.5, "db": db, "drop": found,
            "drop_from_fp32": found, "samples": None if db is None else 512, "failure": failure}  # fmt: skip


def trials() -> list[dict[str, Any]]:
    """What ``auto`` tries: one is within at last, one cannot be made."""
    return [
        trial("onnxruntime fp32", 127.4, 0.0),
        trial("onnxruntime int8", 8.2, 31.64),
        trial("onnxruntime int8 percentile", 14.9, 4.1),
        trial("onnxruntime int8 percentile +equalize +bias-correction", 19.6, 1.37),
        trial("onnxruntime int8 percentile +equalize +bias-correction (3 nodes in float)", 22.8, 0.59),
        trial(LONG_PLAN, 27.3, -0.12),
        trial("openvino fp32", 131.0, 0.0),
        trial("openvino bf16", None, None, failure="openvino cannot run bf16 here\n  found: avx512-vnni"),
        trial("openvino int8", 30.1, 0.08),
    ]
