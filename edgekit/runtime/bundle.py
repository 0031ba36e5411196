"""Opens a bundle on the device: every file is checked before an engine sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from edgekit.artifact import (
    GOLDEN_FILE,
    MANIFEST_FILE,
    Array,
    Artifact,
    Manifest,
    TensorSpec,
    bundle_id,
    hash_file,
    parse_manifest,
    read_json,
)
from edgekit.errors import BundleError, FeedError
from edgekit.runtime import open_artifact
from edgekit.runtime.external_data import check_file_inside, external_files
from edgekit.runtime.preprocessing import preprocess
from edgekit.runtime.session import Session

_AGAIN = "copy the bundle again, or make it again with `edgekit deploy` or `edgekit export`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """An opened bundle; a context manager, used by one thread at a time.

    Attributes:
        path: Its folder.
        manifest: What it says of itself.
        session: Its artifact, opened on its engine.
    """

    path: Path
    manifest: Manifest
    session: Session

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """What :meth:`run` takes."""
        return self.session.inputs

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """What :meth:`run` gives."""
        return self.session.outputs

    def preprocess(self, raw: Array | Mapping[str, Array]) -> dict[str, Array]:
        """Turns raw samples into feeds, by the manifest's preprocessing.

        Args:
            raw: A raw batch by input name, or the one raw batch of the preprocessed (or only) input.

        Returns:
            Feeds for :meth:`run`; inputs without preprocessing as they came.

        Raises:
            FeedError: The raw batch does not fit.
        """
        settings = self.manifest.preprocessing
        if isinstance(raw, Mapping):
            feeds = dict(raw)
        elif settings is not None or len(self.inputs) == 1:
            feeds = {settings.input if settings is not None else self.inputs[0].name: raw}
        else:
            raise FeedError(
                "one array was given and the model has several inputs", allowed="; ".join(map(str, self.inputs))
            )
        if settings is None:
            return feeds
        if settings.input not in feeds:
            raise FeedError(f"input {settings.input!r} is missing", found=", ".join(feeds) or "no inputs")
        return feeds | {settings.input: preprocess(feeds[settings.input], settings)}

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


def open_bundle(path: Path, *, check: bool = True) -> Bundle:
    """Reads a bundle's manifest, checks its files and opens its artifact.

    Args:
        path: The bundle's folder.
        check: Whether to compare the sha256 of every file; that paths stay inside is always checked.

    Raises:
        BundleError: It is no bundle, of a newer schema, damaged, or points outside itself.
        EngineMissing: Its engine cannot execute here.
        EngineError: Its engine refuses it.
    """
    manifest = read_manifest(path, check=check)
    return Bundle(path=path, manifest=manifest, session=open_artifact(artifact_of(path, manifest)))


def read_manifest(path: Path, *, check: bool = True) -> Manifest:
    """Reads a bundle's manifest and checks its files, without opening its artifact.

    Args:
        path: The bundle's folder.
        check: Whether to compare the sha256 of every file; that paths stay inside is always checked.

    Raises:
        BundleError: It is no bundle, of a newer schema, damaged, or points outside itself.
    """
    where = path / MANIFEST_FILE
    if not where.is_file():
        raise BundleError(f"{path}: no bundle here", found=f"no {MANIFEST_FILE}", fix="give a folder made by edgekit")
    raw = read_json(where)
    if not isinstance(raw, dict) or not isinstance(raw.get("files"), dict):
        raise BundleError(f"{where}: not a manifest of an EdgeKit bundle", fix=_AGAIN)
    manifest = parse_manifest(raw, where)
    for name in manifest.files:
        check_file_inside(name, path, where)
    for name in _needed(path, manifest):
        if name not in manifest.files:
            raise BundleError(f"{where}: the file {name!r} is not listed with its sha256", fix=_AGAIN)
    if check:
        _check_hashes(path, manifest)
    return manifest


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


def _needed(path: Path, manifest: Manifest) -> list[str]:
    """The files that are read when the bundle is used."""
    folder, model = Path(manifest.model).parent, path / manifest.model
    check_file_inside(manifest.model, path, path / MANIFEST_FILE)
    beside = external_files(model) if model.suffix == ".onnx" else ()
    if model.suffix == ".xml":
        beside = (model.with_suffix(".bin").name,)
    return [manifest.model, GOLDEN_FILE, *((folder / name).as_posix() for name in beside)]


def _check_hashes(path: Path, manifest: Manifest) -> None:
    for name, sha256 in manifest.files.items():
        found = hash_file(path / name)
        if found != sha256:
            raise BundleError(
                f"{path}: the file {name!r} is damaged or was changed",
                found=f"sha256 {found} of {(path / name).stat().st_size} bytes",
                allowed=f"sha256 {sha256}",
                fix=_AGAIN,
            )
    if bundle_id(manifest) != manifest.id:
        raise BundleError(
            f"{path}: {MANIFEST_FILE} is damaged or was changed",
            found=f"id {bundle_id(manifest)}",
            allowed=f"id {manifest.id or 'missing'}",
            fix=_AGAIN,
        )
