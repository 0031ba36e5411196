"""examples/embedded_cpp refuses what edgekit's own runtime refuses: with a sentence, and never by a crash."""

import contextlib
import json
import os
import shutil
import zipfile

import numpy as np
import pytest
from embedded_builds import change, change_golden, rehash, written

from edgekit.artifact import MANIFEST_FILE, read_json, to_json, write_json
from edgekit.errors import EdgeKitError
from edgekit.processing_specs import Preprocessing
from edgekit.runtime import verify_bundle

CONV = """far (float[2, 4] input) => (float[2, 4] output) <float[4] w = {1, 2, 3, 4}> { output = Add(input, w) }"""


def edit(bundle, **changes):
    """Changes a manifest and leaves its id as it was."""
    write_json(bundle / MANIFEST_FILE, read_json(bundle / MANIFEST_FILE) | changes)


def damage(bundle):
    file = bundle / "artifact" / "model.onnx"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def link_out(bundle):
    model = bundle / "artifact" / "model.onnx"
    model.rename(bundle.parent / "outside.onnx")
    model.symlink_to(bundle.parent / "outside.onnx")


def list_as(name):
    def listed(bundle):
        change(bundle, files=read_json(bundle / MANIFEST_FILE)["files"] | {name: "0" * 64})

    return listed


def external(name):
    """Has the model keep a tensor in a file of that name, which the manifest lists."""

    def moved(bundle):
        import onnx

        model = bundle / "artifact" / "model.onnx"
        proto = onnx.load(model)
        for tensor in proto.graph.initializer:  # only raw bytes go to another file
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
        onnx.external_data_helper.convert_model_to_external_data(proto, location="w.bin", size_threshold=0)
        onnx.save(proto, model)
        model.write_bytes(model.read_bytes().replace(b"w.bin", name.encode()))
        rehash(bundle, "artifact/model.onnx")

    return moved


def npz_with(entry, data):
    """Puts a file of any bytes into golden.npz."""

    def put(bundle):
        with zipfile.ZipFile(bundle / "golden.npz", "a") as archive:
            archive.writestr(entry, data)
        rehash(bundle, "golden.npz")

    return put


def cut_golden(bundle):
    file = bundle / "golden.npz"
    file.write_bytes(file.read_bytes()[:-30])
    rehash(bundle, "golden.npz")


def claim_more(bundle):
    """An array whose header claims 2^62 numbers; its checksum is right."""
    file = bundle / "golden.npz"
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    old = entries["input/input.npy"]
    header = old[10:128].replace(b"(6, 3, 8, 8), }", b"(4611686018427387904,), }")
    entries["input/input.npy"] = old[:10] + header.rstrip().ljust(117) + b"\n" + old[128:]
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    rehash(bundle, "golden.npz")


def nothing(bundle):
    shutil.rmtree(bundle)


