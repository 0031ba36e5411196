"""``profile``, ``verify``, ``run`` and ``inspect``: commands on a finished bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekit.cli._devices import check_wheels, device_option, wheels_option
from edgekit.cli.catalogue import catalog_option

_LABEL = 16  # columns of a fact's name, or what the longest takes
BUNDLE = click.argument("bundle", type=click.Path(path_type=Path))


@click.command()
@BUNDLE
@click.option("--profile", "name", metavar="NAME", help="A profile, or a .toml file; default: the one deployed with.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write the result here too.")
@catalog_option
@device_option
@wheels_option
def profile(
    bundle: Path,
    name: str | None,
    json_file: Path | None,
    folders: tuple[Path, ...],
    devices: tuple[str, ...],
    wheels: bool,
) -> int:
    """Measure BUNDLE on this machine, or on a device, and judge it against a profile.

    A verdict is given only where this machine is the bundle's target; elsewhere the exit code is 4. Accuracy was
    judged when the bundle was made and is not judged again. An engine that crashes, hangs or gives NaN fails: 3.

    With --device the same is done there; of several devices the exit code is the worst (1, 3, 4, 0), and --json writes
    a list.
    """
    from edgekit.artifact import write_json
    from edgekit.cli._output import console, show_progress
    from edgekit.disk import whole
    from edgekit.reporting.terminal import print_profile
    from edgekit.runtime.files import check_sink
    from edgekit.timing import profile_bundle

    check_wheels(devices, wheels)
    if json_file is not None:
        check_sink(json_file)
    if devices:
        from edgekit.cli.on_devices import profile_there

        return profile_there(bundle, name, folders, devices, wheels=wheels, json_file=json_file)
    with show_progress() as progress:
        found = profile_bundle(bundle, name, folders, progress)
    print_profile(found, console())
    if json_file is not None:
        with whole(json_file) as path:
            write_json(path, found)
    return int(found["exit_code"])


@click.command()
@BUNDLE
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@device_option
@wheels_option
def verify(bundle: Path, as_json: bool, devices: tuple[str, ...], wheels: bool) -> int:
    """Recheck the hashes of BUNDLE, and run its golden samples on this machine, or on a device.

    Exits with 1 when a file was changed, with 3 when the bundle computes something else here.

    With --device the bundle and what runs it are sent there, by hash: a second time nothing is. The JSON is a list.
    """
    from edgekit.cli._output import MISSED, print_json, print_verified
    from edgekit.runtime import verify_bundle

    check_wheels(devices, wheels)
    if devices:
        from edgekit.cli.on_devices import verify_there

        return verify_there(bundle, devices, wheels=wheels, as_json=as_json)
    found = verify_bundle(bundle)
    if as_json:
        print_json(found)
    else:
        print_verified(str(bundle), found.passed, found.messages)
    return 0 if found.passed else MISSED


@click.command()
@BUNDLE
@click.option(
    "--input", "source", type=click.Path(path_type=Path), required=True, metavar="X.npz", help="Samples, stacked."
)
@click.option(
    "--output", "sink", type=click.Path(path_type=Path), required=True, metavar="Y.npz", help="Where the outputs go."
)
@click.option("--raw", is_flag=True, help="Model tensors in and out: skip pre- and postprocessing.")
def run(bundle: Path, source: Path, sink: Path, raw: bool) -> int:
    """Run BUNDLE on samples and write its outputs.

    X.npz holds an array a model input, by name (a single input: any name), with any number of samples on axis 0.
    They are pre- and postprocessed as the bundle says. Y.npz gets an array an output, by name; where the bundle keeps
    the best classes alone, NAME holds their scores, NAME_classes which they are and NAME_labels what they are called.
    """
    from edgekit.runtime.files import run_file

    outputs = run_file(bundle, source, sink, raw=raw)
    for name, array in outputs.items():
        click.echo(f"{name}: {array.dtype}{list(array.shape)}")
    return 0


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--rules", metavar="NAME", help="List where MODEL breaks an engine's rules: tensorrt, tensorrt-10.")
@click.option("--drift", is_flag=True, help="Walk MODEL from torch to the engine with one sample, tensor by tensor.")
@click.option("--target", metavar="NAME", help="With --drift: what it is quantised and compiled for.")
@click.option("--engine", metavar="NAME", help="With --drift: only this engine of the target.")
@click.option("--precision", metavar="NAME", help="With --drift: what is made; default: the recipe's, else int8.")
@click.option("--calibration", metavar="DATA", help="With --drift: samples for int8, as for export.")
@click.option("--test", metavar="DATA", help="With --drift: held-out samples; the first is walked.")
@click.option("--weights", metavar="FILE", help="With --drift: the model's weights, as for export.")
@click.option("--input", "inputs", metavar="NAME=f32[1,3,224,224]", multiple=True, help="With --drift, without data.")
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="With --drift: a key of the recipe.")
@click.option("--out", metavar="DIR", type=click.Path(path_type=Path), help="With --drift: a run to take steps from.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(model: Path, rules: str | None, drift: bool, as_json: bool, **walked: Any) -> int:
    """Say what a bundle or an .onnx MODEL is: operators, shapes, size, precision, parents.

    With --rules every place is listed where MODEL breaks a rule of the engine, with what mends it; exits with 1 if
    there is one. Rules `tensorrt` are those of TensorRT 11, `tensorrt-10` those that its first 10.x has too.

    With --drift MODEL is a recipe, or what `edgekit export` takes. It is taken from torch to ONNX, quantised and
    compiled, with one sample; the first tensors that part from the stage before are named, with their ranges.
    """
    from edgekit.cli._output import print_json, print_table, wrapped

    if drift and rules is not None:
        raise click.UsageError("--rules and --drift are two questions: ask one at a time")
    if drift:
        from edgekit.cli.drifting import show_drift

        return show_drift(model, walked.pop("target"), **walked, as_json=as_json)
    stray = next((name for name, value in walked.items() if value), None)
    if stray is not None:
        option = {"inputs": "input", "overrides": "set"}.get(stray, stray)
        raise click.UsageError(f"--{option} goes with --drift")
    if rules is not None:
        from edgekit.cli.ruling import show_rules

        return show_rules(model, rules, as_json=as_json)
    from edgekit.inspecting import inspect_model

    found = inspect_model(model)
    if as_json:
        print_json(found)
        return 0
    label = max(_LABEL, *(len(f"{key}:") for key in found["facts"]))
    for key, value in found["facts"].items():
        first, later = f"{key + ':':<{label}} ", " " * (label + 1)
        for i, row in enumerate(value.splitlines() or ["-"]):
            click.echo("\n".join(wrapped(row, later if i else first, later)))
    print_table(
        ("operator", "precision", "count"), [(o["op"], o["precision"], str(o["count"])) for o in found["operators"]]
    )
    return 0
