"""The networks of the zoo: public architectures with fixed random weights, and samples with structure for each.

A network's statistics are made sane first, as training would: scales and shifts that start as constants (among them the
zeros that switch residual branches and heads off) are drawn at random, and the running statistics of every batch
normalisation are those of real passes. Nothing is downloaded.
"""

from __future__ import annotations

import math
import os
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

TOKENS, LENGTH = 1000, 32
CALIBRATION, TEST = 32, 64
TRAIN = 4 * CALIBRATION  # of which a quarter is kept for the choice of plans


@dataclass(frozen=True, kw_only=True)
class Row:
    """One network.

    Attributes:
        source: ``torchvision``, ``timm``, ``transformers``, or ``onnx`` for a file of EDGEKIT_DATA.
        name: Its name there.
        size: Side of the square images, length of the text, or samples of sound.
        kind: ``image``, ``text``, ``ids`` (text without a mask) or ``sound``; for files by their own inputs.
    """

    source: str
    name: str
    size: int
    kind: str = "image"

    @property
    def key(self) -> str:
        return f"{self.source}/{self.name}"


_TORCHVISION = {
    "alexnet": 96, "convnext_tiny": 64, "deeplabv3_mobilenet_v3_large": 96, "densenet121": 64, "efficientnet_b0": 96,
    "googlenet": 96, "lraspp_mobilenet_v3_large": 96, "mnasnet1_0": 96, "mobilenet_v2": 96, "mobilenet_v3_large": 96,
    "mobilenet_v3_small": 96, "regnet_x_400mf": 96, "regnet_y_400mf": 96, "resnet18": 96, "resnet50": 64,
    "resnext50_32x4d": 64, "shufflenet_v2_x1_0": 96, "squeezenet1_1": 96, "swin_t": 64, "vgg11_bn": 64,
}  # fmt: skip
_TIMM = {
    "cait_xxs24_224": 64, "coat_lite_tiny": 64, "convmixer_768_32": 64, "convnextv2_atto": 96, "crossvit_tiny_240": 240,
    "cspresnet50": 64, "darknet53": 64, "deit_tiny_patch16_224": 96, "dla34": 96, "dpn48b": 64, "edgenext_xx_small": 96,
    "efficientformer_l1": 224, "efficientnet_lite0": 96, "efficientvit_b0": 96, "efficientvit_m0": 224,
    "ese_vovnet19b_dw": 96, "fastvit_t8": 96, "fbnetc_100": 96, "focalnet_tiny_srf": 64, "gernet_s": 96,
    "ghostnet_100": 96, "gmlp_ti16_224": 224, "hardcorenas_a": 96, "hgnetv2_b0": 96, "hiera_tiny_224": 224,
    "hrnet_w18_small": 96, "inception_next_atto": 96, "lcnet_100": 96, "legacy_seresnet18": 96, "levit_128s": 224,
    "mixer_s32_224": 224, "mixnet_s": 96, "mobilenetv4_conv_small": 96, "mobileone_s0": 96, "mobilevit_xxs": 96,
    "mobilevitv2_050": 96, "nest_tiny_jx": 224, "nf_regnet_b0": 96, "pit_ti_224": 224, "poolformer_s12": 64,
    "pvt_v2_b0": 96, "regnetz_005": 96, "repvgg_a0": 96, "repvit_m0_9": 96, "res2net50_26w_4s": 64,
    "resmlp_12_224": 224, "resnet10t": 96, "resnetv2_50": 64, "rexnet_100": 96, "selecsls42b": 96, "semnasnet_075": 96,
    "spnasnet_100": 96, "starnet_s1": 96, "tf_efficientnetv2_b0": 96, "tiny_vit_5m_224": 224, "tinynet_a": 96,
    "twins_svt_small": 64, "vit_tiny_patch16_224": 96, "xcit_nano_12_p16_224": 96,
}  # fmt: skip
_TEXT = ("albert", "bert", "convbert", "deberta-v2", "distilbert", "electra", "mobilebert", "mpnet", "roberta",
         "squeezebert", "t5-encoder")  # fmt: skip
_IDS = ("gpt2", "gpt_neox", "llama", "opt", "qwen2")
_FILES = ("dtln-1", "dtln-2", "fastestdet", "version-RFB-320", "version-slim-320")


