"""Proof before timing: an artifact's numbers against the fp32 student, its task score against the teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.apart import opened_apart
from edgekit.artifact import Array, Artifact
from edgekit.claimed import ran_in_float, require_precision
from edgekit.data import RANDOM, Samples
from edgekit.errors import BundleError, EngineError
from edgekit.metrics import Drop, Metric, agreement, paired_drop, paired_drop_aggregate, score
from edgekit.progress import Progress, silent
from edgekit.runtime import missing
from edgekit.runtime.golden import PARITY_FLOOR_DB
from edgekit.runtime.numbers import max_error, snr_db
from edgekit.runtime.onnxruntime import DEFAULT_PROVIDER, lacks_provider
from edgekit.runtime.placement import PlacedNode, Placement

# Samples preprocessed at a time.
CHUNK = 256
# Samples that a record of the placement chooses its query from.
FEWEST = 16
_OUTPUT = "output/"
# A file of another engine's dialect is computed as it is written: ONNX Runtime's own int8 kernels round biases.
_AS_WRITTEN = {"provider": DEFAULT_PROVIDER, "session.disable_quant_qdq": "1"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class References:
    """What every artifact is judged against; scored once.

    Attributes:
        student: Outputs of the fp32 student on the check samples, by name.
        teacher: Outputs of the teacher (or of the model given) on the same samples.
        metric_name: The task metric, ``agreement`` without labels, or None when only dB is known.
        teacher_score: The teacher's score: one a sample, or one number; None without a metric.
        student_score: The fp32 student's, likewise.
        held_out: Whether the samples are held out, so that an accuracy limit may be judged on them.
    """

    student: Mapping[str, Array]
    teacher: Mapping[str, Array]
    metric_name: str | None
    teacher_score: Array | float | None
    student_score: Array | float | None
    held_out: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedOperator:
    """How many nodes of one kind the engine ran in one precision.

    Attributes:
        op: Operator as the engine calls it.
        precision: What it computed in.
        compute: Whether it is a convolution or a matrix product.
        count: Nodes.
        macs: Multiply-accumulates of all of them in one query; None where the engine's record does not tell.
        time_us: Time spent in all of them in one query, in µs, likewise.
    """

    op: str
    precision: str
    compute: bool
    count: int
    macs: int | None = None
    time_us: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What is known of an artifact's numbers.

    Attributes:
        samples: How many samples were run.
        engine: The engine that ran them.
        reference_db: Worst signal-to-noise ratio of an output against the fp32 student, in dB.
        max_error: Largest absolute difference of an output.
        broken: Why the artifact must not ship, or None.
        metric: Name of the score, or None.
        teacher: The teacher's mean score.
        student: The fp32 student's.
        artifact: The artifact's.
        drop: Paired drop from the teacher, in points.
        drop_from_fp32: Paired drop from the fp32 student, in points.
        held_out: Whether an accuracy limit may be judged on it.
        placement: What the engine really ran, by operator and precision.
        int8_share: Share of compute nodes run in int8, 0 to 1.
        int8_share_macs: Share of their multiply-accumulates; None where the engine's record does not tell.
        int8_share_time: Share of the time of all nodes, likewise.
        ran_in_float: Nodes that are quantised in the file and that the engine ran in float, as far as names tell.
        placed_there: Whether the engine's record is of the device that measured, and not of this machine.
    """

    samples: int
    engine: str
    reference_db: float
    max_error: float
    broken: str | None
    metric: str | None = None
    teacher: float | None = None
    student: float | None = None
    artifact: float | None = None
    drop: Drop | None = None
    drop_from_fp32: Drop | None = None
    held_out: bool = True
    placement: tuple[PlacedOperator, ...] = ()
    int8_share: float | None = None
    int8_share_macs: float | None = None
    int8_share_time: float | None = None
    ran_in_float: tuple[str, ...] = ()
    placed_there: bool = False


def make_references(
    student: Mapping[str, Array],
    teacher: Mapping[str, Array],
    samples: Samples,
    metric: Metric | None,
    metric_name: str | None,
    *,
    held_out: bool = True,
) -> References:
    """Scores teacher and fp32 student once.

    Args:
        student: The fp32 student's outputs on ``samples``, by name.
        teacher: The teacher's, likewise.
        samples: The check samples.
        metric: The task metric; None without labels, where agreement with the teacher stands in.
        metric_name: Its name.
        held_out: Whether nothing was trained, chosen or calibrated on these samples; else no claim rests on scores.

    Raises:
        DataError: The metric does not give one score a sample or a number.
        ParityError: Teacher or student gives NaN.
    """
    if metric is not None and samples.targets is not None:
        return References(
            student=student,
            teacher=teacher,
            metric_name=metric_name,
            teacher_score=score(metric, _for_metric(teacher), samples.targets),
            student_score=score(metric, _for_metric(student), samples.targets),
            held_out=held_out,
        )
    teacher_output = next(iter(teacher.values()))
    # Agreement on random inputs says nothing of the task.
    own = None if samples.name == RANDOM else agreement(teacher_output, teacher_output)
    return References(
        student=student,
        teacher=teacher,
        metric_name=None if own is None else "agreement",
        teacher_score=own,
        student_score=None if own is None else agreement(next(iter(student.values())), teacher_output),
        held_out=held_out,
    )


