"""Rules on a graph as a whole: its opset, its names, the order of its nodes, the files its tensors lie in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx

from edgekit.backends.tensorrt_rules.wiring import Breach, View, all_graphs, name_of
from edgekit.errors import BundleError
from edgekit.runtime.external_data import check_file_inside

OLDEST_OPSET, NEWEST_OPSET, NEWEST_OPSET_OF_10 = 9, 25, 20


def check_graph(view: View, *, older: bool) -> Iterator[Breach]:
    """Breaches of ``opset``, ``duplicate-name``, ``no-name``, ``order``, ``missing-tensor`` and ``external-data``.

    Args:
        view: The model.
        older: By TensorRT 10.0, which takes opsets up to 20.
    """
    if not OLDEST_OPSET <= view.opset <= (NEWEST_OPSET_OF_10 if older else NEWEST_OPSET):
        yield Breach("opset", view.proto.graph.name or "the model", f"opset {view.opset or 'not named'}")
    for graph in all_graphs(view.proto.graph):
        yield from _names(graph)
    yield from _order(view.proto.graph, set())
    yield from _files(view)


def _names(graph: onnx.GraphProto) -> Iterator[Breach]:
    listed = {value.name for value in graph.input}
    given = [*listed, *(tensor.name for tensor in graph.initializer if tensor.name not in listed)]
    counts = Counter([*given, *(name for node in graph.node for name in node.output if name)])
    for node in graph.node:
        for name in node.output:
            if counts[name] > 1:
                yield Breach("duplicate-name", name_of(node), f"{name!r} is given {counts[name]} times")
        if not any(node.output):
            yield Breach("no-name", name_of(node), f"{node.op_type} gives nothing that has a name")
    unnamed = [name for name in given if not name] + [value.name for value in graph.output if not value.name]
    if unnamed:
        yield Breach(
            "no-name", graph.name or "the model", f"{len(unnamed)} inputs, outputs or constants without a name"
        )


def _order(graph: onnx.GraphProto, outer: set[str]) -> Iterator[Breach]:
    """Nodes that read what a later node gives, or what nothing gives."""
    known = outer | {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    known |= {tensor.values.name for tensor in graph.sparse_initializer}
    later = {name for node in graph.node for name in node.output}
    for node in graph.node:
        for name in dict.fromkeys(node.input):
            if name and name not in known:
                rule, what = (
                    ("order", "made by a later node") if name in later else ("missing-tensor", "made by nothing")
                )
                yield Breach(rule, name_of(node), f"reads {name!r}, {what}")
        for held in node.attribute:
            for inner in (held.g, *held.graphs):
                yield from _order(inner, known)
        known.update(node.output)
    for value in graph.output:
        if value.name and value.name not in known:
            yield Breach("missing-tensor", value.name, "an output that nothing makes")


def _files(view: View) -> Iterator[Breach]:
    """External files that are missing, too short or outside the model's folder."""
    if view.folder is None:
        return
    ends: dict[str, int] = {}
    for tensor in view.constants.values():
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            end = int(entries.get("offset") or 0) + int(entries.get("length") or 0)
            file = entries.get("location", "")
            ends[file] = max(ends.get(file, 0), end)
    for file, end in ends.items():
        try:
            check_file_inside(file, view.folder, view.folder)
        except BundleError as exc:
            yield Breach("external-data", file, exc.problem.rpartition(": ")[2])
            continue
        size = (view.folder / file).stat().st_size
        if size < end:
            yield Breach("external-data", file, f"{size} bytes; its tensors end at {end}")
