"""Small bundles of real engines, made without a training, to be sent to devices."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from fake_line import CLASSES, FEATURES, fp32_artifact, make_samples, quick_profile

from edgekit.artifact import hash_files, to_json
from edgekit.bundle import BundleFacts, make_golden, write_bundle
from edgekit.candidate import Plan
from edgekit.checking import check, make_references

WEIGHTS = np.random.default_rng(3).standard_normal((FEATURES, CLASSES)).astype(np.float32)
LINEAR = f"""<ir_version: 9, opset_import: ["" : 20]>
linear (float[1, {FEATURES}] input) => (float[1, {CLASSES}] logits)
    <float[{FEATURES}, {CLASSES}] w = {{{", ".join(map(repr, map(float, WEIGHTS.ravel())))}}}>
    {{ logits = MatMul(input, w) }}"""
ANY_HOST = {"name": "any", "description": "any host", "engines": ["onnxruntime"], "precisions": ["fp32"]}


def linear_bundle(folder: Path, *, engine: str = "onnxruntime", ballast: int = 0, **target: Any) -> Path:
    """A bundle of one matrix product for ONNX Runtime.

    Args:
        folder: Where it goes.
        engine: The engine that its manifest names.
        ballast: Bytes of a file beside the model.
        target: What its target asks for besides.
    """
    samples = make_samples(40, labelled=False)
    logits = np.stack([samples.fetch(i)["input"] for i in range(40)]) @ WEIGHTS
    references = make_references({"logits": logits}, {"logits": logits}, samples, None, None)
    artifact = dataclasses.replace(
        fp32_artifact(folder.with_name(f"{folder.name}-artifact"), LINEAR), engine="onnxruntime", options={}
    )
    if ballast:
        (artifact.folder / "ballast.bin").write_bytes(np.random.default_rng(0).bytes(ballast))
        artifact = dataclasses.replace(artifact, files=hash_files(artifact.folder, [*artifact.files, "ballast.bin"]))
    facts = BundleFacts(
        name="linear",
        target="any",
        plan=Plan(engine="onnxruntime", precision="fp32"),
        batch=1,
        preprocessing=None,
        labels=(),
        parents=(),
        accuracy=to_json(check(references, artifact, samples, None)),
        timings={"profile": quick_profile().model_dump(), "target": {**ANY_HOST, **target}},
    )
    golden = make_golden(artifact, references, samples, 1)
    write_bundle(dataclasses.replace(artifact, engine=engine), golden, facts, folder)
    return folder
