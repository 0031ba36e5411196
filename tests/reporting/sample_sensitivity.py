"""Sensitivity reports as they are read back from their file, made of rows that are made up."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fake_line import elsewhere, fake_target, make_task
from sample_report import HOSTILE

from edgekit.artifact import Artifact
from edgekit.metrics import Drop
from edgekit.profiling.comparison import Ratio
from edgekit.quantization.groups import Group
from edgekit.quantization.schemes import plan_of
from edgekit.reporting.sensitivity import sensitivity_report
from edgekit.sensitivity import Sensitivity
from edgekit.specs import Target

FP32_MS = 6.25


def ratio(value: float, half: float, *, settled: bool = True) -> Ratio:
    return Ratio(
        percentile=50.0, base_ms=FP32_MS, other_ms=FP32_MS * value, ratio=value, low=value - half, high=value + half,
        confidence=0.995, in_turns=True, groups=24, rounds_per_group=4, autocorrelation=0.05, settled=settled,
    )  # fmt: skip


def row(
    number: int,
    db: float | None,
    lost: float | None,
    times: Ratio | None,
    *,
    name: str | None = None,
    operators: tuple[str, ...] = ("Conv",),
    failure: str | None = None,
) -> Sensitivity:
    stage = f"/encoder/layer{number // 2}/layer{number // 2}.{number % 2}"
    nodes = (f"{stage}/conv1/Conv", f"{stage}/relu/Relu", f"{stage}/conv2/Conv")
    drop = None if lost is None else Drop(
        points=lost, low=lost - 0.41, high=lost + 0.44, n=512, disagreements=12, confidence=0.95
    )  # fmt: skip
    return Sensitivity(
        group=Group(name=name or f"{nodes[0]} … {nodes[-1]}", operators=operators, nodes=nodes, compute=2),
        db=db,
        drop=drop,
        int8_share=None if db is None else 0.11,
        p50_ms=times.other_ms if times else None,
        ratio=times,
        failure=failure,
    )


ROWS = (
    row(0, 13.4, 3.71, ratio(1.12, 0.04), name="/stem/conv/Conv"),
    row(1, 31.2, 0.12, ratio(0.94, 0.01)),
    row(2, 38.9, -0.05, ratio(0.91, 0.02)),
    row(3, 300.0, 0.0, ratio(1.004, 0.012)),
    row(4, 19.2, 0.88, ratio(0.93, 0.03)),
    row(5, None, None, None, failure="onnxruntime refuses the artifact\n  found: QLinearConv without a kernel"),
    row(6, 27.5, 0.2, ratio(0.97, 0.06, settled=False)),
    row(
        7,
        -4.1,
        61.2,
        ratio(3.4, 0.4),
        name="/head/attention/MatMul … /head/classifier/Gemm",
        operators=("MatMul", "Gemm"),
    ),
)


def sensitivity(
    rows: Sequence[Sensitivity] = ROWS, target: Target | None = None, metric: str | None = "accuracy"
) -> dict[str, Any]:
    """A report of eight groups, one of which failed."""
    task = make_task(target or fake_target("local", threads=4))
    task = replace(task, references=replace(task.references, metric_name=metric))
    model = Artifact(folder=Path(), model="model.onnx", files={"model.onnx": "0" * 64}, engine="onnx",
                     precision="fp32", inputs=(), outputs=())  # fmt: skip
    command = "edgekit quantize flowers.onnx --sensitivity"
    made = sensitivity_report(
        rows, plan_of("onnxruntime", "int8"), task, name="flowers", model=model, command=command
    )  # fmt: skip
    read: dict[str, Any] = json.loads(json.dumps(made, allow_nan=False))
    return read


def not_timed() -> dict[str, Any]:
    """On a host that is not the target, and without a score."""
    return sensitivity([row(i, 18.0 + 4 * i, None, None) for i in range(4)], elsewhere("raspberry-pi-4"), None)


def nothing() -> dict[str, Any]:
    """Every group failed."""
    return sensitivity([row(i, None, None, None, failure="no kernel") for i in range(3)])


def hostile() -> dict[str, Any]:
    """Every text that a user or an engine chooses is an attack, and long."""
    report = copy.deepcopy(sensitivity())
    long = f"{HOSTILE} {'verylongword' * 12}"
    report |= {"model": long, "target": HOSTILE, "plan": long, "command": HOSTILE}
    report["host"] |= {"cpu_model": HOSTILE}
    for group in report["groups"]:
        group |= {"name": long, "operators": [HOSTILE], "nodes": [long] * 3}
        group["failure"] = long if group["failure"] else None
    return report


SENSITIVITIES = {
    "eight": sensitivity,
    "one": lambda: sensitivity(ROWS[:1]),
    "not_timed": not_timed,
    "nothing": nothing,
    "hostile": hostile,
}
