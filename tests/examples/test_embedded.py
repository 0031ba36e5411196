"""examples/embedded: the frame loop under a socket of systemd's kind, its unit, its Dockerfiles."""

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from embedded_builds import change, written
from tiny_bundles import null_bundle
from tiny_recipe import edgekit
from watched import watched_bundle

from edgekit.processing_specs import Preprocessing
from edgekit.runtime.watch.reading import read_watch

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "embedded"
UNIT = FOLDER / "edgekit-camera.service"
COUNTERS = {"taken", "dropped", "done", "failed", "waiting", "longest_s"}


class Service:
    """The frame loop as systemd starts it, and what it says to systemd's socket."""

    def __init__(self, folder, *arguments, watchdog_s=0.4, abstract=False):
        address = f"\0edgekit-{os.getpid()}-{folder.name}" if abstract else str(folder / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(60)
        environment = os.environ | {
            "NOTIFY_SOCKET": address.replace("\0", "@"),
            "WATCHDOG_USEC": str(int(watchdog_s * 1e6)),
            "PYTHONPATH": str(ROOT),
        }
        environment.pop("WATCHDOG_PID", None)
        command = [sys.executable, str(FOLDER / "frame_loop.py"), *map(str, arguments)]
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder
        )

    def hear(self):
        return self.socket.recv(4096).decode().split("\n")

    def rest(self):
        """Everything that was said and not heard yet."""
        self.socket.setblocking(False)
        said = []
        while True:
            try:
                said += self.hear()
            except BlockingIOError:
                return said

    def end(self):
        """Its exit code, lines of stdout, and stderr."""
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out.splitlines(), err

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()
        self.socket.close()


@pytest.mark.parametrize("abstract", [False, True])
def test_it_is_ready_gives_signs_of_life_and_stops_when_told(tmp_path, abstract):
    bundle = null_bundle(tmp_path / "bundle")
    with Service(tmp_path, bundle, "--fps", 200, abstract=abstract) as service:
        assert service.hear() == ["READY=1", "STATUS=runs 'zeros'"]
        for _ in range(3):
            assert service.hear() == ["WATCHDOG=1"]
        service.process.send_signal(signal.SIGTERM)
        code, lines, errors = service.end()
        assert (code, errors) == (0, "")
        assert service.rest()[-1] == "STOPPING=1"
    told = json.loads(lines[-1])
    assert told["done"] > 0
    assert set(told) >= COUNTERS
    assert (told["answer"], told["error"], told["failed"]) == (0, None, 0)


def test_frames_that_all_fail_give_no_sign_of_life(tmp_path):
    bundle = null_bundle(tmp_path / "bundle")
    np.savez(tmp_path / "frames.npz", input=np.zeros((4, 99), np.float32))
    with Service(tmp_path, bundle, "--frames", tmp_path / "frames.npz", "--fps", 500, "--count", 200) as service:
        code, lines, _ = service.end()
        said = service.rest()
    assert code == 0
    assert "READY=1" in said
    assert "WATCHDOG=1" not in said
    told = json.loads(lines[-1])
    assert told["failed"] + told["dropped"] == 200
    assert "wrong shape" in told["error"]


def test_every_frame_is_answered_in_order_where_a_busy_engine_blocks(tmp_path):
    bundle = written(tmp_path / "bundle", "classifier")
    with Service(tmp_path, bundle, "--fps", 10_000, "--count", 100, "--when-full", "block") as service:
        code, lines, errors = service.end()
    assert (code, errors) == (0, "")
    told = json.loads(lines[-1])
    assert (told["done"], told["dropped"], told["frame"]) == (100, 0, 99)
    assert told["answer"] in range(4)


