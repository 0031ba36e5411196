"""What a recipe may say of a student."""

import pytest

from edgekit.errors import SpecError
from edgekit.recipe_student import StudentSpec
from edgekit.specs import parse


def test_a_student_without_a_model_is_a_copy_of_the_teacher():
    student = parse(StudentSpec, {"depth": 0.5, "keep": {"layer1": [0, 2]}, "larger": False}, "recipe")
    assert (student.model, student.is_copy) == ("teacher", True)
    assert student.cuts == {"depth": 0.5, "keep": {"layer1": (0, 2)}}
    own = parse(StudentSpec, {"model": "nets:small", "take": {"embed": "embed"}}, "recipe")
    assert (own.is_copy, own.cuts) == (False, {})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depth": 1.0}, r"'depth'(.|\n)*less than 1"),
        ({"width": 0.0}, r"'width'(.|\n)*more than 0"),
        ({"embeddings": 0}, r"'embeddings'(.|\n)*more than 0"),
        ({"keep": {"layer1": []}}, r"'keep.layer1'(.|\n)*a list of at least 1"),
        ({"keep": {"layer1": [-1]}}, r"'keep.layer1\[0\]'(.|\n)*0 or more"),
        ({"initial": "fresh"}, r"'initial'(.|\n)*'teacher' or 'random'"),
        ({"take": {"embed": 3}}, r"'take.embed'(.|\n)*text in quotes"),
        ({"widht": 0.5}, r"unknown key 'widht'(.|\n)*did you mean 'width'"),
    ],
)
def test_what_is_wrong_is_told(fields, message):
    with pytest.raises(SpecError, match=message):
        parse(StudentSpec, fields, "recipe")
