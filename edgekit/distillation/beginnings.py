"""How a student begins: as a copy of its teacher that is cut, or with some of its weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgekit.distillation.depth import cut_depth
from edgekit.distillation.embeddings import factorise, narrowed
from edgekit.distillation.parameters import module_at
from edgekit.distillation.width import cut_width
from edgekit.errors import ModelError, did_you_mean
from edgekit.recipe_student import StudentSpec


def copied(module: nn.Module) -> nn.Module:
    """A copy of a module on the CPU, in evaluation mode, without gradients.

    Raises:
        ModelError: It holds something that cannot be copied.
    """
    try:
        twin = copy.deepcopy(module).cpu().eval()
    except Exception as exc:  # deepcopy runs what the user's module defines
        raise ModelError(
            f"{type(module).__name__} cannot be copied",
            found=f"{type(exc).__name__}: {exc}",
            fix="keep nothing in it but layers, parameters and plain values, or give the student's own class",
        ) from exc
    twin.zero_grad(set_to_none=True)
    return twin


def cut_copy(
    teacher: nn.Module, spec: StudentSpec, inputs: Mapping[str, Tensor], seed: int
) -> tuple[nn.Module, list[str]]:
    """Makes a student of its teacher: with fewer blocks, then fewer channels, then smaller embedding tables.

    Args:
        teacher: Stays as it is.
        spec: What is cut.
        inputs: A batch that the teacher runs on, on the CPU.
        seed: Of fresh weights, where ``spec.initial`` is ``random``.

    Returns:
        The student in evaluation mode, and what was done, in words.

    Raises:
        ModelError: It cannot be cut so; see :mod:`edgekit.distillation.depth`, ``width`` and ``embeddings``.
    """
    student, notes = copied(teacher), []
    if spec.depth is not None or spec.keep:
        notes += cut_depth(student, inputs, spec.depth, spec.keep)
    if spec.width is not None:
        notes += cut_width(student, inputs, spec.width)
    if spec.embeddings is not None:
        notes += factorise(student, spec.embeddings)
    if spec.initial == "random":
        notes += refresh(student, seed)
    return student.eval(), notes


def refresh(module: nn.Module, seed: int) -> list[str]:
    """Gives a module fresh weights: those that its layers' own ``reset_parameters`` draw.

    Parameters that no such method draws, such as a class token, are drawn from the normal distribution with their own
    mean and deviation.

    Args:
        module: Changed in place.
        seed: Of the weights; torch's global random state is left as it was.

    Returns:
        What was drawn so, in words.
    """
    drawn = []
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for path, part in reversed(list(module.named_modules())):  # a module after its parts, which it may set itself
            reset = next((getattr(part, name, None) for name in _RESETS if callable(getattr(part, name, None))), None)
            if reset is not None:
                reset()
                continue
            for name, parameter in reversed(list(part.named_parameters(recurse=False))):
                if parameter.is_floating_point():
                    parameter.normal_(float(parameter.mean()), float(parameter.std(correction=0)))
                    drawn.append(f"{path}.{name}".lstrip("."))
    return ["fresh weights", *(f"{name}: drawn with its mean and deviation" for name in reversed(drawn))]


_RESETS = ("reset_parameters", "_reset_parameters")


def take_weights(student: nn.Module, teacher: nn.Module, pairs: Mapping[str, str]) -> list[str]:
    """Copies weights of a teacher's modules into a student's.

    A weight that is larger in the teacher is cut to its leading slice (Z. Xu et al., "Initializing Models with Larger
    Ones", ICLR 2024: weight selection, consecutive); an embedding table that is wider, to its coordinates in the
    leading singular directions, which keep the most of it.

    Args:
        student: Changed in place.
        teacher: Stays as it is.
        pairs: Module paths in the teacher by those in the student.

    Returns:
        What was taken, in words.

    Raises:
        TrainingError: A path names no module.
        ModelError: The modules do not have the same weights, or one is larger in the student.
    """
    notes = []
    for path, source in pairs.items():
        ours = module_at(student, path, "student.take")
        theirs = module_at(teacher, source, "student.take (in the teacher)")
        notes.append(f"{path}: {_take(ours, theirs, path, source)} {source}")
    return notes


def _take(ours: nn.Module, theirs: nn.Module, path: str, source: str) -> str:
    wanted, given = _tensors(ours), _tensors(theirs)
    missing = [name for name in wanted if name not in given]
    if missing or not wanted:
        raise ModelError(
            f"student.take: {path} cannot begin with {source} of the teacher",
            found=f"{missing[0]} of {path} is not in {source}" if missing else f"{path} has no weights",
            allowed=", ".join(given) or f"{source} has no weights",
            fix=did_you_mean(missing[0], given) if missing else "name a module with weights",
        )
    if isinstance(ours, nn.Embedding) and isinstance(theirs, nn.Embedding) and _narrower(ours, theirs):
        with torch.no_grad():
            ours.weight.copy_(narrowed(theirs.weight, ours.embedding_dim))
        return f"the leading {ours.embedding_dim} of {theirs.embedding_dim} singular directions of"
    larger = [name for name in wanted if not _fits(wanted[name], given[name])]
    if larger:
        name = larger[0]
        raise ModelError(
            f"student.take: {name} of {path} cannot be cut out of {name} of {source}",
            found=f"{list(wanted[name].shape)} in the student, {list(given[name].shape)} in the teacher",
            allowed="as many axes, and none longer than the teacher's",
            fix="take another module's weights, or make the student's smaller",
        )
    cut = False
    with torch.no_grad():
        for name, tensor in wanted.items():
            leading = given[name][tuple(slice(0, size) for size in tensor.shape)]
            cut = cut or leading.shape != given[name].shape
            tensor.copy_(leading)
    return "the leading part of" if cut else "all of"


def _narrower(ours: nn.Embedding, theirs: nn.Embedding) -> bool:
    return bool(ours.num_embeddings == theirs.num_embeddings and ours.embedding_dim < theirs.embedding_dim)


def _fits(ours: Tensor, theirs: Tensor) -> bool:
    return ours.ndim == theirs.ndim and all(a <= b for a, b in zip(ours.shape, theirs.shape, strict=True))


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; those of the module itself, not copies."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