@pytest.mark.parametrize("top", [2, 4])  # 4: as many as there are classes
@pytest.mark.parametrize("labels", [[], ["ant", "bee", "cat", "dog"]])
def test_the_best_class_is_told_where_the_bundle_sorts_them(tmp_path, top, labels):
    bundle = written(tmp_path / "bundle", "classifier")
    output = json.loads((bundle / "manifest.json").read_text())["outputs"][0]["name"]
    with np.load(bundle / "golden.npz") as golden:
        best = int(golden[f"reference/{output}"][0].argmax())
    change(bundle, postprocessing={"output": output, "activation": "softmax", "axis": 1, "top": top}, labels=labels)
    with Service(tmp_path, bundle, "--count", 1) as service:
        code, lines, errors = service.end()
    assert (code, errors) == (0, "")
    assert json.loads(lines[-1])["answer"] == (labels[best] if labels else best)


CAMERA = """
import sys, types
import numpy as np
sys.path.insert(0, {folder!r})
import frame_loop

class Capture:
    left = 3
    def __init__(self, number): pass
    def read(self):
        self.left -= 1
        return self.left >= 0, np.zeros(4, np.float32)

frame_loop.cv2 = types.SimpleNamespace(VideoCapture=Capture)
exec({snippet!r}, vars(frame_loop))
sys.exit(frame_loop.main([{bundle!r}, "--when-full", "block"]))
"""


