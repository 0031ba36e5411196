"""What each move saves: the arithmetic of made-up latencies, what is built and measured, and what is done again."""

import copy
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from fake_line import elsewhere, fp32_artifact, leftovers, make_samples, make_task, quick_profile
from tables import INPUTS, Stack, block_group
from torch import nn

from edgekit import latency_table
from edgekit.backends import null
from edgekit.errors import EngineError, MeasurementError
from edgekit.latency_table import forecast, measure_table
from edgekit.profiling.host import this_host
from edgekit.profiling.measured import Measured
from edgekit.profiling.statistics import percentile
from edgekit.quantization.schemes import Plan, plan_of

PLAN = plan_of("null", "fp32")
ROUNDS = 70


def cost_us(module):
    """What a network takes: 100, 10 a block, 1 a hidden channel."""
    hidden = [part.up.out_features for part in module.modules() if hasattr(part, "up")]
    return 100 + 10 * len(hidden) + sum(hidden)


def scripted(artifact, latencies_us, status="ok"):
    latencies_ms = np.asarray(latencies_us) / 1000
    return Measured(
        status=status,
        reason=None if status == "ok" else "died of SIGKILL\nfor want of memory",
        artifact_sha256=artifact.sha256,
        application_ms=latencies_ms if status == "ok" else np.empty(0),
        engine_ms=latencies_ms if status == "ok" else np.empty(0),
        turn_sizes=(len(latencies_ms) // ROUNDS,) * ROUNDS if status == "ok" else (),
        turns=ROUNDS if status == "ok" else 0,
        size_mb=1.0,
        host=this_host(),
        started_at="now",
    )


class Line:
    """Exports a model that says what it costs, and measures what a model says; notes what is done."""

    def __init__(self, monkeypatch, folder):
        self.built, self.measured, self.told = [], [], []
        self.refuses = lambda module: None
        self.fails = lambda cost: False
        self.latencies = lambda side, cost: np.full(ROUNDS * 9, cost) * self.disturbed
        self.disturbed = 1 + np.random.default_rng(0).random(ROUNDS * 9) / 2  # all sides alike
        self.folder = folder
        monkeypatch.setattr(latency_table, "export", self.export)
        monkeypatch.setattr("edgekit.making.measure_in_turns", self.measure_in_turns)

    def export(self, module, samples, out):
        self.refuses(module)
        cost = cost_us(module)
        self.built.append(cost)
        made = fp32_artifact(self.folder / f"export{len(self.built)}")
        proto = onnx.load(made.path)
        proto.doc_string = str(cost)
        made.path.write_bytes(proto.SerializeToString())
        return replace(made, files={made.model: str(cost)})

    def measure_in_turns(self, artifacts, load, feeds, **more):
        costs = [float(onnx.load(artifact.path).doc_string) for artifact in artifacts]
        self.measured.append(costs)
        return [
            scripted(a, self.latencies(i, cost), "crashed" if self.fails(cost) else "ok")
            for i, (a, cost) in enumerate(zip(artifacts, costs, strict=True))
        ]

    def progress(self, step, done, total, note=""):
        self.told.append((step, done, total, note))


@pytest.fixture
def line(monkeypatch, tmp_path):
    return Line(monkeypatch, tmp_path / "exports")


@pytest.fixture
def steps(tmp_path):
    return tmp_path / "steps"


def stack(*lists):
    torch.manual_seed(0)
    return Stack(*lists).eval()


def saved(found):
    return {(r.group, r.move): round(r.saved_us, 6) for r in found.rows}


def task_of(line, **fields):
    return make_task(progress=line.progress, **fields)


def test_a_move_is_made_in_all_that_are_alike_and_the_difference_is_divided(line, steps):
    groups = [block_group(i, widths=(4,)) for i in range(3)]
    groups += [block_group(i, path="stages.s1", alike="other") for i in range(2)]
    module = stack(3, 2)
    before = copy.deepcopy(module.state_dict())
    found = measure_table(module, INPUTS, groups, PLAN, task_of(line), steps)
    middle = percentile(line.disturbed, 50.0)
    assert line.built == [190, 136, 178, 154]  # in each all of a class: 3 blocks of 18, 3 times 4 channels, 2 blocks
    assert line.measured == [[190, 136, 178, 154]]
    assert found.whole_us == pytest.approx(190 * middle)
    assert saved(found) == pytest.approx(
        {
            ("stages.s0.0", "removed"): 18 * middle,
            ("stages.s0.0", "4 of 8 channels"): 4 * middle,
            ("stages.s1.0", "removed"): 18 * middle,
        }
    )
    assert [r.members for r in found.rows] == [3, 3, 2]
    assert all(r.low_us <= r.saved_us <= r.high_us and r.shown for r in found.rows)
    assert (found.source, found.engine, found.precision, found.batch) == ("measured", "null", "fp32", 1)
    assert found.host["cpu_model"] == this_host().cpu_model
    assert (found.classes, found.notes) == (("block", "other"), ())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


class Together(nn.Module):
    """Runs with at least one block in each list."""

    def __init__(self):
        super().__init__()
        self.stages = stack(3, 2).stages

    def forward(self, x):
        return torch.stack([block(x) for stage in self.stages.values() for block in stage[:1]]).sum(0) + sum(
            len(stage) / len(stage) for stage in self.stages.values()
        )


def test_where_not_all_can_go_at_once_one_of_each_list_stays(line, steps):
    groups = [block_group(i) for i in range(3)] + [block_group(i, path="stages.s1") for i in range(2)]
    found = measure_table(Together().eval(), INPUTS, groups, PLAN, task_of(line), steps)
    assert line.built == [190, 136]  # 3 of 5 blocks
    middle = percentile(line.disturbed, 50.0)
    assert saved(found) == pytest.approx({("stages.s0.0", "removed"): 18 * middle})
    assert found.rows[0].members == 5


def test_what_an_engine_refuses_is_tried_with_fewer_and_left_out_with_a_note(line, steps):
    def refuses(module):
        if len(module.stages["s0"]) == 0:
            raise EngineError("too little is left", found="nothing", fix="more")
        if len(module.stages["s1"]) < 2:
            raise EngineError("this engine\nwants both")

    line.refuses = refuses
    groups = [block_group(i) for i in range(2)] + [block_group(i, path="stages.s1", alike="other") for i in range(2)]
    found = measure_table(stack(2, 2), INPUTS, groups, PLAN, task_of(line), steps)
    assert line.built == [172, 154]
    assert [(r.group, r.members) for r in found.rows] == [("stages.s0.0", 2)]
    assert found.notes == ("stages.s1.0, removed: left out, for it cannot be built: this engine, wants both",)
    assert found.classes == ("block", "other")


def test_what_cannot_be_measured_is_left_out_and_measured_again_next_time(line, steps):
    line.fails = lambda cost: cost == 100
    module, groups = stack(2), [block_group(i, widths=(4,)) for i in range(2)]
    found = measure_table(module, INPUTS, groups, PLAN, task_of(line), steps)
    assert [r.move for r in found.rows] == ["4 of 8 channels"]
    assert found.notes == (
        "stages.s0.0, removed: left out, for it could not be measured: died of SIGKILL, for want of memory",
    )
    line.fails = lambda cost: False
    found = measure_table(module, INPUTS, groups, PLAN, task_of(line), steps)
    assert [r.move for r in found.rows] == ["removed", "4 of 8 channels"]
    assert found.notes == ()


def test_a_whole_network_that_cannot_be_measured_is_an_error(line, steps):
    line.fails = lambda cost: cost == 136
    with pytest.raises(MeasurementError, match=r"the whole network cannot be measured on null fp32\n.*died of SIGKILL"):
        measure_table(stack(2), INPUTS, [block_group(0)], PLAN, task_of(line), steps)
    assert leftovers(steps) == []


def test_a_second_run_builds_and_measures_nothing(line, steps):
    groups, task = [block_group(i) for i in range(2)], task_of(line)
    first = measure_table(stack(2), INPUTS, groups, PLAN, task, steps)
    line.built, line.measured, line.told = [], [], []
    assert measure_table(stack(2), INPUTS, groups, PLAN, task, steps) == first
    assert (line.built, line.measured) == ([], [])
    assert line.told[0] == ("latency table on null", 0, 1, "1 moves on null fp32: already measured")


@pytest.mark.parametrize(
    "other", ["weights", "groups", "plan", "target", "load", "host", "samples", "calibration", "engine"]
)
def test_a_table_of_something_else_is_not_taken(line, steps, monkeypatch, other):
    plan = plan_of("null", "int8")
    module, groups, task = stack(2), [block_group(i) for i in range(2)], task_of(line)
    measure_table(module, INPUTS, groups, plan, task, steps)
    if other == "weights":
        module.head.weight.data += 1
    elif other == "groups":
        groups = groups[:1]
    elif other == "plan":
        plan = replace(plan, method="mse")
    elif other == "target":
        task = replace(task, target=task.target.model_copy(update={"threads": 1}))
    elif other == "load":
        task = replace(task, profile=quick_profile(batch=2))
    elif other == "host":
        monkeypatch.setattr(latency_table, "this_host", lambda: replace(this_host(), governor="powersave"))
    elif other == "samples":
        task = replace(task, test=make_samples(64, seed=9))
    elif other == "calibration":
        task = replace(task, calibration=make_samples(32, seed=9))
    else:
        monkeypatch.setattr(latency_table, "build_of", lambda place, engine: "2.0")
    assert "already measured" not in forecast(module, groups, plan, task, steps)


def test_at_most_six_are_measured_beside_the_whole_and_a_killed_run_goes_on_where_it_was(line, steps, monkeypatch):
    groups = [block_group(0, widths=(1, 2, 3, 4, 5, 6, 7))]
    measure, task = line.measure_in_turns, task_of(line)
    line.disturbed = np.ones(ROUNDS * 9)  # so that every move is decided at once

    def killed(artifacts, load, feeds, **more):
        if line.measured:
            raise KeyboardInterrupt
        return measure(artifacts, load, feeds, **more)

    monkeypatch.setattr("edgekit.making.measure_in_turns", killed)
    with pytest.raises(KeyboardInterrupt):
        measure_table(stack(2), INPUTS, groups, PLAN, task, steps)
    monkeypatch.setattr("edgekit.making.measure_in_turns", measure)
    found = measure_table(stack(2), INPUTS, groups, PLAN, task, steps)
    assert line.measured == [[136, 118, 129, 130, 131, 132, 133], [136, 134, 135]]
    assert len(found.rows) == 8
    assert leftovers(steps) == []


def test_what_is_about_to_be_done_is_told_before_it_is_done_and_how_long_it_takes_after_a_build(line, steps):
    groups = [block_group(0, widths=(4,)), block_group(1, widths=(4,)), block_group(2, alike="odd")]
    line.refuses = lambda module: line.told[0]  # nothing is built before something was told
    measure_table(stack(3), INPUTS, groups, PLAN, task_of(line), steps)
    about = "3 moves of 2 kinds of blocks and channels on null fp32: 4 builds, and 0 s of measuring in turns or more"
    assert line.told[0] == ("latency table on null", 0, 3, about)
    notes = [note for step, *_, note in line.told if step == "latency table on null"]
    assert [note.partition(";")[0] for note in notes[1:4]] == [
        "stages.s0.0, removed",
        "stages.s0.0, 4 of 8 channels",
        "stages.s0.2, removed",
    ]
    assert all(note.endswith(" s left") for note in notes[1:4])


def test_the_load_is_long_enough_for_medians_and_no_longer(line):
    profile = quick_profile(p99_ms=5.0)
    profile = profile.model_copy(
        update={"load": profile.load.model_copy(update={"min_seconds": 60.0, "min_count": 9000})}
    )
    load = latency_table.table_load(make_task(profile=profile))
    assert (load.percentiles, load.min_seconds, load.min_count, load.cold_loads) == ((50.0,), 3.0, 270, 1)


def test_few_samples_calibrate_and_no_node_is_named(line, steps, monkeypatch):
    plans, counts, quantize = [], [], null.quantize

    def seen(fp32, data, plan, out, cache=None):
        plans.append(plan)
        counts.append(len(data.samples))
        return quantize(fp32, data, plan, out, cache=cache)

    monkeypatch.setattr(null, "quantize", seen)
    plan = replace(plan_of("null", "int8"), float_groups=("node_7",))
    task = task_of(line, calibration=make_samples(64))
    found = measure_table(stack(2), INPUTS, [block_group(0)], plan, task, steps, samples=24)
    assert counts == [24, 24]
    assert {p.float_groups for p in plans} == {()}
    assert {p.scheme.name for p in plans} == {"null"}
    assert found.precision == "int8"
    assert found.notes == ("nodes that the plan leaves in float are quantised in the table: 1",)


def test_a_saving_that_noise_hides_is_not_shown(line, steps):
    rng = np.random.default_rng(1)
    line.latencies = lambda side, cost: 100 + 10 * rng.random(ROUNDS * 9) - 0.01 * side
    found = measure_table(stack(2), INPUTS, [block_group(0)], PLAN, task_of(line), steps)
    assert not found.rows[0].shown
    assert found.rows[0].low_us < 0 < found.rows[0].high_us
    (note,) = found.not_shown
    assert note.startswith("fewer operations are not shown faster: stages.s0.0, removed: saves ")
    assert note.endswith("on null fp32")


def test_a_move_that_noise_hides_is_measured_again_for_longer_and_no_other(line, steps, monkeypatch):
    rng, loads, measure = np.random.default_rng(1), [], line.measure_in_turns

    def disturbed(side, cost):
        hidden = side == 1 and len(loads) == 1
        return line.measured[0][0] * (0.95 + 0.1 * rng.random(ROUNDS * 9)) if hidden else np.full(ROUNDS * 9, cost)

    def seen(artifacts, load, feeds, **more):
        loads.append(load)
        return measure(artifacts, load, feeds, **more)

    monkeypatch.setattr("edgekit.making.measure_in_turns", seen)
    line.latencies, line.disturbed = disturbed, None
    found = measure_table(stack(2), INPUTS, [block_group(0), block_group(1, widths=(4,))], PLAN, task_of(line), steps)
    assert [len(costs) for costs in line.measured] == [3, 2]
    assert line.measured[1][1] == line.measured[0][1], "the one that was hidden"
    assert [load.min_count // loads[0].min_count for load in loads] == [1, 4]
    assert loads[1].max_seconds == 4 * loads[0].max_seconds
    assert all(row.shown for row in found.rows)
    assert len(found.rows) == 2


def test_sides_that_drift_apart_are_judged_by_their_own_bounds(line, steps):
    # The variant begins faster by a tenth and ends slower by a twentieth, too slowly for turns to cancel it.
    drift = np.linspace(-0.1, 0.05, ROUNDS * 9)
    line.latencies = lambda side, cost: 100 * (1 + side * drift)
    found = measure_table(stack(2), INPUTS, [block_group(0)], PLAN, task_of(line), steps)
    assert found.rows[0].low_us < 0 < found.rows[0].saved_us
    assert not found.rows[0].shown


def test_too_few_queries_are_no_row(line, steps, monkeypatch):
    monkeypatch.setattr("test_latency_table.ROUNDS", 3)
    line.latencies = lambda side, cost: np.full(9, cost, dtype=float)
    found = measure_table(stack(2), INPUTS, [block_group(0)], PLAN, task_of(line), steps)
    assert found.rows == ()
    assert found.notes == (
        "stages.s0.0, removed: left out, for it could not be measured: too few queries for an interval",
    )


def test_on_another_machine_than_the_target_nothing_is_begun(line, steps):
    with pytest.raises(MeasurementError, match=r"a CPU of another world\n[^$]*`edgekit prune RECIPE --table-only`"):
        measure_table(stack(2), INPUTS, [block_group(0)], PLAN, task_of(line, target=elsewhere()), steps)
    assert (line.told, line.built) == ([], [])


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(engine="tensorrt", precision="fp32"), "engine 'tensorrt' cannot run here"),
        (Plan(engine="null", precision="int8", method="dynamic"), "null"),
    ],
)
def test_what_the_engine_cannot_make_is_refused_first(line, steps, plan, message):
    with pytest.raises(EngineError, match=message):
        measure_table(stack(2), INPUTS, [block_group(0)], plan, task_of(line), steps)
    assert (line.told, line.built) == ([], [])


def test_without_groups_the_whole_is_measured(line, steps):
    found = measure_table(stack(2), INPUTS, [], PLAN, task_of(line), steps)
    assert (found.rows, line.measured) == ((), [[136]])
    assert found.whole_us == pytest.approx(136 * percentile(line.disturbed, 50.0))
