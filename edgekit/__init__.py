"""EdgeKit: from a trained PyTorch model to a bundle proven to meet a latency budget on an edge device."""

from __future__ import annotations

__version__ = "0.1.0"
