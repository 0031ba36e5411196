"""What the README tells people to write and to run is right."""

import re
from pathlib import Path

from edgekit.backends.methods import method_table
from edgekit.catalog import load_profile, load_target
from edgekit.cli.main import COMMANDS
from edgekit.devices.address import devices_file, find_device
from edgekit.recipe import load_recipe

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_its_files_are_read(tmp_path, monkeypatch):
    recipe, distilling, student, pruning, qat, devices, target, profile = re.findall(
        r"```toml\n(.*?)```", TEXT, re.DOTALL
    )
    for name, text in (
        ("edgekit.toml", recipe),
        ("targets/press-line-camera.toml", target),
        ("profiles/press-line.toml", profile),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert load_recipe(tmp_path).name == "flowers"
    rest = re.sub(r'\[student\].*\nmodel = "nets:Student"\n', lambda _: student, recipe).partition("[distillation]")[0]
    (tmp_path / "edgekit.toml").write_text(rest + distilling + pruning + qat, encoding="utf-8")
    written = load_recipe(tmp_path)
    assert [match.loss for match in written.distillation.features] == ["attention_transfer"]
    assert written.student is not None
    assert set(written.student.cuts) == {"depth", "width", "embeddings"}
    assert written.pruning is not None
    assert (written.pruning.ratio, written.pruning.train.epochs) == (0.5, 3)
    assert written.qat is not None
    assert written.qat.weight_bits == 8
    assert load_target("press-line-camera", [tmp_path]).isa == "avx2-vnni"
    assert load_profile("press-line", [tmp_path]).limits.p99_ms == 25.0
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    devices_file().parent.mkdir()
    devices_file().write_text(devices, encoding="utf-8")
    assert (find_device("pi").host, find_device("pi").user) == ("raspberrypi.local", "pi")


def test_its_two_commands_are_there():
    setup = [line for line in TEXT.splitlines() if line.startswith("python3 -m venv ")]
    assert [line.rsplit("/", 1)[-1] for line in setup] == ["digits", "pytest"]
    assert (ROOT / "examples/digits/edgekit.toml").is_file()


def test_it_names_only_commands_that_exist():
    named = set(re.findall(r"`edgekit (\w+)", TEXT)) | set(re.findall(r"^\$? ?edgekit (\w+)", TEXT, re.MULTILINE))
    assert named
    assert named <= set(COMMANDS)


def test_its_table_of_methods_is_what_the_backends_say():
    rows = ["| " + " | ".join(row) + " |" for row in method_table()]
    assert [line for line in TEXT.splitlines() if line in rows] == rows
