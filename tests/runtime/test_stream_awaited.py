"""Awaiting frames of a stream: the event loop lives on while the queue is full."""

import asyncio
from collections import Counter

import numpy as np
import pytest
from made_bundles import one_by_one, tensors

from edgekit.runtime import open_stream
from edgekit.runtime.stream import Stream

ENGINES = ["onnxruntime", "openvino"]


@pytest.mark.parametrize("when_full", ["block", "newest"])
@pytest.mark.parametrize("engine", ENGINES)
def test_awaiting_many_frames_at_once_gives_each_its_own_outputs(make_bundle, engine, when_full):
    folder, frames = make_bundle(engine, "conv_one", batch=1), tensors(30)
    expected = one_by_one(folder, frames)

    async def all_at_once(stream):
        return await asyncio.gather(*(stream.run(frame) for frame in frames))

    with open_stream(folder, workers=2, when_full=when_full, capacity=2 if when_full == "block" else 30) as stream:
        found = asyncio.run(all_at_once(stream))
    np.testing.assert_array_equal([outputs["output"] for outputs in found], expected)


def test_awaiting_does_not_hold_up_the_event_loop(slow):
    bundle = slow()

    async def main():
        calls = [asyncio.ensure_future(stream.run(frame)) for frame in tensors(4)]
        for _ in range(10):
            await asyncio.sleep(0.01)  # the loop lives although the queue is full and nothing may run
        assert not any(call.done() for call in calls)
        calls[3].cancel()
        bundle.session.may_run.release(4)
        found = await asyncio.gather(*calls, return_exceptions=True)
        return [type(each).__name__ for each in found]

    with Stream([bundle], when_full="block", capacity=1) as stream:
        assert asyncio.run(main()) == ["dict", "dict", "dict", "CancelledError"]


def test_a_dropped_frame_is_an_error_to_who_awaits_it(slow):
    bundle = slow()

    async def main():
        calls = [asyncio.ensure_future(stream.run(frame)) for frame in tensors(3)]
        while stream.counters.taken < 3:
            await asyncio.sleep(0.01)
        bundle.session.may_run.release(3)
        return Counter(type(each).__name__ for each in await asyncio.gather(*calls, return_exceptions=True))

    with Stream([bundle], when_full="newest", capacity=1) as stream:
        found = asyncio.run(main())
    assert found["StreamError"] >= 1
    assert found["dict"] >= 1
    assert found["StreamError"] + found["dict"] == 3
