"""The commands of examples/jetson/README.md exist as they stand, and so does what they name."""

import re
import shlex
from pathlib import Path

import pytest

from edgekit.catalog import load_target
from edgekit.cli.main import cli

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "examples/jetson/README.md").read_text(encoding="utf-8")
SCRIPTS = [block.replace("\\\n", " ") for block in re.findall(r"```\n(.*?)```", TEXT, re.DOTALL)]
LINES = [shlex.split(line) for script in SCRIPTS for line in script.splitlines() if line.startswith("edgekit ")]


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_every_command_and_option_is_known(words):
    command = cli.get_command(cli.make_context("edgekit", [], resilient_parsing=True), words[1])
    assert command is not None
    known = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
    for at, word in enumerate(words):
        if word == "--target":
            assert "tensorrt" in load_target(words[at + 1]).engines
        if word == "deploy":
            assert (ROOT / words[at + 1] / "edgekit.toml").is_file()


def test_every_step_has_its_command():
    assert {words[1] for words in LINES} == {"inspect", "export", "deploy", "doctor", "verify", "profile"}


def test_every_target_that_is_named_is_there():
    names = re.search(r"Targets:(.*?);", TEXT, re.DOTALL)
    for name in re.findall(r"`([a-z0-9-]+)`", names[1]):
        assert "tensorrt" in load_target(name).engines


def test_trtexec_is_given_flags_of_the_version_they_are_for():
    """From 11.0 on --noDataTransfers, --useCudaGraph and --useSpinWait do nothing, and their opposites are new."""
    old, new = {"--noDataTransfers", "--useCudaGraph", "--useSpinWait"}, {"--includeDataTransfers", "--noCudaGraph"}
    versions = re.findall(r"# (1\d)\.x\n(trtexec .*)", "\n".join(SCRIPTS))
    assert [version for version, _ in versions] == ["10", "11", "10", "11"]
    for version, command in versions:
        assert not set(command.split()) & (new if version == "10" else old), command
