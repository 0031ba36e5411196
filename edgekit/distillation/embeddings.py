"""Smaller embedding tables, by truncated SVD."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgekit.errors import ModelError


class Factored(nn.Module):
    """An embedding ``[V, D]`` as a table ``[V, r]`` and a projection to ``D``.

    Z. Lan et al., "ALBERT: A Lite BERT", ICLR 2020: ``V r + r D`` parameters instead of ``V D``.

    Args:
        vocabulary: V.
        rank: r.
        width: D.
        padding_idx: As of ``nn.Embedding``.
    """

    def __init__(self, vocabulary: int, rank: int, width: int, padding_idx: int | None = None) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.padding_idx = vocabulary, width, padding_idx
        self.table = nn.Embedding(vocabulary, rank, padding_idx=padding_idx)
        self.project = nn.Linear(rank, width, bias=False)

    @property
    def weight(self) -> Tensor:
        """The table that it stands for, ``[V, D]``."""
        return self.table.weight @ self.project.weight.T

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings ``[…, D]`` of ids ``[…]``."""
        embedded: Tensor = self.project(self.table(ids))
        return embedded


def truncated(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The best factors of a rank: ``left @ right`` is as near to ``weight`` as a matrix of that rank can be.

    C. Eckart, G. Young, "The approximation of one matrix by another of lower rank", 1936. The singular values are
    shared evenly, so that both factors learn alike.

    Args:
        weight: ``[V, D]``.
        rank: r, at most ``min(V, D)``.

    Returns:
        ``left`` ``[V, r]`` and ``right`` ``[r, D]``.
    """
    directions = _directions(weight, rank)
    left = weight.detach().double() @ directions
    values = left.norm(dim=0)
    root = torch.where(values > 0, values, 1.0).sqrt()
    return (left / root).to(weight.dtype), (root[:, None] * directions.T).to(weight.dtype)


def narrowed(weight: Tensor, width: int) -> Tensor:
    """A table's coordinates in its leading singular directions ``[V, width]``: the most of it that so few can hold.

    Inner products of two embeddings stay as near as a table of that width can have them (Eckart-Young).
    """
    return (weight.detach().double() @ _directions(weight, width)).to(weight.dtype)


def _directions(weight: Tensor, count: int) -> Tensor:
    """The leading right singular vectors of a tall matrix ``[V, D]`` as columns ``[D, count]``, of its Gram matrix."""
    tall = weight.detach().double()
    return torch.linalg.eigh(tall.T @ tall).eigenvectors.flip(1)[:, :count]


def factorise(module: nn.Module, rank: int) -> list[str]:
    """Puts a :class:`Factored` of a rank in the place of every embedding table that this makes smaller.

    Args:
        module: Changed in place.
        rank: r; tables ``[V, D]`` with ``r (V + D) >= V D`` stay as they are.

    Returns:
        What was cut, with the error relative to the table in Frobenius norm, in words.

    Raises:
        ModelError: There is no table, the rank makes none smaller, or a table is shared with another layer.
    """
    tables = {name: part for name, part in module.named_modules() if isinstance(part, nn.Embedding)}
    sizes = ", ".join(f"{name} [{part.num_embeddings}, {part.embedding_dim}]" for name, part in tables.items())
    if not tables:
        raise ModelError(
            f"student.embeddings: {type(module).__name__} has no embedding table",
            allowed="at least one torch.nn.Embedding",
            fix="remove student.embeddings",
        )
    chosen = {n: t for n, t in tables.items() if rank * (t.num_embeddings + t.embedding_dim) < t.weight.numel()}
    if not chosen:
        most = max((t.weight.numel() - 1) // (t.num_embeddings + t.embedding_dim) for t in tables.values())
        raise ModelError(
            f"student.embeddings = {rank} makes no embedding table smaller",
            found=sizes,
            allowed=f"1 to {most}" if most else "larger tables: none of these can be made smaller so",
            fix="a smaller rank" if most else "remove student.embeddings",
        )
    notes = [_factorise(module, name, table, rank) for name, table in chosen.items()]
    notes += [f"{name}: stays whole, it is too small" for name in tables if name not in chosen]
    return notes


def _factorise(module: nn.Module, name: str, table: nn.Embedding, rank: int) -> str:
    _check_own(module, name, table)
    factored = Factored(table.num_embeddings, rank, table.embedding_dim, table.padding_idx).to(table.weight)
    left, right = truncated(table.weight, rank)
    with torch.no_grad():
        factored.table.weight.copy_(left)
        factored.project.weight.copy_(right.T)
        error = (left @ right - table.weight).norm() / table.weight.norm().clamp_min(torch.finfo(left.dtype).tiny)
    factored.requires_grad_(table.weight.requires_grad).train(table.training)
    owner, _, attribute = name.rpartition(".")
    setattr(module.get_submodule(owner), attribute, factored)
    return f"{name}: rank {rank} of {min(table.weight.shape)}, relative error {float(error):.3f}"


def _check_own(module: nn.Module, name: str, table: nn.Embedding) -> None:
    """Refuses a table that another layer uses too, or that is more than a table."""
    sharing = [
        f"{path}.{key}"
        for path, part in module.named_modules(remove_duplicate=False)
        for key, parameter in part.named_parameters(recurse=False)
        if parameter is table.weight and path != name
    ]
    if sharing:
        raise ModelError(
            f"student.embeddings: the table of {name} is also {sharing[0]}",
            found=f"one tensor {list(table.weight.shape)} in {1 + len(sharing)} places",
            allowed="tables of their own",
            fix="remove student.embeddings",
        )
    if table.max_norm is not None or not name:
        raise ModelError(
            f"student.embeddings: {name or type(table).__name__} cannot be cut",
            found=f"max_norm = {table.max_norm}" if name else "the model is nothing but an embedding table",
            allowed="a table inside a model, without max_norm",
        )
