"""The spoken digits example: fast tests on made-up sounds, and the full run on real ones by hand."""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
import tarfile
import wave
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tiny_recipe import edgekit, process_environment

from edgekit._lookup import importable
from edgekit.artifact import read_json
from edgekit.backends import load_backend
from edgekit.candidate import Plan
from edgekit.catalog import load_profile, load_target
from edgekit.ingredients import load_data
from edgekit.making import export
from edgekit.models import count_parameters, load_module
from edgekit.recipe import load_recipe
from edgekit.runtime import open_artifact
from edgekit.runtime.numbers import run_batched, snr_db

FOLDER = Path(__file__).parents[2] / "examples" / "spoken_digits"
REAL = pytest.mark.skipif("EDGEKIT_DATA" not in os.environ, reason="needs EDGEKIT_DATA: spoken digits")
# int8 on one engine for another machine: nothing is measured.
FAST = ["--target", "raspberry-pi-4", "--engine", "onnxruntime", "--precision", "int8"]
NOT_MEASURED, LIMIT_MISSED = 4, 3
RATE = 8000
SPEAKERS = ("ada", "bo", "cy")


def load_model(part: str):
    return load_module(getattr(load_recipe(FOLDER), part), base=FOLDER, seed=0, where=part)


@pytest.fixture(scope="module")
def student():
    return load_model("student")


@pytest.fixture(scope="module")
def front(student):
    return student.front


@pytest.fixture(scope="module")
def pack():
    spec = importlib.util.spec_from_file_location("pack_spoken_digits", FOLDER / "pack.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tones(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A second each of silence with a tone in it, int16 ``[n, 8000]``; which of ten, the higher the digit."""
    rng = np.random.default_rng(seed)
    digits = np.arange(count) % 10
    time = np.arange(RATE) / RATE
    hertz = 300 * 1.25 ** digits[:, None] * rng.uniform(0.97, 1.03, (count, 1))
    sound = np.sin(2 * np.pi * hertz * time) * (np.abs(time - 0.5) < rng.uniform(0.1, 0.3, (count, 1)))
    noise = 0.001 * rng.standard_normal((count, RATE))
    return np.rint(32767 * (0.3 * sound + noise)).astype(np.int16), digits.astype(np.uint8)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> list[str]:
    """Overrides that give made-up sounds with the shapes and dtypes of the real set."""
    folder, given = tmp_path_factory.mktemp("sounds"), []
    for seed, (part, count) in enumerate((("train", 200), ("test", 60))):
        x, y = tones(count, seed)
        np.savez(folder / f"{part}.npz", x=x, y=y, speaker=np.resize(SPEAKERS, count))
        given.append(f"data.{part}={folder / part}.npz")
    return given


@pytest.fixture(scope="module")
def data(sounds):
    return load_data(load_recipe(FOLDER, sounds), FOLDER, None)


@pytest.fixture(scope="module")
def fp32(student, data, tmp_path_factory):
    """The untrained student as ONNX, with BatchNorms that have heard sounds."""
    for part in student.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1.0
    student.train()
    with torch.no_grad():
        student(torch.from_numpy(data.calibration.tensors(range(64))["input"]))
    return export(student.eval(), data.test, tmp_path_factory.mktemp("export"))


def test_the_recipe_and_its_profile_are_found_and_right():
    recipe = load_recipe(FOLDER)
    profile = load_profile(recipe.profile, [FOLDER])
    assert recipe.targets == ("local",)
    assert recipe.quantization.precision == "auto"
    assert recipe.distillation.augmentation == recipe.teacher.train.augmentation
    assert recipe.distillation.augmentation.noise > 0
    assert profile.limits.size_mb == 0.1
    assert profile.limits.max_drop_points is not None
    assert profile.load.min_count >= 700


def test_power_is_that_of_the_fourier_transform(front):
    x = np.random.default_rng(0).uniform(-1, 1, (3, RATE)).astype(np.float32)
    found = front.power(torch.from_numpy(x)).numpy()
    padded = np.pad(x.astype(np.float64), ((0, 0), (32, 32)))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256)
    frames = np.stack([padded[:, start : start + 256] for start in range(0, 8064 - 128, 128)], axis=1)
    expected = np.abs(np.fft.rfft(frames * window)[..., :128]) ** 2
    assert found.shape == (3, 62, 128)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert snr_db(expected, found) > 110


def test_mel_filters_are_triangles_that_add_up_to_one(front):
    with importable(FOLDER):
        from spoken_digits import mel_filters
    filters = mel_filters(32).numpy()
    assert filters.shape == (128, 32)
    assert filters.max() <= 1
    assert filters.max(axis=0).min() > 0.2  # every band hears something
    tops = filters.argmax(axis=0)
    assert (np.diff(tops) > 0).all()
    inside = slice(tops[0] + 1, tops[-1])
    np.testing.assert_allclose(filters[inside].sum(axis=1), 1)


