"""How long a step of a pruning is measured."""

from __future__ import annotations

import numpy as np
import pytest
from fake_line import fp32_artifact, make_task

from edgekit.profiling.host import this_host
from edgekit.profiling.measured import Measured
from edgekit.shrinking import scores
from edgekit.shrinking.scores import time_in_turns

ROUNDS, QUERIES = 70, 9


class Machine:
    """A step that takes half of what the unpruned student takes, and noise that longer measuring takes away."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.counts: list[int] = []
        monkeypatch.setattr(scores, "measure_step", self.measure)

    def measure(self, artifacts, task, steps, load):
        self.counts.append(load.min_count)
        rng = np.random.default_rng(len(self.counts))
        spread = 0.2 if len(self.counts) == 1 else 0.001
        latencies = [
            share * (1 + spread * rng.standard_normal(ROUNDS * QUERIES)) for share in (1.0, 0.5)[: len(artifacts)]
        ]
        return [
            Measured(
                status="ok",
                artifact_sha256=artifact.sha256,
                application_ms=each,
                engine_ms=each,
                turn_sizes=(QUERIES,) * ROUNDS,
                turns=ROUNDS,
                size_mb=1.0,
                host=this_host(),
                started_at="now",
            )
            for artifact, each in zip(artifacts, latencies, strict=True)
        ]


@pytest.fixture
def machine(monkeypatch):
    return Machine(monkeypatch)


@pytest.fixture
def pair(tmp_path):
    """The unpruned student, and a step."""
    from dataclasses import replace

    made = fp32_artifact(tmp_path / "made")
    return made, replace(made, files={made.model: "another"})


def test_where_noise_hides_on_which_side_of_its_share_a_step_is_it_is_measured_longer(machine, pair, tmp_path):
    first, new = pair
    found = time_in_turns(new, first, first, make_task(), tmp_path, 0.498)
    assert [count // machine.counts[0] for count in machine.counts] == [1, 4]
    assert found.within(0.498) is False


@pytest.mark.parametrize("share", [0.9, 0.1, None])
def test_where_it_is_plain_once_is_enough(machine, pair, tmp_path, share):
    first, new = pair
    time_in_turns(new, first, first, make_task(), tmp_path, share)
    assert len(machine.counts) == 1


def test_the_longest_measuring_is_the_last(machine, pair, tmp_path):
    first, new = pair
    found = time_in_turns(new, first, first, make_task(), tmp_path, 0.5)
    assert len(machine.counts) == 3
    assert found.within(0.5) is None
