"""Exporters and quantisers are chatty; what matters of it is raised."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps what Python code prints, warns and logs inside the block off the terminal.

    Logging is as it was afterwards: some of these tools log through the root logger, which sets it up for good
    unless it has a handler.
    """
    root, sink = logging.getLogger(), logging.NullHandler()
    level = root.manager.disable
    root.addHandler(sink)
    logging.disable(logging.CRITICAL)
    try:
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        root.removeHandler(sink)