def check(
    references: References,
    built: Artifact,
    samples: Samples,
    metric: Metric | None,
    progress: Progress = silent,
    *,
    on_target: bool = True,
) -> Proof:
    """Runs a built artifact on the check samples and compares it with its references; see :func:`prove`."""
    return prove(references, built, samples, metric, progress, on_target=on_target)[0]


def prove(
    references: References,
    built: Artifact,
    samples: Samples,
    metric: Metric | None,
    progress: Progress = silent,
    *,
    on_target: bool = True,
) -> tuple[Proof, Array | None]:
    """Runs a built artifact on the check samples, in a process of its own, and compares it with its references.

    An artifact whose engine cannot execute here is run by ONNX Runtime when it is an ONNX file (a TensorRT bundle made
    on a laptop); ``Proof.engine`` says which engine ran.

    Args:
        references: Scored references on the same samples.
        built: A compiled artifact.
        samples: The check samples.
        metric: The task metric, as for :func:`make_references`.
        progress: Told of every chunk of samples.
        on_target: Whether this host is what it is made for: elsewhere what it ran in says nothing against it.

    Returns:
        The proof, and its score of every sample; None where no score or only one of the whole set is known.

    Raises:
        EngineError: The engine refuses the artifact, cannot execute here, crashes, hangs, gives other outputs than
            the student, or, on the target, ran nothing of it in the precision that its plan says.
        ParityError: An output has another shape than the student's.
        DataError: The outputs do not fit the metric.
    """
    executed = runnable(built, on_target=on_target)
    with opened_apart(executed) as session:
        outputs = run_samples(session.run, samples, progress, f"check {built.engine} {built.precision}")
        placement = session.placement(samples.tensors(np.arange(min(FEWEST, len(samples)))))
    if set(outputs) != set(references.student):
        raise EngineError(
            f"{built.engine} gives other outputs than the fp32 model",
            found=", ".join(outputs),
            allowed=", ".join(references.student),
        )
    own = executed is built  # another engine's record says nothing of what this one will run
    if on_target and own:
        require_precision(built, placement)
    pairs = [(references.student[name], outputs[name]) for name in references.student]
    db = min(snr_db(reference, actual) for reference, actual in pairs)
    proof = Proof(
        samples=len(samples),
        engine=executed.engine,
        reference_db=db,
        max_error=max(max_error(reference, actual) for reference, actual in pairs),
        broken=_broken(built.precision, db, outputs),
        held_out=references.held_out,
        placement=_tally(placement),
        int8_share=placement.share("int8") if own else None,
        int8_share_macs=placement.share("int8", by="macs") if own else None,
        int8_share_time=placement.share("int8", by="time") if own else None,
        ran_in_float=ran_in_float(built, placement) if on_target and own else (),
    )
    return (proof, None) if proof.broken else _scored(proof, references, outputs, samples, metric)


def placed_there(proof: Proof, built: Artifact, placement: Placement) -> Proof:
    """A proof with what the engine ran on the device that measured, in place of what it ran here.

    Raises:
        EngineError: It ran nothing of the artifact in the precision that its plan says.
    """
    require_precision(built, placement)
    return replace(
        proof,
        placement=_tally(placement),
        int8_share=placement.share("int8"),
        int8_share_macs=placement.share("int8", by="macs"),
        int8_share_time=placement.share("int8", by="time"),
        ran_in_float=ran_in_float(built, placement),
        placed_there=True,
    )


def without_times(proof: Proof) -> Proof:
    """The proof without what a clock told: it travels in a bundle, whose identity no run may change."""
    placement = tuple(replace(operator, time_us=None) for operator in proof.placement)
    return replace(proof, placement=placement, int8_share_time=None)


def parse_proof(raw: Mapping[str, Any]) -> Proof:
    """Builds a proof from its JSON form, as a manifest keeps it.

    Raises:
        BundleError: It is not one.
    """
    try:
        drops = {key: None if raw[key] is None else Drop(**raw[key]) for key in ("drop", "drop_from_fp32")}
        placement = tuple(PlacedOperator(**operator) for operator in raw["placement"])
        return Proof(**dict(raw) | drops | {"placement": placement, "ran_in_float": tuple(raw.get("ran_in_float", ()))})
    except (KeyError, TypeError) as exc:
        raise BundleError(
            "what a manifest says of its accuracy cannot be read", found=f"{type(exc).__name__}: {exc}"
        ) from exc


