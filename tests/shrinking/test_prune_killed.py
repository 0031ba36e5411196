"""``kill -9`` in the middle of a pruning: the next run goes on from where it was."""

from __future__ import annotations

import re

from killed_line import Line, started
from tiny_pruning import BLOCKS_ALONE, write_striped

from edgekit.artifact import read_json

KILLED = -9
# In the order of a run, each reached by the run after the one before.
MOMENTS = [
    r"^progress latency table on onnxruntime 0/",
    r"^progress worth of moves 2/",
    r"^rename \S*-pruned-shape-# to",
    r"^progress train pruned-1 30/",
    r"^rename \S*-pruned-# to",
    r"^rename \S* to pruned$",
    r"^rename \S* to pruning.json",
]


def test_a_run_that_was_killed_goes_on(tmp_path):
    project, log = write_striped(tmp_path / "project"), tmp_path / "log"
    (project / "edgekit.toml").write_text(BLOCKS_ALONE)
    out, command = project / "out", ("prune", project, "--engine", "onnxruntime", "--out", project / "out")
    with started(log) as process:
        line = Line(process=process, log=log)
        ran = {at: line.run(*command, under=out, at=at) for at in MOMENTS}
        last = line.run(*command, under=out)
        assert process.stdin is not None
        process.stdin.close()
    assert [(at, ended.status) for at, ended in ran.items()] == [(at, KILLED) for at in MOMENTS]
    assert last.status in (0, 3), last.stderr
    report = read_json(out / "pruning.json")
    for step in report["steps"][1:]:
        assert (out / "pruned" / f"step-{step['number']}.safetensors").is_file()
    assert [path.name for path in out.rglob("*") if "partial" in path.name] == []
    # The second epoch was killed in its middle: what was learnt before it is not learnt again.
    after = ran[MOMENTS[4]].moments
    trained = [int(match[1]) for text in after if (match := re.match(r"progress train pruned-1 (\d+)/44", text))]
    assert trained[0] == 23
    made = [text for text in last.moments if text.startswith("rename") and "-#" in text]
    assert made == [], "every step was found again"
