"""What chatty tools write is kept off the terminal, and logging is as before."""

import logging
import sys
import warnings

import pytest

from edgekit.conversion.quiet import quiet


def test_prints_warnings_and_logs_are_kept_away(capfd):
    with quiet():
        print("out")
        print("err", file=sys.stderr)
        warnings.warn("a warning", stacklevel=1)
        logging.getLogger("torch.onnx").error("an error")
        logging.warning("through the root logger")
    assert capfd.readouterr() == ("", "")


def fail_quietly():
    with quiet():
        logging.warning("sets up the root logger where it has no handler")
        raise ValueError("inside")


def test_logging_is_as_before_even_after_an_exception():
    root = logging.getLogger()
    before = list(root.handlers), root.manager.disable, list(warnings.filters)
    with pytest.raises(ValueError, match="inside"):
        fail_quietly()
    assert (list(root.handlers), root.manager.disable, list(warnings.filters)) == before
