"""Reports of schema version 2 as they are read back from their file, made up but of the right shape."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
from sample_kept import kept, renamed
from sample_pruning import crowd, pruning
from sample_pruning import hostile as hostile_pruning
from sample_trials import LONG_PLAN, trial, trials

LIMITS = {"p99_ms": 8.0, "max_drop_points": 1.0, "size_mb": 12.0, "first_inference_ms": 400.0}
ENGINES = ("onnxruntime", "openvino", "tensorrt")
PRECISIONS = ("fp32", "int8", "fp16", "bf16", "int4")
REFUSED = "onnxruntime refuses the artifact: Non-zero status code returned while running QLinearConv node"
HOSTILE = (
    "\"><script>alert('x')</script><img src=x onerror=alert(1)> & ünï — 日本語 \u202e\x00\ud800 "
    "{{ 7*7 }} </title></style>"
)


def latencies(median_ms: float, seed: int, n: int = 6000) -> np.ndarray:
    """Latencies with a tail and a few spikes."""
    rng = np.random.default_rng(seed)
    spikes = rng.random(n) < 0.004
    return np.asarray(
        median_ms * (rng.gamma(260, 1 / 260, n) + rng.exponential(0.03, n) + spikes * rng.gamma(2, 0.4, n))
    )


def summary(samples: np.ndarray) -> dict[str, Any]:
    found = {}
    for q, half in ((50.0, 0.7), (90.0, 0.5), (95.0, 0.4), (99.0, 0.15), (99.9, None)):
        low, high = (None, None) if half is None else (q - half, q + half)
        found[str(q)] = {
            "ms": float(np.percentile(samples, q)),
            "upper_ms": float(np.percentile(samples, high)) if high else float(samples.max()),
            "lower_ms": float(np.percentile(samples, low)) if low else None,
            "effective_n": 0.8 * len(samples),
        }
    return {
        "n": len(samples),
        "effective_n": 0.8 * len(samples),
        "autocorrelation": 0.11,
        "cv": float(samples.std() / samples.mean()),
        "mean_ms": float(samples.mean()),
        "min_ms": float(samples.min()),
        "max_ms": float(samples.max()),
        "confidence": 0.99,
        "percentiles": found,
    }


def host_state(**fields: Any) -> dict[str, Any]:
    state = {
        "governor": "performance",
        "frequency_mhz": 3400.0,
        "min_frequency_mhz": 3391.5,
        "max_frequency_mhz": 3412.0,
        "temperature_c": 61.0,
        "throttle_count": 0,
        "load_average": 0.42,
        "memory_available_mb": 14321.5,
        "hardware_max_mhz": 3700.0,
        "throttled": None,
        "throttled_since_boot": None,
    }
    return state | fields


def conditions() -> dict[str, Any]:
    return {
        "before": host_state(),
        "after": host_state(temperature_c=68.5, load_average=1.9),
        "seconds": 31.4,
        "other_load": 0.012,
        "steal": 0.0,
        "waited": 0.004,
        "cpu_limit": None,
        "periods": None,
        "throttled_periods": 0,
        "memory_limit_mb": None,
    }


def measured(median_ms: float, seed: int) -> dict[str, Any]:
    samples = latencies(median_ms, seed)
    edges = np.geomspace(samples.min(), np.percentile(samples, 99.9), 65)
    counts = np.histogram(samples, edges)[0]
    slices = np.array_split(samples, 100)
    return {
        "status": "ok",
        "reason": None,
        "started_at": "2026-11-20T23:59:59+00:00",
        "engine_version": "1.31.1",
        "turns": 120,
        "load_ms": 130.2,
        "first_inference_ms": 4 * median_ms,
        "peak_memory_mb": {"load": 310.0, "first_inference": 402.5, "warm_up": 410.0, "steady": 410.0},
        "highest_memory_mb": 410.0,
        "cold_load_ms": [128.1, 130.2, 129.0],
        "cached_load_ms": [41.2, 40.9] if seed % 2 else [],
        "first_inferences_ms": [3.2 * median_ms, 4 * median_ms, 3.5 * median_ms],
        "warm_up": {"queries": 12, "settled": True, "ms": [round(float(x), 4) for x in samples[:40] * 1.2]},
        "application": summary(samples),
        "engine": summary(samples * 0.94),
        "drift": None,
        "spoiled": None,
        "caveats": ["the governor is powersave, not performance"] if seed % 3 == 0 else [],
        "conditions": conditions(),
        "histogram": {
            "edges_ms": edges.tolist(),
            "counts": counts.tolist(),
            "below": 0,
            "above": int((samples > edges[-1]).sum()),
        },
        "timeline": {
            "seconds": np.linspace(0, 31.0, 100).tolist(),
            "p50_ms": [float(np.median(s)) for s in slices],
            "p90_ms": [float(np.percentile(s, 90)) for s in slices],
            "max_ms": [float(s.max()) for s in slices],
        },
    }


def drop(points: float) -> dict[str, Any]:
    return {"points": points, "low": points - 0.35, "high": points + 0.38, "n": 10_000, "disagreements": 71,
            "confidence": 0.95}  # fmt: skip


def limit(name: str, allowed: float, value: float | None, low: float | None, high: float | None) -> dict[str, Any]:
    bound = value if high is None else high
    status = "not measured" if bound is None else "pass" if bound <= allowed else "fail"
    if status == "fail" and low is not None and low <= allowed:
        status = "inconclusive"
    return {"limit": name, "allowed": allowed, "value": value, "low": low, "high": high, "status": status,
            "note": "99%, n = 6000"}  # fmt: skip


def candidate(number: int, *, seed: int, shipped: bool = False, failure: str | None = None) -> dict[str, Any]:
    """The ``number``-th candidate: engines and precisions take turns, the later ones are worse."""
    engine, precision = ENGINES[number % 2], PRECISIONS[number // 2 % len(PRECISIONS)]
    made: dict[str, Any] = {
        "engine": engine, "precision": precision, "plan": f"{engine} {precision}",
        "scheme": None if precision == "fp32" else engine,
        "shipped": shipped, "status": "fail", "reason": failure or "", "failure": failure, "sha256": None,
        "size_mb": None, "notes": [], "options": {}, "proof": None, "limits": [], "measured": None,
    }  # fmt: skip
    if failure:
        return made
    rng = np.random.default_rng(seed)
    quick = 0.45 if precision != "fp32" else 1.0
    lost = 0.05 if precision == "fp32" else float(rng.uniform(0.2, 0.9))
    size = 9.4 * (1 if precision == "fp32" else 0.27)
    found = measured(float(rng.uniform(4, 9)) * quick, seed)
    p99 = found["application"]["percentiles"]["99.0"]
    limits = [
        limit("max_drop_points", LIMITS["max_drop_points"], lost, lost - 0.35, lost + 0.38),
        limit("p99_ms", LIMITS["p99_ms"], p99["ms"], p99["lower_ms"], p99["upper_ms"]),
        limit("first_inference_ms", LIMITS["first_inference_ms"], found["first_inference_ms"], None, None),
        limit("size_mb", LIMITS["size_mb"], size, None, None),
    ]
    worst = next(s for s in ("fail", "inconclusive", "pass") if s in [r["status"] for r in limits])
    reason = "every limit is met" if worst == "pass" else "not met: p99_ms"
    return made | {
        "status": worst, "reason": reason, "sha256": f"{number:064x}", "size_mb": size, "limits": limits,
        "measured": found,
        "proof": {
            "samples": 10_000, "engine": engine, "reference_db": 117.0 if precision == "fp32" else 31.4,
            "max_error": 0.01, "broken": None, "metric": "accuracy", "teacher": 0.9412, "student": 0.9391,
            "artifact": 0.9412 - lost / 100, "drop": drop(lost), "drop_from_fp32": drop(lost - 0.2),
            "held_out": True, "placement": [], "int8_share": 0.96 if precision == "int8" else 0.0,
        },
    }  # fmt: skip


def steps(shipped: dict[str, Any]) -> list[dict[str, Any]]:
    found = shipped["measured"]["application"]["percentiles"]["50.0"] if shipped["measured"] else {}

    def step(name: str, size: float, times: float, score: float, parameters: int | None) -> dict[str, Any]:
        p50, low, high = (found[k] * times if found else None for k in ("ms", "lower_ms", "upper_ms"))
        return {"name": name, "engine": shipped["engine"], "size_mb": size, "p50_ms": p50, "p50_low_ms": low,
                "p50_high_ms": high, "score": score, "parameters": parameters,
                "note": "" if found else "not measured: this host is x86_64"}  # fmt: skip

    artifact = shipped["proof"]["artifact"] if shipped["proof"] else None
    name = f"{shipped['engine']} {shipped['precision']}"
    return [
        step("teacher", 44.7, 9.3, 0.9412, 11_173_962),
        step("fp32 student", 9.4, 2.2, 0.9391, 2_345_678),
        step(name, shipped["size_mb"], 1.0, artifact, None),
    ]


def target_of(candidates: list[dict[str, Any]], name: str = "local") -> dict[str, Any]:
    shipped = next((c for c in candidates if c["shipped"]), None)
    why = "nothing ships: every candidate failed"
    if shipped:
        why = f"{shipped['engine']} {shipped['precision']}: lowest p50 bound (2.345 ms) of those that meet every limit"
        why = why if shipped["status"] == "pass" else f"{shipped['engine']} {shipped['precision']}: as asked"
    return {
        "target": name, "profile": "realtime-120fps", "limits": dict(LIMITS), "threads": 4, "not_measured": None,
        "load": {"scenario": "single_stream", "batch": 1, "min_seconds": 3.0, "max_seconds": 60.0, "min_count": 700,
                 "max_other_load": 0.1},
        "status": shipped["status"] if shipped else "fail", "exit_code": 0 if shipped else 1, "why": why,
        "bundle": {"path": name, "id": "0123456789abcdef" * 4} if shipped else None,
        "candidates": candidates, "steps": steps(shipped) if shipped else [],
        "trials": [],
    }  # fmt: skip


def searched_report() -> dict[str, Any]:
    """``auto`` found what ships: a plan with a long name."""
    report = sample_report(6)
    target = report["targets"][0]
    shipped = next(c for c in target["candidates"] if c["shipped"])
    other = next(c for c in target["candidates"] if not c["shipped"] and c["precision"] == "int8")
    for c, plan in ((shipped, LONG_PLAN), (other, LONG_PLAN.replace("percentile", "entropy").replace("12", "7"))):
        c |= {"plan": plan, "engine": "onnxruntime"}
    target["steps"][-1]["name"] = LONG_PLAN
    target |= {"trials": trials(), "why": f"{LONG_PLAN}: lowest p50 bound (2.345 ms) of those that meet every limit"}
    return report


def report_of(*targets: dict[str, Any], **fields: Any) -> dict[str, Any]:
    models = {
        "teacher": {"name": "flowers:Teacher", "sha256": "1" * 64, "parameters": 11_173_962, "training": None},
        "student": {"name": "flowers:Student", "sha256": "2" * 64, "parameters": 2_345_678, "training": None},
    }
    whole = {
        "schema_version": 2, "kind": "run", "edgekit_version": "0.1.0", "name": "flowers",
        "created": "2026-11-21T00:01:02+00:00", "seconds": 312.4,
        "command": "edgekit deploy examples/flowers --target local", "seed": 0,
        "host": {"arch": "x86_64", "isa": "avx512-vnni", "cpu_model": "AMD EPYC 9654 96-Core Processor", "board": None,
                 "gpus": [], "cores": 4, "memory_mb": 16_384.0, "governor": "performance", "os": "Linux 6.18.44",
                 "python": "3.11.7"},
        "engines": {"onnxruntime": "1.31.1", "openvino": "2026.4.1"}, "models": models, "same_model": False,
        "untrained": False,
        "data": {"test_samples": 10_000, "random": False, "held_out": True, "metric": "accuracy"},
        "targets": list(targets), "exit_code": targets[0]["exit_code"],
        "reproduce": {
            "command": "edgekit deploy examples/flowers --target local", "recipe_sha256": "a" * 64,
            "versions": {"edgekit": "0.1.0", "torch": "2.15.0", "onnx": "1.23.2", "nncf": "3.4.0"},
            "hashes": {"teacher": "1" * 64, "student": "2" * 64, "fp32": "3" * 64, "test data": "4" * 64},
        },
    }  # fmt: skip
    read: dict[str, Any] = json.loads(json.dumps(whole | fields, allow_nan=False))
    return read


def sample_report(candidates: int = 4, *, failed: int = 0, **fields: Any) -> dict[str, Any]:
    """A run that passes; the quickest candidate within every limit ships.

    Args:
        candidates: How many were measured.
        failed: How many more failed.
        fields: Top-level values to replace.
    """
    made = [candidate(i, seed=i) for i in range(candidates)]
    passing = [c for c in made if c["status"] == "pass"] or made
    best = min(passing, key=lambda c: float(c["measured"]["application"]["percentiles"]["50.0"]["ms"]))
    best["shipped"] = True
    made += [candidate(i, seed=i, failure=REFUSED) for i in range(candidates, candidates + failed)]
    return report_of(target_of(made), **fields)


def not_measured_report() -> dict[str, Any]:
    """A cross target: everything is built and proven, nothing is timed."""
    report = sample_report(2)
    target = report["targets"][0]
    why = "this host is x86_64, the target is aarch64"
    target |= {"target": "raspberry-pi-4", "status": "not measured", "not_measured": why, "exit_code": 4}
    for c in target["candidates"]:
        c |= {"measured": None, "status": "not measured", "reason": f"not measured: {why}"}
        for result in c["limits"]:
            if result["limit"] not in ("max_drop_points", "size_mb"):
                result |= {"value": None, "low": None, "high": None, "status": "not measured", "note": ""}
    target["steps"] = steps(next(c for c in target["candidates"] if c["shipped"]))
    return report


def failing_report() -> dict[str, Any]:
    """Every candidate failed; nothing ships."""
    return report_of(target_of([candidate(i, seed=i, failure=REFUSED) for i in range(3)]))


def random_report() -> dict[str, Any]:
    """No data and one model: nothing is known of the accuracy."""
    report = sample_report(1)
    report |= {"same_model": True, "untrained": True}
    report["data"] = {"test_samples": 64, "random": True, "held_out": False, "metric": None}
    target = report["targets"][0]
    nothing = {"metric": None, "teacher": None, "student": None, "artifact": None, "drop": None, "drop_from_fp32": None}
    target["candidates"][0]["proof"] |= nothing
    target["candidates"][0]["limits"][0] |= {"value": None, "low": None, "high": None, "status": "inconclusive",
                                             "note": "no data to judge by"}  # fmt: skip
    target["candidates"][0] |= {"status": "inconclusive", "reason": "not decided: max_drop_points"}
    target |= {"status": "inconclusive", "exit_code": 4}
    target["steps"] = [step | {"score": None} for step in target["steps"]]
    return report


def unsteady_report() -> dict[str, Any]:
    """A run that drifted and was spoiled, one of whose candidates was refused by the engine's process."""
    report = sample_report(6)
    target = report["targets"][0]
    found = next(c for c in target["candidates"] if c["shipped"])
    found |= {"status": "inconclusive", "reason": "not decided: p99_ms (the run drifted)"}
    found["limits"][1] |= {"status": "inconclusive", "note": "99%, n = 6000; the run drifted"}
    line = found["measured"]["timeline"]
    for key in ("p50_ms", "p90_ms", "max_ms"):
        line[key] = [ms * (1 + 0.004 * i) for i, ms in enumerate(line[key])]
    found["measured"] |= {
        "drift": "the second half is 18% slower than the first (p < 0.001)",
        "spoiled": "other processes used 23% of the CPUs, 10% are borne",
    }
    target |= {"status": "inconclusive", "exit_code": 4}
    other = next(c for c in target["candidates"] if not c["shipped"])
    other["measured"] |= {"status": "refused", "reason": "p99.9 needs 6,636 queries: 74 s; max_seconds is 60",
                          "application": None, "engine": None, "histogram": None, "timeline": None}  # fmt: skip
    return report


