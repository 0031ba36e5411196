import json

import pytest
from click.testing import CliRunner
from tiny_bundles import ScriptedMeasure, null_bundle

from edgekit.cli.main import cli


@pytest.fixture(autouse=True)
def unspoiled(monkeypatch):
    monkeypatch.setattr("edgekit.comparing.spoiled", lambda conditions, load: None)


@pytest.fixture
def scripted(monkeypatch):
    def script(*medians_ms, **fields):
        made = ScriptedMeasure(medians_ms, **fields)
        monkeypatch.setattr("edgekit.comparing.measure_in_turns", made)
        return made

    return script


@pytest.fixture
def two(tmp_path):
    return [null_bundle(tmp_path / name) for name in "ab"]


def run(*args):
    result = CliRunner().invoke(cli, ["compare", *map(str, args)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_two_bundles_are_compared(two, scripted):
    scripted(2.0, 4.0)
    done = run(*two)
    assert done.exit_code == 0
    assert "times as long" in done.output
    assert "B / A" in done.output


@pytest.mark.parametrize("text", ["5%", "5 %", "0.05", " 5.0% "])
def test_a_regression_exits_with_3_however_the_limit_is_written(two, scripted, text, tmp_path):
    scripted(2.0, 2.4)
    done = run(*two, "--max-regression", text, "--json", tmp_path / "c.json")
    assert done.exit_code == 3
    assert "FAIL (at most 5% slower)" in done.output
    found = json.loads((tmp_path / "c.json").read_text())
    assert (found["kind"], found["schema_version"], found["max_regression"]) == ("comparison", 1, 0.05)


@pytest.mark.parametrize("text", ["five", "", "%", "-5%", "5%%", "5", "nan", "inf%", "1.05", "5% more"])
def test_nonsense_is_no_limit(two, scripted, text):
    measure = scripted(2.0, 2.0)
    done = run(*two, "--max-regression", text)
    assert done.exit_code == 2
    assert "is no share; write 5% or 0.05" in done.output
    assert measure.called == {}


@pytest.mark.parametrize(
    "options",
    [["--percentile", "0"], ["--percentile", "100"], ["--seconds", "0"], ["--threads", "0"], ["--batch", "0"],
     ["--engine", "tensorrt"]],
)  # fmt: skip
def test_options_out_of_range_are_wrong_usage(two, options):
    assert run(*two, *options).exit_code == 2


def test_one_thing_alone_is_wrong_usage(two):
    done = run(two[0])
    assert done.exit_code == 2
    assert "one and a --baseline" in done.output


def test_options_reach_the_comparison(two, scripted, tmp_path):
    measure = scripted(2.0, 2.0)
    done = run(*two, "--seconds", "7", "--percentile", "99", "--percentile", "95", "--json", tmp_path / "c.json")
    assert done.exit_code == 0
    load = measure.called["load"]
    assert (load.min_seconds, load.percentiles) == (7.0, (99.0, 95.0))
    assert json.loads((tmp_path / "c.json").read_text())["judged"] == [50.0, 95.0, 99.0]


def test_a_baseline_is_the_base(two, scripted):
    measure = scripted(2.0, 2.0)
    done = run(two[1], "--baseline", two[0], "--max-regression", "5%")
    assert done.exit_code == 0
    assert [a.folder for a in measure.called["artifacts"]] == [two[0], two[1]]


def test_a_file_that_cannot_be_written_is_refused_first(two, scripted, tmp_path):
    measure = scripted(2.0, 2.0)
    done = run(*two, "--json", tmp_path / "no" / "c.json")
    assert done.exit_code == 1
    assert "cannot be written" in done.output
    assert measure.called == {}


def test_what_is_no_side_is_an_error(two, tmp_path):
    done = run(two[0], tmp_path / "no")
    assert done.exit_code == 1
    assert "nothing to compare" in done.output


def test_help_says_the_default_effort_and_the_exit_codes():
    done = run("--help")
    for part in ("15 s a side", "99.5%", "Exit codes", "3 a regression", "4", "not in turns"):
        assert part in done.output
