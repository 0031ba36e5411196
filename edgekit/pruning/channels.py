"""Which channels of a module's layers go together, found by tracing it with torch_pruning."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.rnn import PackedSequence

from edgekit.distillation.forward import call, evaluating
from edgekit.errors import ModelError
from edgekit.pruning.sizes import attention_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """How errors speak of who asked for a cut.

    Attributes:
        cutter: What cuts, such as ``student.width``.
        after: What a module is like once it is cut.
        fix: What helps where a module cannot be cut.
    """

    cutter: str
    after: str
    fix: str


PRUNING = Wording(
    cutter="pruning",
    after="after it was pruned",
    fix="name the layer in keep, or write that part of the model with layers of torch.nn alone",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Traced:
    """A module's dependency graph.

    Attributes:
        graph: Of torch_pruning.
        names: Of modules, by ``id``.
        whole: What keeps all its channels, by ``id``: inputs, outputs and recurrent layers, in words.
        recurrent: Names of the recurrent layers among them.
        heads: Attention heads by linear layer that has to do with them.
        wording: Of errors.
    """

    graph: Any
    names: Mapping[int, str]
    whole: Mapping[int, str]
    recurrent: Mapping[int, str]
    heads: Mapping[nn.Module, int]
    wording: Wording


def trace(module: nn.Module, inputs: Mapping[str, Tensor], wording: Wording = PRUNING) -> Traced:
    """Finds which channels go together.

    G. Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023.

    Args:
        module: Its parameters take gradients (see :func:`as_parameters`).
        inputs: A batch.
        wording: Of errors.

    Raises:
        ModelError: It cannot be traced.
    """
    import torch_pruning as tp
    from torch_pruning import ops

    entries: list[Any] = []

    def forward(model: nn.Module, given: Mapping[str, Tensor]) -> list[Tensor]:
        fed = dict(given)
        for name, tensor in given.items():
            if tensor.is_floating_point():
                fed[name] = tensor.detach().requires_grad_().clone()
                entries.append(fed[name].grad_fn)
        return [output for output in call(model, fed).values() if output.grad_fn is not None]

    with (
        warnings.catch_warnings(),
        evaluating(module),  # torch_pruning leaves it in evaluation mode
        torch.enable_grad(),
        _closed(module) as recurrent,
        told(module, wording),
    ):
        warnings.simplefilter("ignore")
        graph = tp.DependencyGraph()
        graph._trace = _in_order(graph._trace)
        graph = graph.build_dependency(module, dict(inputs), forward_fn=forward, verbose=False)
    whole, closed = {}, {}
    for part, node in graph.module2node.items():
        if any(node.grad_fn is entry for entry in entries):
            whole[id(part)] = "the model's input"
        elif not node.outputs:
            whole[id(part)] = "the model's output"
        elif node.type == ops.OPTYPE.SPLIT and getattr(node.grad_fn, "_saved_dim", 1) == 1 and not _once(node):
            whole[id(part)] = "parts that are not taken once each"
        for grad_fn, name in recurrent:
            if node.grad_fn is grad_fn:
                closed[id(part)] = name
                whole[id(part)] = f"the recurrent layer {name}"
        if node.type == ops.OPTYPE.SLICE and part.dim == 0:
            node.type = ops.OPTYPE.ELEMENTWISE  # rows of a table, or samples: no channel is left out
    return Traced(
        graph=graph,
        names={id(part): name or type(module).__name__ for name, part in module.named_modules()},
        whole=whole,
        recurrent=closed,
        heads=attention_of(module),
        wording=wording,
    )


def _in_order(trace: Callable[..., Any]) -> Callable[..., Any]:
    """What follows a module's operations, with the parts of a split tensor in their order.

    torch_pruning takes them in the order in which it meets what takes them, from the end of the module.
    """

    def traced(*args: Any, **kwargs: Any) -> Any:
        nodes = trace(*args, **kwargs)
        for node in nodes.values():
            if "Split" in type(node.module).__name__ and _once(node):
                node.outputs.sort(key=lambda taker: _parts_taken(node, taker))
        return nodes

    return traced


def _once(node: Any) -> bool:
    """Whether the first parts of a split tensor are taken once each, each by another operation."""
    parts = [_parts_taken(node, taker) for taker in node.outputs]
    return sorted(parts) == [[i] for i in range(len(parts))]


def _parts_taken(node: Any, taker: Any) -> list[int]:
    """The numbers of the parts of a split tensor that an operation takes."""
    return [number for before, number in taker.grad_fn.next_functions if before is node.grad_fn]


@contextmanager
def told(module: nn.Module, wording: Wording) -> Iterator[None]:
    """Tells whatever torch_pruning runs into as an error of the module."""
    try:
        yield
    except ModelError:
        raise
    except Exception as exc:  # torch_pruning raises many unrelated types; all mean that it does not follow the module
        raise uncut(module, wording, "the channels that go together cannot be traced", exc) from exc


def uncut(module: nn.Module, wording: Wording, why: str, exc: Exception | None = None) -> ModelError:
    """The error of a module whose channels cannot be cut."""
    return ModelError(
        f"{wording.cutter} cannot cut {type(module).__name__}: {why}",
        found=None if exc is None else f"{type(exc).__name__}: {exc}",
        allowed="layers of torch.nn, put together by sums, products, concatenation and reshaping of heads",
        fix=wording.fix,
    )


@contextmanager
def as_parameters(module: nn.Module) -> Iterator[None]:
    """While the block runs, whatever may hold channels is a parameter that takes a gradient: tracing follows those.

    So tables that a user's module keeps as buffers, such as fixed position encodings, are cut with the rest.
    """
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    tables = [
        (part, name, name not in part._non_persistent_buffers_set)
        for part in module.modules()
        for name, buffer in part.named_buffers(recurse=False)
        if not isinstance(part, _NormBase) and buffer.is_floating_point() and buffer.numel() > 1
    ]
    for part, name, _ in tables:
        part.register_parameter(name, nn.Parameter(part._buffers.pop(name)))
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    try:
        yield
    finally:
        for part, name, persistent in tables:
            table = part._parameters.pop(name)
            assert table is not None  # it was put there above
            part.register_buffer(name, table.detach(), persistent=persistent)
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(parameter.is_floating_point() and name not in frozen)


class _Closed(torch.autograd.Function):
    """What a recurrent layer gives, as one operation on what it takes; for tracing alone, so it has no ``backward``."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, *taken: Tensor) -> Tensor:
        return given.clone()


@contextmanager
def _closed(module: nn.Module) -> Iterator[list[tuple[Any, str]]]:
    """While the block runs, recurrent layers are single operations; collects them with the layers' names."""
    found: list[tuple[Any, str]] = []

    def closing(layer: nn.RNNBase, name: str) -> Callable[..., Any]:
        whole = layer.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            with torch.no_grad():
                output = whole(*args, **kwargs)
            return _mapped(output, list(_tensors([*args, *kwargs.values()])))

        def _mapped(value: Any, taken: list[Tensor]) -> Any:
            if isinstance(value, PackedSequence):
                return value._replace(data=_mapped(value.data, taken))
            if isinstance(value, tuple):
                return tuple(_mapped(each, taken) for each in value)
            output = _Closed.apply(value, *taken)
            found.append((output.grad_fn, name))
            return output

        return forward

    layers = [(part, name) for name, part in module.named_modules() if isinstance(part, nn.RNNBase)]
    for layer, name in layers:
        layer.forward = closing(layer, name)
    try:
        yield found
    finally:
        for layer, _ in layers:
            del layer.forward


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)
