"""A watch over a running bundle: what it counts, writes and survives."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_bundles import null_bundle
from watched import feeds_of, states, watched_bundle

import edgekit.runtime.watch
from edgekit.artifact import MANIFEST_FILE, bundle_id, read_json
from edgekit.errors import BundleError, EdgeKitError, EngineError, FeedError
from edgekit.runtime import open_bundle
from edgekit.runtime.manifest import read_manifest
from edgekit.runtime.stream import open_stream
from edgekit.runtime.watch import start_watch
from edgekit.runtime.watch.files import read_lines
from edgekit.runtime.watch.reading import find_folder, read_watch


@pytest.fixture
def bundle(tmp_path):
    with open_bundle(watched_bundle(tmp_path / "bundle")) as opened:
        yield opened


def judged(folder):
    return {limit.name: limit for limit in read_watch(folder).limits}


def judged_now(watch, folder):
    watch.write()
    return judged(folder)


def test_queries_are_counted_and_their_values_looked_at(bundle, tmp_path):
    with start_watch(bundle, tmp_path / "w") as watch:
        for feeds in feeds_of(100):
            assert (watch.run(feeds)["logits"] == 0).all()
        assert watch.problem is None
    reading = read_watch(tmp_path / "w")
    assert reading.last["queries"] == sum(reading.recent.latency.values()) == 100
    assert reading.last["inputs"]["input"]["looked_at"] == feeds_of(1)[0]["input"].size * 100
    assert reading.state == "ended"
    assert reading.exit_code == 0, reading.limits


def test_an_input_that_moved_is_beyond_the_limit(bundle, tmp_path):
    with start_watch(bundle, tmp_path / "w") as watch:
        for feeds in feeds_of(64, shift=2.0):
            watch.run(feeds)
        watch.write()
        found = judged(tmp_path / "w")
        assert found["drift"].status == found["saturated_share"].status == "beyond"
        assert read_watch(tmp_path / "w").exit_code == 3
        assert 'edgekit_limit_beyond{limit="drift"} 1' in (tmp_path / "w/watch.prom").read_text()
        for feeds in feeds_of(64):
            watch.run(feeds)
    assert judged(tmp_path / "w")["drift"].status == "met", "it went back"


def test_one_value_of_few_that_is_outside_proves_nothing(bundle, tmp_path):
    limit = bundle.manifest.watch["limits"]["saturated_share"]
    feeds = feeds_of(24, seed=11)
    feeds[3]["input"][0, 0] = 9.0
    with start_watch(bundle, tmp_path / "w") as watch:
        for one in feeds:
            watch.run(one)
        found = judged_now(watch, tmp_path / "w")["saturated_share"]
        assert found.status == "met"
        assert found.found > limit
        for _ in range(8):
            watch.run(feeds[3])
        assert judged_now(watch, tmp_path / "w")["saturated_share"].status == "beyond"


def test_before_a_window_is_full_nothing_is_said_of_drift(bundle, tmp_path):
    with start_watch(bundle, tmp_path / "w") as watch:
        watch.run(feeds_of(1)[0])
    assert judged(tmp_path / "w")["drift"].status == "unknown"
    assert read_watch(tmp_path / "w").exit_code == 4


def test_one_query_of_so_many_is_looked_at_but_none_in_step(tmp_path):
    with (
        open_bundle(watched_bundle(tmp_path / "b", every=8)) as opened,
        start_watch(opened, tmp_path / "w") as watch,
    ):
        feeds = feeds_of(1)[0]
        outputs = opened.run(feeds)
        cameras = set()
        for i in range(8000):
            before = watch._counters._sampled
            watch.record(0.001, feeds, outputs)
            if watch._counters._sampled > before:
                cameras.add(i % 8)
        assert 800 < watch._counters._sampled < 1200
        assert cameras == set(range(8)), "every one of eight cameras that take turns"


def test_nan_in_an_input_or_an_output_is_beyond_the_limit_and_stops_nothing(bundle, tmp_path):
    feeds = feeds_of(32)
    feeds[7]["input"][0, 0] = math.nan
    with start_watch(bundle, tmp_path / "w") as watch:
        for one in feeds:
            watch.run(one)
        watch.record(0.001, feeds[0], {"logits": np.full((1, 3), math.inf, np.float32)})
    found = judged(tmp_path / "w")["not_finite_share"]
    assert found.status == "beyond"
    assert found.note.startswith("4 of ")
    assert judged(tmp_path / "w")["drift"].status == "met"
    json.dumps(states(tmp_path / "w"), allow_nan=False)


def test_a_failed_query_is_counted_and_raised(bundle, tmp_path):
    with start_watch(bundle, tmp_path / "w") as watch:
        with pytest.raises(FeedError):
            watch.run({"input": np.zeros((1, 1), np.float32)})
        watch.failed(2)
        watch.run(feeds_of(1)[0])
    found = judged(tmp_path / "w")["failed_share"]
    assert (found.status, found.found) == ("beyond", 0.75)


def test_a_stream_is_watched(tmp_path):
    path = watched_bundle(tmp_path / "b")
    frames = [feeds["input"][0] for feeds in feeds_of(60)]
    with start_watch(path, tmp_path / "w") as watch:
        with open_stream(path, when_full="block", model_tensors=True, workers=2, on_result=watch.record) as stream:
            watch.follow(lambda: stream.counters)
            assert len([result.outputs for result in stream.over(enumerate(frames))]) == 60
            stream.submit(np.zeros(1, np.float32)).result()
        watch.write()
        last = states(tmp_path / "w")[-1]
    assert (last["taken"], last["queries"], last["failed"], last["dropped"]) == (61, 60, 1, 0)
    assert last["inputs"]["input"]["samples"] > 16


def test_a_stream_s_frames_are_followed(bundle, tmp_path):
    counters = SimpleNamespace(taken=90, dropped=30, failed=2)
    with start_watch(bundle, tmp_path / "w") as watch:
        watch.follow(lambda: counters)
        watch.write()
        counters.dropped = 60
    last = read_watch(tmp_path / "w")
    assert (last.last["taken"], last.last["dropped"], last.last["failed"]) == (90, 60, 2)
    assert (last.recent.dropped, last.recent.failed) == (60, 2)


def test_what_opens_the_bundle_itself_gives_its_folder(tmp_path):
    path = watched_bundle(tmp_path / "b")
    with start_watch(path, tmp_path / "w") as watch, open_bundle(path) as opened:
        watch.record(0.001, feeds_of(1)[0], opened.run(feeds_of(1)[0]))
        with pytest.raises(EdgeKitError, match="runs nothing"):
            watch.run(feeds_of(1)[0])
    assert states(tmp_path / "w")[-1]["queries"] == 1
    with pytest.raises(BundleError, match="no bundle here"):
        start_watch(tmp_path / "nothing", tmp_path / "w")


def test_a_tensor_that_is_missing_is_named(bundle, tmp_path):
    with start_watch(bundle, tmp_path / "w") as watch, pytest.raises(FeedError, match="'input' is missing"):
        watch.record(0.001, {"image": np.zeros(1)}, {})


@pytest.mark.parametrize("seconds", [-3.0, math.nan, math.inf])
def test_a_clock_that_was_set_back_costs_no_latency_and_no_query(bundle, tmp_path, seconds):
    with start_watch(bundle, tmp_path / "w") as watch:
        watch.record(seconds, feeds_of(1)[0], bundle.run(feeds_of(1)[0]))
    last = states(tmp_path / "w")[-1]
    assert (last["queries"], last["untimed"], last["latency"]) == (1, 1, {"sum_s": 0.0, "counts": {}})


def test_a_wall_clock_that_jumps_changes_no_judgement(bundle, tmp_path, monkeypatch):
    with start_watch(bundle, tmp_path / "w") as watch:
        for feeds in feeds_of(40):
            watch.run(feeds)
        monkeypatch.setattr(time, "time", lambda: 0.0)
        watch.write()
        monkeypatch.setattr(time, "time", lambda: 4e9)
        watch.write()
        reading = read_watch(tmp_path / "w")
    assert [line["time"] for line in states(tmp_path / "w")][1:3] == [0.0, 4e9]
    assert reading.state == "running"
    assert reading.age_s is not None
    assert reading.age_s < 60
    assert reading.exit_code == 0


def test_many_threads_lose_no_query(tmp_path):
    with (
        open_bundle(watched_bundle(tmp_path / "b", every=3)) as opened,
        start_watch(opened, tmp_path / "w") as watch,
    ):
        feeds = feeds_of(1)[0]
        outputs = opened.run(feeds)

        def work():
            for _ in range(500):
                watch.record(0.001, feeds, outputs)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            watch.write()
        for thread in threads:
            thread.join()
    assert states(tmp_path / "w")[-1]["queries"] == 2000


def test_lines_come_by_themselves(tmp_path):
    with open_bundle(watched_bundle(tmp_path / "b", period_s=0.02)) as opened, start_watch(opened, tmp_path / "w"):
        until = time.monotonic() + 10
        while len(states(tmp_path / "w")) < 4 and time.monotonic() < until:
            time.sleep(0.02)
        assert len(states(tmp_path / "w")) >= 4
    assert not [thread for thread in threading.enumerate() if thread.name == "edgekit-watch"]


def test_the_default_folder_is_the_bundle_s_and_found_by_it(bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with pytest.raises(EdgeKitError, match="no watch wrote there"):
        read_watch(find_folder(bundle.path))
    with start_watch(bundle) as watch:
        assert watch.folder.is_relative_to(tmp_path / "state")
        assert find_folder(bundle.path) == watch.folder


def test_a_bundle_is_not_written_into(bundle):
    for folder in (bundle.path, bundle.path / "watch"):
        with pytest.raises(EdgeKitError, match="cannot write into its bundle"):
            start_watch(bundle, folder)
    read_manifest(bundle.path)


def test_two_watches_do_not_write_to_one_folder(bundle, tmp_path):
    with start_watch(bundle, tmp_path / "w"), pytest.raises(EdgeKitError, match=r"another process[^$]*process \d+"):
        start_watch(bundle, tmp_path / "w")
    start_watch(bundle, tmp_path / "w").close()


def test_a_folder_that_is_a_file_is_refused(bundle, tmp_path):
    (tmp_path / "w").write_text("")
    with pytest.raises(EdgeKitError, match="a watch cannot write there"):
        start_watch(bundle, tmp_path / "w")


def test_however_short_its_period_it_keeps_few_states(tmp_path):
    with (
        open_bundle(watched_bundle(tmp_path / "b", period_s=0.001, window_s=0.5)) as opened,
        start_watch(opened, tmp_path / "w") as watch,
    ):
        for feeds in feeds_of(300):
            watch.run(feeds)
            watch.write()
        assert 1 < len(watch._recent) <= 66


def test_a_program_that_ends_without_closing_it_has_ended_as_it_should(tmp_path):
    bundle = watched_bundle(tmp_path / "b")
    script = f"from edgekit.runtime.watch import start_watch\nstart_watch({str(bundle)!r}, {str(tmp_path / 'w')!r})"
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert read_watch(tmp_path / "w").state == "ended"


def test_opening_a_bundle_imports_nothing_of_a_watch(tmp_path):
    script = (
        "import sys\nfrom edgekit.runtime import open_bundle\nopen_bundle(sys.argv[1]).close()\n"
        "print([name for name in sys.modules if 'watch' in name])\n"
        "import edgekit.runtime.watch\nprint([name for name in sys.modules if 'runtime.watch' in name])"
    )
    command = [sys.executable, "-c", script, str(watched_bundle(tmp_path / "b"))]
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines() == ["[]", "['edgekit.runtime.watch']"], "and the package nothing of its modules"
    with pytest.raises(AttributeError, match=r"'edgekit\.runtime\.watch' has no attribute 'nothing'"):
        edgekit.runtime.watch.nothing  # noqa: B018


def test_closing_twice_is_well(bundle, tmp_path):
    watch = start_watch(bundle, tmp_path / "w")
    watch.close()
    watch.close()
    assert [line["kind"] for line in states(tmp_path / "w")] == ["state", "end"]


def test_a_folder_that_is_taken_away_is_made_again(bundle, tmp_path, capsys):
    with start_watch(bundle, tmp_path / "w") as watch:
        shutil.rmtree(tmp_path / "w")
        for feeds in feeds_of(3):
            watch.run(feeds)
            watch.write()
        assert watch.problem is None
    assert read_watch(tmp_path / "w").last["queries"] == 3
    assert capsys.readouterr().err.count("the watch cannot write") == 1


def test_an_engine_that_fails_is_told_as_its_own_error(tmp_path):
    with open_bundle(watched_bundle(tmp_path / "b")) as opened, start_watch(opened, tmp_path / "w") as watch:
        opened.close()
        with pytest.raises(EngineError):
            watch.run(feeds_of(1)[0])
    assert read_lines(tmp_path / "w")[0][-1]["failed"] == 1


# ---- bundles of earlier builds ----


def test_a_bundle_without_statistics_is_counted_and_says_so(tmp_path):
    path = null_bundle(tmp_path / "old")
    raw = read_json(path / MANIFEST_FILE)
    assert raw.pop("statistics") is None
    assert raw.pop("watch") is None
    (path / MANIFEST_FILE).write_text(json.dumps(raw))
    with open_bundle(path) as opened, start_watch(opened, tmp_path / "w") as watch:
        for feeds in feeds_of(100):
            watch.run(feeds)
        watch.write()
        reading = read_watch(tmp_path / "w")
    assert reading.statistics is None
    assert [(limit.name, limit.status) for limit in reading.limits] == [("silence_s", "met")]
    assert reading.last["inputs"]["input"]["drift"] is None


def test_a_limit_that_needs_statistics_which_the_bundle_lacks_is_not_known_and_says_so(tmp_path):
    path = watched_bundle(tmp_path / "bundle", {"drift": 0.2, "temperature_c": -10.0}, statistics=False)
    with open_bundle(path) as opened, start_watch(opened, tmp_path / "w") as watch:
        for feeds in feeds_of(100):
            watch.run(feeds)
    found = {limit.name: limit for limit in read_watch(tmp_path / "w").limits}
    assert (found["drift"].status, found["drift"].note) == ("unknown", "the bundle has no statistics")
    assert found["temperature_c"].limit == -10.0


def test_the_id_of_an_earlier_bundle_is_what_it_was(tmp_path):
    manifest = read_manifest(null_bundle(tmp_path / "old"))
    assert bundle_id(manifest) == manifest.id
    assert bundle_id(replace(manifest, watch={"every": 1})) != manifest.id, "of a new one it is part of the id"
    assert bundle_id(replace(manifest, statistics={})) != manifest.id


@pytest.mark.parametrize("name", ["a\x1b[31mred", "two\nlines", "half \ud800", "\x9b31m"])
def test_a_name_that_is_more_than_text_to_a_terminal_is_refused(bundle, name):
    raw = read_json(bundle.path / MANIFEST_FILE)
    for changed in ({"name": name}, {"target": name}, {"outputs": [raw["outputs"][0] | {"name": name}]}):
        (bundle.path / MANIFEST_FILE).write_text(json.dumps(raw | changed))
        with pytest.raises(BundleError, match=r"(name|target), which cannot be shown"):
            read_manifest(bundle.path)
    (bundle.path / MANIFEST_FILE).write_text(json.dumps(raw | {"labels": [1]}))
    with pytest.raises(BundleError, match="wrong type: labels"):
        read_manifest(bundle.path)


@pytest.mark.parametrize("field", ["statistics", "watch"])
def test_a_manifest_whose_field_is_no_table_is_refused(bundle, field):
    raw = read_json(bundle.path / MANIFEST_FILE) | {field: [1]}
    (bundle.path / MANIFEST_FILE).write_text(json.dumps(raw))
    with pytest.raises(BundleError, match=f"wrong type: {field}"):
        read_manifest(bundle.path)
