"""One session, many threads."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest

from edgekit import runtime


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_threads_that_run_one_session_at_once_get_their_own_answers(engine, tiny_artifact):
    session, interval, wrong = runtime.open_artifact(tiny_artifact("conv", engine)), sys.getswitchinterval(), []
    feeds = [{"input": np.full((2, 3, 8, 8), value, np.float32)} for value in (-1, 1, 2, 3)]
    expected = [session.run(given)["output"] for given in feeds]

    def run(given, answer):
        for _ in range(500):
            if not np.array_equal(session.run(given)["output"], answer):
                wrong.append(answer)

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=run, args=pair) for pair in zip(feeds, expected, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
        session.close()
    assert not wrong
