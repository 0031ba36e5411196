"""What is done to samples before a model and to its outputs after: in numpy, or by the graph that ships."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgekit.artifact import Array, TensorSpec
from edgekit.checking import References
from edgekit.data import Samples
from edgekit.errors import SpecError, UnknownName
from edgekit.metrics import METRICS
from edgekit.processing_specs import InGraph, Postprocessing
from edgekit.recipe import Recipe
from edgekit.runtime.postprocessing import CLASSES, LABELS, activated


def check_processing(recipe: Recipe) -> None:
    """Refuses a recipe whose graph cannot do what ``[input]`` and ``[output]`` ask, before any work.

    Raises:
        SpecError: There is no step to put in, or scores would be judged by a metric that may want the model's outputs.
    """
    output = recipe.output
    if recipe.input is not None and recipe.input.in_graph and recipe.data is None:
        raise _no_raw_samples("no [data]")
    if output is None or not output.in_graph:
        return
    if output.activation == "none":
        raise SpecError(
            "[output] in_graph = true, and there is nothing to put into the graph",
            found='activation = "none"',
            allowed='activation = "softmax" or "sigmoid"',
            fix="name one of them, or remove in_graph; the best scores are always chosen in numpy",
        )
    if recipe.metric not in METRICS:
        raise SpecError(
            "[output] in_graph = true, and a metric of your own",
            found=f"metric = {recipe.metric!r}, which would be given scores in the place of outputs",
            allowed=f"metric = {' or '.join(map(repr, METRICS))}, which an activation does not change",
            fix="remove in_graph from [output]",
        )


def postprocessing_of(recipe: Recipe, outputs: Sequence[TensorSpec]) -> Postprocessing | None:
    """The recipe's postprocessing, of an output that the model has.

    Raises:
        UnknownName: The model has no such output.
        SpecError: It has several and none is named, or the output has no such axis, or one as the answers are called.
    """
    given = recipe.output
    if given is None:
        return None
    names = [spec.name for spec in outputs]
    if given.name is None and len(outputs) > 1:
        raise SpecError(
            "[output] does not say which of the model's outputs", allowed=", ".join(names), fix='name = "…"'
        )
    name = given.name or names[0]
    if name not in names:
        raise UnknownName("output", name, names, "[output] name")
    spec = outputs[names.index(name)]
    if len(spec.shape) <= given.axis:
        raise SpecError(f"[output] axis = {given.axis}: the output has no such axis", found=str(spec))
    if given.top is not None and {name + CLASSES, name + LABELS} & set(names):
        raise SpecError(
            "[output] top: the model has an output that is called as the best classes would be",
            found=", ".join(names),
            fix="rename the output, or remove top",
        )
    return Postprocessing(output=name, activation=given.activation, axis=given.axis, top=given.top)


def in_graph_of(recipe: Recipe, test: Samples, outputs: Sequence[TensorSpec]) -> InGraph | None:
    """What the graph that ships does by itself; None: nothing.

    Raises:
        SpecError: The samples are model tensors already; or as of :func:`postprocessing_of`.
    """
    pre = test.preprocessing if recipe.input is not None and recipe.input.in_graph else None
    if recipe.input is not None and recipe.input.in_graph and pre is None:
        raise _no_raw_samples(f"{test.name}: model tensors already")
    post = postprocessing_of(recipe, outputs) if recipe.output is not None and recipe.output.in_graph else None
    return None if pre is None and post is None else InGraph(preprocessing=pre, postprocessing=_activation(post))


def _no_raw_samples(found: str) -> SpecError:
    return SpecError(
        "[input] in_graph = true, and there are no raw samples",
        found=found,
        allowed="an .npz file, or a folder or tar of images by class",
        fix="remove in_graph",
    )


def _activation(post: Postprocessing | None) -> Postprocessing | None:
    """What of it a graph computes: the best are chosen in numpy."""
    return None if post is None else replace(post, top=None)


def in_numpy(post: Postprocessing | None, graph: InGraph | None) -> Postprocessing | None:
    """What is left of postprocessing beside what the graph does; None: nothing."""
    if post is None or graph is None or graph.postprocessing is None:
        return post
    return None if post.top is None else replace(post, activation="none")


def as_fed(samples: Samples, graph: InGraph | None) -> Samples:
    """Samples as the artifact that ships takes them: raw ones where its graph preprocesses."""
    return samples if graph is None or graph.preprocessing is None else replace(samples, preprocessing=None)


def as_tensors(samples: Samples, graph: InGraph | None) -> Samples:
    """The inverse of :func:`as_fed`: samples as a model takes them whose graph preprocesses nothing."""
    return (
        samples if graph is None or graph.preprocessing is None else replace(samples, preprocessing=graph.preprocessing)
    )


def as_asked(references: References, graph: InGraph | None) -> References:
    """References whose outputs are scores where the graph that ships gives scores; what they scored stays."""
    post = None if graph is None else graph.postprocessing
    if post is None:
        return references
    student, teacher = (_scores(outputs, post) for outputs in (references.student, references.teacher))
    return replace(references, student=student, teacher=teacher)


def _scores(outputs: Mapping[str, Array], post: Postprocessing) -> dict[str, Array]:
    """Outputs, with the activation of the one that has it."""
    return {
        name: activated(array, post.activation, post.axis).astype(array.dtype) if name == post.output else array
        for name, array in outputs.items()
    }


def raw_spec(samples: Samples, graph: InGraph | None, batch: int) -> TensorSpec | None:
    """The raw sample that a graph preprocesses, as an input of a batch; None where it preprocesses nothing.

    Args:
        samples: As :func:`as_fed` gives them.
        graph: What the graph does.
        batch: Samples a query.
    """
    if graph is None or graph.preprocessing is None:
        return None
    name = graph.preprocessing.input
    array = samples.tensors([0])[name]
    return TensorSpec(name=name, dtype=str(array.dtype), shape=(batch, *array.shape[1:]))
