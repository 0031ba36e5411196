"""What EdgeKit keeps on a device: told, removed once nobody has used it for long, or at a word."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from loopback_sshd import SSHD, loopback_device
from tiny_recipe import edgekit

from edgekit.devices.device import opened
from edgekit.devices.kit import make_kit
from edgekit.profiling import locks, room

pytestmark = pytest.mark.skipif(SSHD is None, reason="sshd is not installed (Debian: openssh-server)")

DAY_S = 86400


@pytest.fixture
def board(tmp_path, named):
    with loopback_device(tmp_path / "device", "board") as device:
        named(board=device.address)
        yield device


def put(device, name, *, days=0.0, megabytes=1):
    """A folder that was last used some days ago."""
    folder = device.root / name
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(os.urandom(megabytes * 1_000_000))
    os.utime(folder, (time.time() - days * DAY_S,) * 2)
    return folder


def visit(device):
    """What a visit says that it removed."""
    said = []
    with opened(device.address, progress=lambda *step: said.append(step[0])):
        pass
    return [line for line in said if line.startswith("removed")]


def test_what_nobody_used_for_long_is_removed_on_the_next_visit(board):
    old = [put(board, f"{kind}/{digit * 64}", days=43) for kind, digit in zip(room.KINDS, "abc", strict=True)]
    younger = put(board, f"kit/{'d' * 64}", days=20)
    theirs = put(board, "bundles/of-my-own", days=400)
    busy = put(board, f"kit/{'e' * 64}", days=43)
    with subprocess.Popen(["sleep", "60"], env={"PYTHONPATH": str(busy), "PATH": os.environ["PATH"]}) as user:
        assert visit(board) == [
            f"removed {folder.parent.name}/{folder.name[:12]} (1 MB), unused for 43 days" for folder in old
        ]
        assert [folder.exists() for folder in (*old, younger, theirs, busy)] == [False] * 3 + [True] * 3
        user.kill()
    assert visit(board) == ["removed kit/eeeeeeeeeeee (1 MB), unused for 43 days"]
    assert board.left() == []


def test_what_is_used_counts_as_used_now_by_the_clock_here(board, linear):
    assert edgekit("verify", linear, "--device", "board").exit_code == 0
    (kit,), (bundle,) = (board.root / "kit").iterdir(), (board.root / "bundles").iterdir()
    ahead = put(board, f"wheels/{'a' * 64}", days=-400)  # of a board whose clock was wrong
    assert all(abs(folder.stat().st_mtime - time.time()) < 60 for folder in (kit, bundle)), "as it was sent"
    for folder in (kit, bundle):
        os.utime(folder, (0, time.time() - 29 * DAY_S))
    assert edgekit("verify", linear, "--device", "board").exit_code == 0
    assert all(abs(folder.stat().st_mtime - time.time()) < 60 for folder in (kit, bundle, ahead))


def test_a_kit_that_was_not_used_for_a_year_is_not_removed_by_who_uses_it(board):
    assert visit(board) == []
    kit = board.root / "kit" / make_kit().sha256
    os.utime(kit, (0, 0))
    assert visit(board) == []
    assert kit.is_dir()


def test_doctor_says_how_much_is_kept_and_cleans(board, tmp_path):
    put(board, f"wheels/{'a' * 64}", megabytes=3)
    put(board, f"bundles/{'b' * 64}", megabytes=2)
    put(board, f"bundles/{'c' * 64}.part.999999999")  # whoever wrote it was killed, or removed it and was
    plans = board.home / ".cache/edgekit/tensorrt"
    plans.mkdir(parents=True)
    (plans / "plan.engine").write_bytes(os.urandom(4_000_000))
    done = edgekit("doctor", "--device", "board", "--json")
    keeps = json.loads(done.stdout)[0]["keeps"]
    assert (keeps["root"], keeps["bundles"]["count"], keeps["kit"]["count"]) == (str(board.root), 1, 1)
    assert (round(keeps["wheels"]["mb"]), round(keeps["bundles"]["mb"]), round(keeps["plans"]["mb"])) == (3, 2, 4)
    assert keeps["mb"] == pytest.approx(sum(keeps[kind]["mb"] for kind in room.KINDS), abs=0.2)
    out = " ".join(edgekit("doctor", "--device", "board").stdout.split())
    assert "wheels 3.0 MB (1), bundles and samples 2.0 MB (1); --clean removes them" in out
    cleaned = edgekit("doctor", "--device", "board", "--clean")
    assert cleaned.exit_code == 0, cleaned.stderr
    said, plan = cleaned.stdout.splitlines()
    assert float(said.removeprefix("board: removed ").partition(" MB of ")[0]) == pytest.approx(keeps["mb"], abs=0.1)
    assert plan == f"  stay, for programs there: 4.0 MB of TensorRT plans in {plans}"
    assert not board.root.exists()
    assert "removed 0.0 MB" in edgekit("doctor", "--device", "board", "--clean").stdout


def test_what_is_in_use_or_not_ours_is_not_cleaned(board):
    ours, theirs = put(board, f"kit/{'a' * 64}"), put(board, "kit/mine")
    (board.root / "wheels").symlink_to(board.home)
    precious = put(board, f"../../{'b' * 64}")
    with subprocess.Popen(["sleep", "60"], env={"PYTHONPATH": str(ours), "PATH": os.environ["PATH"]}) as user:
        done = edgekit("doctor", "--device", "board", "--clean", "--json")
        user.kill()
    (found,) = json.loads(done.stdout)
    assert (done.exit_code, found["kept"], found["left"], found["removed_mb"]) == (0, [str(ours)], [], 0.0)
    assert edgekit("doctor", "--device", "board", "--clean").exit_code == 0
    assert [folder.exists() for folder in (ours, theirs, precious)] == [False, True, True]


def test_nothing_is_cleaned_while_somebody_measures(board):
    with opened(board.address) as device:
        done = edgekit("doctor", "--device", "board", "--clean")
        assert (done.exit_code, "somebody else is measuring there" in done.stderr) == (1, True)
        assert Path(device.kit).is_dir()


def test_cleaning_needs_no_room_and_no_more_than_the_standard_library(board):
    for module in (locks, room):
        tree = ast.parse(Path(module.__file__).read_text())
        names = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        names |= {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
        assert {name.split(".")[0] for name in names - {"edgekit.profiling.locks"}} <= set(sys.stdlib_module_names)
    put(board, f"bundles/{'b' * 64}")
    put(board, f"bundles/{'c' * 64}.part.999999999")  # whoever removed it was killed
    assert edgekit("doctor", "--device", "board", "--clean").exit_code == 0
    assert not board.root.exists(), "no kit was sent"


def test_clean_without_a_device_is_a_usage_error():
    assert edgekit("doctor", "--clean").exit_code == 2
