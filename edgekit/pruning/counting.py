"""How many multiply-accumulates a network takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from edgekit.distillation.dry_run import output_shapes


def macs_of(module: nn.Module, inputs: Mapping[str, Tensor]) -> int:
    """Multiply-accumulates of one sample: of convolutions, linear layers, products of matrices and attention.

    Norms, activations and recurrent layers do not count.

    Args:
        module: Run in evaluation mode; nothing of it changes.
        inputs: A batch, of which the first sample is taken.

    Raises:
        ModelError: The module does not run.
    """
    with FlopCounterMode(display=False) as counter, step_by_step():
        output_shapes(module, one_sample(inputs), "while its multiply-accumulates are counted")
    return int(counter.get_total_flops()) // 2


def one_sample(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The first sample of a batch, as a batch."""
    return {name: tensor[:1] for name, tensor in inputs.items()}


@contextmanager
def step_by_step() -> Iterator[None]:
    """While the block runs, torch's own transformer layers call their parts, rather than all in one operation."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
