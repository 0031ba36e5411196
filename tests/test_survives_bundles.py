"""A bundle that is tampered with, cut, foreign or of a newer schema is named, whoever reads it."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from fake_line import make_samples, null_artifact, references_of
from tiny_bundles import rewrite
from tiny_recipe import edgekit, stripes

from edgekit.artifact import GOLDEN_FILE, MANIFEST_FILE, Parent, hash_file, read_json, write_json
from edgekit.bundle import BundleFacts, make_golden, write_bundle
from edgekit.errors import BundleError
from edgekit.quantization.schemes import Plan
from edgekit.runtime import open_bundle, verify_bundle
from edgekit.runtime.golden import load_golden
from edgekit.runtime.manifest import read_manifest
from edgekit.runtime.npz import Damaged, read_arrays

COMMANDS = ("verify", "inspect", "profile", "run")


@pytest.fixture
def bundle(deployed, tmp_path):
    """A bundle of the tiny recipe, in a folder that may be changed."""
    return shutil.copytree(deployed.bundle, tmp_path / "bundle")


def refusals(bundle: Path) -> list[str]:
    """What every command and every call says of a bundle that none may take."""
    source = bundle.parent / "x.npz"
    np.savez(source, input=stripes(2, seed=0)[0])
    messages = []
    for command in COMMANDS:
        extra = ("--input", source, "--output", bundle.parent / "y.npz") if command == "run" else ()
        done = edgekit(command, bundle, *extra)
        assert done.exit_code == 1, f"{command}: {done.output}"
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("error: ") == 1
        messages.append(done.stderr)
    for call in (open_bundle, verify_bundle):
        with pytest.raises(BundleError) as caught:
            call(bundle)
        messages.append(str(caught.value))
    assert not (bundle.parent / "y.npz").exists()
    return messages


def files_of(bundle: Path) -> list[str]:
    return [MANIFEST_FILE, *read_json(bundle / MANIFEST_FILE)["files"]]


# ---- every file, every harm ----


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "remove"])
def test_every_file_harmed_is_named(bundle, harm):
    rng = np.random.default_rng(0)
    for name in files_of(bundle):
        whole = (bundle / name).read_bytes()
        if harm == "remove":
            (bundle / name).unlink()
        else:
            at = int(rng.integers(len(whole)))
            harmed = {"flip": flipped(whole, at, 1), "cut": whole[:at], "empty": b""}[harm]
            (bundle / name).write_bytes(harmed)
        for message in refusals(bundle):
            assert Path(name).name in message
            assert "\n  fix:" in message
        (bundle / name).write_bytes(whole)
    assert edgekit("verify", bundle).exit_code == 0


def flipped(whole: bytes, at: int, by: int) -> bytes:
    return whole[:at] + bytes([whole[at] ^ by]) + whole[at + 1 :]


@pytest.mark.parametrize("name", ["notes.txt", "artifact/more.bin", ".hidden"])
def test_a_file_that_the_manifest_does_not_list_is_named(bundle, name):
    (bundle / name).write_text("mine")
    for message in refusals(bundle):
        assert f"the file {name!r} is none of the bundle's" in message
        assert "remove what was added" in message


def test_a_link_beside_its_files_is_named(bundle):
    (bundle / "more").symlink_to("/etc")
    for message in refusals(bundle):
        assert "the file 'more' is none of the bundle's" in message


# ---- what is no bundle ----


FOREIGN = {
    "foreign": ({"name": "a web app", "icons": [], "start_url": "."}, "found:   no schema_version; keys name, icons"),
    "another schema": ({"schema_version": "2.0", "layers": []}, "found:   schema_version '2.0'"),
    "before the first": ({"schema_version": 0}, "found:   schema_version 0"),
    "not a number": ({"schema_version": True}, "found:   schema_version True"),
    "a list": ([1], "not a manifest of an EdgeKit bundle"),
    "newer": ({"schema_version": 7, "nobody": "knows"}, "this bundle was written in schema 7"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_json_of_another_tool_or_time_is_told_as_such(tmp_path, case):
    content, message = FOREIGN[case]
    (tmp_path / "bundle").mkdir()
    write_json(tmp_path / "bundle" / MANIFEST_FILE, content)
    for told in refusals(tmp_path / "bundle"):
        assert message in told
        assert ("upgrade edgekit on this machine" in told) == (case == "newer")


ENDLESS = {
    "lists in lists": "[" * 100_000,
    "deep, not endless": '{"schema_version": 1, "plan": ' + "[" * 700 + "]" * 700 + "}",
    "a number of many digits": '{"schema_version": ' + "1" * 10_000 + "}",
    "not a number": '{"schema_version": NaN}',
    "not text": b"\xff\xfe{}",
}


@pytest.mark.parametrize("case", ENDLESS)
def test_json_made_to_break_a_reader_is_refused(tmp_path, case):
    content = ENDLESS[case]
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / MANIFEST_FILE).write_bytes(content if isinstance(content, bytes) else content.encode())
    for told in refusals(tmp_path / "bundle"):
        assert MANIFEST_FILE in told
    (tmp_path / "report.json").write_bytes((tmp_path / "bundle" / MANIFEST_FILE).read_bytes())
    done = edgekit("report", tmp_path)
    assert (done.exit_code, "report.json" in done.stderr) == (1, True)


@pytest.mark.parametrize("value", ["1e999", "-1e999"])
@pytest.mark.parametrize("at", ["accuracy", "timings"])
def test_numbers_beyond_all_floats_are_refused(bundle, at, value):
    text = (bundle / MANIFEST_FILE).read_text()
    assert f'"{at}": {{' in text
    (bundle / MANIFEST_FILE).write_text(text.replace(f'"{at}": {{', f'"{at}": {{"more": {value},'))
    for told in refusals(bundle):
        assert "manifest.json is damaged or was changed" in told


def test_a_deep_value_in_a_whole_manifest_is_refused(bundle):
    text = (bundle / MANIFEST_FILE).read_text()
    (bundle / MANIFEST_FILE).write_text(
        text.replace('"timings": {', '"timings": {"more": ' + "[" * 800 + "]" * 800 + ",")
    )
    for told in refusals(bundle):
        assert MANIFEST_FILE in told


def test_changed_timings_are_seen_though_they_are_not_part_of_the_id(bundle):
    raw = read_json(bundle / MANIFEST_FILE)
    raw["timings"]["verdict"]["status"] = "fail"
    write_json(bundle / MANIFEST_FILE, raw)
    for told in refusals(bundle):
        assert "manifest.json is damaged or was changed" in told
        assert "timings_sha256" in told


def test_folders_that_are_no_bundle_say_what_they_are(deployed, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    for path, found in (
        (tmp_path / "empty", "an empty folder"),
        (tmp_path / "none", "nothing"),
        (tmp_path / "file", "a file"),
        (deployed.out, "the folder of a run, perhaps: its bundles are local"),
        (deployed.bundle / "artifact", "no manifest.json"),
    ):
        with pytest.raises(BundleError, match="no bundle here") as caught:
            open_bundle(path)
        assert found in str(caught.value.found)
    for told in refusals(tmp_path / "empty"):
        assert str(tmp_path / "empty") in told
    for path in (tmp_path / "empty", tmp_path / "none", tmp_path / "file"):
        done = edgekit("report", path)
        assert done.exit_code == 1
        assert done.stderr.startswith(f"error: {path}")


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret", "artifact/../../secret", "nul\0l", "x" * 5000])
def test_a_name_that_leads_nowhere_good_is_refused(bundle, name):
    rewrite(bundle, lambda raw: raw["files"].update({name: "0" * 64}))
    for told in refusals(bundle):
        assert MANIFEST_FILE in told


# ---- golden samples ----


def npy(shape: tuple[int, ...], dtype: str = "<f4", content: bytes = b"") -> bytes:
    """The bytes of an array whose header may claim what it likes."""
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + content


MISLEADING = {
    "a header of 10^12 elements": npy((10**12,)),
    "a size beyond 64 bits": npy((2**40, 2**40)),
    "a size below zero": npy((-1, 4)),
    "objects": npy((16,), "|O", b"cos\nsystem\n"),
    "text": npy((4,), "<U1", bytes(16)),
    "no header": b"\x93NUMPY\x01\0\xff\xff",
    "a header that is code": npy((4,)).replace(b"(4,)", b"f()"),
    "an unknown version": b"\x93NUMPY\x09\0" + bytes(100),
    "too few bytes": npy((4,), content=bytes(12)),
    "too many bytes": npy((4,), content=bytes(20)),
    "nothing": b"",
}


@pytest.mark.parametrize("case", MISLEADING)
def test_golden_arrays_that_mislead_are_refused_without_taking_memory(bundle, case):
    buffer = BytesIO()
    with zipfile.ZipFile(bundle / GOLDEN_FILE) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, MISLEADING[case] if name == "input/input.npy" else old.read(name))
    (bundle / GOLDEN_FILE).write_bytes(buffer.getvalue())
    rewrite(bundle, lambda raw: raw["files"].update({GOLDEN_FILE: hash_file(bundle / GOLDEN_FILE)}))
    for command in ("verify", "profile"):
        done = edgekit(command, bundle)
        assert (done.exit_code, "golden.npz: cannot be read" in done.stderr) == (1, True), done.output
    (bundle.parent / "x.npz").write_bytes(buffer.getvalue())
    done = edgekit("run", bundle, "--input", bundle.parent / "x.npz", "--output", bundle.parent / "y.npz")
    assert (done.exit_code, "x.npz: holds Python objects, or an array is damaged" in done.stderr) == (1, True)


def test_golden_arrays_that_are_compressed_are_refused(bundle):
    manifest = read_manifest(bundle)
    arrays = read_arrays(bundle / GOLDEN_FILE)
    np.savez_compressed(bundle / "small.npz", **arrays)
    assert read_arrays(bundle / "small.npz").keys() == arrays.keys()
    with pytest.raises(BundleError, match=r"golden.npz|small.npz") as caught:
        load_golden(bundle / "small.npz", manifest)
    assert "is compressed" in str(caught.value.found)


def test_two_arrays_of_one_name_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("input.npy", npy((1,), content=bytes(4)))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("input.npy", npy((1,), content=bytes(4)))
    with pytest.raises(Damaged, match="one name"):
        read_arrays(tmp_path / "x.npz")


# ---- at random ----


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The smallest bundle there is, on the null engine."""
    folder = tmp_path_factory.mktemp("tiny")
    samples, artifact = make_samples(), null_artifact(folder / "a")
    facts = BundleFacts(
        name="zeros",
        target="fake",
        plan=Plan(engine="null", precision="fp32"),
        batch=1,
        preprocessing=None,
        labels=("a", "b", "c"),
        parents=(Parent(kind="teacher", name="nets:teacher", sha256="7" * 64),),
        accuracy={"metric": "accuracy", "drop": None, "placement": []},
        timings={"verdict": {"status": "pass"}, "measured": {"ms": [1.5, 2.25]}},
    )
    write_bundle(artifact, make_golden(artifact, references_of(samples), samples, 1), facts, folder / "bundle")
    assert verify_bundle(folder / "bundle").passed
    return folder / "bundle"


def test_300_random_changes_are_all_refused(tiny, tmp_path):
    """One byte changed, or the end cut off, anywhere in any file; white space of JSON alone may change."""
    rng = np.random.default_rng(3)
    bundle = shutil.copytree(tiny, tmp_path / "bundle")
    files, refused = files_of(tiny), 0
    wrong = 0
    for turn in range(300):
        name = files[turn % len(files)]
        whole = (tiny / name).read_bytes()
        at = int(rng.integers(len(whole)))
        changed = whole[:at] if turn % 10 == 9 else flipped(whole, at, int(rng.integers(1, 256)))
        (bundle / name).write_bytes(changed)
        try:
            verify_bundle(bundle)
        except BundleError as exc:
            refused += 1
            wrong += Path(name).name not in str(exc)
        else:
            assert name == MANIFEST_FILE, f"{name} changed at byte {at} is accepted"
            assert json.loads(changed) == json.loads(whole), f"the manifest changed at byte {at} is accepted"
        (bundle / name).write_bytes(whole)
    assert refused >= 298
    assert not wrong, "a refusal does not name the file"
    assert verify_bundle(bundle).passed
    assert os.listdir(bundle.parent) == ["bundle"]
