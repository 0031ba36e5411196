"""Opens a bundle on the device: every file is checked before an engine sees it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from edgekit.artifact import GOLDEN_FILE, Array, Artifact, Manifest, StrPath, TensorSpec
from edgekit.errors import FeedError
from edgekit.runtime import open_model
from edgekit.runtime.manifest import read_manifest
from edgekit.runtime.postprocessing import postprocess
from edgekit.runtime.preprocessing import preprocess
from edgekit.runtime.session import Session

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bundle:
    """An opened bundle; a context manager, used by one thread at a time.

    Attributes:
        folder: Where it lies.
        manifest: What it says of itself.
        session: Its artifact, opened on its engine.
    """

    folder: str
    manifest: Manifest
    session: Session

    @property
    def path(self) -> Path:
        """Its folder."""
        from pathlib import Path  # whose import takes as long as the rest of the opening of a small model

        return Path(self.folder)

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """What :meth:`run` takes."""
        return self.session.inputs

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """What :meth:`run` gives."""
        return self.session.outputs

    def named(self, raw: Array | Mapping[str, Array]) -> dict[str, Array]:
        """Arrays by input name: as they came, or the one array under the name of the preprocessed (or only) input.

        Raises:
            FeedError: One array was given, and it is not clear for which input.
        """
        settings = self.manifest.preprocessing
        if isinstance(raw, Mapping):
            return dict(raw)
        if settings is None and len(self.inputs) != 1:
            raise FeedError(
                "one array was given and the model has several inputs", allowed="; ".join(map(str, self.inputs))
            )
        return {settings.input if settings is not None else self.inputs[0].name: raw}

    def preprocess(self, raw: Array | Mapping[str, Array]) -> dict[str, Array]:
        """Turns raw samples into feeds, by the manifest's preprocessing.

        Args:
            raw: A raw batch by input name, or the one raw batch of the preprocessed (or only) input.

        Returns:
            Feeds for :meth:`run`; inputs without preprocessing as they came.

        Raises:
            FeedError: The raw batch does not fit.
        """
        settings, feeds = self.manifest.preprocessing, self.named(raw)
        if settings is None:
            return feeds
        if settings.input not in feeds:
            raise FeedError(f"input {settings.input!r} is missing", found=", ".join(feeds) or "no inputs")
        return feeds | {settings.input: preprocess(feeds[settings.input], settings)}

    def postprocess(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Turns outputs of :meth:`run` into answers, by the manifest's postprocessing and labels.

        See :func:`edgekit.runtime.postprocessing.postprocess`.

        Raises:
            FeedError: The outputs are not the model's.
        """
        return postprocess(outputs, self.manifest.postprocessing, self.manifest.labels)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs one batch of model tensors; see :meth:`edgekit.runtime.session.Session.run`."""
        return self.session.run(feeds)

    def close(self) -> None:
        """Frees the engine's resources."""
        self.session.close()

    def __enter__(self) -> Bundle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_bundle(path: StrPath, *, check: bool = True) -> Bundle:
    """Reads a bundle's manifest, checks its files and opens its artifact.

    Args:
        path: The bundle's folder.
        check: Whether to compare the sha256 of every file; that paths stay inside is always checked.

    Raises:
        BundleError: It is no bundle, of a newer schema, damaged, or points outside itself.
        EngineMissing: Its engine cannot execute here.
        EngineError: Its engine refuses it, or what the engine built of it on this device gives wrong outputs.
    """
    manifest = read_manifest(path, check=check)
    bundle = Bundle(folder=os.fspath(path), manifest=manifest, session=open_listed(path, manifest))
    if getattr(bundle.session, "plan", None) is None:
        return bundle
    from edgekit.runtime.proving import proven  # needs TensorRT's modules, which other engines do without

    return proven(bundle)


def open_listed(path: StrPath, manifest: Manifest) -> Session:
    """Opens the artifact in a bundle's folder; see :func:`edgekit.runtime.open_model`."""
    model = os.path.join(path, manifest.model)
    return open_model(manifest.engine, model, manifest.options, manifest.inputs, manifest.outputs)


def artifact_of(path: Path, manifest: Manifest) -> Artifact:
    """The artifact in a bundle's folder."""
    return Artifact(
        folder=path,
        model=manifest.model,
        files={name: sha256 for name, sha256 in manifest.files.items() if name != GOLDEN_FILE},
        engine=manifest.engine,
        precision=manifest.precision,
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        options=manifest.options,
    )
