"""Public architectures with fixed random weights, and real files, through both CPU engines with ``--precision auto``.

By hand: ``python tests/bench/zoo.py [--only TEXT] [--rows N] [--seconds 120]``; it needs torchvision, timm and
transformers (``pip install timm torchvision transformers``), and EDGEKIT_DATA for the files. Every row is a process of
its own with a time limit, and is kept as one JSON file, so a run that was stopped goes on where it was; ``--again``
repeats the rows that failed. The table is written to ``tests/bench/ZOO.md`` after every row; ``--table`` only writes
it. Exits 1 when a row leaks a traceback or runs out of time, when fp32 is under 90 dB though the network itself keeps
more (in torch, float32 against float64), or when what ships is shown slower than fp32.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from zoo_models import CALIBRATION, TEST, TRAIN, Row, file_of, make, row_of, rows, samples_of
from zoo_table import FP32_FLOOR_DB, TIMES, failed, write_table

HERE = Path(__file__).parent
TRIALS = 5  # plans tried on an engine: what 120 s allow
TURN_SECONDS = 1.0
MAX_SECONDS = 8.0  # of measuring at a time, likewise
PROFILE = f"""
description = "a row of the zoo"
[limits]
[load]
min_seconds = 1.0
max_seconds = {MAX_SECONDS}
min_count = 200
"""


def main() -> int:
    """Runs the rows that are missing, writes the table; 0 when every row that was run is right."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="rows whose name holds this text")
    parser.add_argument("--rows", type=int, default=None, help="at most so many")
    parser.add_argument("--seconds", type=float, default=120.0, help="time limit of a row")
    parser.add_argument("--cache", type=Path, default=Path("runs/zoo"))
    parser.add_argument("--again", action="store_true", help="repeat rows that failed")
    parser.add_argument("--table", action="store_true", help="write the table of what there is, run nothing")
    parser.add_argument("--note", default="", help="of the conditions, written above the table")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    args = parser.parse_args()
    cache = args.cache.resolve()
    if args.row:
        return run_row(row_of(args.row), cache)
    chosen = [row for row in rows() if args.only in row.key and (row.source != "onnx" or "EDGEKIT_DATA" in os.environ)]
    missing = [row for row in chosen if not done(row, cache, args.again)]
    for row in [] if args.table else missing[: args.rows]:
        found = watched(row, cache, args.seconds)
        print(f"{row.key:<45}{found['seconds']:>7.1f} s  {failed(found) or 'ok'}", flush=True)
        write_table(HERE / "ZOO.md", load_rows(cache), args.note)
    results = load_rows(cache)
    write_table(HERE / "ZOO.md", results, args.note)
    return int(any(failed(result) for result in results if args.only in result["key"]))


def path_of(row: Row, cache: Path) -> Path:
    return cache / (row.key.replace("/", "-") + ".json")


def done(row: Row, cache: Path, again: bool) -> bool:
    path = path_of(row, cache)
    return path.exists() and not (again and failed(json.loads(path.read_text())))


def load_rows(cache: Path) -> list[dict[str, Any]]:
    """Every row there is, in the order of the zoo."""
    return [json.loads(path.read_text()) for row in rows() if (path := path_of(row, cache)).exists()]


def watched(row: Row, cache: Path, seconds: float) -> dict[str, Any]:
    """Runs a row in a process of its own, ends it when its time is up, and keeps what became of it."""
    path = path_of(row, cache)
    path.unlink(missing_ok=True)
    cache.mkdir(parents=True, exist_ok=True)
    began, load = time.perf_counter(), os.getloadavg()[0]
    command = [sys.executable, __file__, "--row", row.key, "--cache", str(cache)]
    log = path.with_suffix(".log")
    with (
        log.open("w") as told,
        subprocess.Popen(command, stdout=told, stderr=subprocess.STDOUT, start_new_session=True) as process,
    ):
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"key": row.key}
    took = time.perf_counter() - began
    if not path.exists():
        out_of_time = took >= seconds
        tail = log.read_text()[-2000:]
        found |= {"timed_out": seconds} if out_of_time else {"traceback": f"rc {process.returncode}: {tail}"}
    elif "Traceback (most recent call last)" in log.read_text():
        found.setdefault("traceback", log.read_text()[-2000:])
    found |= {"seconds": round(took, 1), "load_before": round(load, 1), "limit_s": seconds}
    path.write_text(json.dumps(found, indent=1))
    shutil.rmtree(path.with_suffix(""), ignore_errors=True)
    return found


def run_row(row: Row, cache: Path) -> int:
    """The row itself; whatever comes of it is written down."""
    from edgekit.errors import EdgeKitError

    found: dict[str, Any] = {"key": row.key, "input": described(row), "max_seconds": MAX_SECONDS}
    found["most_trials"] = TRIALS
    work = path_of(row, cache).with_suffix("")
    try:
        found |= tried(row, work)
    except EdgeKitError as exc:
        found |= {"refusal": str(exc)}
    except Exception:  # noqa: BLE001  # whatever else leaks is what this bench looks for
        found |= {"traceback": traceback.format_exc()[-3000:]}
    path_of(row, cache).write_text(json.dumps(found, indent=1))
    return 0


