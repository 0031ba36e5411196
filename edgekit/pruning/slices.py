"""Which parameters of a layer belong to which of its channels."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

Values = Callable[[Tensor], Tensor]
"""From a parameter to values of the same shape."""


def channel_sums(layer: nn.Module, takes: bool, values: Values, *, biases: bool) -> Tensor | None:
    """Sums values of a layer's parameters over what belongs to each of its channels.

    Args:
        layer: A linear layer, convolution, embedding, norm or attention of torch.
        takes: Of the channels that it takes, rather than of those that it gives.
        values: Of a parameter.
        biases: Whether biases, and offsets of norms, count too.

    Returns:
        ``[channels]``, or None where nothing of the layer counts.
    """
    if isinstance(layer, nn.MultiheadAttention):
        return _of_attention(layer, values, biases)
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    if weight is None:
        return None
    if isinstance(layer, nn.Linear):
        total = values(weight).sum(0 if takes else 1)
    elif isinstance(layer, _ConvNd):
        total = _of_convolution(layer, takes, values(weight))
    elif isinstance(layer, nn.Embedding):
        return values(weight).sum(0)
    elif isinstance(layer, (_NormBase, nn.GroupNorm, nn.LayerNorm)):
        total = values(weight)
    else:
        return None
    if total.ndim != 1:
        return None
    return total + values(bias) if biases and bias is not None and not takes else total


def _of_convolution(layer: _ConvNd, takes: bool, values: Tensor) -> Tensor:
    """Sums ``[in_channels]`` or ``[out_channels]`` over a convolution's weights."""
    flat = values.flatten(2).sum(2)  # [out, in / groups], transposed [in, out / groups]
    if takes == layer.transposed or layer.groups == layer.out_channels > 1:
        return flat.sum(1)
    return flat.view(layer.groups, -1, flat.shape[1]).sum(1).flatten()


def _of_attention(layer: nn.MultiheadAttention, values: Values, biases: bool) -> Tensor:
    """Sums ``[embed_dim]`` over all that a channel of the stream takes part in."""
    out = values(layer.out_proj.weight)
    total = out.sum(0) + out.sum(1)
    if layer.in_proj_weight is not None:
        given = values(layer.in_proj_weight)
        total = total + given.sum(0) + given.sum(1).view(3, -1).sum(0)
    else:
        total = total + sum(
            values(weight).sum(1) for weight in (layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight)
        )
    if biases and layer.in_proj_bias is not None:
        total = total + values(layer.in_proj_bias).view(3, -1).sum(0) + values(layer.out_proj.bias)
    return total
