"""A network made ready for quantisation-aware training, by the scheme of the engine that will run it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, fx, nn

from edgekit.artifact import Array, TensorSpec
from edgekit.backends.calibration import CalibrationBatches
from edgekit.backends.onnxruntime_placing import PRODUCTS, Placing, activations, place
from edgekit.data import Batches
from edgekit.distillation.forward import device_of, to_torch
from edgekit.errors import DataError, TrainingError, UnknownName
from edgekit.qat.folding import folded, shapes_of, walk
from edgekit.qat.learned import LearnedStep, QuantisedLayer
from edgekit.qat.skeleton import Skeleton, ends_of, skeleton_of
from edgekit.quantization.histograms import Histogram
from edgekit.quantization.ranges import NEEDS_HISTOGRAM, RANGE_METHODS, TensorStatistics, range_of, why_unfit
from edgekit.quantization.schemes import Scheme

RANGES = "learned_ranges"  # the submodule that holds the steps of the activations
_SIGNED, _UNSIGNED = (-128, 127), (0, 255)
_DEAD = 1e-5  # of the largest weight: the step of a channel of zeros
_SHARES = torch.linspace(0.3, 1.0, 29).tolist()


def prepare_qat(
    module: nn.Module, scheme: Scheme, batches: Batches, *, method: str = "minmax", weight_bits: int = 8
) -> fx.GraphModule:
    """A copy of a trained module that computes as it will in int8, and learns in that.

    BatchNorms are folded, and none computes statistics any more (see :mod:`edgekit.qat.folding`). Weights go through a
    fake-quantiser, int8, symmetric, one step an output channel where the scheme says so; so do the activations that the
    engine's post-training int8 carries in int8, which the same code decides. At first the steps are those of
    post-training int8 with ranges by ``method``; then they are learned (see :class:`edgekit.qat.learned.LearnedStep`).
    The copy is trained, distilled and saved as any module; :func:`edgekit.qat.exporting.for_export` ends it.

    Without BatchNorms that follow the weights it takes a lower learning rate than the network was trained with: a tenth
    is usual. Layers keep their paths; weights lie one deeper, at ``PATH.layer.weight``, and the activations' steps are
    the submodule ``learned_ranges``. Biases are float in training.

    Args:
        module: Trained in float; it stays as it is.
        scheme: The engine's dialect, with its operators.
        batches: Calibration samples.
        method: How the first ranges are made; see :data:`edgekit.quantization.ranges.RANGE_METHODS`.
        weight_bits: 8, or 4: weights on 16 levels, which are computed with as int8 none the less.

    Raises:
        TrainingError: The scheme or ``weight_bits`` asks for what is not done here; the module cannot be traced, has a
            BatchNorm without statistics, nothing that can be quantised, or fake-quantisers already.
        DataError: Samples are missing, constant or not finite.
        UnknownName: There is no such method.
    """
    require_trainable(scheme, weight_bits)
    if method not in RANGE_METHODS:
        raise UnknownName("range method", method, RANGE_METHODS)
    if any(isinstance(part, LearnedStep) for part in module.modules()):
        raise TrainingError(
            "this module has fake-quantisers already", fix="prepare the float network, or train on with the one given"
        )
    calibration, example = _calibration(batches)
    traced = folded(module, example)
    device = device_of(traced)
    skeleton = skeleton_of(traced, shapes_of(traced, to_torch(example, device)))
    names, same = activations(skeleton.proto, scheme.operators)
    statistics = _statistics(traced, calibration, names, histograms=method in NEEDS_HISTOGRAM)
    unfit = {name: why for name, one in statistics.items() if (why := why_unfit(one)) is not None}
    unfit |= {name: unfit[of] for name, of in same.items() if of in unfit}
    placing = place(skeleton.proto, scheme.operators, {}, unfit)
    operators = {node.name: node.op_type for node in skeleton.proto.graph.node}
    _quantise_weights(traced, operators, placing, scheme, weight_bits)
    nodes = {node.name: node for node in traced.graph.nodes}
    steps = {
        name: _activation_step(range_of(one, method), scheme, ends_of(traced, nodes[name])).to(device)
        for name, one in statistics.items()
        if name not in unfit
    }
    _quantise_activations(traced, skeleton, placing, scheme, steps, same)
    traced.graph.lint()
    traced.recompile()
    return traced


def require_trainable(scheme: Scheme, weight_bits: int) -> None:
    """Refuses a scheme whose fake-quantisers cannot be placed here.

    Raises:
        TrainingError: It is NNCF's, has asymmetric weights or products of which one factor stays in float; or weights
            are to have other than 4 or 8 bits.
    """
    if weight_bits not in (4, 8):
        raise TrainingError("weight_bits cannot be trained for", found=weight_bits, allowed="4 or 8")
    wrong: tuple[str, object, object] | None = None
    if not scheme.operators or scheme.preset is not None:
        wrong = "operators", "none: the engine's own tool places the quantisers", "operator types with their inputs"
    elif not scheme.weight_symmetric:
        wrong = "weight_symmetric", False, True
    elif any(not {0, 1} <= set(scheme.operators.get(kind, (0, 1))) for kind in PRODUCTS):
        wrong = "operators", "a product of which not both factors are in int8", "inputs 0 and 1 of each"
    if wrong is not None:
        raise TrainingError(
            f"scheme {scheme.name!r}: its {wrong[0]} cannot be trained for",
            found=wrong[1],
            allowed=wrong[2],
            fix="train for the scheme of onnxruntime, or use post-training int8",
        )


def _calibration(batches: Batches) -> tuple[CalibrationBatches, dict[str, Array]]:
    """All batches, looked at as they are read; and the first."""
    if not len(batches):
        raise DataError("no calibration samples", found="0 samples", allowed="at least 1; 100 to 300 are usual")
    first = next(iter(batches))
    specs = [TensorSpec(name=name, dtype=a.dtype.name, shape=("n", *a.shape[1:])) for name, a in first.items()]
    checked = CalibrationBatches(data=batches, inputs=tuple(specs))
    return checked, next(iter(checked))


def _statistics(
    traced: fx.GraphModule, batches: Iterable[Mapping[str, Array]], names: Iterable[str], *, histograms: bool
) -> dict[str, TensorStatistics]:
    found = {name: TensorStatistics(histogram=Histogram() if histograms else None) for name in names}
    device = device_of(traced)

    def note(name: str, value: Tensor) -> None:
        if name in found and value.is_floating_point():
            found[name].add(value.float().cpu().numpy())

    for batch in batches:
        walk(traced, to_torch(batch, device), note)
    return found


def _quantise_weights(
    traced: fx.GraphModule, operators: Mapping[str, str], placing: Placing, scheme: Scheme, bits: int
) -> None:
    """Puts a fake-quantiser on the weights of each layer in int8, in place."""
    kinds: dict[str, set[str]] = {}
    for node in traced.graph.nodes:
        kind = operators.get(node.name)
        if node.name in placing.nodes and kind in PRODUCTS:
            kinds.setdefault(str(node.target), set()).add(kind)
    if not kinds:
        raise TrainingError(
            "nothing in this module can be quantised",
            found="; ".join(f"{name}: {why}" for name, why in placing.reasons.items())
            or "no convolution and no linear layer that is called as a layer",
            allowed=f"layers that are exported as {' or '.join(k for k in PRODUCTS if k in scheme.operators)}",
        )
    for path, uses in kinds.items():
        layer = traced.get_submodule(path)
        traced.set_submodule(
            path,
            QuantisedLayer(
                layer,
                weight_step(layer.weight.detach(), scheme, bits),
                turned="MatMul" in uses,
                whole_bias=scheme.quantize_bias and all(2 in scheme.operators[kind] for kind in uses),
            ),
        )


def weight_step(weight: Tensor, scheme: Scheme, bits: int = 8) -> LearnedStep:
    """The grid that a layer's weights ``[channels, …]`` begin with.

    Of 8 bits its end is the greatest magnitude, as in post-training int8; of 4, which are too few for that, what leaves
    the least squared error among 29 shares of it.
    """
    low, high = (-8, 7) if bits == 4 else (-64, 64) if scheme.reduce_range else (-127, 127)
    rows = weight.flatten(1) if scheme.per_channel else weight.flatten()[None]
    largest = rows.abs().amax(dim=1)
    # A channel of zeros gets a step too small to matter, as in post-training int8, and a layer of zeros any.
    least = float(largest.max()) * _DEAD
    scale = largest.clamp(min=least if least > 0.0 else 1.0) / high
    if bits == 4:
        tried = torch.stack([scale * share for share in _SHARES])
        errors = [((rows / s[:, None]).round().clamp(low, high) * s[:, None] - rows).square().sum(1) for s in tried]
        scale = tried.gather(0, torch.stack(errors).argmin(0, keepdim=True))[0]
    scale = scale.float() if scheme.per_channel else scale.float()[0]
    zero = torch.zeros_like(scale, dtype=torch.int32)
    axis = 0 if scheme.per_channel else None
    return LearnedStep(scale, zero, low=low, high=high, axis=axis, whole=axis is None)


def _activation_step(
    ends: tuple[float, float], scheme: Scheme, clipped: tuple[float, float] | None = None
) -> LearnedStep:
    """The grid that an activation begins with, as ONNX Runtime's writer makes it of a range.

    Args:
        ends: Least and greatest value.
        scheme: Signed or not, symmetric or not.
        clipped: Between what the operator before keeps it.
    """
    low, high = _SIGNED if scheme.activation_signed else _UNSIGNED
    least, greatest = min(ends[0], 0.0), max(ends[1], 0.0)
    if scheme.activation_symmetric:
        zero = 0 if scheme.activation_signed or least == 0.0 else 128
        scale = max(-least / max(zero - low, 1), greatest / (high - zero))
    else:
        scale = (greatest - least) / (high - low)
        zero = round(low - least / scale) if scale else 0
    largest = math.inf
    if clipped is not None and clipped[0] == 0.0 and zero == low:
        largest = clipped[1] / (high - low)  # beyond it the grid would have levels that no value reaches
    return LearnedStep(
        torch.tensor(scale or 1.0, dtype=torch.float32),
        torch.tensor(zero, dtype=torch.int32),
        low=low,
        high=high,
        largest=largest,
    )


def _quantise_activations(
    traced: fx.GraphModule,
    skeleton: Skeleton,
    placing: Placing,
    scheme: Scheme,
    steps: Mapping[str, LearnedStep],
    same: Mapping[str, str],
) -> None:
    """Puts a fake-quantiser before each reader that reads int8, in place; one step a tensor and its like."""
    operators = {node.name: node for node in skeleton.proto.graph.node}
    clipped = _clipped(skeleton, placing, same)

    def reads_int8(user: fx.Node, name: str) -> bool:
        if user.op != "output" and skeleton.alias[user.name] != user.name:
            return False  # what comes out of it is quantised for those who read that
        if name in placing.tensors:
            return True
        inner = operators.get(user.name)
        if inner is None or user.name not in placing.nodes:
            return False
        places = scheme.operators[inner.op_type]
        return any(read == name and (not places or at in places) for at, read in enumerate(inner.input))

    for node in list(traced.graph.nodes):
        name = skeleton.alias.get(node.name, "")
        step = steps.get(same.get(name, name))
        if step is None or name in clipped or node.op == "output":
            continue
        users = [user for user in node.users if reads_int8(user, name)]
        if not users:
            continue
        path = f"{RANGES}.{same.get(name, name)}"
        traced.add_submodule(path, step)
        with traced.graph.inserting_after(node):
            pair = traced.graph.call_module(path, (node,))
        for user in users:
            user.replace_input_with(node, pair)


def _clipped(skeleton: Skeleton, placing: Placing, same: Mapping[str, str]) -> set[str]:
    """Tensors that only a ReLU or another clip in int8 reads: what comes out of that is quantised, with their range."""
    found = set()
    for node in skeleton.proto.graph.node:
        if node.op_type in ("Relu", "Clip") and node.name in placing.nodes:
            (read,) = node.input[:1]
            if read in same and same[read] == same.get(node.output[0], node.output[0]):
                found.add(read)
    return found