BAD = {
    "nothing there": (nothing, "no bundle here"),
    "no manifest": (lambda b: (b / MANIFEST_FILE).unlink(), "no bundle here"),
    "not JSON": (lambda b: (b / MANIFEST_FILE).write_text("{"), "not JSON"),
    "not UTF-8": (lambda b: (b / MANIFEST_FILE).write_bytes(b'{"name": "\xff"}'), "not JSON"),
    "a list": (lambda b: (b / MANIFEST_FILE).write_text("[]"), "not a manifest of an EdgeKit bundle"),
    "lists without end": (lambda b: (b / MANIFEST_FILE).write_text("[" * 100_000), "not JSON"),
    "foreign": (lambda b: (b / MANIFEST_FILE).write_text('{"name": "x"}'), "not a manifest of an EdgeKit bundle"),
    "newer": (lambda b: edit(b, schema_version=2, inputs="unknown"), "was written in schema 2"),
    "schema of text": (lambda b: edit(b, schema_version="1"), "not a manifest of an EdgeKit bundle"),
    "no id": (lambda b: edit(b, id=""), "manifest.json: damaged or changed"),
    "changed": (lambda b: edit(b, target="other"), "manifest.json: damaged or changed"),
    "changed timings": (lambda b: edit(b, timings={"p50_ms": 0.001}), "timings_sha256"),
    "wrong type": (lambda b: change(b, files=[1]), "not a manifest of an EdgeKit bundle"),
    "zero in a shape": (lambda b: change_input(b, shape=[0, 3, 8, 8]), "a shape is none"),
    "unknown dtype": (lambda b: change_input(b, dtype="complex64"), "unknown element type"),
    "unknown layout": (lambda b: preprocess_with(b, layout="CHWN"), "the preprocessing is none that is known"),
    "no spread": (lambda b: preprocess_with(b, std=[0.0]), "the preprocessing is none that is known"),
    "no size": (lambda b: preprocess_with(b, resize=[0, 4]), "the preprocessing is none that is known"),
    "damaged": (damage, "the file 'artifact/model.onnx' is damaged or was changed"),
    "a file more": (lambda b: (b / "artifact" / "x.so").write_text(""), "is none of the bundle's"),
    "a file less": (lambda b: (b / "golden.npz").unlink(), "the file 'golden.npz' is missing"),
    "climbs": (list_as("../x"), "points outside its folder"),
    "climbs like Windows": (list_as("artifact\\..\\..\\x"), "points outside its folder"),
    "absolute": (list_as("/etc/passwd"), "points outside its folder"),
    "a drive": (list_as("C:x"), "points outside its folder"),
    "no name": (list_as(""), "points outside its folder"),
    "a zero in a name": (list_as("a\0b"), "points outside its folder"),
    "a link": (link_out, "points outside its folder through a link"),
    "model outside": (lambda b: change(b, model="../x.onnx"), "points outside its folder"),
    "not listed": (lambda b: change(b, files={"golden.npz": "0" * 64}), "is not listed with its sha256"),
    "tensors outside": (external("../wb"), "points outside its folder"),
    "tensors that are missing": (external("v.bin"), "the file 'v.bin' is missing"),
    "no ONNX": (lambda b: swap_model(b, b"\x0a\xff"), "not an ONNX file"),
    "an empty model": (lambda b: swap_model(b, b""), "not an ONNX file"),
    "another model": (lambda b: change_input(b, name="picture"), "are not those that the manifest declares"),
    "compressed": (lambda b: change_golden(b, np.savez_compressed), "is compressed or encrypted"),
    "cut": (cut_golden, "not an .npz file that is read here"),
    "no array": (npz_with("x.txt", "hello"), "'x.txt' in it is no array"),
    "not numpy's": (lambda b: replace_array(b, "input/input.npy", b"hello, world"), "not an array of numpy's"),
    "claims more": (claim_more, "claims another size than it has"),
    "fewer samples": (lambda b: change_golden(b, np.savez, **{"input/input": np.zeros((5, 3, 8, 8), "f4")}), "samples"),
    "another byte order": (
        lambda b: change_golden(b, np.savez, **{"input/input": np.zeros((6, 3, 8, 8), ">f4")}),
        "holds no numbers that are read here",
    ),
    "an array is missing": (lambda b: drop_array(b, "reference/output"), "an array is missing"),
}  # fmt: skip
# Python reads any byte order, and looks at a layout when it preprocesses.
ONLY_HERE = {"another byte order", "unknown layout"}


def change_input(bundle, **changes):
    raw = read_json(bundle / MANIFEST_FILE)
    change(bundle, inputs=[raw["inputs"][0] | changes])


def preprocess_with(bundle, **settings):
    change(bundle, preprocessing=to_json(Preprocessing()) | settings)


def swap_model(bundle, data):
    (bundle / "artifact" / "model.onnx").write_bytes(data)
    rehash(bundle, "artifact/model.onnx")


def replace_array(bundle, entry, data):
    with zipfile.ZipFile(bundle / "golden.npz") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(bundle / "golden.npz", "w") as archive:
        for name, kept in (entries | {entry: data}).items():
            archive.writestr(name, kept)
    rehash(bundle, "golden.npz")


def drop_array(bundle, name):
    with np.load(bundle / "golden.npz") as arrays:
        kept = {key: array for key, array in arrays.items() if key != name}
    np.savez(bundle / "golden.npz", **kept)
    rehash(bundle, "golden.npz")


def refused(ended, sentence):
    """It ended with 1, nothing on stdout, and a message that says what is wrong."""
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: ")
    assert sentence in ended.stderr


