"""Teacher and fp32 student on the samples that artifacts are judged by; scored once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgekit import __version__
from edgekit.artifact import Array, Artifact
from edgekit.checking import References, load_outputs, make_references, save_outputs
from edgekit.data import Samples, draw_calibration
from edgekit.ingredients import Ingredients
from edgekit.making import tool_versions
from edgekit.progress import Progress
from edgekit.steps import run_step
from edgekit.teaching import TrainedModel, run_reference

# Enough to see a collapse and to rank plans; what ships is proven on all test samples.
TRIAL_SAMPLES = 256


def score_references(
    teacher: TrainedModel,
    student: TrainedModel,
    fp32: Artifact,
    data: Ingredients,
    steps: Path,
    progress: Progress,
    *,
    samples: Samples | None = None,
) -> References:
    """Runs teacher and fp32 student on samples and scores them; their outputs are a step, the scores are not kept.

    Args:
        teacher: The teacher, or the model given.
        student: The student; the teacher itself where there is none.
        fp32: The student as ONNX.
        data: The recipe's data.
        steps: Root of the step folders.
        progress: Told of each model.
        samples: The samples; None: the test samples.
    """
    chosen = data.test if samples is None else samples
    key = {
        "edgekit": __version__,
        "tools": tool_versions("torch") if teacher.module else tool_versions("onnxruntime", "openvino"),
        "teacher": teacher.sha256,
        "student": student.sha256,
        "test": data.test_sha256 if samples is None else samples.fingerprint(),
    }

    def make(folder: Path) -> None:
        models: Mapping[str, TrainedModel] = {"teacher": teacher, "student": student}
        outputs: dict[str, Array] = {}
        for done, (role, model) in enumerate(models.items()):
            progress("run teacher and student", done, len(models), f"{len(chosen)} samples")
            if model is not teacher or not outputs:
                outputs = run_reference(model, fp32, chosen)
            save_outputs(outputs, folder / f"{role}.npz")
        progress("run teacher and student", len(models), len(models))

    folder = run_step(steps, "references", key, make)
    return make_references(
        load_outputs(folder / "student.npz"),
        load_outputs(folder / "teacher.npz"),
        chosen,
        data.metric,
        data.metric_name,
        held_out=data.held_out if samples is None else False,
    )


def trial_samples(data: Ingredients, seed: int) -> Samples | None:
    """Samples on which plans are chosen: some of those kept for validation, by class; None without data."""
    source = data.validation if data.validation is not None else data.calibration
    return None if source is None else draw_calibration(source, TRIAL_SAMPLES, seed)
