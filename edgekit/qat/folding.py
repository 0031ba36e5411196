"""A module as a graph of its layers, with BatchNorms folded into what they follow and the others frozen.

BatchNorm in training: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018, §3.2, put the fake-quantiser on weights that the BatchNorm is folded
into; R. Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference: A whitepaper", 2018, §3.2.3,
freezes its statistics. Here both hold from the first step on: the weights that are trained are the folded ones, and no
statistics change. That is exact for a network that was trained before; it is no way to train one from nothing.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.graph_module import _USER_PRESERVED_ATTRIBUTES_KEY
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from edgekit.artifact import Array
from edgekit.distillation.forward import TAKEN, call, device_of, evaluating, taken, to_torch
from edgekit.errors import TrainingError
from edgekit.runtime.numbers import snr_db

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_GATES = (
    ((nn.SiLU, functional.silu), torch.sigmoid),
    ((nn.Hardswish, functional.hardswish), functional.hardsigmoid),
)
TRACED_DB = 80.0  # the graph against the module: folding rounds in another order, and no more


class FrozenNorm(nn.Module):
    """A BatchNorm whose statistics stay as they are, also in training; gain and offset are trained."""

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.register_buffer("running_mean", norm.running_mean)
        self.register_buffer("running_var", norm.running_var)

    def forward(self, values: Tensor) -> Tensor:
        """Values ``[n, channels, …]``, normalised by what was seen in the training before."""
        return functional.batch_norm(
            values, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Norm:
    """What one use of a BatchNorm computes with."""

    mean: Tensor
    variance: Tensor
    gain: Tensor | None
    offset: Tensor | None
    eps: float


def folded(module: nn.Module, example: Mapping[str, Array]) -> fx.GraphModule:
    """A copy of a module as a graph of layers, in which no BatchNorm computes statistics.

    It was traced as in evaluation: ``nn.Dropout`` goes on dropping in training, ``F.dropout(x, training=…)`` no more.
    Layers and their parameters keep their paths, but the modules around them are called no more: a hook on a block sees
    nothing.

    Args:
        module: Any module that ``torch.fx`` can trace.
        example: A batch by input name, ``[n, …]``, that the copy is held against the module on.

    Raises:
        TrainingError: It cannot be traced, computes something else once it is, or a BatchNorm has no statistics.
    """
    tensors = to_torch(example, device_of(module))
    _require_statistics(module)
    with evaluating(module), torch.no_grad():
        expected = call(module, tensors)
    traced = _traced(module, taken(module, tensors))
    _drop_checks(traced)
    _call_linears(traced)
    _spell_out_gates(traced)
    _fold_norms(traced, shapes_of(traced, tensors))
    _freeze_norms(traced)
    traced.graph.eliminate_dead_code()
    traced.delete_all_unused_submodules()
    traced.recompile()
    with evaluating(traced), torch.no_grad():
        actual = call(traced, tensors)
    for name, output in expected.items():
        if output.is_floating_point():
            db = snr_db(output.cpu().numpy(), actual[name].cpu().numpy())
            if not db >= TRACED_DB:
                raise TrainingError(
                    f"{type(module).__name__}: its traced graph computes something else at output {name!r}",
                    found=f"{db:.1f} dB",
                    allowed=f"at least {TRACED_DB:.0f} dB",
                    fix="look for randomness, or for branches on the data, in forward()",
                )
    return traced


def walk(traced: fx.GraphModule, tensors: Mapping[str, Tensor], note: Callable[[str, Tensor], None]) -> None:
    """Runs a graph in evaluation on one batch; ``note`` is told of each tensor with its node, and nothing is kept."""

    class Reader(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if isinstance(value, Tensor) and n.op != "get_attr":
                note(n.name, value.detach())
            return value

    placeholders = [node for node in traced.graph.nodes if node.op == "placeholder"]
    given = taken(traced, tensors)
    if len(given) == 1:
        given = {placeholders[0].target: next(iter(given.values()))}
    with evaluating(traced), torch.no_grad():
        # What is not given has a default, which the interpreter looks up for itself.
        Reader(traced).run(*(given[node.target] for node in placeholders if node.target in given))


def shapes_of(traced: fx.GraphModule, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor that a graph computes on one batch, by the name of its node, without its values."""
    found: dict[str, Tensor] = {}

    def note(name: str, value: Tensor) -> None:
        found[name] = value.to("meta")

    walk(traced, tensors, note)
    return found


def _require_statistics(module: nn.Module) -> None:
    for path, part in module.named_modules():
        if isinstance(part, _BatchNorm) and part.running_mean is None:
            raise TrainingError(
                f"BatchNorm {path!r} has no running statistics: it cannot be folded",
                found="track_running_stats=False",
                allowed="a network whose BatchNorms were trained with running statistics",
                fix="train it with track_running_stats=True first",
            )


