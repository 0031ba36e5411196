import gc
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from made_bundles import Slowly, one_by_one, tensors

from edgekit.artifact import TensorSpec
from edgekit.errors import BundleError, EngineError, FeedError, StreamError
from edgekit.processing_specs import Preprocessing
from edgekit.runtime import open_stream
from edgekit.runtime.bundle import open_bundle
from edgekit.runtime.stream import Stream

ENGINES = ["onnxruntime", "openvino"]
RNG = np.random.default_rng(0)
PIXELS = Preprocessing(input="input", layout="NHWC", scale=1 / 255, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))


def pictures(count):
    return list(RNG.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8))


class Summing:
    """A session with one output of a query, however many samples it has."""

    def __init__(self, session, output):
        self.inputs, self.outputs, self.close = session.inputs, [output], session.close

    def run(self, feeds):
        return {"total": np.ones(4, np.float32)}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("workers", [1, 3])
def test_every_frame_comes_back_in_order_with_its_key_and_the_bundles_own_outputs(make_bundle, engine, workers):
    folder, frames = make_bundle(engine, "conv_one", batch=1), tensors(40)
    expected = one_by_one(folder, frames)
    with open_stream(folder, workers=workers, when_full="block", capacity=3) as stream:
        found = list(stream.over((f"frame {i}", frame) for i, frame in enumerate(frames)))
        counters = stream.counters
    assert [result.key for result in found] == [f"frame {i}" for i in range(40)]
    for result, output in zip(found, expected, strict=True):
        np.testing.assert_array_equal(result.outputs["output"], output)
    assert (counters.taken, counters.done, counters.queries) == (40, 40, 40)
    assert (counters.dropped, counters.failed, counters.unread, counters.waiting, counters.running) == (0, 0, 0, 0, 0)
    assert 0 < counters.last_s <= counters.longest_s <= counters.total_s


@pytest.mark.parametrize("engine", ENGINES)
def test_raw_frames_are_preprocessed_by_the_worker(make_bundle, engine):
    folder, frames = make_bundle(engine, "conv_one", PIXELS, batch=1), pictures(5)
    expected = one_by_one(folder, frames, raw=True)
    with open_stream(folder, when_full="block") as stream:
        found = [result.outputs["output"] for result in stream.over(enumerate(frames))]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("engine", ENGINES)
def test_frames_are_gathered_into_batches_which_are_padded_and_cut(make_bundle, engine):
    folder, frames, seen = make_bundle(engine, "conv_batch2"), tensors(5), []
    expected = one_by_one(folder, frames, batch=2)

    def hook(seconds, feeds, outputs):
        seen.append((seconds, len(feeds["input"]), len(outputs["output"])))

    with open_stream(folder, when_full="block", capacity=5, gather_s=30.0, on_result=hook) as stream:
        futures = [stream.submit(frame, key=i) for i, frame in enumerate(frames)]
        first = [future.result() for future in futures[:4]]
        stream.close(finish=True)
        found = [*first, futures[4].result()]
        assert stream.counters.queries == 3
    assert [(fed, given) for _, fed, given in seen] == [(2, 2), (2, 2), (1, 1)]
    assert all(seconds > 0 for seconds, _, _ in seen)
    for result, output in zip(found, expected, strict=True):
        np.testing.assert_allclose(result.outputs["output"], output, rtol=1e-5, atol=1e-6)


def test_an_open_batch_is_not_padded(make_bundle):
    folder, frames, seen = make_bundle(model="conv", batch=4), tensors(3), []
    with open_stream(folder, gather_s=0.2, on_result=lambda _, feeds, __: seen.append(len(feeds["input"]))) as stream:
        found = [future.result().outputs["output"] for future in [stream.submit(frame) for frame in frames]]
    assert [array.shape for array in found] == [(4, 8, 8)] * 3
    assert sum(seen) == 3


def test_a_lone_frame_does_not_wait_for_others_longer_than_it_is_told(make_bundle):
    with open_stream(make_bundle(model="conv_batch2"), gather_s=0.05) as stream:
        assert stream.submit(tensors(1)[0]).result(timeout=60).outputs["output"].shape == (4, 8, 8)


def test_the_newest_frame_wins_and_the_dropped_are_told_and_counted(slow):
    bundle = slow()
    with Stream([bundle], when_full="newest", capacity=2) as stream:
        running = stream.submit(tensors(1)[0], key="running")
        assert bundle.session.runs.wait(60)
        futures = {key: stream.submit(frame, key=key) for key, frame in zip("abcde", tensors(5), strict=True)}
        for key in "abc":
            assert futures[key].result(timeout=60).dropped
            with pytest.raises(StreamError, match="dropped for a newer one"):
                _ = futures[key].result().outputs
        counters = stream.counters
        assert (counters.taken, counters.dropped, counters.waiting, counters.running) == (6, 3, 2, 1)
        bundle.session.may_run.release(3)
        done = [running, futures["d"], futures["e"]]
        assert [future.result(timeout=60).key for future in done] == ["running", "d", "e"]
        assert all(future.result().outputs for future in done)
        assert stream.counters.done == 3


