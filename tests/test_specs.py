"""Targets and profiles as models: bad input is explained, and a host is a target or says why not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from edgekit.errors import SpecError
from edgekit.profiling.host import Host
from edgekit.specs import Profile, Target, mismatch, parse, parse_toml, read_toml

GOOD_TARGET = 'description = "d"\nengines = ["onnxruntime"]\nprecisions = ["fp32"]\n'
GOOD_PROFILE = 'description = "d"\n[limits]\np99_ms = 5\n'

HOST = Host(
    arch="aarch64",
    isa="neon-dotprod",
    cpu_model="ARM 0x41 part 0xd0b",
    board="Raspberry Pi 5 Model B Rev 1.0",
    gpus=(),
    cores=4,
    memory_mb=8000.0,
    governor="ondemand",
    os="Linux 6.6",
    python="3.11.2",
)


def target(text: str) -> Target:
    return parse(Target, parse_toml(text, "t.toml"), "t.toml", name="t")


def profile(text: str) -> Profile:
    return parse(Profile, parse_toml(text, "p.toml"), "p.toml", name="p")


@pytest.mark.parametrize(
    ("text", "problem", "found", "allowed", "fix"),
    [
        (
            GOOD_TARGET + "core = 4",
            "unknown key 'core'",
            "core",
            "arch, bandwidth_gb_s, board",
            "did you mean 'cores'?",
        ),
        (GOOD_TARGET + "zzz = 4", "unknown key 'zzz'", "zzz", "description, engines", None),
        (GOOD_TARGET + 'name = "x"', "unknown key 'name'", "name", "the name is the file's: t", "remove it"),
        (GOOD_TARGET + 'cores = "4"', "wrong value for key 'cores'", "'4'", "an integer", None),
        (GOOD_TARGET + "cores = 4.0", "wrong value for key 'cores'", "4.0", "an integer", None),
        (GOOD_TARGET + "cores = 0", "wrong value for key 'cores'", "0", "more than 0", None),
        (GOOD_TARGET + "cores = true", "wrong value for key 'cores'", "True", "an integer", None),
        (GOOD_TARGET + "bandwidth_gb_s = inf", "wrong value for key 'bandwidth_gb_s'", "inf", "a finite number", None),
        (GOOD_TARGET + 'isa = "avx3"', "wrong value for key 'isa'", "'avx3'", "'avx2'", "did you mean 'avx2'?"),
        (GOOD_TARGET + "board = 4", "wrong value for key 'board'", "4", "text in quotes", None),
        (GOOD_TARGET + "from_host = 1", "wrong value for key 'from_host'", "1", "true or false", None),
        (GOOD_TARGET + "peak_gops = 4", "wrong value for key 'peak_gops'", "4", "a table", None),
        (
            GOOD_TARGET + "[peak_gops]\nint7 = 4",
            "wrong value for key 'peak_gops.int7'",
            "'int7'",
            "'fp32', 'fp16', 'bf16', 'fp8', 'int8', 'w8' or 'w4'",
            "did you mean 'int8'?",
        ),
        (
            GOOD_TARGET + "[options.openvino]\nHINT = [1]",
            "wrong value for key 'options.openvino.HINT'",
            "[1]",
            "true or false; or an integer; or a number; or text in quotes",
            None,
        ),
        (
            GOOD_TARGET.replace('"onnxruntime"', '"onnxruntim"'),
            "wrong value for key 'engines[0]'",
            "'onnxruntim'",
            "'openvino', 'onnxruntime' or 'tensorrt'",
            "did you mean 'onnxruntime'?",
        ),
        (
            GOOD_TARGET.replace('["onnxruntime"]', '"onnxruntime"'),
            "wrong value for key 'engines'",
            "'onnxruntime'",
            "a list: [ … ]",
            None,
        ),
        (
            GOOD_TARGET.replace('["onnxruntime"]', "[]"),
            "wrong value for key 'engines'",
            "[]",
            "a list of at least 1",
            None,
        ),
        (
            GOOD_TARGET.replace('description = "d"', ""),
            "key 'description' is missing",
            None,
            "description = …",
            "add it",
        ),
    ],
)
def test_wrong_targets_are_explained(text, problem, found, allowed, fix):
    with pytest.raises(SpecError) as caught:
        target(text)
    assert caught.value.problem == f"t.toml: {problem}"
    assert caught.value.found == found
    assert allowed in caught.value.allowed
    assert caught.value.fix == fix


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (GOOD_PROFILE + "p98_ms = 4", r"unknown key 'limits\.p98_ms'(.|\n)*p90_ms(.|\n)*did you mean 'p9.?.?_ms'"),
        (GOOD_PROFILE.replace("5", "-5"), r"'limits\.p99_ms'\n  found:   -5\n  allowed: more than 0"),
        (GOOD_PROFILE + "max_drop_points = -1", r"max_drop_points'\n  found:   -1\n  allowed: 0(\.0)? or more"),
        (GOOD_PROFILE + '[load]\nscenario = "server"', r"'server'\n  allowed: 'single_stream' or 'batch'"),
        (GOOD_PROFILE + "[load]\nbatch = 0", r"'load\.batch'\n  found:   0\n  allowed: more than 0"),
        (
            'description = "d"\nlimits = 3',
            r"'limits'\n  found:   3\n  allowed: a table with the keys first_inference_ms",
        ),
        ('description = "d"', r"key 'limits' is missing\n  allowed: limits = …\n  fix:     add it"),
    ],
)
def test_wrong_profiles_are_explained(text, match):
    with pytest.raises(SpecError, match=match):
        profile(text)


def test_more_wrong_keys_are_counted_but_not_what_follows_from_the_first():
    with pytest.raises(SpecError, match=r"unknown key 'aaa' \(and 1 more\)"):
        target(GOOD_TARGET + "aaa = 1\nbbb = 2")
    with pytest.raises(SpecError, match=r"unknown key 'descripton'\n"):
        target(GOOD_TARGET.replace("description", "descripton"))


def test_bad_toml_says_where(tmp_path):
    path = tmp_path / "t.toml"
    path.write_text("a = 1\nb = ]\n")
    with pytest.raises(SpecError, match=r"t\.toml: not valid TOML\n  found:.*line 2, column"):
        read_toml(path)


def test_unreadable_files_say_so(tmp_path):
    with pytest.raises(SpecError, match=r"none\.toml: no such file"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(SpecError, match="cannot be read"):
        read_toml(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match=r"cannot be read(.|\n)*UTF-8"):
        read_toml(tmp_path / "binary.toml")


def test_a_profile_asks_for_enough_queries_of_its_percentiles():
    load = profile('description = "d"\n[limits]\np50_ms = 1\np999_ms = 2\n[load]\nmin_count = 5').load_spec()
    assert load.percentiles == (50.0, 99.9)
    assert load.min_count == 5


PI = GOOD_TARGET + 'arch = "aarch64"\nisa = "neon-dotprod"\nboard = "Raspberry Pi 5"\ncores = 4\nmemory_mb = 4000\n'


def test_a_host_is_the_target_when_every_fact_fits():
    assert mismatch(target(PI), HOST) is None
    assert mismatch(target(GOOD_TARGET), HOST) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"arch": "x86_64"}, "this host is x86_64, the target is aarch64"),
        ({"board": None}, "this host is not a known board, the target is Raspberry Pi 5"),
        ({"board": "Raspberry Pi 4 Model B"}, "this host is Raspberry Pi 4 Model B, the target is Raspberry Pi 5"),
        ({"isa": "neon-i8mm"}, "this host is neon-i8mm, the target is neon-dotprod"),
        ({"cores": 2}, "this host has 2 cores, the target has at least 4"),
        ({"memory_mb": 3999.0}, "this host has 3999 MB of memory, the target has at least 4000 MB"),
    ],
)
def test_a_host_that_is_not_the_target_says_why(change, reason):
    assert mismatch(target(PI), dataclasses.replace(HOST, **change)) == reason


def test_a_better_instruction_set_is_another_target():
    vnni = dataclasses.replace(HOST, arch="x86_64", isa="avx512-vnni")
    assert "the target is avx2" in str(mismatch(target(GOOD_TARGET + 'isa = "avx2"'), vnni))


def test_cpu_model_and_gpu_must_be_the_same():
    by_cpu = target(GOOD_TARGET + 'cpu_model = "Core i5"')
    assert mismatch(by_cpu, HOST) == "this host is ARM 0x41 part 0xd0b, the target is Core i5"
    by_gpu = target(GOOD_TARGET + 'gpu = "NVIDIA L4"')
    assert mismatch(by_gpu, HOST) == "this host has no NVIDIA GPU, the target has NVIDIA L4"
    assert mismatch(by_gpu, dataclasses.replace(HOST, gpus=("NVIDIA L4",))) is None


def test_paths_in_messages_are_those_given(tmp_path):
    path = tmp_path / "t.toml"
    path.write_text(GOOD_TARGET + "core = 4")
    with pytest.raises(SpecError) as caught:
        parse(Target, read_toml(path), str(path), name=path.stem)
    assert str(caught.value).startswith(str(Path(path)))