def run_samples(
    run: Callable[[Mapping[str, Array]], Mapping[str, Array]],
    samples: Samples,
    progress: Progress = silent,
    step: str = "run",
) -> dict[str, Array]:
    """Runs all samples in chunks, so that memory holds outputs, not inputs.

    Args:
        run: From model tensors of any number of samples to outputs by name.
        samples: The samples.
        progress: Told of every chunk.
        step: What it is called there.
    """
    parts = []
    progress(step, 0, len(samples))
    for start in range(0, len(samples), CHUNK):
        end = min(start + CHUNK, len(samples))
        parts.append(run(samples.tensors(np.arange(start, end))))
        progress(step, end, len(samples), "samples")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def save_outputs(outputs: Mapping[str, Array], path: Path) -> None:
    """Writes outputs by name as ``.npz``."""
    # Behind a prefix, because an output may be called as one of savez's own arguments.
    np.savez(path, **{_OUTPUT + name: array for name, array in outputs.items()})  # type: ignore[arg-type]


def load_outputs(path: Path) -> dict[str, Array]:
    """Reads what :func:`save_outputs` wrote, in the same order."""
    with np.load(path, allow_pickle=False) as archive:
        return {name.removeprefix(_OUTPUT): archive[name] for name in archive.files}


def runnable(built: Artifact, *, on_target: bool = False) -> Artifact:
    """The artifact on an engine that executes here.

    ONNX Runtime on the CPU runs what is made for TensorRT, and off the target what is made for a provider of its own
    that it does not have here; on the target that is an error.
    """
    elsewhere = missing(built.engine) is not None and built.engine == "tensorrt"
    if not elsewhere and built.engine == "onnxruntime" and not on_target:
        elsewhere = lacks_provider(built.options)
    return replace(built, engine="onnxruntime", options=dict(_AS_WRITTEN)) if elsewhere else built


def _broken(precision: str, db: float, outputs: Mapping[str, Array]) -> str | None:
    for name, output in outputs.items():
        if output.dtype.kind == "f" and not np.isfinite(output).all():
            return f"output {name!r} holds NaN or infinity"
    floor = PARITY_FLOOR_DB.get(precision)
    if floor is not None and db < floor:
        return f"{db:.1f} dB against the fp32 model, under the {floor:.0f} dB that {precision} must keep"
    return None


def _scored(
    proof: Proof, references: References, outputs: Mapping[str, Array], samples: Samples, metric: Metric | None
) -> tuple[Proof, Array | None]:
    if references.teacher_score is None or references.student_score is None:
        return proof, None
    teacher_output = next(iter(references.teacher.values()))
    if references.metric_name == "agreement" or metric is None or samples.targets is None:
        # By name: an engine may give its outputs in another order.
        own: Array | float | None = agreement(outputs[next(iter(references.student))], teacher_output)
    else:
        own = score(metric, _for_metric(outputs), samples.targets)
    if own is None:
        return proof, None
    drops = []
    for reference_score, reference in (
        (references.teacher_score, references.teacher),
        (references.student_score, references.student),
    ):
        if isinstance(own, float) or isinstance(reference_score, float):
            assert metric is not None, "only a labelled metric is an aggregate"
            assert samples.targets is not None
            drops.append(paired_drop_aggregate(metric, _for_metric(reference), _for_metric(outputs), samples.targets))
        else:
            drops.append(paired_drop(reference_score, own))
    scored = replace(
        proof,
        metric=references.metric_name,
        teacher=float(np.mean(references.teacher_score)),
        student=float(np.mean(references.student_score)),
        artifact=float(np.mean(own)),
        drop=drops[0],
        drop_from_fp32=drops[1],
    )
    return scored, None if isinstance(own, float) else own


def _for_metric(outputs: Mapping[str, Array]) -> Array | dict[str, Array]:
    """A metric sees the array of a single output, or all outputs by name; copies, for it may work in place."""
    copies = {name: array.copy() for name, array in outputs.items()}
    return next(iter(copies.values())) if len(copies) == 1 else copies


def _tally(placement: Placement) -> tuple[PlacedOperator, ...]:
    kinds: dict[tuple[str, str, bool], list[PlacedNode]] = {}
    for node in placement.nodes:
        kinds.setdefault((node.op, node.precision, node.compute), []).append(node)
    return tuple(
        PlacedOperator(
            op=op,
            precision=precision,
            compute=compute,
            count=len(nodes),
            macs=_sum([node.macs for node in nodes]),
            time_us=_sum([node.time_us for node in nodes]),
        )
        for (op, precision, compute), nodes in sorted(kinds.items(), key=lambda item: (-item[0][2], item[0]))
    )


def _sum(values: Sequence[Any]) -> Any:
    """Their sum; None where one is not known."""
    return None if None in values else sum(values)
