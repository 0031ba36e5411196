"""Tensors inside a torch module: its exported program run node by node, whose names the ONNX file bears."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgekit.artifact import Array

if TYPE_CHECKING:
    from torch.nn import Module


class TorchTensors:
    """Reads tensors of a module by their names in the ONNX model that it is exported to.

    Args:
        module: The module.
        example: Two samples at least of every input, as for the export.
        feeds: The input.
        outputs: Names of the ONNX model's outputs, in order.
    """

    def __init__(
        self, module: Module, example: Mapping[str, Array], feeds: Mapping[str, Array], outputs: Sequence[str]
    ) -> None:
        from edgekit.conversion.onnx_export import decomposed

        self._program: Any = decomposed(module, example)
        self._feeds = feeds
        signature = self._program.graph_signature
        self._inner = dict(zip(outputs, signature.user_outputs, strict=True))

    def read(self, names: Sequence[str]) -> dict[str, Array]:
        """Runs the input and gives those of the tensors that there are."""
        inner = {name: str(self._inner.get(name, name)) for name in names}
        found = self._run(set(inner.values()))
        given = {name: self._feeds[name] for name in names if name in self._feeds}
        return {name: found[own] for name, own in inner.items() if own in found} | given

    def _run(self, wanted: set[str]) -> dict[str, Array]:
        import torch
        from torch.export.graph_signature import InputKind

        found: dict[str, Array] = {}

        class Reader(torch.fx.Interpreter):  # type: ignore[misc]  # torch has no stubs here
            """Keeps copies of the wanted tensors; all others are freed once they are used."""

            def run_node(self, n: torch.fx.Node) -> Any:
                value = super().run_node(n)
                if n.name in wanted and isinstance(value, torch.Tensor):
                    found[n.name] = value.detach().cpu().numpy().copy()
                return value

        program = self._program
        feeds = iter(self._feeds.values())
        held = {**program.constants, **program.state_dict}
        arguments = [
            torch.tensor(next(feeds)) if spec.kind == InputKind.USER_INPUT else held[spec.target]
            for spec in program.graph_signature.input_specs
        ]
        with torch.no_grad():
            Reader(program.graph_module).run(*arguments)
        return found