@pytest.mark.parametrize("name", BAD)
def test_a_bad_bundle_is_refused_with_a_sentence(program, name, tmp_path):
    spoil, sentence = BAD[name]
    bundle = written(tmp_path / "bundle")
    spoil(bundle)
    refused(program("verify", bundle), sentence)
    if name not in ONLY_HERE:
        with pytest.raises(EdgeKitError):
            verify_bundle(bundle)


def test_external_data_that_is_listed_is_checked_and_read(program, tmp_path):
    bundle = written(tmp_path / "bundle", CONV)
    external("w.bin")(bundle)
    refused(program("verify", bundle), "is not listed with its sha256")
    rehash(bundle, "artifact/w.bin")
    assert program("verify", bundle).returncode == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"nonsense": 1}, "nonsense = 1"),
        ({"intra_op_num_threads": "two"}, "intra_op_num_threads = two"),
        ({"provider": "CUDAExecutionProvider"}, "provider = CUDAExecutionProvider"),
        ({"cpus": "4-2"}, "not a list of CPUs"),
        ({"cpus": 1}, "not a list of CPUs"),
        ({"session.optimized_model_file": "/tmp/x"}, "session.optimized_model_file"),
    ],
    ids=str,
)
def test_an_option_that_is_not_taken_is_named(program, options, sentence, tmp_path):
    bundle = written(tmp_path / "bundle")
    change(bundle, options=options)
    refused(program("verify", bundle), sentence)


def test_options_that_are_known_are_taken(program, tmp_path):
    bundle = written(tmp_path / "bundle")
    options = {"intra_op_num_threads": 1, "inter_op_num_threads": 1, "enable_cpu_mem_arena": False}
    options |= {"enable_mem_pattern": False, "session.intra_op.allow_spinning": "0"}
    change(bundle, options=options | {"provider": "CPUExecutionProvider"})
    assert program("verify", bundle).returncode == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"FOO": 1}, "FOO"),
        ({"CACHE_DIR": "../x"}, "outside its folder"),
        ({"device": 5}, "device that is no text"),
        ({"device": "GPU.7"}, "could not open"),
        ({"NUM_STREAMS": "many"}, "could not open"),
    ],
)
def test_an_option_of_openvino_that_is_not_taken_is_named(program, options, sentence, tmp_path):
    bundle = written(tmp_path / "bundle", engine="openvino")
    change(bundle, options=options)
    refused(program("verify", bundle), sentence)


@pytest.mark.parametrize("engine", ["tensorrt", "null", "other"])
def test_an_engine_that_it_does_not_run_is_named(program, engine, tmp_path):
    bundle = written(tmp_path / "bundle")
    change(bundle, engine=engine)
    refused(program("verify", bundle), f"does not run the engine '{engine}'")


@pytest.mark.parametrize("library", ["/nonexistent/libonnxruntime.so", "libm.so.6"])
def test_a_library_that_is_none_of_onnx_runtimes_is_named(program, library, tmp_path):
    ended = program("verify", written(tmp_path / "bundle"), "--onnxruntime", library)
    refused(ended, "cannot be loaded" if "nonexistent" in library else "not ONNX Runtime's library")


FEEDS = {
    "another name of two": ({"left": np.zeros((2, 4), "f4"), "up": np.zeros((2, 4), "f4")}, "unknown input 'up'"),
    "one of two": ({"left": np.zeros((2, 4), "f4")}, "input 'right' is missing"),
    "another type": ({"left": np.zeros((2, 4), "f8"), "right": np.zeros((2, 4), "f4")}, "float64[2, 4]"),
    "another shape": ({"left": np.zeros((2, 5), "f4"), "right": np.zeros((2, 4), "f4")}, "float32[2, 5]"),
    "other counts": ({"left": np.zeros((3, 4), "f4"), "right": np.zeros((2, 4), "f4")}, "the same number of samples"),
    "no samples": ({"left": np.zeros((0, 4), "f4"), "right": np.zeros((0, 4), "f4")}, "at least one"),
    "no arrays": ({}, "there are no inputs"),
    "a number": ({"left": np.float32(1), "right": np.float32(1)}, "at least one"),
}


