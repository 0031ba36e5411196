"""Groups of operators, and names for nodes that have none."""

import onnx
import pytest
from onnx.parser import parse_model

from edgekit.quantization.groups import groups_of, name_nodes

CHAIN = """<ir_version: 8, opset_import: ["" : 17]>
chain (float[N, 4] x) => (float[N, 4] y)
<float[4, 4] w = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}>
{
  a = Relu(x)
  b = MatMul(a, w)
  c = Relu(b)
  d = MatMul(c, w)
  e = Add(d, b)
  f = MatMul(e, w)
  y = Relu(f)
}"""


@pytest.fixture
def chain():
    model = parse_model(CHAIN)
    name_nodes(model)
    return model


def test_a_group_is_a_compute_node_and_what_follows_it(chain):
    groups = groups_of(chain)
    assert [group.nodes for group in groups] == [("a", "b", "c"), ("d", "e"), ("f", "y")]
    assert [group.name for group in groups] == ["b", "d", "f"]
    assert {group.operators for group in groups} == {("MatMul",)}


@pytest.mark.parametrize(("most", "sizes"), [(1, [3]), (2, [2, 1]), (3, [1, 1, 1]), (9, [1, 1, 1])])
def test_at_most_so_many_groups_that_hold_every_node_once(chain, most, sizes):
    groups = groups_of(chain, most)
    assert [group.compute for group in groups] == sizes
    assert [name for group in groups for name in group.nodes] == ["a", "b", "c", "d", "e", "f", "y"]
    assert groups[0].name == {3: "b … f", 2: "b … d", 1: "b"}[sizes[0]]


def test_a_model_without_compute_has_no_groups():
    model = parse_model('<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[N] y) { y = Relu(x) }')
    name_nodes(model)
    assert groups_of(model) == ()


def test_names_are_given_where_there_are_none_or_they_are_taken():
    model = parse_model(CHAIN)
    assert not model.graph.node[0].name
    model.graph.node[1].name = "same"
    model.graph.node[2].name = "same"
    model.graph.node[3].name = "a"
    name_nodes(model)
    assert [node.name for node in model.graph.node] == ["a", "same", "c", "d", "e", "f", "y"]
    onnx.checker.check_model(model)