def test_a_tone_is_loudest_in_the_band_it_lies_in_and_silence_is_zero(front):
    with importable(FOLDER):
        from spoken_digits import mel_filters
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(RATE) / RATE)[None]
    bands = front(torch.cat([tone, 0 * tone]))
    assert bands.shape == (2, 1, 62, 32)
    assert (bands[0, 0, 5:-5].argmax(dim=1) == mel_filters(32)[32].argmax()).all()  # bin 32 of 31.25 Hz
    assert not bands[1].any()


def test_both_models_take_a_second_of_sound_and_the_student_is_an_eighth(student):
    teacher = load_model("teacher")
    for model in (teacher, student):
        with torch.no_grad():
            assert model(torch.zeros(3, RATE)).shape == (3, 10)
        assert not any(name.startswith("front") for name in model.state_dict())
    assert 7.9 < count_parameters(teacher) / count_parameters(student) < 8.1


def test_training_hears_clips_moved_and_louder_or_quieter():
    with importable(FOLDER):
        from spoken_digits import vary
    x = torch.zeros(200, RATE)
    x[:, 4000] = 0.1
    given = x.clone()
    varied = vary({"input": x}, None, torch.Generator().manual_seed(0))["input"]
    assert torch.equal(x, given)
    assert torch.equal(varied, vary({"input": x}, None, torch.Generator().manual_seed(0))["input"])
    peaks, places = varied.max(dim=1)
    assert 3200 <= int(places.min()) < 3400
    assert 4600 < int(places.max()) <= 4800
    assert 0.05 < float(peaks.min()) < 0.06
    assert 0.18 < float(peaks.max()) < 0.2
    assert ((varied != 0).sum(dim=1) == 1).all()
    ends = vary({"input": torch.ones(50, RATE)}, None, torch.Generator().manual_seed(1))["input"]
    assert ((ends[:, 0] == 0) != (ends[:, -1] == 0)).all()  # silence comes in, nothing comes round


def test_raw_sounds_become_tensors_and_every_clip_has_a_speaker(data):
    assert data.train is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (180, 20, 60)
    (x,) = data.test.tensors(range(8)).values()
    (raw,) = data.test.raw(range(8)).values()
    assert raw.dtype == np.int16
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, raw / 32768, atol=1e-7)
    assert data.test.group_names == SPEAKERS
    assert len(data.labels) == 10


def test_what_stays_in_float_is_all_that_the_front_end_computes(fp32):
    nodes = onnx.load(fp32.path).graph.node
    end = next(i for i, node in enumerate(nodes) if node.op_type == "Log")
    computing = [node.name for node in nodes[:end] if node.op_type in ("MatMul", "Mul", "Add", "Sub", "Pow")]
    assert list(load_recipe(FOLDER).quantization.float_nodes) == computing
    assert all(node.op_type not in ("MatMul", "Mul", "Sub", "Pow") for node in nodes[end:])


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_student_is_the_same_on_an_engine_and_its_network_runs_in_int8(engine, student, fp32, data, tmp_path):
    with torch.no_grad():
        expected = student(torch.from_numpy(data.test.tensors(range(60))["input"])).numpy()
    samples = data.test.tensors(range(60))
    backend, local = load_backend(engine), load_target("local")
    found, share, _ = outputs(fp32, engine, samples, tmp_path / "fp32")
    assert snr_db(expected, found["output"]) > 90
    assert share == 0
    floats = load_recipe(FOLDER).quantization.float_nodes
    plan = Plan(engine=engine, precision="int8", method="minmax", scheme=backend.scheme(local), float_groups=floats)
    int8 = backend.quantize(fp32, data.calibration.batches(16), plan, tmp_path / "quantised")
    found, share, size = outputs(int8, engine, samples, tmp_path / "int8")
    assert snr_db(expected, found["output"]) > 20
    assert share == pytest.approx(10 / 13)  # all but the three products of the front end
    if engine == "onnxruntime":
        assert size <= 100_000


def outputs(artifact, engine, samples, out) -> tuple[dict[str, np.ndarray], float | None, int]:
    """What an engine computes, the share it runs in int8, and the bytes of what ships."""
    compiled = load_backend(engine).compile(artifact, load_target("local"), 1, out)
    session = open_artifact(compiled)
    try:
        size = sum((compiled.folder / name).stat().st_size for name in compiled.files)
        return run_batched(session, samples), session.placement().share("int8"), size
    finally:
        session.close()