def several_targets_report() -> dict[str, Any]:
    """Three targets: one passes, one is not measured, one fails."""
    parts = [sample_report(6, failed=1), not_measured_report(), failing_report()]
    targets = [part["targets"][0] for part in parts]
    targets[2]["target"] = "x86-avx2"
    return report_of(*targets) | {"exit_code": 1}


def emptied(value: Any) -> Any:
    """The same with null for every number, and nothing in every list of numbers."""
    if isinstance(value, dict):
        return {key: emptied(part) for key, part in value.items()}
    if isinstance(value, list):
        return [] if all(isinstance(part, (int, float)) for part in value) else [emptied(part) for part in value]
    return None if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def null_report() -> dict[str, Any]:
    """A report with null wherever a number stood."""
    report = sample_report(3, failed=1)
    report["targets"][0]["trials"] = trials()
    found: dict[str, Any] = emptied(copy.deepcopy(report))
    for target, full in zip(found["targets"], report["targets"], strict=True):
        target["limits"] = full["limits"]
        for c, whole in zip(target["candidates"], full["candidates"], strict=True):
            c["limits"] = [dict(r, value=None, low=None, high=None) for r in whole["limits"]]
            if c["measured"]:
                c["measured"] |= {"application": None, "engine": None, "histogram": None, "timeline": None}
    return found | {"schema_version": 2, "exit_code": 4}