@pytest.mark.parametrize("name", FEEDS)
def test_feeds_that_do_not_fit_are_told_and_nothing_is_written(program, name, tmp_path):
    feeds, sentence = FEEDS[name]
    bundle = written(tmp_path / "bundle", "two_inputs")
    np.savez(tmp_path / "x.npz", **feeds)
    refused(program("run", bundle, tmp_path / "x.npz", tmp_path / "y.npz"), sentence)
    assert not list(tmp_path.glob("y.npz*"))


PREPROCESSING = {
    "too few axes": (np.zeros((8, 8, 3), "u1"), "has the wrong number of axes"),
    "other channels": (np.zeros((1, 8, 8, 2), "u1"), "has another number of channels than mean or std"),
    "nothing": (np.zeros((0, 8, 8, 3), "u1"), "is empty"),
}


@pytest.mark.parametrize("name", PREPROCESSING)
def test_raw_samples_that_do_not_fit_are_told(program, name, tmp_path):
    settings = Preprocessing(layout="NHWC", mean=(0.1, 0.2, 0.3))
    raw, sentence = PREPROCESSING[name]
    bundle = written(tmp_path / "bundle", preprocessing=settings)
    np.savez(tmp_path / "x.npz", input=raw)
    refused(program("run", bundle, tmp_path / "x.npz", tmp_path / "y.npz"), sentence)


def test_files_that_are_not_there_and_full_disks_are_told(program, tmp_path):
    bundle = written(tmp_path / "bundle")
    refused(program("run", bundle, tmp_path / "none.npz", tmp_path / "y.npz"), "none.npz: cannot be read")
    np.savez(tmp_path / "x.npz", input=np.zeros((1, 3, 8, 8), np.float32))
    refused(program("run", bundle, tmp_path / "x.npz", tmp_path / "no" / "y.npz"), "y.npz: cannot be written")
    os.symlink("/dev/full", tmp_path / "full.npz.partial")
    refused(program("run", bundle, tmp_path / "x.npz", tmp_path / "full.npz"), "full.npz: cannot be written")


WRONG = ["", "verify", "verify a b", "run a", "other a", "verify a --x"]


@pytest.mark.parametrize("line", WRONG)
def test_wrong_words_end_with_2_and_the_usage(program, line):
    ended = program(*line.split())
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("usage: ")


def spoiled(data, rng):
    """Some bytes changed, cut or doubled."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(data)))
        kind = rng.integers(4)
        if kind == 0:
            data[at] = int(rng.integers(256))
        elif kind == 1:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            del data[at:]
        else:
            data[at:at] = data[at : at + 8]
        if not data:
            break
    return bytes(data)


@pytest.mark.timeout(1800)
@pytest.mark.slow  # builds the program once more, and runs it some hundred times
@pytest.mark.parametrize("name", [MANIFEST_FILE, "golden.npz", "artifact/model.onnx"])
def test_no_damage_makes_it_crash_or_touch_memory_that_is_not_its_own(sanitized, name, tmp_path):
    bundle, rng = written(tmp_path / "bundle"), np.random.default_rng(0)
    change(bundle, files=dict(read_json(bundle / MANIFEST_FILE)["files"]))
    good, manifest = (bundle / name).read_bytes(), read_json(bundle / MANIFEST_FILE)
    told = set()
    for _ in range(200):
        (bundle / name).write_bytes(spoiled(good, rng))
        with contextlib.suppress(EdgeKitError, ValueError, TypeError, AttributeError):  # not JSON any more
            change(bundle) if name == MANIFEST_FILE else rehash(bundle, name)  # else a hash would stop it at once
        ended = sanitized("verify", bundle)
        assert ended.returncode in (0, 1, 3), ended.stderr
        assert "Sanitizer" not in ended.stderr
        assert "runtime error" not in ended.stderr
        told.add(ended.stderr.split("\n")[0])
        (bundle / MANIFEST_FILE).write_text(json.dumps(manifest))
    assert len(told) > 2


@pytest.mark.slow  # builds the program once more
@pytest.mark.parametrize("name", BAD)
def test_bad_bundles_are_refused_without_touching_other_memory(sanitized, name, tmp_path):
    spoil, sentence = BAD[name]
    bundle = written(tmp_path / "bundle")
    spoil(bundle)
    refused(sanitized("verify", bundle), sentence)
