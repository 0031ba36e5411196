"""Optimisation profiles: the shapes that a plan with open dimensions is built for, from an artifact's options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise

from edgekit.artifact import Option
from edgekit.errors import EngineError

PROFILE_OPTIONS = ("profile_min", "profile_opt", "profile_max")
# A tensor's name may hold colons and commas ("x:0"); its shape is the last part.
_SHAPE = re.compile(r"(?:^|,)(.+?):(\d+(?:x\d+)*)(?=,|$)")

Shape = tuple[int, ...]
Profile = tuple[Shape, Shape, Shape]


def parse_shapes(option: str, text: str) -> dict[str, Shape]:
    """Reads shapes by input name out of ``input:1x3x224x224,other:1x8``.

    Args:
        option: The option's name, for the message.
        text: Its value.

    Raises:
        EngineError: It is not written like that, or names an input twice.
    """
    found = list(_SHAPE.finditer(text.strip()))
    names = [match[1].strip() for match in found]
    if not found or sum(len(match[0]) for match in found) != len(text.strip()) or len(set(names)) < len(names):
        raise EngineError(
            f"tensorrt option {option!r} cannot be read",
            found=repr(text),
            allowed="shapes by input, each once: input:1x3x224x224,other:1x8",
        )
    return {name: tuple(map(int, match[2].split("x"))) for name, match in zip(names, found, strict=True)}


def profile_shapes(options: Mapping[str, Option], inputs: Mapping[str, Shape], model: str) -> dict[str, Profile]:
    """The least, the likeliest and the largest shape of every input with open dimensions.

    TensorRT asks for them in this order, each no smaller than the one before, and equal to the model's where that is
    fixed: https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/infer/Core/OptimizationProfile.html.

    Args:
        options: ``profile_min``, ``profile_opt`` and ``profile_max``; the artifact's other options are not looked at.
        inputs: Shapes of the model's inputs; -1 where they are open.
        model: Its name, for the message.

    Returns:
        The three shapes by input; empty for a model without open dimensions.

    Raises:
        EngineError: An input has open dimensions and no shapes, or shapes do not fit it.
    """
    given = {name: parse_shapes(name, str(options[name])) for name in PROFILE_OPTIONS if name in options}
    for option, shapes in given.items():
        for name in shapes.keys() - inputs.keys():
            raise EngineError(
                f"tensorrt option {option!r} names input {name!r}, which {model} does not have",
                found=repr(name),
                allowed=", ".join(inputs),
            )
    found = {}
    for name, shape in inputs.items():
        steps = [given.get(option, {}).get(name) for option in PROFILE_OPTIONS]
        known = [step for step in steps if step is not None]
        if -1 not in shape and not known:
            continue
        if len(known) < 3:
            raise EngineError(
                f"{model}: input {name!r} has open dimensions, and the artifact does not say what to build for",
                found=f"{name}: {_text(shape)}; options: {', '.join(given) or 'none'}",
                allowed=f"its shape in each of {', '.join(PROFILE_OPTIONS)}",
                fix="make the artifact again with a fixed batch, or with a profile of its shapes",
            )
        _check(name, shape, known, model)
        if -1 in shape:
            found[name] = (known[0], known[1], known[2])
    return found


def _check(name: str, shape: Shape, steps: list[Shape], model: str) -> None:
    fitting = all(
        len(step) == len(shape) and all(want in (-1, got) for want, got in zip(shape, step, strict=True))
        for step in steps
    )
    rising = fitting and all(a <= b for low, high in pairwise(steps) for a, b in zip(low, high, strict=True))
    if not (fitting and rising and all(min(step, default=1) > 0 for step in steps)):
        raise EngineError(
            f"{model}: the shapes to build for do not fit input {name!r}",
            found=", ".join(map(_text, steps)),
            allowed=f"three shapes that fit {_text(shape)}, the least first, the largest last",
        )


def _text(shape: Shape) -> str:
    return "x".join("?" if size == -1 else str(size) for size in shape) or "a scalar"
