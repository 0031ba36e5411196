from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fake_line import elsewhere, fake_target, quick_profile

from edgekit.candidate import Candidate
from edgekit.checking import PlacedOperator, Proof
from edgekit.metrics import Drop
from edgekit.profiling.host import this_host
from edgekit.profiling.measured import Measured
from edgekit.quantization.schemes import plan_of
from edgekit.reporting.model import REPORT_SCHEMA_VERSION
from edgekit.reporting.report import target_report
from edgekit.specs import Profile
from edgekit.verdict import judge

LIMITS = {
    "p50_ms": 33.3333,
    "p99_ms": 100.0,
    "first_inference_ms": 500.0,
    "peak_memory_mb": 1024.0,
    "max_drop_points": 1.0,
}


RUN = {
    "kind": "run",
    "schema_version": REPORT_SCHEMA_VERSION,
    "edgekit_version": "0.1.0",
    "name": "digits",
    "created": "2026-11-20T23:59:59+00:00",
    "seconds": 12.3,
    "command": "edgekit deploy examples/digits",
    "seed": 0,
    "host": {
        "arch": "x86_64",
        "isa": "avx512-vnni",
        "cpu_model": "AMD EPYC 9654 96-Core Processor",
        "board": None,
        "gpus": [],
        "cores": 2,
        "memory_mb": 16_000.0,
        "governor": "unknown",
        "os": "Linux 6.18",
        "python": "3.11.7",
    },
    "engines": {"onnxruntime": "1.31.1", "openvino": "2026.4.1"},
    "models": {
        "teacher": {"name": "digits:Teacher", "sha256": "1" * 64, "parameters": 1_234_567, "training": None},
        "student": {"name": "digits:Student", "sha256": "2" * 64, "parameters": 98_765, "training": None},
    },
    "same_model": False,
    "untrained": False,
    "reproduce": {
        "command": "edgekit deploy examples/digits",
        "recipe_sha256": "3" * 64,
        "versions": {"numpy": "2.4.6"},
        "hashes": {"teacher": "1" * 64},
    },
}


def make_candidate(
    engine: str = "onnxruntime",
    precision: str = "int8",
    *,
    profile: Profile | None = None,
    latency_ms: float | None = 12.5,
    drop: tuple[float, float] | None = (-0.52, 0.91),
    failure: str | None = None,
) -> Candidate:
    """A candidate with figures as wide as they come in practice."""
    plan = plan_of(engine, precision)
    if failure:
        return Candidate(plan=plan, failure=failure)
    found = None if drop is None else Drop(
        points=sum(drop) / 2, low=drop[0], high=drop[1], n=10_000, disagreements=52, confidence=0.95
    )  # fmt: skip
    proof = Proof(
        samples=10_000,
        engine=engine,
        reference_db=31.4,
        max_error=0.25,
        broken=None,
        metric="accuracy" if found else None,
        teacher=0.9321 if found else None,
        student=0.93 if found else None,
        artifact=0.928 if found else None,
        drop=found,
        drop_from_fp32=found,
        placement=(PlacedOperator(op="Conv", precision=precision, compute=True, count=20),),
        int8_share=1.0,
    )
    measured = None
    if latency_ms is not None:
        latencies = np.random.default_rng(0).gamma(100.0, latency_ms / 100.0, 20_000)
        measured = Measured(
            status="ok",
            artifact_sha256="0" * 64,
            load_ms=123.4,
            cold_load_ms=(120.0, 123.4, 121.1),
            first_inference_ms=45.6,
            first_inferences_ms=(45.6, 44.0, 43.9),
            application_ms=latencies,
            engine_ms=latencies * 0.9,
            peak_memory_mb={"load": 310.0, "steady": 512.5},
            size_mb=12.34,
            host=this_host(),
            engine_version="1.31.1",
            turns=40,
            turn_sizes=(500,) * 40,
            turn_started_s=tuple(np.linspace(0, 30, 40).tolist()),
            started_at="2026-11-20T23:59:59+00:00",
        )
    verdict = judge(
        proof,
        measured,
        profile or quick_profile(**LIMITS),
        size_mb=12.34,
        not_measured=None if measured else "this host is x86_64, the target is aarch64",
    )
    return Candidate(plan=plan, proof=proof, measured=measured, verdict=verdict)


@pytest.fixture
def candidate() -> Callable[..., Candidate]:
    return make_candidate


@pytest.fixture
def report() -> Callable[..., dict[str, Any]]:
    """Makes a whole report of candidates, the ``shipped``-th of which ships, as it is read back from its file."""

    def make(
        *candidates: Candidate,
        shipped: int | None = 0,
        profile: Profile | None = None,
        random: bool = False,
        **fields: Any,
    ) -> dict[str, Any]:
        chosen = None if shipped is None else candidates[shipped]
        off = chosen is not None and chosen.measured is None
        target = target_report(
            elsewhere("raspberry-pi-4") if off else fake_target("local", threads=4),
            profile or quick_profile(**LIMITS),
            candidates,
            chosen,
            not_measured="this host is x86_64, the target is aarch64" if off else None,
            exit_code=0 if chosen else 3,
            bundle={"path": "local", "id": "0123456789abcdef" * 4} if chosen else None,
            why="onnxruntime int8: lowest p50 bound (12.345 ms) of those that meet every limit"
            if chosen
            else "nothing ships: the accuracy limit is missed",
            steps=[],
        )
        whole = RUN | {
            "data": {"test_samples": 10_000, "random": random, "held_out": True, "metric": "accuracy"},
            "targets": [target],
            "exit_code": target["exit_code"],
        }
        read: dict[str, Any] = json.loads(json.dumps(whole | fields, allow_nan=False))
        return read

    return make
