"""Models as other tools write them: opsets 9 to 23, every kind of input, output, size and state; made, not stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

Shapes = dict[str, tuple[int, ...]]


def weights(seed: int, *shape: int) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def graph(text: str, opset: int, ir: int = 8, **constants: np.ndarray) -> onnx.ModelProto:
    """A model from ONNX text and constants by name."""
    proto = onnx.parser.parse_model(f'<ir_version: {ir}, opset_import: ["" : {opset}]>\n{text}')
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    return proto


def old_convolutions() -> onnx.ModelProto:
    """Opset 9, IR 3: initialisers are listed as inputs, and sizes are attributes."""
    constants = {"w0": weights(0, 8, 3, 3, 3), "b0": weights(1, 8), "w1": weights(2, 5, 8), "b1": weights(3, 5)}
    proto = graph(
        """g (float[1, 3, 16, 16] image) => (float[1, 5] logits) {
            c = Conv<pads=[1, 1, 1, 1], kernel_shape=[3, 3]>(image, w0, b0)
            r = Relu(c)
            p = GlobalAveragePool(r)
            s = Squeeze<axes=[2, 3]>(p)
            logits = Gemm<transB=1>(s, w1, b1)
        }""",
        9,
        ir=3,
        **constants,
    )
    for tensor in proto.graph.initializer:
        proto.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return proto


def detector() -> onnx.ModelProto:
    """Opset 11: two heads over one open batch, boxes and scores of every anchor."""
    return graph(
        """g (float[N, 3, 32, 32] image) => (float[N, A, 4] boxes, float[N, A, 2] scores)
        <int64[3] by4 = {0, -1, 4}, int64[3] by2 = {0, -1, 2}> {
            c = Conv<pads=[1, 1, 1, 1], strides=[4, 4]>(image, w0)
            r = Relu(c)
            b = Conv(r, w1)
            bt = Transpose<perm=[0, 2, 3, 1]>(b)
            boxes = Reshape(bt, by4)
            s = Conv(r, w2)
            st = Transpose<perm=[0, 2, 3, 1]>(s)
            sr = Reshape(st, by2)
            scores = Softmax<axis=2>(sr)
        }""",
        11,
        w0=weights(0, 8, 3, 3, 3),
        w1=weights(1, 8, 8, 1, 1),
        w2=weights(2, 4, 8, 1, 1),
    )


def boxes_of_one_picture() -> onnx.ModelProto:
    """Opset 13: boxes without a batch axis, as detectors give that were exported for one picture."""
    return graph(
        """g (float[1, 3, 32, 32] image) => (float[256, 4] boxes, float best) <int64[2] by4 = {-1, 4}> {
            c = Conv<pads=[1, 1, 1, 1], strides=[4, 4]>(image, w0)
            r = Relu(c)
            b = Conv(r, w1)
            bt = Transpose<perm=[0, 2, 3, 1]>(b)
            boxes = Reshape(bt, by4)
            best = ReduceMax<keepdims=0>(boxes)
        }""",
        13,
        w0=weights(0, 8, 3, 3, 3),
        w1=weights(1, 16, 8, 1, 1),
    )


def lstm() -> onnx.ModelProto:
    """Opset 14: two layers whose state goes in and comes out by layer, [2, batch, hidden], beside [batch, time, …]."""
    return graph(
        """g (float[batch, time, 6] x, float[2, batch, 8] h, float[2, batch, 8] c)
            => (float[batch, time, 4] y, float[2, batch, 8] hn, float[2, batch, 8] cn)
        <int64[1] first = {0}, int64[1] second = {1}, int64[1] end = {2}, int64[1] direction = {1}> {
            xt = Transpose<perm=[1, 0, 2]>(x)
            h0 = Slice(h, first, second)
            h1 = Slice(h, second, end)
            c0 = Slice(c, first, second)
            c1 = Slice(c, second, end)
            y0, hn0, cn0 = LSTM<hidden_size=8>(xt, w0, r0, "", "", h0, c0)
            y0s = Squeeze(y0, direction)
            y1, hn1, cn1 = LSTM<hidden_size=8>(y0s, w1, r1, "", "", h1, c1)
            y1s = Squeeze(y1, direction)
            hn = Concat<axis=0>(hn0, hn1)
            cn = Concat<axis=0>(cn0, cn1)
            yt = Transpose<perm=[1, 0, 2]>(y1s)
            y = MatMul(yt, w)
        }""",
        14,
        w0=weights(0, 1, 32, 6) * 5,
        r0=weights(1, 1, 32, 8) * 5,
        w1=weights(2, 1, 32, 8) * 5,
        r1=weights(3, 1, 32, 8) * 5,
        w=weights(4, 8, 4),
    )


def gru() -> onnx.ModelProto:
    """Opset 17: time comes first on axis 0, [time, 1, …], and the last state is the only output."""
    return graph(
        """g (float[time, 1, 6] x) => (float[1, 1, 8] last) {
            y, last = GRU<hidden_size=8, linear_before_reset=1>(x, w, r)
        }""",
        17,
        w=weights(0, 1, 24, 6) * 5,
        r=weights(1, 1, 24, 8) * 5,
    )


def encoder() -> onnx.ModelProto:
    """Opset 20: tokens and an attention mask in int64, open batch and length, one head of attention, mean pooling."""
    return graph(
        """g (int64[batch, length] ids, int64[batch, length] mask)
            => (float[batch, length, 16] hidden, float[batch, 16] pooled)
        <float one = {1}, float far = {-10000}, int64[1] last = {-1}, int64[1] middle = {1}, float scale = {0.25}> {
            e = Gather(table, ids)
            q = MatMul(e, wq)
            k = MatMul(e, wk)
            v = MatMul(e, wv)
            kt = Transpose<perm=[0, 2, 1]>(k)
            qk = MatMul(q, kt)
            scaled = Mul(qk, scale)
            m = Cast<to=1>(mask)
            off = Sub(one, m)
            bias = Mul(off, far)
            wide = Unsqueeze(bias, middle)
            masked = Add(scaled, wide)
            a = Softmax<axis=-1>(masked)
            av = MatMul(a, v)
            res = Add(av, e)
            hidden = LayerNormalization<axis=-1>(res, gamma, beta)
            m3 = Unsqueeze(m, last)
            kept = Mul(hidden, m3)
            total = ReduceSum<keepdims=0>(kept, middle)
            count = ReduceSum<keepdims=0>(m3, middle)
            some = Max(count, one)
            pooled = Div(total, some)
        }""",
        20,
        ir=9,
        table=weights(0, 30, 16) * 4,
        wq=weights(1, 16, 16),
        wk=weights(2, 16, 16),
        wv=weights(3, 16, 16),
        gamma=np.ones(16, np.float32),
        beta=np.zeros(16, np.float32),
    )


def any_picture_size() -> onnx.ModelProto:
    """Opset 21: open batch, height and width, none with a name; the picture comes out twice as large."""
    proto = graph(
        """g (float[N, 3, H, W] image) => (float[N, 3, H2, W2] large) <float[4] scales = {1, 1, 2, 2}> {
            c = Conv<pads=[1, 1, 1, 1]>(image, w0)
            r = Relu(c)
            d = Conv<pads=[1, 1, 1, 1]>(r, w1)
            large = Resize<mode="nearest">(d, "", scales)
        }""",
        21,
        ir=10,
        w0=weights(0, 8, 3, 3, 3),
        w1=weights(1, 3, 8, 3, 3),
    )
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            dim.ClearField("dim_param")
    return proto


def new_operators() -> onnx.ModelProto:
    """Opset 23: RMSNormalization."""
    return graph(
        """g (float[batch, 12] x) => (float[batch, 6] y) {
            n = RMSNormalization<axis=-1>(x, gamma)
            g = Gelu(n)
            y = MatMul(g, w)
        }""",
        23,
        ir=11,
        gamma=np.ones(12, np.float32),
        w=weights(0, 12, 6),
    )


def scalars_and_flags() -> onnx.ModelProto:
    """Opset 13: a scalar, a flag that chooses a branch, and a vector without a batch."""
    return graph(
        """g (float[8] x, float gain, bool loud) => (float gained, float[4] y) {
            wx = MatMul(x, w)
            y = If (loud) <then_branch = yes () => (float[4] a) { a = Mul(wx, gain) },
                           else_branch = no () => (float[4] b) { b = Relu(wx) }>
            gained = Neg(gain)
        }""",
        13,
        w=weights(0, 8, 4),
    )


def loop() -> onnx.ModelProto:
    """Opset 16: a loop whose count is a constant, and that sees a tensor from outside."""
    return graph(
        """g (float[batch, 4] x) => (float[batch, 4] y) <int64 times = {3}, bool on = {1}> {
            y = Loop (times, on, x) <body = b (int64 i, bool c, float[batch, 4] s) => (bool again, float[batch, 4] t) {
                again = Identity(c)
                m = MatMul(s, w)
                t = Add(m, x)
            }>
        }""",
        16,
        w=weights(0, 4, 4),
    )


def two_kinds() -> onnx.ModelProto:
    """Opset 15: pixels in uint8 and a float vector of one open batch, a padded output and one that is left out."""
    return graph(
        """g (uint8[n, 8, 8, 3] pixels, float[n, 5] facts) => (float[n, 7] y, float[n, 4] tops)
        <float scale = {0.00392}, int64[1] four = {4}> {
            f = Cast<to=1>(pixels)
            u = Mul(f, scale)
            t = Transpose<perm=[0, 3, 1, 2]>(u)
            c = Conv(t, w0)
            r = Relu(c)
            p = GlobalAveragePool(r)
            v = Flatten(p)
            j = Concat<axis=1>(v, facts)
            y = MatMul(j, w1)
            tops, = TopK(y, four)
        }""".replace("tops, = ", "tops, _unused = "),
        15,
        w0=weights(0, 6, 3, 3, 3),
        w1=weights(1, 11, 7),
    )


def suppressed_boxes() -> onnx.ModelProto:
    """Opset 11: as many boxes come out as are left after suppression."""
    return graph(
        """g (float[1, 20, 4] boxes, float[1, 1, 20] scores) => (int64[kept, 3] chosen)
        <int64 most = {10}, float overlap = {0.5}> { chosen = NonMaxSuppression(boxes, scores, most, overlap) }""",
        11,
    )


def half_precision() -> onnx.ModelProto:
    """Opset 13: weights, input and output in float16."""
    return graph(
        "g (float16[n, 8] x) => (float16[n, 4] y) { y = MatMul(x, w) }", 13, w=weights(0, 8, 4).astype(np.float16)
    )


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """A model and what it takes to deploy it.

    Attributes:
        make: Makes it.
        samples: Shape of one sample by input, as files hold them: ``[n, *shape]``.
        inputs: ``--input`` texts that take the place of samples.
        taken: Shapes of the bundle's inputs.
        given: Shapes of the bundle's outputs.
        int8: Whether the engines compute something of it in int8.
    """

    make: Callable[[], onnx.ModelProto]
    samples: Shapes
    inputs: tuple[str, ...] = ()
    taken: Shapes
    given: Shapes
    int8: bool = True


ZOO = {
    "opset 9, initialisers as inputs": Elsewhere(
        make=old_convolutions,
        samples={"image": (3, 16, 16)},
        taken={"image": (1, 3, 16, 16)},
        given={"logits": (1, 5)},
    ),
    "opset 11, detector": Elsewhere(
        make=detector,
        samples={"image": (3, 32, 32)},
        taken={"image": (1, 3, 32, 32)},
        given={"boxes": (1, 128, 4), "scores": (1, 128, 2)},
    ),
    "opset 13, boxes of one picture": Elsewhere(
        make=boxes_of_one_picture,
        samples={"image": (3, 32, 32)},
        taken={"image": (1, 3, 32, 32)},
        given={"boxes": (1, 256, 4), "best": (1,)},
    ),
    "opset 14, state by layer": Elsewhere(
        make=lstm,
        samples={"x": (5, 6), "h": (2, 1, 8), "c": (2, 1, 8)},
        inputs=("x=f32[1,5,6]",),
        taken={"x": (1, 5, 6), "h": (1, 2, 1, 8), "c": (1, 2, 1, 8)},
        given={"y": (1, 5, 4), "hn": (1, 2, 1, 8), "cn": (1, 2, 1, 8)},
    ),
    "opset 17, time first": Elsewhere(
        make=gru,
        samples={"x": (9, 1, 6)},
        inputs=("x=f32[9,1,6]",),
        taken={"x": (1, 9, 1, 6)},
        given={"last": (1, 1, 8)},
        int8=False,
    ),
    "opset 20, encoder": Elsewhere(
        make=encoder,
        samples={"ids": (12,), "mask": (12,)},
        inputs=("ids=i64[1,12]", "mask=i64[1,12]"),
        taken={"ids": (1, 12), "mask": (1, 12)},
        given={"hidden": (1, 12, 16), "pooled": (1, 16)},
    ),
    "opset 21, any picture size": Elsewhere(
        make=any_picture_size,
        samples={"image": (3, 10, 14)},
        inputs=("image=f32[1,3,10,14]",),
        taken={"image": (1, 3, 10, 14)},
        given={"large": (1, 3, 20, 28)},
    ),
    "opset 23, new operators": Elsewhere(
        make=new_operators, samples={"x": (12,)}, taken={"x": (1, 12)}, given={"y": (1, 6)}
    ),
    "opset 13, scalars and flags": Elsewhere(
        make=scalars_and_flags,
        samples={"x": (8,), "gain": (), "loud": ()},
        taken={"x": (1, 8), "gain": (1,), "loud": (1,)},
        given={"gained": (1,), "y": (1, 4)},
    ),
    "opset 16, loop": Elsewhere(make=loop, samples={"x": (4,)}, taken={"x": (1, 4)}, given={"y": (1, 4)}, int8=False),
    "opset 15, two kinds of input": Elsewhere(
        make=two_kinds,
        samples={"pixels": (8, 8, 3), "facts": (5,)},
        taken={"pixels": (1, 8, 8, 3), "facts": (1, 5)},
        given={"y": (1, 7), "tops": (1, 4)},
    ),
}


def write_samples(path: Path, proto: onnx.ModelProto, samples: Shapes, count: int, seed: int = 0) -> None:
    """Writes random samples of a model's inputs as ``.npz``."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for value in proto.graph.input:
        if value.name in samples:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            shape = (count, *samples[value.name])
            high = {"uint8": 256, "bool": 2}.get(dtype.name, 2 if value.name == "mask" else 30)
            values = rng.normal(size=shape) if dtype.kind == "f" else rng.integers(0, high, shape)
            arrays[value.name] = values.astype(dtype)
    np.savez(path, **arrays)
