"""timm's CNNs and transformers, random weights, with 30% of the channels of every layer left out.

By hand: ``python tests/bench/bench_pruned_zoo.py [--only TEXT] [--rows N] [--seconds 200]``; it needs timm
(``pip install timm``). A network comes through when it is pruned (``l2``, layer by layer), still runs and gives outputs
of the same shapes, is exported, and is within parity of its pruned torch module on ONNX Runtime and on OpenVINO: 90 dB,
as every fp32 artifact must. Every network is a process of its own with a limit of CPU time, so that other work beside
it ends none, and one line of ``runs/pruned-zoo/rows.jsonl``, so that a run which was stopped goes on where it was;
``--again`` repeats what did not come through. ``tests/bench/PRUNED.md`` is written after every network; ``--table``
only writes it. Exits 1 when fewer than 25 come through, or a traceback leaks.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from zoo_models import Row, network_of, samples_of

HERE = Path(__file__).parent
TABLE = HERE / "PRUNED.md"
SHARE = 0.3
ENOUGH = 25
EXAMPLES, CHECKED = 4, 8
THROUGH = "came through"
LONGER = 20  # times the limit of CPU time: that of the clock
SHOWN_NOTES = 400  # characters of what a refusal says
# By the side of their images, the smallest that a network's strides and windows allow.
NETWORKS = {
    "resnet18": 64, "resnet50": 64, "resnext50_32x4d": 64, "densenet121": 64, "mobilenetv2_100": 96,
    "mobilenetv3_small_100": 96, "mobilenetv3_large_100": 96, "efficientnet_b0": 96, "efficientnet_lite0": 96,
    "regnetx_004": 96, "regnety_004": 96, "convnext_atto": 64, "convnextv2_atto": 96, "vgg11_bn": 64,
    "ghostnet_100": 96, "inception_v3": 128, "deit_tiny_patch16_224": 96, "vit_tiny_patch16_224": 96,
    "swin_tiny_patch4_window7_224": 224, "mixer_s32_224": 224, "poolformer_s12": 64, "levit_128s": 224,
    "cait_xxs24_224": 64, "resmlp_12_224": 224, "gmlp_ti16_224": 224, "legacy_seresnet18": 96, "resnet10t": 96,
    "resnetv2_50": 64, "cspresnet50": 64, "darknet53": 64, "dla34": 96, "repvgg_a0": 96, "res2net50_26w_4s": 64,
    "mobilenetv4_conv_small": 96, "hgnetv2_b0": 96, "fbnetc_100": 96, "mnasnet_100": 96, "tinynet_a": 96,
    "tf_efficientnetv2_b0": 96, "mixnet_s": 96, "lcnet_100": 96, "regnetz_005": 96, "ese_vovnet19b_dw": 96,
    "gernet_s": 96, "selecsls42b": 96, "semnasnet_075": 96, "inception_next_atto": 96, "starnet_s1": 96,
    "mobilevit_xxs": 96, "edgenext_xx_small": 96, "pvt_v2_b0": 96, "pit_ti_224": 224, "xcit_nano_12_p16_224": 96,
    "convmixer_768_32": 64, "hrnet_w18_small": 96, "dpn48b": 64, "rexnet_100": 96,
}  # fmt: skip


def main() -> int:
    """Runs the networks that are missing and writes the table; 0 when enough came through."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="networks whose name holds this text")
    parser.add_argument("--rows", type=int, default=None, help="at most so many")
    parser.add_argument("--seconds", type=int, default=200, help="CPU time that a network may take")
    parser.add_argument("--cache", type=Path, default=Path("runs/pruned-zoo"))
    parser.add_argument("--again", action="store_true", help="repeat networks that did not come through")
    parser.add_argument("--table", action="store_true", help="write the table of what there is, run nothing")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    args = parser.parse_args()
    cache = args.cache.resolve()
    if args.row:
        resource.setrlimit(resource.RLIMIT_CPU, (args.seconds, args.seconds + 5))
        return run_row(args.row, cache)
    cache.mkdir(parents=True, exist_ok=True)
    found = load_rows(cache)
    wanted = [name for name in NETWORKS if args.only in name]
    missing = [name for name in wanted if name not in found or (args.again and found[name]["result"] != THROUGH)]
    for name in [] if args.table else missing[: args.rows]:
        found[name] = watched(name, cache, args.seconds)
        with (cache / "rows.jsonl").open("a") as lines:
            lines.write(json.dumps(found[name]) + "\n")
        print(f"{name:<32}{found[name]['seconds']:>7.1f} s  {one_line(found[name]['result'])}", flush=True)
        write_table(found)
    write_table(found)
    leaked = [name for name, row in found.items() if row["result"].startswith("Traceback")]
    return int(bool(leaked) or sum(row["result"] == THROUGH for row in found.values()) < ENOUGH)


