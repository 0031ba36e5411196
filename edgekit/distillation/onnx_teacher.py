"""A teacher that is only an ``.onnx`` file: it answers as a torch module does, on an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgekit.artifact import Array
from edgekit.conversion.clean import describe_onnx
from edgekit.errors import TrainingError
from edgekit.runtime import open_artifact

ENGINE = "onnxruntime"


class OnnxTeacher(nn.Module):
    """An ``.onnx`` file as a module without parameters; no gradient passes through it.

    Args:
        path: The file.

    Raises:
        ModelError: It is not valid ONNX.
        EngineError: ONNX Runtime refuses it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        artifact = replace(describe_onnx(path, precision="fp32"), engine=ENGINE)
        self.inputs = artifact.inputs
        self._session = open_artifact(artifact)

    def forward(self, *values: Tensor, **named: Tensor) -> dict[str, Tensor]:
        """Outputs by name for one batch: a single input by position, several by name.

        Raises:
            TrainingError: An input is missing, or one that the file does not have is given.
        """
        given = dict(zip((spec.name for spec in self.inputs), values, strict=False)) | named
        wanted = [spec.name for spec in self.inputs]
        if sorted(given) != sorted(wanted):
            raise TrainingError(
                "the .onnx teacher takes other inputs than the samples have",
                found=", ".join(given) or "nothing",
                allowed=", ".join(wanted),
                fix="name the arrays of the data as the model's inputs are named",
            )
        device = next(iter(given.values())).device
        outputs = self._run({name: tensor.detach().cpu().numpy() for name, tensor in given.items()})
        return {name: torch.from_numpy(array).to(device) for name, array in outputs.items()}

    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """One run, or as many as a fixed batch asks for."""
        count, size = len(next(iter(feeds.values()))), self.inputs[0].shape[0]
        if not isinstance(size, int):
            return self._session.run(feeds)
        if count % size:
            feeds = {name: np.concatenate([a, np.repeat(a[-1:], -count % size, axis=0)]) for name, a in feeds.items()}
        starts = range(0, count, size)
        parts = [self._session.run({name: a[start : start + size] for name, a in feeds.items()}) for start in starts]
        return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}