def test_a_camera_as_the_page_has_it_is_answered_and_its_end_is_a_failure_that_systemd_mends(tmp_path):
    bundle = null_bundle(tmp_path / "bundle")
    snippet = re.search(
        r"```python\n(def camera.*?)```", (FOLDER / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )[1]
    script = CAMERA.format(folder=str(FOLDER), snippet=snippet, bundle=str(bundle))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (1, "error: the camera gives no frames\n")
    assert "Restart=on-failure" in UNIT.read_text(encoding="utf-8")


@pytest.mark.parametrize("options", [("--fps", 0), ("--fps", -1), ("--fps", "nan"), ("--count", -1)])
def test_a_pace_or_a_count_that_is_none_is_refused_with_2(tmp_path, options):
    with Service(tmp_path, tmp_path / "bundle", *options) as service:
        code, _, errors = service.end()
    assert code == 2
    assert f"{options[0]} must be above 0, found {options[1]}" in errors


def test_a_camera_that_is_faster_than_the_engine_is_answered_about_now(tmp_path):
    bundle = null_bundle(tmp_path / "bundle", latency_us=30_000.0)
    with Service(tmp_path, bundle, "--fps", 1000, "--count", 200) as service:
        code, lines, _ = service.end()
    assert code == 0
    told = json.loads(lines[-1])
    assert told["dropped"] > told["done"] > 0
    assert told["frame"] == 199
    assert told["dropped"] + told["done"] == 200


def test_raw_golden_frames_are_preprocessed_as_the_bundle_says(tmp_path):
    settings = Preprocessing(input="input", layout="any", scale=0.5)
    bundle = null_bundle(tmp_path / "bundle", preprocessing=settings)
    with Service(tmp_path, bundle, "--count", 5, "--fps", 1000, "--when-full", "block", "--verify") as service:
        code, lines, errors = service.end()
    assert code == 0
    assert "reference:" in errors
    assert json.loads(lines[-1])["done"] == 5


def test_what_it_counted_is_there_for_edgekit_watch(tmp_path):
    bundle = null_bundle(tmp_path / "bundle")
    options = ("--count", 20, "--fps", 1000, "--when-full", "block", "--watch", tmp_path / "watch")
    with Service(tmp_path, bundle, *options) as service:
        code, _, errors = service.end()
    assert (code, errors) == (0, "")
    shown = edgekit("watch", tmp_path / "watch", "--once", "--json")
    found = json.loads(shown.stdout)
    assert (found["state"], found["recent"]["queries"], found["recent"]["dropped"]) == ("ended", 20, 0)


@pytest.mark.parametrize(
    ("number", "code", "state"), [(signal.SIGTERM, 0, "ended"), (signal.SIGKILL, -9, "silent")], ids=["stop", "kill -9"]
)
def test_a_stop_is_told_apart_from_a_kill(tmp_path, number, code, state):
    bundle = watched_bundle(tmp_path / "bundle", {"silence_s": 0.5}, period_s=0.1)
    with Service(tmp_path, bundle, "--fps", 200, "--watch", tmp_path / "watch") as service:
        service.hear()
        assert service.hear() == ["WATCHDOG=1"], "it answers frames"
        service.process.send_signal(number)
        assert service.end()[0] == code
    until = time.monotonic() + 60
    while (reading := read_watch(tmp_path / "watch")).state == "running" and time.monotonic() < until:
        time.sleep(0.05)
    assert reading.state == state
    assert reading.last["queries"] > 0 or state == "silent", "what a kill leaves may be older than the first frame"


def test_an_error_that_ends_it_is_told(tmp_path):
    bundle = watched_bundle(tmp_path / "bundle")
    change(bundle, engine="openvino")
    with Service(tmp_path, bundle, "--watch", tmp_path / "watch") as service:
        code, _, errors = service.end()
    assert (code, errors.startswith("error: ")) == (1, True)
    assert read_watch(tmp_path / "watch").state == "failed"


def test_a_bundle_that_fails_here_ends_it_with_3_before_it_is_ready(tmp_path):
    bundle = null_bundle(tmp_path / "bundle")
    golden = json.loads((bundle / "manifest.json").read_text())["golden"]
    change(bundle, golden={**golden, "floor_db": 301.0})
    with Service(tmp_path, bundle, "--verify") as service:
        code, _, errors = service.end()
        assert code == 3
        assert "FAILED" in errors
        assert service.rest() == []


def test_a_damaged_bundle_ends_it_with_1_before_it_is_ready(tmp_path):
    bundle = null_bundle(tmp_path / "bundle")
    with (bundle / "golden.npz").open("ab") as file:
        file.write(b"x")
    with Service(tmp_path, bundle) as service:
        code, lines, errors = service.end()
        assert (code, lines) == (1, [])
        assert errors.startswith(f"error: {bundle}: the file 'golden.npz' is damaged")
        assert service.rest() == []


def test_without_systemd_nothing_is_sent_and_nothing_fails(tmp_path):
    bundle = null_bundle(tmp_path / "bundle")
    environment = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"} | {
        "PYTHONPATH": str(ROOT)
    }
    command = [sys.executable, str(FOLDER / "frame_loop.py"), str(bundle), "--count", "3", "--fps", "1000"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_signs_of_life_are_given_four_times_as_often_as_asked(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(FOLDER)
    from sd_notify import Watchdog, watchdog_s

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "8000000")
        assert watchdog_s() == 8.0
        now = iter([second * 0.5 for second in range(1000)])
        watchdog = Watchdog(watchdog_s(), clock=lambda: next(now))
        for _ in range(40):
            watchdog.alive()
        listening.setblocking(False)
        heard = 0
        while True:
            try:
                assert listening.recv(100) == b"WATCHDOG=1"
            except BlockingIOError:
                break
            heard += 1
    assert 5 <= heard <= 14  # 40 calls, up to 30 seconds


@pytest.mark.parametrize(("pid", "microseconds"), [("1", "5000000"), (None, "0"), (None, ""), (None, "-1")])
def test_no_watchdog_is_asked_for_of_another_process_or_for_no_time(monkeypatch, pid, microseconds):
    monkeypatch.syspath_prepend(FOLDER)
    from sd_notify import watchdog_s

    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    if pid is None:
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
    else:
        monkeypatch.setenv("WATCHDOG_PID", pid)
    assert watchdog_s() is None


def test_systemd_takes_the_unit(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze: apt-get install systemd")
    text = UNIT.read_text(encoding="utf-8").replace("/opt/edgekit/venv/bin/python", sys.executable)
    unit = tmp_path / UNIT.name
    unit.write_text(text, encoding="utf-8")
    ended = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    mine = [line for line in ended.stderr.splitlines() if UNIT.name in line]
    assert (ended.returncode, mine) == (0, [])


def test_the_unit_starts_the_loop_with_options_that_it_has():
    text = UNIT.read_text(encoding="utf-8")
    words = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)[1].split()
    assert Path(words[1]).name == "frame_loop.py"
    usage = subprocess.run(
        [sys.executable, str(FOLDER / "frame_loop.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert all(word in usage.stdout for word in words if word.startswith("--"))
    assert {"Type=notify", "WatchdogSec=10", "Restart=on-failure"} <= set(text.splitlines())


@pytest.mark.parametrize("name", ["Dockerfile.arm64", "Dockerfile.jetson"])
def test_what_a_dockerfile_copies_is_in_the_repository(name):
    text = (FOLDER / name).read_text(encoding="utf-8").replace("\\\n", " ")
    copied = [line.split()[1:-1] for line in text.splitlines() if line.startswith("COPY ") and "--from" not in line]
    sources = {source for sources in copied for source in sources} - {"bundle"}
    assert {"edgekit", "pyproject.toml", "examples/embedded/frame_loop.py", "examples/embedded/sd_notify.py"} <= sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    entry = json.loads(re.search(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)[1])
    assert Path(entry[1]).name == "frame_loop.py"
    wanted = re.search(r"^only-include = (.*)$", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert set(json.loads(wanted)) <= sources


CPP = ROOT / "examples" / "embedded_cpp"
PAGES = [FOLDER / "README.md", FOLDER / "yocto-buildroot.md", CPP / "README.md", CPP / "third_party" / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_what_a_page_names_is_there(page):
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    rows = re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert [name for name in links + names if not (page.parent / name).exists()] == []
    paths = re.findall(r"(?:^|\s)(examples/[\w./-]*[\w/])", text)
    assert [path for path in paths if not list(ROOT.glob(path))] == []


def test_the_pages_call_the_program_with_words_that_it_has():
    usage = (CPP / "src" / "main.cpp").read_text(encoding="utf-8")
    lines = [line for page in PAGES for line in page.read_text(encoding="utf-8").splitlines()]
    calls = [line for line in lines if re.match(r"(ssh |build/)?\S*.*edgekit_embedded (verify|run) ", line)]
    assert len(calls) >= 4
    for word in {word for call in calls for word in re.findall(r" (--[a-z-]+)", call)}:
        assert f'"{word}"' in usage
    options = {name for line in lines for name in re.findall(r"-D([A-Z_]*EDGEKIT[A-Z_]*)=", line)}
    assert options == {"EDGEKIT_OPENVINO"}
    assert "option(EDGEKIT_OPENVINO" in (CPP / "CMakeLists.txt").read_text(encoding="utf-8")


def test_a_yocto_recipe_knows_the_licences_as_they_are():
    text = (FOLDER / "yocto-buildroot.md").read_text(encoding="utf-8")
    ours = hashlib.md5((ROOT / "LICENSE").read_bytes(), usedforsecurity=False).hexdigest()
    theirs = (CPP / "third_party" / "onnxruntime" / "LICENSE").read_bytes()
    found = set(re.findall(r"md5=([0-9a-f]{32})", text))
    assert found == {ours, hashlib.md5(theirs, usedforsecurity=False).hexdigest()}


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", FOLDER / "README.md", FOLDER / "Dockerfile.jetson"],
    ids=lambda page: page.parent.name + page.suffix,
)
def test_a_page_installs_the_runtime_after_what_it_needs(page):
    """The other way round pip ends in errors about packages of the command line, which nobody asked for."""
    installs = re.findall(r"pip install ([^\n&]*)", page.read_text(encoding="utf-8"))
    runtime = next(i for i, line in enumerate(installs) if line.endswith("--no-deps .") or "--no-deps . " in line)
    assert "numpy" in installs[runtime - 1]


def test_a_yocto_recipe_is_written_as_bitbake_reads_it():
    text = (FOLDER / "yocto-buildroot.md").read_text(encoding="utf-8").partition("## Buildroot")[0]
    functions = re.findall(r"^((?:python )?[\w:]+)\(\) {\n(.*?)^}", text, re.MULTILINE | re.DOTALL)
    assert {name for name, body in functions if "import " in body} == {"python do_unpack:append"}
    assert len(functions) == 4
    assigned = re.findall(r"^[A-Z_]+(?:[:\[][\w${}:-]+\]?)* \??\+?= .*", text, re.MULTILINE)
    assert len(assigned) > 20
    assert [line for line in assigned if not line.endswith('"')] == [], "nothing may follow a value, not even a comment"
