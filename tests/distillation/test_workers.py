"""Training on several processes: real ones, started by torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from edgekit.distillation.trainer import Keeping, train
from edgekit.errors import TrainingError
from edgekit.recipe_training import Training

SCRIPT = """
import json, os, sys
import numpy as np, torch
from torch import nn
from edgekit.data import Samples
from edgekit.distillation.students import distill
from edgekit.distillation.trainer import Keeping, train
from edgekit.recipe_training import Distillation, FeatureMatch, Training

rng = np.random.default_rng(0)
labels = np.arange(101) % 3
x = (2 * np.eye(3, 4)[labels] + 0.3 * rng.standard_normal((101, 4))).astype(np.float32)
data = Samples(name="blobs", count=101, fetch=lambda i: {"input": x[i]}, targets=labels)

def net(width):
    torch.manual_seed(width)
    return nn.Sequential(nn.Linear(4, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, 3))

settings = dict(epochs=3, batch_size=16, learning_rate=0.02, clip_norm=1.0, accumulate=2)
teacher = net(16)
first = train(teacher, data, data, Training(**settings, ema=0.9), seed=1)
hint = FeatureMatch(loss="hints", student=("0",), teacher=("0",))
student, second = distill(teacher, net(8), data, data, Distillation(**settings, features=(hint,)), seed=1)
out = sys.argv[1] + os.environ.get("RANK", "")
found = {"losses": [*first.losses, *second.losses], "scores": [*first.scores, *second.scores]}
json.dump(found | {"weights": torch.cat([p.flatten() for p in student.parameters()]).tolist()}, open(out, "w"))
"""


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=os.environ | environment, timeout=180
    )


def torchrun(*command: str) -> subprocess.CompletedProcess[str]:
    return run("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *command)


def test_two_processes_give_the_loss_curve_of_one(tmp_path):
    script, out = tmp_path / "script.py", tmp_path / "found"
    script.write_text(SCRIPT)
    for done in (run(str(script), str(out)), torchrun(str(script), str(out))):
        assert done.returncode == 0, done.stderr[-3000:]
    one, first, second = (json.loads(Path(f"{out}{rank}").read_text()) for rank in ("", "0", "1"))
    assert first == second
    assert first["losses"] == pytest.approx(one["losses"], rel=1e-4)
    assert first["scores"] == pytest.approx(one["scores"], abs=0.02)
    assert first["weights"] == pytest.approx(one["weights"], abs=1e-3)


def test_too_few_samples_for_every_process_are_told(net, blobs):
    from edgekit.distillation.inspection import count_batches

    module = torch.nn.Linear(4, 3)
    assert count_batches(module, 33, 16, processes=2) == 2  # the last sample would leave one process without any
    assert count_batches(module, 34, 16, processes=2) == 3
    assert count_batches(net().train(), 35, 16, processes=2) == 2
    with pytest.raises(TrainingError, match=r"(?s)too few samples in a batch for every process.*on 4 processes"):
        count_batches(module, 3, 16, processes=4)


def test_fp16_without_a_gpu_is_refused(net, blobs):
    if torch.accelerator.is_available():
        pytest.skip("this host has an accelerator")
    with pytest.raises(TrainingError, match="mixed_precision = 'fp16' does not work here"):
        train(net(), blobs(20), blobs(6), Training(mixed_precision="fp16"), seed=0)


def test_a_tracker_that_is_not_installed_is_refused(net, blobs, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TrainingError, match=r"(?s)tracker 'wandb' is not installed.*pip install wandb"):
        train(net(), blobs(20), blobs(6), Training(trackers=("wandb",)), seed=0, keeping=Keeping(logs=tmp_path))


def test_tensorboard_gets_losses_rates_and_scores(net, blobs, tmp_path):
    pytest.importorskip("tensorboard")
    settings = Training(epochs=2, batch_size=16, trackers=("tensorboard",))
    history = train(net(), blobs(32), blobs(6), settings, seed=0, keeping=Keeping(logs=tmp_path), name="student")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = {path.parent for path in tmp_path.glob("edgekit/events.*")}
    read = EventAccumulator(str(folder))
    read.Reload()
    assert {"student/loss", "student/rate", "student/validation"} <= set(read.Tags()["scalars"])
    assert len(read.Scalars("student/loss")) == 4
    assert [s.value for s in read.Scalars("student/validation")] == pytest.approx(list(history.scores), rel=1e-5)