def test_a_full_queue_blocks_until_there_is_room(slow):
    bundle, given = slow(), []

    def give():
        for key, frame in enumerate(tensors(5)):
            given.append((key, stream.submit(frame, key=key)))

    with Stream([bundle], when_full="block", capacity=2) as stream:
        giver = threading.Thread(target=give)
        giver.start()
        assert bundle.session.runs.wait(60)
        time.sleep(0.2)
        assert len(given) == 3  # one runs, two wait
        bundle.session.may_run.release(5)
        giver.join(60)
        assert [future.result(timeout=60).key for _, future in given] == list(range(5))
        assert stream.counters.dropped == 0


def test_a_slow_caller_gets_the_newest_results_and_the_others_are_counted(make_bundle):
    folder, read = make_bundle(model="conv_one", batch=1), threading.Event()

    def camera():
        yield from enumerate(tensors(200))
        read.set()

    with open_stream(folder, when_full="newest", capacity=2) as stream:
        results = stream.over(camera())
        keys = [next(results).key]
        assert read.wait(60)
        keys += [result.key for result in results]
        counters = stream.counters
    assert keys == sorted(keys)
    assert keys[-1] == 199
    assert counters.taken == 200
    assert len(keys) + counters.dropped + counters.unread == 200
    assert len(keys) <= 5


def test_blocking_keeps_a_reader_from_running_ahead_of_its_caller(make_bundle):
    read = []

    def camera():
        for key, frame in enumerate(tensors(50)):
            read.append(key)
            yield key, frame

    with open_stream(make_bundle(model="conv_one", batch=1), when_full="block", capacity=2) as stream:
        results = stream.over(camera())
        next(results)
        time.sleep(0.3)
        assert len(read) <= 7  # one given, three held, one read ahead, and no more
        assert [result.key for result in results] == list(range(1, 50))


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        (np.zeros((3, 8, 8), np.float64), "wrong dtype"),
        (np.zeros((3, 8, 9), np.float32), "wrong shape"),
        ({"other": np.zeros((3, 8, 8), np.float32)}, "unknown input 'other'"),
        ([[1.0]], "is not an array"),
    ],
)
def test_a_bad_frame_fails_alone(make_bundle, frame, problem):
    good, frames = tensors(1)[0], make_bundle(model="conv_batch2")
    with open_stream(frames, when_full="block", capacity=4, gather_s=0.5) as stream:
        futures = [stream.submit(each) for each in (good, frame, good, frame)]
        for future in futures[1::2]:
            with pytest.raises(FeedError, match=problem):
                _ = future.result(timeout=60).outputs
            assert not future.result().dropped
        assert [future.result(timeout=60).outputs["output"].shape for future in futures[::2]] == [(4, 8, 8)] * 2
        assert (stream.counters.failed, stream.counters.done) == (2, 2)


def test_an_engine_that_fails_tells_every_frame_of_its_batch(make_bundle):
    bundle = open_bundle(make_bundle(model="conv_batch2"))
    bundle.session.close()  # from now on it refuses to run
    with Stream([bundle], when_full="block", capacity=2, gather_s=1.0) as stream:
        for future in [stream.submit(frame) for frame in tensors(2)]:
            with pytest.raises(EngineError, match="session is closed"):
                _ = future.result(timeout=60).outputs
        assert stream.counters.failed == 2


def test_what_the_hook_raises_reaches_the_caller_and_the_stream_goes_on(make_bundle):
    calls = []

    def hook(seconds, feeds, outputs):
        calls.append(seconds)
        if len(calls) == 1:
            raise RuntimeError("the disk of the log is full")

    with open_stream(make_bundle(model="conv_one", batch=1), when_full="block", on_result=hook) as stream:
        results = list(stream.over(enumerate(tensors(2))))
    with pytest.raises(RuntimeError, match="disk of the log"):
        _ = results[0].outputs
    assert results[1].outputs


def test_what_the_reader_raises_comes_after_the_results_before_it(make_bundle):
    def camera():
        yield 0, tensors(1)[0]
        raise OSError("the camera was unplugged")

    with open_stream(make_bundle(model="conv_one", batch=1), when_full="block") as stream:
        results = stream.over(camera())
        assert next(results).key == 0
        with pytest.raises(OSError, match="unplugged"):
            next(results)