def _traced(module: nn.Module, tensors: Mapping[str, Tensor]) -> fx.GraphModule:
    copied = copy.deepcopy(module)
    parameters = inspect.signature(module.forward).parameters.values()
    given = {p.name for p in list(parameters)[:1]} if len(tensors) == 1 else set(tensors)
    # An argument that the data does not give has its default: traced as an unknown, `if mask is None` goes wrong.
    defaults = {p.name: p.default for p in parameters if p.name not in given and p.default is not p.empty}
    modes = {path: part.training for path, part in copied.named_modules()}
    copied.eval()
    try:
        graph = fx.Tracer().trace(copied, concrete_args=defaults or None)
    except Exception as exc:  # tracing runs the user's forward on stand-ins, which can fail in any way
        lines = str(exc).strip().splitlines()
        raise TrainingError(
            f"{type(module).__name__} cannot be traced, so no fake-quantisers can be placed in it",
            found=f"{type(exc).__name__}: {lines[0] if lines else ''}",
            allowed="a forward() that torch.fx traces: no branches or loops on what tensors hold or on their sizes",
            fix="take such code out of forward(), or put it in a module of its own and mark its function with "
            "torch.fx.wrap; post-training int8 needs no trace",
        ) from exc
    traced = fx.GraphModule(copied, graph, type(module).__name__)
    for path, part in traced.named_modules():
        part.training = modes.get(path, module.training)
    if hasattr(module, TAKEN):
        setattr(traced, TAKEN, getattr(module, TAKEN))
        traced.meta[_USER_PRESERVED_ATTRIBUTES_KEY] = {TAKEN: getattr(module, TAKEN)}  # by copies too
    return traced


def _drop_checks(traced: fx.GraphModule) -> None:
    """Drops a forward's own assertions: what they read would have a reader that the exported graph does not have."""
    for node in reversed(traced.graph.nodes):
        if node.target is torch._assert:
            traced.graph.erase_node(node)
    traced.graph.eliminate_dead_code()
    traced.recompile()


def _call_linears(traced: fx.GraphModule) -> None:
    """Calls as a layer each linear layer whose own forward, such as timm's, was traced to ``F.linear``, in place."""
    uses = [node.target for node in traced.graph.nodes]
    for node in list(traced.graph.nodes):
        if node.target is not functional.linear:
            continue
        read, *parameters = node.all_input_nodes
        owner = str(parameters[0].target).rpartition(".")[0] if parameters else ""
        own = [f"{owner}.weight", f"{owner}.bias"][: len(parameters)]
        if not owner or [p.target for p in parameters] != own or uses.count(own[0]) > 1:
            continue
        layer = traced.get_submodule(owner)
        plain = nn.Linear(*reversed(layer.weight.shape), bias=len(own) > 1, device="meta")
        plain.weight, plain.bias = layer.weight, layer.bias if len(own) > 1 else None
        with traced.graph.inserting_before(node):
            node.replace_all_uses_with(traced.graph.call_module(owner, (read,)))
        traced.graph.erase_node(node)
        traced.set_submodule(owner, plain)
    traced.graph.eliminate_dead_code()
    traced.recompile()


def _spell_out_gates(traced: fx.GraphModule) -> None:
    """Writes SiLU and Hardswish as the two operators that an engine sees, so that each gets a range of its own."""
    for node in list(traced.graph.nodes):
        gate = next(
            (g for kinds, g in _GATES if node.target in kinds or isinstance(layer_of(traced, node), kinds[0])), None
        )
        if gate is not None and node.all_input_nodes:
            (read,) = node.all_input_nodes
            with traced.graph.inserting_before(node):
                factor = traced.graph.call_function(gate, (read,))
                node.replace_all_uses_with(traced.graph.call_function(torch.mul, (read, factor)))
            traced.graph.erase_node(node)


def layer_of(traced: fx.GraphModule, node: fx.Node) -> Any:
    """The layer that a node calls; None where it calls none."""
    return traced.get_submodule(str(node.target)) if node.op == "call_module" else None


def _fold_norms(traced: fx.GraphModule, values: Mapping[str, Tensor]) -> None:
    """Folds each BatchNorm that alone reads a convolution or a linear layer into its weights, in place."""
    calls = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    for node in list(traced.graph.nodes):
        norm = _norm_of(traced, node)
        if norm is None:
            continue
        product = node.all_input_nodes[0]
        layer = layer_of(traced, product)
        once = len(product.users) == 1 and calls.count(product.target) == 1
        if type(layer) is nn.Linear:
            once = once and values[product.name].ndim == 2  # of more axes, the second is normalised, not the last
        elif type(layer) not in CONVOLUTIONS:
            continue
        if not once or (node.op == "call_module" and calls.count(node.target) > 1):
            continue
        # Of a linear layer's weights too, which are those of a convolution of no axes.
        weight, bias = fuse_conv_bn_weights(
            layer.weight, layer.bias, norm.mean, norm.variance, norm.eps, norm.gain, norm.offset
        )
        layer.weight, layer.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
        node.replace_all_uses_with(product)
        traced.graph.erase_node(node)


def _norm_of(traced: fx.GraphModule, node: fx.Node) -> _Norm | None:
    """The BatchNorm that a node computes, as a layer or as a call of ``F.batch_norm``; None where it is another."""
    part = layer_of(traced, node)
    if isinstance(part, _BatchNorm):
        return _Norm(
            mean=part.running_mean, variance=part.running_var, gain=part.weight, offset=part.bias, eps=part.eps
        )
    if node.target is not functional.batch_norm:
        return None
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    read = {name: _attribute(traced, given.get(name)) for name in names[1:5]}
    if given.get("training", False) or read["running_mean"] is None or read["running_var"] is None:
        return None
    return _Norm(
        mean=read["running_mean"],
        variance=read["running_var"],
        gain=read["weight"],
        offset=read["bias"],
        eps=given.get("eps", 1e-5),
    )


def _attribute(traced: fx.GraphModule, node: Any) -> Tensor | None:
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    owner, _, name = str(node.target).rpartition(".")
    tensor: Tensor = getattr(traced.get_submodule(owner), name)
    return tensor


def _freeze_norms(traced: fx.GraphModule) -> None:
    """Has the BatchNorms that are left compute with the statistics they have, in place."""
    for node in list(traced.graph.nodes):
        part = layer_of(traced, node)
        if isinstance(part, _BatchNorm):
            traced.set_submodule(str(node.target), FrozenNorm(part))
