"""TensorRT's rules for an ONNX graph, and the places where a graph breaks them.

A rule is here where TensorRT's parser or builder refuses what breaks it, computes something else (uint8 read as
int8), or cannot fuse what int8 is there for: all three are violations. Nothing of TensorRT is needed, and weights are
neither copied nor read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx

from edgekit.backends.tensorrt_rules.fusions import check_fusions
from edgekit.backends.tensorrt_rules.graphs import check_graph
from edgekit.backends.tensorrt_rules.limits import check_limits
from edgekit.backends.tensorrt_rules.operators import check_operators
from edgekit.backends.tensorrt_rules.quantisers import check_quantisers
from edgekit.backends.tensorrt_rules.texts import RULES
from edgekit.backends.tensorrt_rules.types import check_types
from edgekit.backends.tensorrt_rules.wiring import Breach, View, view_of
from edgekit.errors import ModelError, UnknownName

# ``tensorrt``: TensorRT 11; ``tensorrt-10``: also its first 10.x, such as 10.3 of JetPack 6.
NEWEST, OLDEST = "tensorrt", "tensorrt-10"
NAMES = (NEWEST, OLDEST)
# How many are named in an error.
SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A place in a graph that breaks one of TensorRT's rules.

    Attributes:
        rule: The rule's short name, e.g. ``zero-point``.
        node: Name of the node (its type and output where it has none), or of the tensor or file to blame.
        found: What is there.
        allowed: What TensorRT takes.
        fix: What mends it.
        source: Where the rule is written.
    """

    rule: str
    node: str
    found: str
    allowed: str
    fix: str
    source: str


def violations(
    proto: onnx.ModelProto, *, rules: str = NEWEST, sm: str | None = None, folder: Path | None = None
) -> list[Violation]:
    """Every place where a model breaks a rule, in the order of the rules and then of the nodes.

    Args:
        proto: The model; its external data need not be loaded.
        rules: ``tensorrt``, or ``tensorrt-10`` for what its first 10.x takes too.
        sm: Compute capability of the GPU, e.g. ``8.7``, for the types it computes with; None: any.
        folder: Where the model's external data lies; None: its constants are not looked at.

    Raises:
        UnknownName: There are no rules of that name.
    """
    if rules not in NAMES:
        raise UnknownName("rules", rules, NAMES)
    order = list(RULES)
    found = sorted(_breaches(view_of(proto, folder), rules == OLDEST, sm), key=lambda breach: order.index(breach.rule))
    return [_violation(breach) for breach in dict.fromkeys(found)]


def check_rules(proto: onnx.ModelProto, where: str, *, rules: str = NEWEST, sm: str | None = None) -> None:
    """Refuses a model that breaks a rule.

    Args:
        proto: The model.
        where: What is refused, for the message.
        rules: See :func:`violations`.
        sm: See :func:`violations`.

    Raises:
        ModelError: It breaks one; the first few are named, and how many there are.
    """
    broken = violations(proto, rules=rules, sm=sm)
    if not broken:
        return
    count = f"at {len(broken)} places" if len(broken) > 1 else "at one place"
    shown = "; ".join(f"{one.node}: {one.found} ({one.rule})" for one in broken[:SHOWN])
    more = f"; and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
    raise ModelError(
        f"{where}: it breaks TensorRT's rules {count}",
        found=shown + more,
        allowed="; ".join(dict.fromkeys(one.allowed for one in broken[:SHOWN])),
        fix=f"{broken[0].fix}; edgekit inspect MODEL.onnx --rules {rules} lists all",
    )


def _breaches(view: View, older: bool, sm: str | None) -> Iterator[Breach]:
    yield from check_graph(view, older=older)
    yield from check_operators(view, older=older)
    yield from check_limits(view)
    yield from check_types(view, older=older, sm=sm)
    yield from check_quantisers(view, older=older)
    yield from check_fusions(view)


def _violation(breach: Breach) -> Violation:
    rule = RULES[breach.rule]
    return Violation(
        rule=breach.rule,
        node=breach.node,
        found=breach.found,
        allowed=rule.allowed,
        fix=breach.fix or rule.fix,
        source=rule.source,
    )
