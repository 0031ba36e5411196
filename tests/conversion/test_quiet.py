"""What chatty tools write is kept off the terminal, and everything is as before afterwards."""

import logging
import subprocess
import sys
import warnings

import pytest

from edgekit.conversion.quiet import quiet

# In a process of its own: pytest has its hands on the root logger.
CHATTER = """
import logging, sys, warnings
from edgekit.conversion.quiet import quiet
logging.getLogger("torch").addHandler(logging.StreamHandler())
with quiet():
    print("out")
    print("err", file=sys.stderr)
    warnings.warn("a warning")
    logging.getLogger("torch.onnx").critical("through a logger of its own")
    logging.warning("through the root logger, which sets that up")
assert logging.getLogger().handlers == []
logging.getLogger("torch.onnx").error("heard again")
"""


def test_prints_warnings_and_logs_are_kept_away():
    done = subprocess.run([sys.executable, "-c", CHATTER], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("", "heard again\n")


def test_everything_is_as_before_even_after_an_exception():
    root = logging.getLogger()
    before = list(root.handlers), root.manager.disable, list(warnings.filters), sys.stdout, sys.stderr
    with pytest.raises(ValueError, match="inside"):
        fail_quietly()
    assert (list(root.handlers), root.manager.disable, list(warnings.filters), sys.stdout, sys.stderr) == before


def fail_quietly():
    with quiet():
        raise ValueError("inside")
