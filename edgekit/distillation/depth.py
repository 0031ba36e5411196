"""A network with fewer blocks: every k-th of its own is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from edgekit.distillation.dry_run import keeping_shape, output_shapes
from edgekit.errors import ModelError, did_you_mean

# Where a module keeps how many blocks it has, and goes through them by number.
COUNTS = ("num_layers", "n_layers", "n_layer", "num_blocks", "n_blocks", "num_hidden_layers", "depth")


def cut_depth(
    module: nn.Module, inputs: Mapping[str, Tensor], depth: float | None, keep: Mapping[str, Sequence[int]]
) -> list[str]:
    """Drops blocks of a module, evenly spread or by hand.

    V. Sanh et al., "DistilBERT, a distilled version of BERT", 2019 (one layer of two is taken); S. Sun et al., "Patient
    Knowledge Distillation for BERT Model Compression", EMNLP 2019 (every k-th layer). A block that gives another shape
    than it takes, such as the first of a stage, is always kept.

    Args:
        module: Changed in place.
        inputs: A batch that it runs on.
        depth: Share of the blocks that is kept in each list, above 0 and below 1, at least the first; None: all are.
        keep: Numbers of blocks that are kept, by module path of their list, to which ``depth`` is not applied.

    Returns:
        What was kept, in words.

    Raises:
        ModelError: A path names no list of blocks, a block cannot be dropped, or nothing is.
    """
    before = output_shapes(module, inputs, "before it is cut")
    notes = [_cut_by_hand(module, inputs, path, numbers, before) for path, numbers in keep.items()]
    if depth is not None:
        notes += _cut_evenly(module, inputs, depth, set(keep), before)
    return notes


def block_lists(module: nn.Module, least: int = 2) -> dict[str, list[int]]:
    """Lists of blocks in a module: of every ``Sequential`` and ``ModuleList`` the positions of its blocks, by path.

    Blocks are at least two children of one class that have layers of their own; what else is in the list is no block.

    Args:
        module: Where they are looked for.
        least: Where less than two are asked for, a single child with layers of its own is a block too.
    """
    found = {}
    for path, part in module.named_modules():
        if not isinstance(part, (nn.Sequential, nn.ModuleList)):
            continue
        kinds = [type(child) if any(child.children()) else None for child in part]
        commonest = max((kind for kind in kinds if kind), key=kinds.count, default=None)
        if commonest is not None and kinds.count(commonest) >= least:
            found[path] = [i for i, kind in enumerate(kinds) if kind is commonest]
    return found


@contextmanager
def without_blocks(module: nn.Module, path: str, dropped: Collection[int]) -> Iterator[None]:
    """While the block runs, a list of a module lacks some of its children; then it is whole again.

    Args:
        module: Where the list is.
        path: Of the list, as of :func:`block_lists`.
        dropped: Positions of the children.
    """
    again = _as_it_is(module, path)
    _rebuild(module, path, [i for i in range(len(module.get_submodule(path))) if i not in dropped])
    try:
        yield
    finally:
        again()


def drop_blocks(module: nn.Module, inputs: Mapping[str, Tensor], blocks: Mapping[str, Collection[int]]) -> list[str]:
    """Leaves blocks out of a module for good.

    Args:
        module: Changed in place, also where an error is raised.
        inputs: A batch that it runs on.
        blocks: Positions of the blocks by path of their list, in the module as it stands.

    Returns:
        What was left out, in words.

    Raises:
        ModelError: There is no such list or position, or the module does not run without the blocks, or gives other
            shapes.
    """
    check_blocks(module, blocks)
    before = output_shapes(module, inputs, "before blocks are left out")
    notes = []
    # Lists inside of others come first: those that follow a block that is left out get another path.
    for path in sorted(blocks, key=lambda path: -len(path.split(".")) if path else 0):
        if blocks[path]:
            _rebuild(module, path, [i for i in range(len(module.get_submodule(path))) if i not in blocks[path]])
            word = "block" if len(set(blocks[path])) == 1 else "blocks"
            notes.append(f"{path or type(module).__name__}: {word} {_listed([*blocks[path]])} left out")
    after = f"without its blocks ({'; '.join(notes)})"
    shapes = output_shapes(module, inputs, after, "leave fewer blocks out")
    if shapes != before:
        raise ModelError(
            f"the outputs of {type(module).__name__} have other shapes {after}", found=str(shapes), allowed=str(before)
        )
    return notes


def check_blocks(module: nn.Module, blocks: Mapping[str, Collection[int]]) -> None:
    """Refuses blocks that are not there.

    Args:
        module: Where they should be.
        blocks: Positions of blocks by path of their list.

    Raises:
        ModelError: There is no such list or position.
    """
    lists = {name: part for name, part in module.named_modules() if isinstance(part, (nn.Sequential, nn.ModuleList))}
    for path, numbers in blocks.items():
        if path not in lists:
            known = [*block_lists(module)] or [name for name in lists if name]
            raise ModelError(
                f"{type(module).__name__} has no list of blocks {path!r}",
                found=repr(path),
                allowed=", ".join(known) or "a Sequential or a ModuleList; it has none",
                fix=did_you_mean(path, known),
            )
        wrong = sorted(number for number in numbers if not 0 <= number < len(lists[path]))
        if wrong:
            raise ModelError(
                f"{path or type(module).__name__} has no block {wrong[0]}",
                found=f"blocks {_listed([*numbers])}",
                allowed=f"0 to {len(lists[path]) - 1}",
            )


def spread(blocks: Sequence[int], fixed: set[int], count: int) -> list[int]:
    """Chooses ``count`` of some blocks, evenly spread from the first to the last, and all fixed ones with them.

    Where the fixed ones make it too many, those nearest to a fixed one give way.
    """
    step = (len(blocks) - 1) / (count - 1) if count > 1 else 0.0
    chosen = {blocks[math.floor(i * step + 0.5)] for i in range(count)} - fixed
    while chosen and len(chosen) + len(fixed) > count:
        chosen.remove(min(chosen, key=lambda block: (min(abs(block - other) for other in fixed), -block)))
    return sorted(chosen | fixed)


def _cut_by_hand(
    module: nn.Module, inputs: Mapping[str, Tensor], path: str, numbers: Sequence[int], before: Mapping[str, object]
) -> str:
    lists = {name: part for name, part in module.named_modules() if isinstance(part, (nn.Sequential, nn.ModuleList))}
    if path not in lists:
        known = [*block_lists(module)] or [name for name in lists if name]
        raise ModelError(
            f"student.keep: {type(module).__name__} has no list of blocks {path!r}",
            found=repr(path),
            allowed=", ".join(known) or "a Sequential or a ModuleList; it has none",
            fix=did_you_mean(path, known),
        )
    blocks = list(lists[path])
    if max(numbers) >= len(blocks):
        raise ModelError(
            f"student.keep: {path} has no block {max(numbers)}",
            found=f"{path} = [{', '.join(map(str, numbers))}]",
            allowed=f"0 to {len(blocks) - 1}",
        )
    dropped = sorted(set(range(len(blocks))) - set(numbers))
    if not dropped:
        raise ModelError(f"student.keep: {path} drops no block", found=f"all {len(blocks)} are kept", fix="remove it")
    same = keeping_shape(module, [blocks[i] for i in dropped], inputs)
    for i in dropped:
        if blocks[i] not in same:
            raise ModelError(
                f"student.keep: block {i} of {path} cannot be dropped",
                found=f"{type(blocks[i]).__name__} gives another shape than it takes, or is never called",
                fix=f"keep {i} too",
            )
    _rebuild(module, path, sorted(set(numbers)))
    if output_shapes(module, inputs, f"with blocks {_listed(numbers)} of {path}") != before:
        raise ModelError(f"student.keep: without blocks {_listed(dropped)} of {path} the outputs have other shapes")
    return _kept(path, numbers, len(blocks))


def _cut_evenly(
    module: nn.Module, inputs: Mapping[str, Tensor], depth: float, done: set[str], before: Mapping[str, object]
) -> list[str]:
    lists = {path: blocks for path, blocks in block_lists(module).items() if path not in done}
    if not lists and not done:
        raise ModelError(
            f"student.depth: {type(module).__name__} has no list of blocks",
            found=", ".join(name for name, _ in module.named_children()) or "no layers",
            allowed="a Sequential or a ModuleList of two blocks or more of one class",
            fix="scale its width instead, or write the student as a class of its own",
        )
    parts = dict(module.named_modules())
    same = keeping_shape(module, [parts[path][i] for path, blocks in lists.items() for i in blocks], inputs)
    fixed = {path: {i for i in blocks if parts[path][i] not in same} for path, blocks in lists.items()}
    notes: list[str] = []
    refused: dict[str, str] = {}
    for path in _order(lists, fixed):
        if path in refused or any(_related(path, other) for other in done):
            continue
        blocks = lists[path]
        if len(fixed[path]) == len(blocks):
            refused[path] = f"each of {len(blocks)} blocks changes the shape"
            continue
        count, size = math.floor(len(blocks) * depth + 0.5), len(parts[path])
        kept = spread(blocks, fixed[path], count) or [blocks[0]]
        problem = _try(module, inputs, path, kept, blocks, before)
        if problem is not None:
            refused[path] = problem
            continue
        if not count and not fixed[path]:
            raise ModelError(
                f"student.depth leaves nothing of {path}",
                found=f"depth = {depth:g} of {len(blocks)} blocks",
                allowed=f"{math.ceil(50 / len(blocks)) / 100:g} or more, so that one block stays",
            )
        done.add(path)
        if len(kept) < len(blocks):
            notes.append(_kept(path, kept, size, len(blocks)))
        else:
            refused[path] = f"all of {len(blocks)} blocks are kept"
    if not notes:
        raise ModelError(
            f"student.depth = {depth:g} drops no block of {type(module).__name__}",
            found="; ".join(f"{path}: {why}" for path, why in refused.items()) or "every list is in student.keep",
            allowed="a share that drops at least one block",
            fix="a smaller share, or name the blocks with student.keep",
        )
    return notes


def _order(lists: Mapping[str, Sequence[int]], fixed: Mapping[str, set[int]]) -> list[str]:
    """The order in which lists that hold each other are asked: the first that can be cut is.

    After the first, most blocks of a list of blocks keep the shape: they are dropped rather than the layers inside of
    them. Most stages of a list of stages do not: the blocks inside of them are dropped rather than a whole stage.
    """
    outermost = sorted(lists, key=lambda path: len(path.split(".")) if path else 0)
    plain = [path for path in outermost if 2 * len(fixed[path] - {lists[path][0]}) < len(lists[path]) - 1]
    return [*plain, *reversed(outermost)]


def _related(path: str, other: str) -> bool:
    """Whether one of two lists is the other one, or inside of it."""
    short, long = sorted((path, other), key=len)
    return short in ("", long) or long.startswith(f"{short}.")


def _try(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    path: str,
    kept: Sequence[int],
    blocks: Sequence[int],
    before: Mapping[str, object],
) -> str | None:
    """Cuts one list; why it cannot be cut, and then it is whole again."""
    again = _as_it_is(module, path)
    _rebuild(module, path, [i for i in range(len(module.get_submodule(path))) if i in kept or i not in blocks])
    try:
        if output_shapes(module, inputs, "without some of its blocks") == before:
            return None
        problem = "without some of its blocks the outputs have other shapes"
    except ModelError as exc:
        problem = str(exc.found)
    again()
    return problem


def _as_it_is(module: nn.Module, path: str) -> Callable[[], None]:
    """What gives a list all the children back that it has now."""
    part = module.get_submodule(path)
    owner = module.get_submodule(path.rpartition(".")[0])
    children, counts = dict(part._modules), {name: vars(owner)[name] for name in COUNTS if name in vars(owner)}

    def again() -> None:
        part._modules.clear()
        part._modules.update(children)
        vars(owner).update(counts)

    return again


def _rebuild(module: nn.Module, path: str, kept: Sequence[int]) -> None:
    """Leaves only some children in a list, numbered anew where they bear numbers."""
    part = module.get_submodule(path)
    owner = module.get_submodule(path.rpartition(".")[0])
    children = list(part._modules.items())
    numbered = all(name == str(i) for i, (name, _) in enumerate(children))
    part._modules.clear()
    for i, old in enumerate(kept):
        name, child = children[old]
        part._modules[str(i) if numbered else name] = child
    for name in COUNTS:
        if type(vars(owner).get(name)) is int and vars(owner)[name] == len(children):
            setattr(owner, name, len(kept))


def _kept(path: str, kept: Sequence[int], count: int, blocks: int | None = None) -> str:
    others = f", and what else is in it ({count - blocks})" if blocks is not None and blocks < count else ""
    word = "block" if len(kept) == 1 else "blocks"
    return f"{path}: {word} {_listed(kept)} of {blocks or count} kept{others}"


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, sorted(set(numbers))))
