"""Small networks of every kind that a student is cut out of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES = 3


class Residual(nn.Module):
    """A basic block; with a stride or a wider output it changes the shape."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        same = before == after and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.shortcut(x) + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


class ResNet(nn.Module):
    """Two stages, the second strided and wider. Input ``[n, 3, 8, 8]``."""

    def __init__(self, blocks: int = 4, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.layer1 = nn.Sequential(*(Residual(width, width) for _ in range(blocks)))
        self.layer2 = nn.Sequential(
            Residual(width, 2 * width, 2), *(Residual(2 * width, 2 * width) for _ in range(blocks - 1))
        )
        self.fc = nn.Linear(2 * width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer2(self.layer1(self.stem(x))).mean((2, 3)))


class Mobile(nn.Module):
    """Depthwise and grouped convolutions, GroupNorm, concatenation, flattening. Input ``[n, 3, 8, 8]``."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 8, 3, 2, 1)
        self.right = nn.Conv2d(3, 16, 3, 2, 1)
        self.depthwise = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.point = nn.Conv2d(24, 16, 1)
        self.norm = nn.GroupNorm(4, 16)
        self.grouped = nn.Conv2d(16, 16, 3, 2, 1, groups=2)
        self.fc = nn.Linear(16 * 4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([self.left(x), self.right(x)], 1)
        point = torch.relu(self.norm(self.point(torch.relu(self.depthwise(both)))))
        return self.fc(self.grouped(point).flatten(1))


class Encoder(nn.Module):
    """torch's own transformer over tokens. Input: ids ``[n, 6]``."""

    def __init__(self, layers: int = 4, width: int = 16, *, learned: bool = True) -> None:
        super().__init__()
        self.tokens = nn.Embedding(50, width, padding_idx=0)
        places = torch.randn(6, width) * 0.1
        if learned:
            self.places = nn.Parameter(places)
        else:
            self.register_buffer("places", places)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.encoder(self.tokens(ids) + self.places[: ids.shape[1]]).mean(1)))


class Attention(nn.Module):
    """Attention as users write it, which remembers its sizes; query, key and value in one layer or in three."""

    def __init__(self, width: int, heads: int, *, fused: bool) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.fused = heads, width // heads, fused
        if fused:
            self.qkv = nn.Linear(width, 3 * width)
        else:
            self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        if self.fused:
            q, k, v = self.qkv(x).reshape(n, length, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            layers = (self.query, self.key, self.value)
            q, k, v = (layer(x).view(n, length, -1, self.head_dim).transpose(1, 2) for layer in layers)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(n, length, self.num_heads * self.head_dim))


class Block(nn.Module):
    """A transformer block, normalised first."""

    def __init__(self, width: int, heads: int, *, fused: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, fused=fused)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Vision(nn.Module):
    """A vision transformer with a class token. Input ``[n, 3, 8, 8]``."""

    def __init__(self, layers: int = 4, width: int = 24, *, fused: bool = True) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.1)
        self.places = nn.Parameter(torch.randn(1, 5, width) * 0.1)
        self.blocks = nn.ModuleList(Block(width, 4, fused=fused) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class Bag(nn.Module):
    """A mean of embeddings. Input: ids ``[n, 6]``."""

    def __init__(self, words: int = 50, width: int = 16) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width, padding_idx=0)
        self.hidden = nn.Linear(width, 12)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.relu(self.hidden(self.words(ids).mean(1))))


class Recurrent(nn.Module):
    """A convolution, a recurrent layer, a perceptron. Input ``[n, 5, 4]``."""

    def __init__(self, kind: str = "GRU") -> None:
        super().__init__()
        self.before = nn.Linear(4, 8)
        self.rnn = getattr(nn, kind)(8, 6, batch_first=True)
        self.hidden = nn.Linear(6, 8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.hidden(self.rnn(self.before(x))[0][:, -1])))


class Written(nn.Module):
    """Writes a size down as a number. Input ``[n, 4]``."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).view(-1, 2, 4).sum(1))


INPUTS = {
    "images": torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)),
    "ids": torch.randint(0, 50, (4, 6), generator=torch.Generator().manual_seed(0)),
    "sequences": torch.rand(4, 5, 4, generator=torch.Generator().manual_seed(0)),
    "rows": torch.rand(4, 4, generator=torch.Generator().manual_seed(0)),
}
NETS = {
    "resnet": (ResNet, "images"),
    "mobile": (Mobile, "images"),
    "encoder": (Encoder, "ids"),
    "sinusoids": (lambda: Encoder(learned=False), "ids"),
    "fused": (Vision, "images"),
    "separate": (lambda: Vision(fused=False), "images"),
    "bag": (Bag, "ids"),
    "gru": (Recurrent, "sequences"),
    "lstm": (lambda: Recurrent("LSTM"), "sequences"),
}


def make_net(name: str, seed: int = 0) -> tuple[nn.Module, dict[str, Tensor]]:
    """A network of :data:`NETS` with BatchNorms that have seen data, and a batch for it."""
    make, kind = NETS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = make()
        net(INPUTS[kind])  # in training mode: running statistics
    return net.eval(), {"input": INPUTS[kind]}
