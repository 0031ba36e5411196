from pathlib import Path

import pytest

from edgekit._lookup import resolve
from edgekit.errors import SpecError, UnknownName


def test_a_name_of_the_table() -> None:
    assert resolve("pi", {"pi": 3.14}, kind="number") == 3.14
    assert resolve("join", {"join": "os.path:join"}, kind="function").__name__ == "join"


def test_a_module_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "lookup_beside.py").write_text("class A:\n    value = 7\n")
    assert resolve("lookup_beside:A.value", {}, kind="number", base=tmp_path) == 7


def test_an_unknown_name_says_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"recipe: unknown metric 'acuracy'[\s\S]*did you mean 'accuracy'\?"):
        resolve("acuracy", {"accuracy": 1}, kind="metric", where="recipe")


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("lookup_none:x", None, "cannot import module 'lookup_none'"),
        ("lookup_attr:Studnet", "class Student: ...\n", r"has no 'Studnet'[\s\S]*did you mean 'Student'"),
        ("lookup_name:x", "x = 1\ny = z\n", r"failed while it was imported\n.*NameError.*\(lookup_name.py:2\)"),
        ("lookup_syntax:x", "def x(:\n", r"failed while it was imported\n.*SyntaxError"),
    ],
)
def test_a_module_that_does_not_serve(name: str, source: str | None, message: str, tmp_path: Path) -> None:
    if source is not None:
        (tmp_path / f"{name.partition(':')[0]}.py").write_text(source)
    with pytest.raises(SpecError, match=message):
        resolve(name, {}, kind="model", base=tmp_path)
