import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from edgekit.disk import DiskFull, disk_full, filled, temporary_folder, whole
from edgekit.errors import EngineError

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def free(monkeypatch):
    """Says how many bytes are free, everywhere or by folder name."""

    def put(count=10**9, **by_name):
        def usage(folder):
            return type("Usage", (), {"free": by_name.get(getattr(folder, "name", ""), count)})

        monkeypatch.setattr("edgekit.disk.shutil.disk_usage", usage)

    return put


def test_a_disk_is_full_where_the_system_says_so(tmp_path, free):
    free()
    refused = EngineError("onnxruntime could not quantise the model")
    refused.__cause__ = FULL
    assert disk_full(refused, tmp_path) == tmp_path
    assert disk_full(OSError(errno.EDQUOT, "Disk quota exceeded", "/elsewhere/x"), tmp_path) == Path("/elsewhere")
    assert disk_full(OSError(errno.EACCES, "no"), tmp_path) is None


def test_errors_that_name_each_other_as_their_cause_are_walked_once(tmp_path, free):
    first, second = ValueError("one"), ValueError("two")
    first.__cause__, second.__cause__ = second, first
    assert disk_full(first, tmp_path) is None


def test_an_engine_that_names_no_cause_is_believed_where_nothing_is_free(tmp_path, free):
    free(temporary=0)
    silent = RuntimeError("basic_ios::clear: iostream error")
    (tmp_path / "temporary").mkdir()
    assert disk_full(silent, tmp_path, tmp_path / "temporary") == tmp_path / "temporary"
    assert disk_full(silent, tmp_path) is None
    assert disk_full(FULL, tmp_path, tmp_path / "temporary") == tmp_path / "temporary"


def fill(folder):
    with filled(folder, "the thing"):
        (folder / "half.bin").write_bytes(bytes(250_000))
        raise FULL


def test_a_full_disk_says_what_where_and_how_much_and_leaves_nothing(tmp_path, free):
    free(1234)
    with pytest.raises(DiskFull, match="the disk is full: the thing could not be written") as caught:
        fill(tmp_path / "partial")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path))
    assert caught.value.strerror.splitlines()[1:] == [
        "  found:   0.001 MB free after 0.250 MB of it",
        "  fix:     make room there and give the same command again; what is finished is kept",
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_once_by_who_knows_best(tmp_path, free):
    free()
    with (
        pytest.raises(DiskFull, match="the disk is full: the inner thing") as caught,
        filled(tmp_path / "outer", "the outer thing"),
        temporary_folder("the inner thing"),
    ):
        raise FULL
    assert caught.value.filename == tempfile.gettempdir()
    assert list(tmp_path.iterdir()) == []


def test_without_any_room_there_is_no_temporary_folder(tmp_path, free, monkeypatch):
    def none(**options):
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    free(100)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("edgekit.disk.tempfile.mkdtemp", none)
    monkeypatch.setattr("edgekit.disk.tempfile.gettempdir", none)
    with (
        pytest.raises(DiskFull, match="the measuring job could not be written") as caught,
        temporary_folder("the measuring job"),
    ):
        pass
    assert caught.value.filename == str(tmp_path)


def test_another_error_passes_as_it_is(tmp_path, free):
    free()
    with pytest.raises(EngineError, match="refused"), temporary_folder("it") as folder:
        raise EngineError("refused")
    assert not folder.exists()
    free(0)
    with pytest.raises(KeyboardInterrupt), filled(tmp_path / "partial", "it"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_filled_leaves_a_folder_that_its_block_renamed(tmp_path):
    with filled(tmp_path / "partial", "it"):
        os.replace(tmp_path / "partial", tmp_path / "final")
    assert [p.name for p in tmp_path.iterdir()] == ["final"]


def write_half(path):
    with whole(path) as partial:
        partial.write_text("ne")
        raise ValueError("half")


def test_whole_replaces_a_file_only_when_it_is_written(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="half"):
        write_half(path)
    assert path.read_text() == "old"
    with whole(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_whole_tells_a_full_disk(tmp_path):
    with (
        pytest.raises(OSError, match=r"the disk is full: report.json could not be written"),
        whole(tmp_path / "report.json"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_folder_that_a_killed_process_left_goes_and_a_living_ones_stays(tmp_path, monkeypatch):
    script = (
        "import os; from edgekit.disk import temporary_folder\nwith temporary_folder('it'): os.kill(os.getpid(), 9)"
    )
    environment = dict(os.environ) | {"TMPDIR": str(tmp_path)}
    assert subprocess.run([sys.executable, "-c", script], env=environment, check=False).returncode == -9
    (left,) = tmp_path.iterdir()
    (tmp_path / "edgekit-mine").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with temporary_folder("it") as first, temporary_folder("it") as second:
        assert {first, second, tmp_path / "edgekit-mine"} == set(tmp_path.iterdir())
    assert not left.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["edgekit-mine"]
