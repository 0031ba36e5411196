"""k-means codebooks: weights share few values, for the download; the engine decodes them when it opens the model.

S. Han, H. Mao, W. J. Dally, "Deep Compression", ICLR 2016, arXiv:1510.00149, section 3, without its Huffman code; each
output channel has a scale besides. Decoding is in the graph (Cast, Gather, Reshape, Mul of constants), which engines
fold: nothing of ours runs on the device, and a query takes as long as in float.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekit.artifact import Array
from edgekit.quantization.graphs import attribute, values_of, wiring_of

if TYPE_CHECKING:
    import onnx

    from edgekit.artifact import Artifact

INDICES = "/codebook-indices"  # ends the name of every tensor of indices
_ROUNDS = 300
_CELLS = 4096
# The axis of output channels in a layer's weights. Gemm has its own rule.
_CHANNELS = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1, "LSTM": 1, "GRU": 1, "RNN": 1, "Gather": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Coded:
    """What became of a model's weights.

    Attributes:
        tensors: Names of those that are in codebooks now.
        kept: Names of nodes whose weights were left as they were because the plan says so.
        bytes_before: Bytes of the tensors in float.
        bytes_after: Bytes of their indices, codebooks and scales.
    """

    tensors: tuple[str, ...]
    kept: tuple[str, ...]
    bytes_before: int
    bytes_after: int


def store_codebooks(proto: onnx.ModelProto, bits: int, float_nodes: Collection[str] = ()) -> Coded:
    """Puts the constant weights of layers and embeddings into codebooks of ``2 ** bits`` values, in place.

    A tensor that would not get smaller by half stays; one of 4 bits with an odd number of values gets 8.

    Args:
        proto: A float model.
        bits: 4 or 8.
        float_nodes: Names of nodes whose weights are left alone.
    """
    wiring = wiring_of(proto)
    nodes: list[onnx.NodeProto] = []
    tensors: dict[str, list[onnx.TensorProto]] = {}
    kept: list[str] = []
    before = 0
    for tensor in list(wiring.constants.values()):
        readers = [node for node in wiring.readers.get(tensor.name, ()) if tensor.name in _weights(node)]
        if not readers:
            continue
        if any(node.name in float_nodes for node in readers):
            kept += [node.name for node in readers if node.name in float_nodes]
            continue
        weights = values_of(tensor)
        axis = _axis(readers[0], weights.ndim)
        made = _coded(tensor.name, weights, axis, bits if weights.size % 2 == 0 else 8)
        if 2 * _bytes(made) > weights.nbytes:
            continue
        tensors[tensor.name] = made
        nodes += _decoding(tensor.name, [t.name for t in made])
        before += weights.nbytes
    constants = [tensor for tensor in proto.graph.initializer if tensor.name not in tensors]
    coded = [tensor for made in tensors.values() for tensor in made]
    rest = list(proto.graph.node)
    del proto.graph.initializer[:], proto.graph.node[:]
    proto.graph.initializer.extend([*constants, *coded])
    proto.graph.node.extend([*nodes, *rest])
    return Coded(
        tensors=tuple(tensors), kept=tuple(dict.fromkeys(kept)), bytes_before=before, bytes_after=_bytes(coded)
    )


def codebooks_in(artifact: Artifact) -> int:
    """How many tensors of an ONNX or IR artifact are stored as indices into a codebook."""
    if artifact.path.suffix == ".onnx":
        import onnx

        graph = onnx.load(str(artifact.path), load_external_data=False).graph
        return sum(tensor.name.endswith(INDICES) for tensor in graph.initializer)
    if artifact.path.suffix != ".xml":
        return 0
    from edgekit.runtime.openvino import engine_errors

    with engine_errors(f"read {artifact.model}"):
        import openvino

        nodes = openvino.Core().read_model(str(artifact.path)).get_ordered_ops()
        return sum(str(node.get_friendly_name()).endswith(INDICES) for node in nodes)


def cluster(values: Array, count: int) -> Array:
    """The ``count`` values nearest to all of ``values`` in the mean square, as far as Lloyd's iteration finds them.

    It starts where the density of values to the power 1/3 puts them (P. Panter, W. Dite, "Quantization distortion in
    pulse-count modulation with nonuniform spacing of levels", Proc. IRE 39, 1951), which is best for many levels.

    Args:
        values: Any shape.
        count: How many.

    Returns:
        float64[count], ascending.
    """
    ordered = np.sort(values, axis=None).astype(np.float64)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    # Cells of equal mass: their density to the power 1/3, times their width, is their width to the power 2/3.
    edges = ordered[np.linspace(0, len(ordered) - 1, _CELLS + 1).astype(np.int64)]
    share = np.concatenate([[0.0], np.cumsum(np.cbrt(np.diff(edges)) ** 2)])
    centres: Array = np.interp((np.arange(count) + 0.5) / count * share[-1], share, edges)
    for _ in range(_ROUNDS):
        borders = np.searchsorted(ordered, (centres[1:] + centres[:-1]) / 2)
        bounds = np.concatenate([[0], borders, [len(ordered)]])
        counts = np.diff(bounds)
        moved = np.where(counts > 0, np.diff(sums[bounds]) / np.maximum(counts, 1), centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres


def _weights(node: onnx.NodeProto) -> list[str]:
    """Names of a node's inputs that are weights where they are constant."""
    if node.op_type in ("LSTM", "GRU", "RNN"):
        return list(node.input[1:3])
    if node.op_type == "Gather":
        return [node.input[0]]
    return list(node.input[1:2]) if node.op_type in (*_CHANNELS, "Gemm") else []


def _axis(node: onnx.NodeProto, rank: int) -> int:
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return int(_CHANNELS[node.op_type] % rank)


def _coded(name: str, weights: Array, axis: int, bits: int) -> list[onnx.TensorProto]:
    """Codebook, indices, shape and scales of a tensor, each output channel measured in its own root mean square."""
    from onnx.numpy_helper import from_array

    others = tuple(i for i in range(weights.ndim) if i != axis)
    wide = weights.astype(np.float64)
    scale = np.sqrt(np.square(wide).mean(others, keepdims=True))
    scale[scale == 0.0] = 1.0
    centres = cluster(wide / scale, 2**bits)
    indices = np.searchsorted((centres[1:] + centres[:-1]) / 2, wide / scale)
    near = centres[indices]
    energy = np.square(near).sum(others, keepdims=True)
    fitted = np.where(energy > 0.0, (wide * near).sum(others, keepdims=True) / np.maximum(energy, 1e-300), scale)
    codes, book = indices.astype(np.uint8).ravel(), centres
    if bits == 4:  # two a byte, and the codebook holds both values of every byte
        codes = codes[0::2] | (codes[1::2] << 4)
        book = np.stack([np.tile(centres, 16), np.repeat(centres, 16)], axis=1)
    return [
        from_array(book.astype(np.float32), f"{name}/codebook"),
        from_array(codes, f"{name}{INDICES}"),
        from_array(np.array(weights.shape, np.int64), f"{name}/codebook-shape"),
        from_array(fitted.astype(np.float32), f"{name}/codebook-scales"),
    ]


def _decoding(name: str, constants: list[str]) -> list[onnx.NodeProto]:
    from onnx import TensorProto
    from onnx.helper import make_node

    book, codes, shape, scales = constants
    steps = [f"{name}/codebook-{step}" for step in ("cast", "gather", "reshape")]
    return [
        make_node("Cast", [codes], [steps[0]], steps[0], to=TensorProto.INT32),
        make_node("Gather", [book, steps[0]], [steps[1]], steps[1], axis=0),
        make_node("Reshape", [steps[1], shape], [steps[2]], steps[2]),
        make_node("Mul", [steps[2], scales], [name], f"{name}/codebook-scaled"),
    ]


def _bytes(tensors: list[onnx.TensorProto]) -> int:
    return sum(len(tensor.raw_data) for tensor in tensors)
