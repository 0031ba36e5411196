from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekit.artifact import Array, Artifact, TensorSpec
from edgekit.errors import BundleError, DataError, FeedError, MeasurementError
from edgekit.processing_specs import Preprocessing
from edgekit.profiling.job import Job, check_feeds, read_feeds, read_job, read_result, write_job
from edgekit.profiling.load import LoadSpec

MakeArtifact = Callable[..., Artifact]


def job_in(folder: Path, artifact: Artifact, preprocessing: Preprocessing | None = None) -> Job:
    load = LoadSpec(min_count=5, percentiles=(50.0, 99.9))
    return Job(folder=folder, artifact=artifact, load=load, preprocessing=preprocessing, driven=False)


def test_a_job_comes_back_as_written(null_artifact: MakeArtifact, feeds: dict[str, Array], tmp_path: Path) -> None:
    settings = Preprocessing(input="x", scale=0.5, mean=(1.0, 2.0), resize=(3, 4))
    job = job_in(tmp_path / "job", null_artifact(latency_us=5.0), settings)
    write_job(job, feeds)
    again = read_job(tmp_path / "job")
    assert (again.load, again.preprocessing, again.driven) == (job.load, settings, False)
    assert again.artifact.folder == tmp_path / "job" / "artifact"
    assert again.artifact.sha256 == job.artifact.sha256
    assert again.artifact.path.read_bytes() == job.artifact.path.read_bytes()
    np.testing.assert_array_equal(read_feeds(again)["x"], feeds["x"])


@pytest.mark.parametrize("name", ["file", "args_0", "input/ids:0"])
def test_any_input_name_travels(null_artifact: MakeArtifact, tmp_path: Path, name: str) -> None:
    spec = TensorSpec(name=name, dtype="float32", shape=("n", 1))
    artifact = dataclasses.replace(null_artifact(), inputs=(spec,))
    write_job(job_in(tmp_path / "job", artifact), {name: np.ones((2, 1), dtype=np.float32)})
    assert list(read_feeds(read_job(tmp_path / "job"))) == [name]


def test_an_artifact_that_points_outside_is_refused(
    null_artifact: MakeArtifact, feeds: dict[str, Array], tmp_path: Path
) -> None:
    artifact = dataclasses.replace(null_artifact(), files={"../../secret": "0"})
    with pytest.raises(BundleError, match="points outside"):
        write_job(job_in(tmp_path / "job", artifact), feeds)


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({}, FeedError, "input 'x' has no samples"),
        ({"x": np.ones((2, 4)), "X": np.ones(2)}, FeedError, "unknown input 'X'"),
        ({"x": np.ones((0, 4))}, DataError, "at least one"),
        ({"x": np.float32(1)}, DataError, "cannot be fed"),
        ({"x": np.array(["a", "b"])}, DataError, "cannot be fed"),
        ({"x": np.array([{}, {}], dtype=object)}, DataError, "cannot be fed"),
    ],
)
def test_samples_that_cannot_be_fed_are_refused(
    null_artifact: MakeArtifact, given: dict[str, Array], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        check_feeds(null_artifact(), given, None)


def test_inputs_need_as_many_samples_each(null_artifact: MakeArtifact) -> None:
    spec = TensorSpec(name="z", dtype="float32", shape=("batch",))
    artifact = null_artifact()
    artifact = dataclasses.replace(artifact, inputs=(*artifact.inputs, spec))
    with pytest.raises(DataError, match=r"(?s)same number of samples.*x: 2, z: 3"):
        check_feeds(artifact, {"x": np.ones((2, 4)), "z": np.ones(3)}, None)


def test_preprocessing_of_an_unknown_input_is_refused(null_artifact: MakeArtifact, feeds: dict[str, Array]) -> None:
    with pytest.raises(FeedError, match=r"(?s)preprocessing is given for an unknown input 'xx'.*did you mean 'x'"):
        check_feeds(null_artifact(), feeds, Preprocessing(input="xx"))


def test_a_folder_without_a_job_is_told(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"job\.json: no such file"):
        read_job(tmp_path)
    with pytest.raises(BundleError, match=r"result\.json: no such file"):
        read_result(tmp_path)


def test_a_damaged_job_is_told(null_artifact: MakeArtifact, feeds: dict[str, Array], tmp_path: Path) -> None:
    write_job(job_in(tmp_path, null_artifact()), feeds)
    content = json.loads((tmp_path / "job.json").read_text())
    del content["load"]["percentiles"]
    (tmp_path / "job.json").write_text(json.dumps(content))
    with pytest.raises(MeasurementError, match=r"(?s)not a measuring job.*percentiles"):
        read_job(tmp_path)


def test_pickled_samples_are_never_opened(null_artifact: MakeArtifact, feeds: dict[str, Array], tmp_path: Path) -> None:
    write_job(job_in(tmp_path, null_artifact()), feeds)
    np.savez(tmp_path / "feeds.npz", x=np.array([{}, {}], dtype=object))
    with pytest.raises(DataError, match=r"feeds\.npz: cannot be read"):
        read_feeds(read_job(tmp_path))
    (tmp_path / "feeds.npz").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"feeds\.npz: cannot be read"):
        read_feeds(read_job(tmp_path))