def described(row: Row) -> str:
    arrays = samples_of(row, 1, seed=1)
    return ", ".join(TIMES.join(map(str, array.shape[1:])) or "1" for array in arrays.values())


def tried(row: Row, work: Path) -> dict[str, Any]:
    """Both engines of a row."""
    from auto import run_auto

    auto = run_auto(recipe_of(row, work), HERE, work / "run", scored=False)
    engines = {engine: of_engine(auto, engine) for engine in ("openvino", "onnxruntime")}
    parities = [found["fp32_db"] for found in engines.values() if found["fp32_db"] is not None]
    return {
        "engines": engines,
        "own_db": own_db(row)
        if row.source != "onnx" and min(parities, default=FP32_FLOOR_DB) < FP32_FLOOR_DB
        else None,
        "trials": [
            {"plan": str(t.plan), "db": finite(t.db), "failure": t.failure or (t.proof.broken if t.proof else None)}
            for t in auto.trials
        ],
    }


def own_db(row: Row) -> float | None:
    """What is left of a network's outputs after its own rounding: float32 against float64, in torch."""
    import torch

    from edgekit.runtime.numbers import snr_db

    module = make(row.key)
    inputs = [torch.from_numpy(array) for array in samples_of(row, TEST, seed=2).values()]
    with torch.no_grad():
        single = module(*inputs)
        double = module.double()(*(x.double() if x.is_floating_point() else x for x in inputs))
    return finite(snr_db(double.numpy(), single.numpy().astype(np.float64)))


def recipe_of(row: Row, work: Path) -> Any:
    """The recipe of a row, its samples and profile written beside it."""
    from edgekit.recipe import Recipe
    from edgekit.specs import parse

    work.mkdir(parents=True, exist_ok=True)
    (work / "zoo.toml").write_text(PROFILE)
    for seed, (name, count) in enumerate((("train", TRAIN), ("test", TEST)), start=1):
        arrays = samples_of(row, count, seed)
        if list(arrays) == ["input"] or (row.source == "onnx" and len(arrays) == 1):
            arrays = {"x": next(iter(arrays.values()))}
        np.savez(work / f"{name}.npz", **arrays)
    teacher = (
        {"model": str(file_of(row))}
        if row.source == "onnx"
        else {"model": "zoo_models:make", "args": {"key": row.key}, "weights": "factory"}
    )
    raw = {
        "name": row.name,
        "teacher": teacher,
        "data": {
            "train": str(work / "train.npz"),
            "test": str(work / "test.npz"),
            "validation": 0.25,
            "calibration": CALIBRATION,
        },
        "quantization": {"trials": TRIALS},
        "profile": str(work / "zoo.toml"),
    }
    return parse(Recipe, raw, "zoo")


def of_engine(auto: Any, engine: str) -> dict[str, Any]:
    """What one engine made of a network, and what ships on it against fp32, in fresh turns."""
    from auto import fresh_turns, ratio_of

    fp32, chosen = auto.fp32_of(engine), auto.chosen(engine)
    found: dict[str, Any] = {
        "fp32_db": finite(fp32.proof.reference_db) if fp32.proof else None,
        "failures": {str(c.plan): c.failure for c in auto.of(engine) if c.failure},
        "candidates": [brief(c) for c in auto.of(engine)],
        "chosen": None if chosen is None else brief(chosen),
    }
    if chosen is None or chosen is fp32 or fp32.measured is None:
        return found
    base, other = fresh_turns([fp32.artifact, chosen.artifact], auto, TURN_SECONDS)
    if base.status == other.status == "ok":
        ratio = ratio_of(base, other, 2)
        found["ratio"] = ratio and {"ratio": ratio.ratio, "low": ratio.low, "high": ratio.high}
        found["fp32_ms"], found["ms"] = (float(np.median(m.application_ms)) for m in (base, other))
    else:
        found["failures"]["fresh turns"] = base.reason or other.reason
    return found


def brief(candidate: Any) -> dict[str, Any]:
    proof, measured = candidate.proof, candidate.measured
    return {
        "plan": str(candidate.plan).partition(" ")[2],
        "precision": candidate.plan.precision,
        "db": finite(proof.reference_db) if proof else None,
        "int8_share": proof.int8_share if proof else None,
        "int8_share_macs": proof.int8_share_macs if proof else None,
        "p50_ms": float(np.median(measured.application_ms)) if measured and measured.status == "ok" else None,
    }


def finite(value: float) -> float | None:
    return round(value, 1) if np.isfinite(value) else None


if __name__ == "__main__":
    sys.exit(main())
