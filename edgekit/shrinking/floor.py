"""What an engine takes for a model of nothing: no pruning brings a student below it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.artifact import Artifact, TensorSpec, load_artifact, save_artifact, to_json
from edgekit.candidate import Task
from edgekit.errors import EngineError, SpecError
from edgekit.latency_table import table_load
from edgekit.making import compile_step, measure_step, tool_versions
from edgekit.profiling.statistics import bounds_or_stretches
from edgekit.steps import run_step

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 17
Specs = Sequence[TensorSpec]


def check_floor(
    budget_ms: float, inputs: Specs, outputs: Specs, engines: Sequence[str], task: Task, steps: Path
) -> None:
    """Refuses a budget below what every engine takes for a model with a student's inputs and outputs and no layers.

    Args:
        budget_ms: The budget.
        inputs: What the student takes, as it crosses to ONNX.
        outputs: What it gives.
        engines: Those that it may ship on.
        task: Its target, profile and samples; where nothing is measured, nothing is refused.
        steps: Root of the step folders.

    Raises:
        SpecError: It is so.
    """
    if task.not_measured is not None or not _known([*inputs, *outputs]):
        return
    least: list[tuple[float, str]] = []
    for engine in engines:
        floor_ms = _floor_ms(_empty(inputs, outputs, steps), engine, task, steps)
        if floor_ms is None or floor_ms <= budget_ms:
            return
        least.append((floor_ms, engine))
    if least:
        least_ms, engine = min(least)
        raise SpecError(
            "pruning: the budget is below what an empty model takes",
            found=f"{budget_ms:.4g} ms",
            allowed=f"more than {least_ms:.3g} ms, in which {engine} takes samples in and hands nothing but zeros out",
            fix="a larger pruning.budget_ms or ratio (--budget MS, --ratio SHARE); a budget is in milliseconds",
        )


def _floor_ms(empty: Artifact, engine: str, task: Task, steps: Path) -> float | None:
    """The lower bound of what an engine takes for such a model; None where that is not known."""
    try:
        artifact = compile_step(empty, engine, task, steps)
    except EngineError:  # what it says of the student itself counts
        return None
    (measured,) = measure_step([artifact], task, steps, table_load(task))
    return bounds_or_stretches(measured.application_ms, 50.0).lower_ms if measured.status == "ok" else None


def _known(specs: Specs) -> bool:
    """Whether all axes but the batch have a size, and there is a batch."""
    return all(spec.shape and all(isinstance(size, int) for size in spec.shape[1:]) for spec in specs)


def _empty(inputs: Specs, outputs: Specs, steps: Path) -> Artifact:
    from edgekit.conversion.clean import describe_onnx, save_onnx

    def make(folder: Path) -> None:
        save_onnx(_zeros(inputs, outputs), folder / "model.onnx")
        save_artifact(describe_onnx(folder / "model.onnx", precision="fp32"))

    key = {"tools": tool_versions("onnx"), "opset": OPSET, "inputs": to_json(inputs), "outputs": to_json(outputs)}
    return load_artifact(run_step(steps, "empty", key, make))


def _zeros(inputs: Specs, outputs: Specs) -> ModelProto:
    """A model that gives zeros, as many rows as its first input has: an engine does not know them beforehand."""
    import numpy as np
    from onnx import checker, helper, numpy_helper

    def values(specs: Specs) -> list[object]:
        return [helper.make_tensor_value_info(s.name, _type(s), list(s.shape)) for s in specs]

    def _type(spec: TensorSpec) -> int:
        return int(helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype)))

    first, nodes = inputs[0].name, []
    nodes.append(helper.make_node("Flatten", [first], ["edgekit_flat"], axis=1))
    nodes.append(helper.make_node("Slice", ["edgekit_flat", "edgekit_0", "edgekit_1", "edgekit_1"], ["edgekit_one"]))
    constants = [numpy_helper.from_array(np.array([i], np.int64), f"edgekit_{i}") for i in (0, 1)]
    for i, spec in enumerate(outputs):
        shape, row, own = f"edgekit_shape_{i}", f"edgekit_row_{i}", f"edgekit_own_{i}"
        sizes = [int(size) for size in spec.shape[1:]]
        constants.append(numpy_helper.from_array(np.array([-1, *[1 for _ in sizes]], np.int64), shape))
        constants.append(numpy_helper.from_array(np.zeros((1, *sizes), spec.dtype), row))
        nodes.append(helper.make_node("Cast", ["edgekit_one"], [f"{own}_cast"], to=_type(spec)))
        nodes.append(helper.make_node("Reshape", [f"{own}_cast", shape], [own]))
        nodes.append(helper.make_node("Mul", [own, row], [spec.name]))
    graph = helper.make_graph(nodes, "empty", values(inputs), values(outputs), constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    checker.check_model(proto)
    return proto
