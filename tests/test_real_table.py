"""What a move saves on the real engines, and that a table that was made is found again."""

import numpy as np
import pytest
import torch
from fake_line import fake_target, leftovers, make_task, quick_profile
from nets_to_cut import ResNet
from tables import block_group

from edgekit import latency_table
from edgekit.data import Samples
from edgekit.latency_table import measure_table, options_of
from edgekit.profiling.host import this_host
from edgekit.quantization.schemes import plan_of
from edgekit.table_file import read_table, write_table

IMAGES = np.random.default_rng(0).random((16, 3, 8, 8), dtype=np.float32)
SAMPLES = Samples(name="images", count=len(IMAGES), fetch=lambda i: {"input": IMAGES[i]})
GROUPS = [block_group(i, path="layer1", alike="narrow") for i in range(2)]
WORTH = {group.name: {"removed": 1.0} for group in GROUPS}


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """One folder for all engines, which share what is exported."""
    return tmp_path_factory.mktemp("line") / "steps"


@pytest.mark.parametrize(("engine", "precision"), [("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "int8")])
def test_what_a_block_saves_is_measured_once(engine, precision, steps, tmp_path, monkeypatch):
    monkeypatch.setattr(latency_table, "ROUNDS", 12)
    torch.manual_seed(0)
    module, inputs = ResNet(2).eval(), {"input": torch.from_numpy(IMAGES[:2])}
    task = make_task(fake_target(engines=(engine,)), quick_profile(), test=SAMPLES, calibration=SAMPLES)
    plan = plan_of(engine, precision)
    found = measure_table(module, inputs, GROUPS, plan, task, steps, samples=8)
    assert [(row.group, row.members, row.move) for row in found.rows] == [("layer1.0", 2, "removed")]
    assert found.rows[0].low_us <= found.rows[0].saved_us <= found.rows[0].high_us < found.whole_us
    assert (found.notes, found.engine, found.precision) == ((), engine, precision)
    assert leftovers(steps) == []

    monkeypatch.setattr(latency_table, "export", None)
    monkeypatch.setattr(latency_table, "measure_step", None)
    assert measure_table(module, inputs, GROUPS, plan, task, steps, samples=8) == found

    write_table(found, tmp_path / "device.json")
    there = read_table(tmp_path / "device.json", GROUPS, engine, precision, batch=1, target=task.target)
    assert there.host["cpu_model"] == this_host().cpu_model
    assert options_of(there, GROUPS, WORTH) == options_of(found, GROUPS, WORTH)
