"""Benchmarks run by hand only; what they take from EdgeKit has to be there when they do."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

BENCHES = sorted((Path(__file__).parent / "bench").glob("*.py"))


def taken(file: Path) -> list[tuple[str, str]]:
    """The modules of EdgeKit that a file imports from, wherever in it, and the names it takes."""
    found = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom) and node.module]
    return [
        (str(node.module), alias.name)
        for node in found
        if str(node.module).partition(".")[0] == "edgekit"
        for alias in node.names
    ]


def there(module: str, name: str) -> bool:
    found = importlib.import_module(module)
    return hasattr(found, name) or name in {
        module.name for module in pkgutil.iter_modules(getattr(found, "__path__", []))
    }


@pytest.mark.parametrize("file", BENCHES, ids=lambda file: file.stem)
def test_what_a_benchmark_takes_is_there(file):
    assert [f"{module}.{name}" for module, name in taken(file) if not there(module, name)] == []


def test_a_name_that_is_gone_is_found():
    assert not there("edgekit.comparing", "TURN_S")
    assert there("edgekit.profiling", "comparison")
    assert taken(BENCHES[0].with_name("bench_comparison.py"))