def test_a_short_run_on_made_up_sounds(sounds, tmp_path):
    short = {"epochs": 6, "batch_size": 20}
    settings = [f"{table}.{key}={value}" for table in ("teacher.train", "distillation") for key, value in short.items()]
    options = [
        word
        for override in [*sounds, *settings, "teacher.args.widths=[16, 24]", "student.args.widths=[12, 16]"]
        for word in ("--set", override)
    ]
    done = edgekit("deploy", FOLDER, "--out", tmp_path / "out", *FAST, *options)
    assert done.exit_code in (NOT_MEASURED, LIMIT_MISSED), done.output
    report = read_json(tmp_path / "out" / "report.json")
    (candidate,) = report["targets"][0]["candidates"]
    assert candidate["failure"] is None
    assert candidate["proof"]["samples"] == 60
    assert candidate["proof"]["artifact"] > 0.4  # of ten classes
    assert report["models"]["student"]["training"]["epochs"] == 6


def test_missing_data_say_where_they_can_be_had(tmp_path):
    command = [sys.executable, "-m", "edgekit", "deploy", str(FOLDER), "--out", str(tmp_path / "out")]
    command += ["--set", f"data.train={tmp_path / 'train.npz'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=process_environment())
    assert done.returncode == 1
    assert f"error: data.train: {tmp_path / 'train.npz'}: no such file or folder" in done.stderr
    assert "https://github.com/Jakobovski/free-spoken-digit-dataset" in done.stderr


def wav(sound: np.ndarray, channels: int = 1, rate: int = RATE) -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(sound.astype("<i2").tobytes())
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_pack_makes_the_two_files_of_what_is_published(kind, pack, tmp_path, capsys):
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    for digit in (0, 7):
        for speaker in ("theo", "george"):
            for index in (0, 4, 5, 10):
                content = wav(np.full(1000, 100 * digit + index + 1))
                (recordings / f"{digit}_{speaker}_{index}.wav").write_bytes(content)
    (recordings / "notes.txt").write_text("not a recording")
    source = recordings
    if kind == "archive":
        source = tmp_path / "recordings.tar.gz"
        with tarfile.open(source, "w:gz") as archive:
            archive.add(recordings, "recordings")
    pack.pack(source, tmp_path / "out")
    assert "train.npz: 8 clips of 2 speakers" in capsys.readouterr().out
    for part, indices in (("train", (5, 10)), ("test", (0, 4))):
        with np.load(tmp_path / "out" / f"{part}.npz") as stored:
            assert stored["x"].shape == (8, 8000)
            assert stored["x"].dtype == np.int16
            np.testing.assert_array_equal(stored["y"], [0] * 4 + [7] * 4)
            assert list(stored["speaker"]) == ["george", "george", "theo", "theo"] * 2
            expected = [100 * digit + index + 1 for digit in (0, 7) for _ in range(2) for index in indices]
            np.testing.assert_array_equal(stored["x"][:, 4000], expected)


def test_pack_centres_what_is_short_and_keeps_the_loudest_second_of_what_is_long(pack):
    short = pack.fit(np.ones(1001, np.int16))
    assert np.flatnonzero(short).tolist() == list(range(3499, 4500))
    long = np.ones(20_000, np.int16)
    long[9000:17_000] = 1000
    np.testing.assert_array_equal(pack.fit(long), np.full(8000, 1000))
    whole = np.arange(8000, dtype=np.int16)
    np.testing.assert_array_equal(pack.fit(whole), whole)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("hello.wav", wav(np.ones(10)), "hello.wav: not <digit>_<speaker>_<index>.wav"),
        ("1_theo_9.wav", wav(np.ones(10), channels=2), "2 channels of 16 bits at 8000 Hz; wanted: 1 of 16 at 8000"),
        ("1_theo_9.wav", wav(np.ones(10), rate=16000), "1 channels of 16 bits at 16000 Hz"),
        ("1_theo_9.wav", b"RIFF", "1_theo_9.wav: not a wav file"),
        ("1_theo_9.wav", wav(np.ones(10)), "no recordings for test.npz"),
    ],
)
def test_pack_says_what_is_wrong_with_a_file(name, content, told, pack, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=told):
        pack.pack(tmp_path, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.timeout(0)
@REAL
def test_the_full_run_meets_the_figures(pack, tmp_path):
    pack.pack(Path(os.environ["EDGEKIT_DATA"]) / "spoken-digits" / "recordings.tar.gz", tmp_path)
    given = [word for part in ("train", "test") for word in ("--set", f"data.{part}={tmp_path / part}.npz")]
    done = edgekit("deploy", FOLDER, "--out", tmp_path / "out", *given)
    assert done.exit_code in (0, 4), done.output  # 4: beside other work the p99 limit may stay open
    report = read_json(tmp_path / "out" / "report.json")
    (shipped,) = (row for row in report["targets"][0]["candidates"] if row["shipped"])
    assert shipped["precision"] == "int8"
    assert shipped["size_mb"] <= 0.1
    assert shipped["proof"]["teacher"] >= 0.95
    assert shipped["proof"]["drop"]["points"] < 1
