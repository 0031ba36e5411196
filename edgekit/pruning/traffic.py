"""What each layer of a module computes and what it moves through memory, seen while it runs once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from edgekit.distillation.dry_run import output_shapes

_ATEN = torch.ops.aten
# Layers that compute little and are as slow as memory; a BatchNorm is folded and an activation fused.
_MOVING = {_ATEN.native_layer_norm, _ATEN.native_group_norm}
_TABLES = {_ATEN.embedding}


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """One layer or matrix product that ran.

    Attributes:
        operations: Arithmetic operations; a multiply-add is two.
        weights: Values of parameters that it reads.
        activations: Values that it takes and gives.
    """

    operations: int
    weights: int
    activations: int


def traffic_of(module: nn.Module, inputs: Mapping[str, Tensor]) -> list[Traffic]:
    """Every layer with weights and every matrix product of a module, in the order in which they run.

    Args:
        module: Run once in evaluation mode; nothing of it changes.
        inputs: A batch that it runs on, of as many samples as are meant.

    Raises:
        ModelError: It does not run.
    """
    watch = _Watch({tensor.untyped_storage().data_ptr() for tensor in module.state_dict(keep_vars=True).values()})
    # Fused kernels hide their products.
    with _in_single_operators(module), watch:
        output_shapes(module, inputs, "while its operations are counted")
    return watch.seen


@contextmanager
def _in_single_operators(module: nn.Module) -> Iterator[None]:
    fast, whole = torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled
    recurrent = any(isinstance(part, nn.RNNBase) for part in module.modules())
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        torch.backends.mkldnn.enabled = whole and not recurrent
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch.backends.mkldnn.enabled = whole


class _Watch(TorchDispatchMode):
    """Notes the layers that run.

    Args:
        weights: Where the module's own tensors lie.
    """

    def __init__(self, weights: set[int]) -> None:
        super().__init__()
        self.weights = weights
        self.seen: list[Traffic] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operator and notes it."""
        kwargs = kwargs or {}
        given = func(*args, **kwargs)
        packet = func._overloadpacket
        if packet in flop_registry:
            self._note(flop_registry[packet](*args, **kwargs, out_val=given), args, given)
        elif packet in _MOVING:
            self._note(0, args, given)
        elif packet in _TABLES:
            self.seen.append(Traffic(operations=0, weights=given.numel(), activations=args[1].numel() + given.numel()))
        return given

    def _note(self, operations: int, args: Any, given: Any) -> None:
        """Of several outputs the first counts: the others are statistics for training."""
        first = given[0] if isinstance(given, (tuple, list)) else given
        taken = [each for each in args if isinstance(each, Tensor)]
        own = [each.untyped_storage().data_ptr() in self.weights for each in taken]
        self.seen.append(
            Traffic(
                operations=int(operations),
                weights=sum(each.numel() for each, mine in zip(taken, own, strict=True) if mine),
                activations=first.numel() + sum(e.numel() for e, mine in zip(taken, own, strict=True) if not mine),
            )
        )