def rows() -> list[Row]:
    """Every row, in the order of the table."""
    return [
        *(Row(source="torchvision", name=name, size=size) for name, size in _TORCHVISION.items()),
        *(Row(source="timm", name=name, size=size) for name, size in _TIMM.items()),
        *(Row(source="transformers", name=name, size=LENGTH, kind="text") for name in _TEXT),
        *(Row(source="transformers", name=name, size=LENGTH, kind="ids") for name in _IDS),
        Row(source="transformers", name="segformer", size=96),
        Row(source="transformers", name="vit", size=96),
        Row(source="transformers", name="wav2vec2", size=4000, kind="sound"),
        *(Row(source="onnx", name=name, size=0, kind="file") for name in _FILES),
    ]


def row_of(key: str) -> Row:
    return next(row for row in rows() if row.key == key)


def make(key: str) -> nn.Module:
    """The network of a row, the same on every call; named by the recipes of the zoo."""
    return network_of(row_of(key))


def network_of(row: Row) -> nn.Module:
    """The network that a row describes, the same on every call."""
    torch.manual_seed(zlib.crc32(row.key.encode()))
    build: Callable[[Row], nn.Module] = {"torchvision": _torchvision, "timm": _timm, "transformers": _transformers}[
        row.source
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = build(row)
        settle(module, {name: torch.from_numpy(array) for name, array in samples_of(row, 16, seed=3).items()})
    return module.eval()


def settle(module: nn.Module, inputs: Mapping[str, Tensor]) -> None:
    """Draws what starts as a constant, then takes the statistics of batch normalisations from passes in training."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.numel() > 1 and not bool((parameter - parameter.flatten()[0]).any()):
                _draw(name, parameter)
        norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the average of all passes, nothing of where it started
            norm.train()
        for _ in range(3 if norms else 0):
            module(*inputs.values())
    module.eval()


def _draw(name: str, parameter: Tensor) -> None:
    start = float(parameter.flatten()[0])
    if parameter.ndim > 1 and parameter.shape[0] > 1 and parameter[0].numel() > 1:  # a layer that starts at nothing
        parameter.normal_(0, 1 / math.sqrt(parameter[0].numel()))
    elif name.endswith("bias"):
        parameter.normal_(start, 0.1)
    elif start == 0 or abs(start) < 0.2:  # the scale of a residual branch
        parameter.uniform_(0.2, 0.6)
    else:
        parameter.mul_(torch.empty_like(parameter).uniform_(0.5, 1.5))


class Only(nn.Module):
    """A network that gives one tensor of what another gives."""

    def __init__(self, network: nn.Module, pick: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.network, self.pick = network, pick

    def forward(self, input: Tensor) -> Tensor:
        return self.pick(self.network(input))


class Masked(nn.Module):
    """An encoder fed with tokens and their mask, by position, as its recipe's samples come."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.network(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


def _torchvision(row: Row) -> nn.Module:
    import torchvision.models as models

    if row.name in ("deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"):
        make_one = getattr(models.segmentation, row.name)
        return Only(make_one(weights=None, weights_backbone=None, num_classes=21), lambda found: found["out"])
    extra = {"aux_logits": False, "init_weights": True} if row.name == "googlenet" else {}
    return getattr(models, row.name)(weights=None, num_classes=100, **extra)


def _timm(row: Row) -> nn.Module:
    import timm

    try:
        return timm.create_model(row.name, num_classes=100, img_size=row.size)
    except TypeError:  # networks that take any size have no such argument
        return timm.create_model(row.name, num_classes=100)


def _transformers(row: Row) -> nn.Module:
    import transformers as hf

    sizes = {"vocab_size": TOKENS, "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
    bert = {**sizes, "intermediate_size": 512, "max_position_embeddings": 128}
    wide = {"vocab_size": TOKENS, "max_position_embeddings": 128}
    configs: dict[str, Callable[[], Any]] = {
        "albert": lambda: hf.AlbertConfig(**bert, embedding_size=64),
        "bert": lambda: hf.BertConfig(**bert),
        "convbert": lambda: hf.ConvBertConfig(**bert, embedding_size=64),
        "deberta-v2": lambda: hf.DebertaV2Config(**bert, relative_attention=True, pos_att_type=["p2c", "c2p"]),
        "distilbert": lambda: hf.DistilBertConfig(**wide, dim=128, n_layers=3, n_heads=4, hidden_dim=512),
        "electra": lambda: hf.ElectraConfig(**bert, embedding_size=64),
        "gpt2": lambda: hf.GPT2Config(vocab_size=TOKENS, n_positions=128, n_embd=128, n_layer=3, n_head=4),
        "gpt_neox": lambda: hf.GPTNeoXConfig(**bert),
        "llama": lambda: hf.LlamaConfig(**bert, num_key_value_heads=2),
        "mobilebert": lambda: hf.MobileBertConfig(vocab_size=TOKENS, num_hidden_layers=4, max_position_embeddings=128),
        "mpnet": lambda: hf.MPNetConfig(**bert),
        "opt": lambda: hf.OPTConfig(
            **wide, hidden_size=128, num_hidden_layers=3, num_attention_heads=4, ffn_dim=512, word_embed_proj_dim=128
        ),
        "qwen2": lambda: hf.Qwen2Config(**bert, num_key_value_heads=2),
        "roberta": lambda: hf.RobertaConfig(**bert),
        "segformer": lambda: hf.SegformerConfig(num_labels=21),
        "squeezebert": lambda: hf.SqueezeBertConfig(**bert, embedding_size=128),
        "t5-encoder": lambda: hf.T5Config(vocab_size=TOKENS, d_model=128, d_kv=32, d_ff=512, num_layers=3, num_heads=4),
        "vit": lambda: hf.ViTConfig(
            hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=512, image_size=row.size
        ),
        "wav2vec2": lambda: hf.Wav2Vec2Config(
            hidden_size=128, num_hidden_layers=3, num_attention_heads=4, intermediate_size=512
        ),
    }
    config = configs[row.name]()
    if row.name == "t5-encoder":
        return Masked(hf.T5EncoderModel(config))
    if row.name == "segformer":
        return Only(hf.SegformerForSemanticSegmentation(config), lambda found: found.logits)
    if row.kind == "ids":
        config.use_cache = False
    network = hf.AutoModel.from_config(config)
    return Masked(network) if row.kind == "text" else Only(network, lambda found: found.last_hidden_state)


def samples_of(row: Row, count: int, seed: int) -> dict[str, np.ndarray]:
    """Samples by input name, first axis samples; what one network takes as ``x`` is called ``input``."""
    rng = np.random.default_rng([zlib.crc32(row.key.encode()), seed])
    if row.kind == "image":
        return {"input": images(rng, count, row.size, row.size)}
    if row.kind == "sound":
        return {"input": sounds(rng, count, row.size)}
    if row.kind == "file":
        return file_samples(file_of(row), rng, count)
    ids = np.minimum(rng.zipf(1.3, (count, row.size)), TOKENS - 1).astype(np.int64)
    if row.kind == "ids":
        return {"input": ids}
    lengths = rng.integers(4, row.size + 1, count)
    mask = (np.arange(row.size) < lengths[:, None]).astype(np.int64)
    return {"input_ids": np.where(mask, ids, 0), "attention_mask": mask}


def images(rng: np.random.Generator, count: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    """Smoothed noise of several scales, contrasts and colours, float32 ``[count, channels, height, width]``."""
    total = np.zeros((count, channels, height, width))
    for cells in (2, 5, 12):
        coarse = torch.from_numpy(rng.standard_normal((count, channels, cells, cells)))
        fine = nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False).numpy()
        total += fine * rng.uniform(0.2, 1.0, (count, 1, 1, 1))
    total += 0.1 * rng.standard_normal(total.shape) + rng.normal(0, 0.3, (count, channels, 1, 1))
    return (total / 1.2).astype(np.float32)


def sounds(rng: np.random.Generator, count: int, length: int) -> np.ndarray:
    """A few tones and noise, float32 ``[count, length]``."""
    time = np.arange(length) / 16000
    tones = rng.uniform(80, 2000, (count, 4, 1))
    waves = np.sin(2 * np.pi * tones * time + rng.uniform(0, 6, (count, 4, 1))) * rng.uniform(0, 1, (count, 4, 1))
    return (waves.sum(1) + 0.05 * rng.standard_normal((count, length))).astype(np.float32)


def file_of(row: Row) -> Path:
    return Path(os.environ["EDGEKIT_DATA"]) / "onnx" / f"{row.name}.onnx"


def file_samples(path: Path, rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """Samples for each input of a file: images where it takes images, magnitudes and states of a denoiser else."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    constants = {tensor.name for tensor in model.graph.initializer}
    found = {}
    for value in model.graph.input:
        if value.name in constants:
            continue
        shape = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim][1:]
        if len(shape) == 3 and shape[0] == 3:
            found[value.name] = images(rng, count, shape[1], shape[2])
        else:
            smooth = np.cumsum(rng.standard_normal((count, math.prod(shape))), axis=1)
            found[value.name] = (smooth / math.sqrt(math.prod(shape))).reshape(count, *shape).astype(np.float32)
    return found
