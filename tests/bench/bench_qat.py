"""What training in int8 gives beside int8 of calibration, with weights of 8 and of 4 bits, on both CPU engines.

By hand: ``python tests/bench/bench_qat.py examples/cifar10 OUT``; the recipe's models are trained where they are not,
and every step is found again. ``--alone`` deploys the recipe's teacher, e.g. a ResNet-20 with weights::

    --alone --set teacher.args.blocks=[3,3,3] --set teacher.weights=$EDGEKIT_DATA/cifar10/resnet20.safetensors

Of each: the paired drop from the float model on the test samples, size, and the share of compute nodes in int8, which
is to be that of calibration; of what was trained also the dB of the exported graph on ONNX Runtime against torch's
fake-quantised network, which is to be 40 or more.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgekit.candidate import Candidate, prepare
from edgekit.checking import run_samples
from edgekit.data import Samples, draw_calibration
from edgekit.distillation.outputs import outputs_of
from edgekit.distilling import train_models
from edgekit.ingredients import seen_by
from edgekit.making import export
from edgekit.metrics import paired_drop
from edgekit.pipeline import Choices, make_jobs, make_task
from edgekit.quantization.schemes import plan_of
from edgekit.recipe import Recipe, load_recipe
from edgekit.recipe_qat import Qat
from edgekit.references import score_references
from edgekit.runtime import open_artifact
from edgekit.runtime.numbers import snr_db
from edgekit.shipping import Job, Run
from edgekit.steps import locked
from edgekit.trained_int8 import TrainedInt8, train_int8

WANTED_DB = 40.0
COMPARED = 64


def few(samples: Samples, count: int | None, seed: int) -> Samples:
    return samples if count is None or count >= len(samples) else draw_calibration(samples, count, seed)


def told(step: str, done: int, total: int, note: str = "") -> None:
    if done in (0, total) or done % 20 == 0:
        print(f"{step}: {done}/{total} {note}", file=sys.stderr, flush=True)


def make_bench_run(recipe: Recipe, base: Path, steps: Path, args: argparse.Namespace) -> Run:
    data, teacher, student = train_models(recipe, base, steps, told)
    assert data.train is not None
    data = replace(
        data, train=few(data.train, args.train, recipe.seed), test=few(data.test, args.test, recipe.seed)
    )  # fmt: skip
    assert student.module is not None
    fp32 = export(student.module, seen_by(data, student.inputs).test, steps)
    scored = score_references(teacher, student, fp32, data, steps, told, samples=data.test)
    return Run(
        recipe=recipe, data=data, teacher=teacher, student=student, fp32=fp32, references=scored, steps=steps,
        progress=told,
    )  # fmt: skip


def row(candidate: Candidate, run: Run, note: str = "") -> str:
    proof, artifact = candidate.proof, candidate.artifact
    assert proof is not None
    assert artifact is not None
    drop = "" if candidate.scores is None else paired_drop(np.asarray(run.references.student_score), candidate.scores)
    said = f"{drop.points:+.2f} [{drop.low:+.2f}, {drop.high:+.2f}]" if drop else ""
    share = "" if proof.int8_share is None else f"{proof.int8_share:.1%}"
    score = "" if proof.artifact is None else f"{proof.artifact:.2%}"
    return f"{candidate.plan!s:28} {score:>8} {said:>24} {artifact.size_bytes / 1e6:8.3f} {share:>7}  {note}"


def parity(trained: TrainedInt8, run: Run, samples: Samples) -> float:
    """dB of the exported graph against torch, on ONNX Runtime."""
    assert trained.model.module is not None
    some = few(samples, COMPARED, 0)
    expected = outputs_of(trained.model.module, some)
    session = open_artifact(
        replace(trained.artifact, engine="onnxruntime", options={"provider": "CPUExecutionProvider"})
    )
    try:
        actual = run_samples(session.run, some)
    finally:
        session.close()
    return min(snr_db(expected[name], actual[name]) for name in expected)


def bench(job: Job, run: Run, base: Path, settings: Qat) -> bool:
    """Prints the table; whether int8 is where it is to be, and the numbers are torch's."""
    task = make_task(job, run)
    print(f"{'':28} {'score':>8} {'drop from fp32, points':>24} {'MB':>8} {'int8':>7}")
    floats = [prepare(run.fp32, plan_of(engine, "fp32"), task, run.steps) for engine in job.engines]
    calibrated = [prepare(run.fp32, plan_of(engine, "int8"), task, run.steps) for engine in job.engines]
    for candidate in (*floats, *calibrated):
        print(row(candidate, run), flush=True)
    shares = {c.plan.engine: c.proof.int8_share for c in calibrated if c.proof}
    good = True
    for bits in (8, 4):
        recipe = run.recipe.model_copy(update={"qat": settings.model_copy(update={"weight_bits": bits})})
        trained = train_int8(job, replace(run, recipe=recipe), base)
        assert trained is not None
        db, training = parity(trained, run, task.test), trained.model.training or {}
        good = good and db >= WANTED_DB
        for plan, artifact in trained.candidates:
            made = prepare(artifact, plan, task, run.steps)
            assert made.proof is not None
            good = good and made.proof.int8_share == shares[plan.engine]
            note = f"{db:.1f} dB to torch; epoch {training['best_epoch']} of {training['epochs']}"
            print(row(made, run, note), flush=True)
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--alone", action="store_true", help="deploy the recipe's teacher")
    parser.add_argument("--train", type=int, help="training samples of QAT; default: all")
    parser.add_argument("--test", type=int, help="test samples; default: all")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    recipe = load_recipe(args.recipe, args.set)
    recipe = recipe.model_copy(update={"student": None}) if args.alone else recipe
    settings = recipe.qat or Qat(epochs=4, batch_size=128)
    (job, *_) = make_jobs(recipe, args.recipe, Choices(precision="int8"))
    with locked(args.out) as steps:
        run = make_bench_run(recipe, args.recipe, steps, args)
        if not bench(job, run, args.recipe, settings):
            sys.exit("the numbers are not torch's, or other nodes are in int8 than after calibration")


if __name__ == "__main__":
    main()
