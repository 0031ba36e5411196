"""Fixtures for any test: tiny ONNX models, artifacts made of them, a deployed recipe."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_line import catalogue  # noqa: F401  # a fixture
from made_bundles import make_bundle, slow  # noqa: F401  # fixtures
from tiny_models import HEAD, MODELS, onnx_specs
from tiny_recipe import deployed, project  # noqa: F401  # fixtures

from edgekit.artifact import Artifact, hash_files, save_artifact

torch.set_num_threads(1)  # the networks are tiny, and threads that wait for each other cost most on a busy machine


@pytest.fixture(autouse=True, scope="module")
def _brief_measurements(request: pytest.FixtureRequest) -> Iterator[None]:
    """Measurements of this process load each artifact once; those of the profiler's own tests as always."""
    with pytest.MonkeyPatch.context() as patch:
        if "profiling" not in request.path.parts:
            patch.setattr("edgekit.profiling.loads.MOST_S", 0.0)
            patch.setattr("edgekit.gains.SECONDS", 0.01)
        yield


@pytest.fixture
def tiny_onnx() -> Callable[[str], Any]:
    """Gives a tiny ONNX model (a ``ModelProto``) by its name in ``MODELS``, or from its text."""
    from onnx.parser import parse_model

    def build(name: str) -> Any:
        return parse_model(HEAD.format(domain="") + MODELS.get(name, name))

    return build


@pytest.fixture
def tiny_artifact(tmp_path: Path, tiny_onnx: Callable[[str], Any]) -> Callable[..., Artifact]:
    """Makes an artifact of a tiny model for an engine: ``tiny_artifact("conv", "openvino", NUM_STREAMS=1)``."""
    import onnx

    def make(model: Any, engine: str = "onnxruntime", *, precision: str = "fp32", **options: Any) -> Artifact:
        proto = tiny_onnx(model) if isinstance(model, str) else model
        folder = tmp_path / f"{proto.graph.name}-{engine}-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        onnx.save(proto, folder / "model.onnx")
        return save_artifact(
            Artifact(
                folder=folder,
                model="model.onnx",
                files=hash_files(folder, ["model.onnx"]),
                engine=engine,
                precision=precision,
                inputs=onnx_specs(proto.graph.input),
                outputs=onnx_specs(proto.graph.output),
                options=options,
            )
        )

    return make