def load_rows(cache: Path) -> dict[str, dict[str, Any]]:
    """What is known of every network, the last line of each."""
    path = cache / "rows.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return {row["name"]: row for row in map(json.loads, lines)}


def watched(name: str, cache: Path, seconds: int) -> dict[str, Any]:
    """Runs a network in a process of its own, which is ended when its time is up, or when it hangs without any."""
    work = cache / name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    began, log = time.perf_counter(), work / "log"
    command = [sys.executable, __file__, "--row", name, "--cache", str(cache), "--seconds", str(seconds)]
    with (
        log.open("w") as told,
        subprocess.Popen(command, stdout=told, stderr=subprocess.STDOUT, start_new_session=True) as process,
    ):
        try:
            process.wait(LONGER * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    took, result = time.perf_counter() - began, work / "result.json"
    found: dict[str, Any] = json.loads(result.read_text()) if result.exists() else {"name": name}
    if "result" not in found:
        stage = found.get("stage", "at its start")
        late = process.returncode in (-signal.SIGXCPU, -signal.SIGKILL)
        ended = f"not done in {seconds} s of CPU time" if late else f"Traceback: rc {process.returncode}"
        found["result"] = f"{ended}, {stage}" + ("" if late else f": {log.read_text()[-500:]}")
    shutil.rmtree(work)
    return found | {"seconds": round(took, 1)}


def run_row(name: str, cache: Path) -> int:
    """The network itself; whatever comes of it is written down, stage by stage, for it may be ended."""
    from edgekit.errors import EdgeKitError

    row = Row(source="timm", name=name, size=NETWORKS[name])
    found: dict[str, Any] = {"name": name, "size": row.size}
    path = cache / name / "result.json"

    def note(**more: Any) -> None:
        found.update(more)
        path.with_suffix(".part").write_text(json.dumps(found))
        path.with_suffix(".part").replace(path)

    try:
        note(stage="as it is made")
        go_through(row, cache / name, note)
    except EdgeKitError as exc:
        note(result=f"refused {found['stage']}: {exc}")
    except Exception:  # noqa: BLE001  # whatever else leaks is what this bench looks for
        note(result=f"{traceback.format_exc()[-3000:]}")
    return 0


def go_through(row: Row, work: Path, note: Any) -> None:
    """Prunes, runs, exports and proves one network."""
    import torch

    from edgekit.backends import load_backend
    from edgekit.catalog import load_target
    from edgekit.checking import check, make_references
    from edgekit.conversion.onnx_export import to_onnx
    from edgekit.data import Samples
    from edgekit.distillation.dry_run import output_shapes
    from edgekit.distillation.forward import forward
    from edgekit.models import count_parameters
    from edgekit.pruning.structured import prune_channels

    module = network_of(row)
    array = samples_of(row, CHECKED, seed=2)["input"]
    inputs = {"x": torch.from_numpy(array[:2])}
    shapes = output_shapes(module, inputs, "before")
    note(stage="as it is pruned", parameters=count_parameters(module), channels=channels_of(module))
    began = time.process_time()
    told = prune_channels(module, inputs, SHARE, criterion="l2", scope="layer")
    note(
        stage="as it runs",
        pruning_seconds=round(time.process_time() - began, 1),
        parameters_kept=count_parameters(module),
        channels_kept=channels_of(module),
        notes=told,
    )
    if output_shapes(module, inputs, "after") != shapes:
        note(result="its outputs have other shapes")
        return
    note(stage="as it is exported")
    fp32 = to_onnx(module, {"x": array[:EXAMPLES]}, work / "onnx")
    samples = Samples(name="images", count=len(array), fetch=lambda indices: {"x": array[indices]})
    outputs = forward(module, samples)
    references, target = make_references(outputs, outputs, samples, None, None), load_target("local")
    broken = []
    for engine in ("onnxruntime", "openvino"):
        note(stage=f"on {engine}")
        built = load_backend(engine).compile(fp32, target, 1, work / engine)
        proof = check(references, built, samples, None)
        note(**{engine: round(proof.reference_db, 1) if np.isfinite(proof.reference_db) else None})
        broken += [f"{engine}: {proof.broken}"] if proof.broken else []
    note(result="; ".join(broken) or THROUGH)


def channels_of(module: Any) -> int:
    """Channels that the convolutions and linear layers of a module give, all together."""
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    return sum(
        part.out_channels if isinstance(part, _ConvNd) else part.out_features
        for part in module.modules()
        if isinstance(part, (_ConvNd, nn.Linear))
    )


def write_table(found: Mapping[str, dict[str, Any]]) -> None:
    """Writes all networks as Markdown; below, what did not come through and why."""
    rows = [found[name] for name in NETWORKS if name in found]
    through = [row for row in rows if row["result"] == THROUGH]
    lines = [
        "# Networks pruned by 30% of their channels",
        "",
        "Written by `tests/bench/bench_pruned_zoo.py`: networks of timm with fixed random weights, 30% of the channels",
        "of every layer left out by `edgekit.pruning.structured.prune_channels` (`l2`, layer by layer). A network came",
        "through when it still runs with outputs of the same shapes, is exported by",
        "`edgekit.conversion.onnx_export.to_onnx`, and keeps 90 dB to its pruned torch module on ONNX Runtime and on",
        "OpenVINO (batch 1, 8 samples). Channels are those that convolutions and linear layers give; a network keeps",
        "more than 70% of them where some must stay: its output, channels in groups or heads that do not divide, those",
        "that an operation ties. s: CPU time of the pruning alone.",
        "",
        f"{len(through)} of {len(rows)} came through.",
        "",
        "| network | input | parameters | kept | share | channels kept | s | ONNX Runtime dB | OpenVINO dB | result |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|---|",
        *map(_line, rows),
    ]
    others = [row for row in rows if row["result"] != THROUGH]
    if others:
        lines += ["", "## What did not come through", ""]
        lines += [f"- {row['name']}: {one_line(row['result'])}" for row in others]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _line(row: Mapping[str, Any]) -> str:
    before, after = row.get("parameters"), row.get("parameters_kept")
    cells: Sequence[str] = (
        row["name"],
        f"{row['size']}" if "size" in row else "-",
        "-" if before is None else f"{before / 1e6:.2f} M",
        "-" if after is None else f"{after / 1e6:.2f} M",
        "-" if after is None else f"{after / before:.0%}",
        "-" if after is None else f"{row['channels_kept'] / row['channels']:.0%}",
        f"{row['pruning_seconds']}" if "pruning_seconds" in row else "-",
        *(f"{row[engine]}" if row.get(engine) is not None else "-" for engine in ("onnxruntime", "openvino")),
        THROUGH if row["result"] == THROUGH else "**no**, see below",
    )
    return f"| {' | '.join(cells)} |"


def one_line(text: str) -> str:
    if text.startswith("Traceback"):
        text = f"Traceback: {text.strip().splitlines()[-1]}"
    return " ".join(part.strip() for part in text.splitlines())[:SHOWN_NOTES]


if __name__ == "__main__":
    sys.exit(main())