def test_closing_drops_what_waits_finishes_what_runs_and_ends_every_thread(slow):
    bundle, before = slow(), set(threading.enumerate())
    stream = Stream([bundle], when_full="block", capacity=3)
    running = stream.submit(tensors(1)[0])
    assert bundle.session.runs.wait(60)
    waiting = [stream.submit(frame) for frame in tensors(2)]
    blocked = []
    giver = threading.Thread(target=lambda: blocked.append(_error(lambda: [stream.submit(f) for f in tensors(2)])))
    giver.start()
    closer = threading.Thread(target=stream.close)
    closer.start()
    for future in waiting:
        with pytest.raises(StreamError, match="closed before"):
            _ = future.result(timeout=60).outputs
    bundle.session.may_run.release()
    assert running.result(timeout=60).outputs
    closer.join(60)
    giver.join(60)
    assert isinstance(blocked[0], StreamError)
    assert bundle.session.closed == 1
    assert set(threading.enumerate()) <= before
    stream.close()
    with pytest.raises(StreamError, match="stream is closed"):
        stream.submit(tensors(1)[0])
    bundle.session.may_run.release()
    with pytest.raises(EngineError, match="session is closed"):
        bundle.run({"input": np.zeros((1, 3, 8, 8), np.float32)})


def _error(call):
    try:
        return call()
    except StreamError as exc:
        return exc


def test_closing_can_finish_what_waits(make_bundle):
    stream = open_stream(make_bundle(model="conv_one", batch=1), when_full="block", capacity=20)
    futures = [stream.submit(frame, key=i) for i, frame in enumerate(tensors(20))]
    stream.close(finish=True)
    assert [future.result(timeout=0).key for future in futures] == list(range(20))


def test_a_worker_may_close_its_own_stream(make_bundle):
    stream = open_stream(make_bundle(model="conv_one", batch=1), on_result=lambda *_: stream.close())
    assert stream.submit(tensors(1)[0]).result(timeout=60).outputs
    stream.close()


def test_a_caller_that_stops_to_ask_ends_the_reader(make_bundle):
    before = set(threading.enumerate())
    with open_stream(make_bundle(model="conv_one", batch=1), when_full="block") as stream:
        results = stream.over(enumerate(tensors(100)))
        next(results)
        results.close()
        assert stream.counters.taken < 20
    deadline = time.monotonic() + 60
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(threading.enumerate()) <= before


def test_several_workers_run_at_the_same_time_each_on_its_own_session(slow):
    first = slow()
    second = open_bundle(first.path)
    second = replace(second, session=Slowly(second.session))
    with Stream([first, second], when_full="block") as stream:
        futures = [stream.submit(frame) for frame in tensors(2)]
        assert first.session.runs.wait(60)
        assert second.session.runs.wait(60)
        assert stream.counters.running == 2
        for bundle in (first, second):
            bundle.session.may_run.release(2)
        assert all(future.result(timeout=60).outputs for future in futures)
    assert len(first.session.threads | second.session.threads) == 2


def test_results_are_not_kept_alive_by_the_stream(make_bundle):
    with open_stream(make_bundle(model="conv_one", batch=1), when_full="block") as stream:
        for _ in stream.over(enumerate(tensors(5))):
            pass
        gc.collect()
        before = len(gc.get_objects())
        for _ in stream.over(enumerate(tensors(200))):
            pass
        del _
        gc.collect()
        assert len(gc.get_objects()) - before < 200


def test_streams_of_nothing_or_of_bad_settings_are_refused(make_bundle, tmp_path):
    folder = make_bundle(model="conv_batch2")
    before = set(threading.enumerate())
    with pytest.raises(StreamError, match="needs a worker"):
        open_stream(folder, workers=0)
    with pytest.raises(StreamError, match="queue is too short") as caught:
        open_stream(folder, capacity=1, gather_s=0.1)
    assert "2 or more" in str(caught.value.allowed)
    with pytest.raises(StreamError, match="unknown rule"):
        open_stream(folder, when_full="oldest")
    with pytest.raises(StreamError, match="less than no time"):
        open_stream(folder, gather_s=-1)
    with pytest.raises(StreamError, match="needs a bundle"):
        Stream([])
    with pytest.raises(BundleError, match="no bundle here"):
        open_stream(tmp_path / "nowhere")
    assert set(threading.enumerate()) <= before


def test_an_output_without_a_row_a_frame_is_refused_for_batches_and_whole_for_one(make_bundle):
    total = TensorSpec(name="total", dtype="float32", shape=(4,))
    for model, batch in (("conv_batch2", 2), ("conv_one", 1)):
        opened = open_bundle(make_bundle(model=model, batch=batch))
        bundle = replace(opened, session=Summing(opened.session, total))
        if batch == 2:
            with pytest.raises(StreamError, match="cannot be told apart"):
                Stream([bundle])
            continue
        with Stream([bundle]) as stream:
            np.testing.assert_array_equal(stream.submit(tensors(1)[0]).result(60).outputs["total"], np.ones(4))