def hostile_report() -> dict[str, Any]:
    """Every text a user or an engine may choose is an attack, and long."""
    report = sample_report(3, failed=1, name=HOSTILE, command=f"edgekit deploy '{HOSTILE}'")
    long = f"{HOSTILE} {'verylongword' * 12}"
    target = report["targets"][0]
    target |= {"target": long, "profile": HOSTILE, "why": long}
    for c in target["candidates"]:
        c |= {"engine": HOSTILE, "precision": long, "plan": f"{HOSTILE} {long}", "reason": long, "notes": [HOSTILE]}
        c["failure"] = long if c["failure"] else None
        if c["measured"]:
            c["measured"] |= {"drift": long, "spoiled": HOSTILE, "caveats": [HOSTILE], "engine_version": HOSTILE}
        for result in c["limits"]:
            result["note"] = HOSTILE
    for step in target["steps"]:
        step |= {"name": long, "note": HOSTILE}
    target["trials"] = [trial(long, 9.0, 0.1), trial(HOSTILE, None, None, failure=f"{long}\n{HOSTILE}")]
    report["host"] |= {"cpu_model": HOSTILE, "os": HOSTILE}
    report["models"]["teacher"]["name"] = long
    report["reproduce"] = {"command": long, "recipe_sha256": "a" * 64, "versions": {HOSTILE: HOSTILE},
                           "hashes": {HOSTILE: HOSTILE}}  # fmt: skip
    return report


SHAPES = {
    "kept": lambda: sample_report(kept=kept()),
    "kept_many": lambda: sample_report(kept=kept(120, 6000, grouped=False, empty=2) | {"corruption": None}),
    "kept_hostile": lambda: sample_report(kept=renamed(kept(30, 900), f"{HOSTILE} {'verylongword' * 12}")),
    "pruned": lambda: sample_report(pruning=pruning()),
    "pruned_crowd": lambda: sample_report(pruning=crowd()),
    "pruned_hostile": lambda: sample_report(pruning=hostile_pruning(f"{HOSTILE} {'verylongword' * 12}")),
    "passes": sample_report,
    "thirty": lambda: sample_report(30, failed=2),
    "one": lambda: sample_report(1),
    "searched": searched_report,
    "not_measured": not_measured_report,
    "failing": failing_report,
    "random": random_report,
    "unsteady": unsteady_report,
    "several_targets": several_targets_report,
    "nulls": null_report,
    "hostile": hostile_report,
}
