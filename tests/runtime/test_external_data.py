import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.external_data_helper import set_external_data

from edgekit import runtime
from edgekit.errors import BundleError
from edgekit.runtime.external_data import check_external_data, external_files


def tensor(location, name="w"):
    made = helper.make_tensor(name, TensorProto.FLOAT, [4], np.ones(4, np.float32).tobytes(), raw=True)
    if location is not None:
        set_external_data(made, location=location, offset=0, length=16)
        made.ClearField("raw_data")
        made.data_location = TensorProto.EXTERNAL
    return made


def in_initialiser(location):
    return graph_of([tensor(location)])


def graph_of(initialisers, nodes=None, **extra):
    value = helper.make_tensor_value_info("input", TensorProto.FLOAT, [4])
    result = helper.make_tensor_value_info("output", TensorProto.FLOAT, [4])
    nodes = nodes or [helper.make_node("Add", ["input", "w"], ["output"])]
    return helper.make_graph(nodes, "g", [value], [result], initialisers, **extra)


def in_constant(location):
    constant = helper.make_node("Constant", [], ["w"], value=tensor(location))
    return graph_of([], [constant, helper.make_node("Add", ["input", "w"], ["output"])])


def in_subgraph(location):
    branch = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["b"])],
        "branch",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, [4])],
        [tensor(location)],
    )
    condition = helper.make_tensor("condition", TensorProto.BOOL, [], [True])
    node = helper.make_node("If", ["condition"], ["output"], then_branch=branch, else_branch=branch)
    return graph_of([condition], [node])


def in_sparse(location):
    indices = helper.make_tensor("i", TensorProto.INT64, [4], [0, 1, 2, 3])
    return graph_of([], sparse_initializer=[helper.make_sparse_tensor(tensor(location), indices, [4])])


PLACES = [in_initialiser, in_constant, in_subgraph, in_sparse]


@pytest.fixture
def saved(tmp_path):
    """Saves a graph as ``model/model.onnx`` beside a folder it may not read from."""
    (tmp_path / "model").mkdir()
    (tmp_path / "secret.bin").write_bytes(np.ones(4, np.float32).tobytes())

    def save(graph):
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        path = tmp_path / "model" / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return save


@pytest.mark.parametrize("place", PLACES)
def test_names_are_found_wherever_a_tensor_can_stand(saved, place):
    assert external_files(saved(place("weights.bin"))) == ("weights.bin",)
    assert external_files(saved(place(None))) == ()


def test_names_in_a_function_and_in_training_are_found(saved):
    path = saved(in_initialiser(None))
    model = onnx.load(path)
    constant = helper.make_node("Constant", [], ["c"], value=tensor("function.bin"))
    opsets = [helper.make_opsetid("", 20)]
    model.functions.append(helper.make_function("d", "F", [], ["c"], [constant], opsets))
    model.training_info.add().algorithm.CopyFrom(in_initialiser("training.bin"))
    path.write_bytes(model.SerializeToString())
    assert external_files(path) == ("function.bin", "training.bin")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "location", ["../secret.bin", "sub/../../secret.bin", "/etc/passwd", "C:\\secret.bin", "..\\secret.bin", ""]
)
def test_a_name_outside_the_folder_is_refused_before_the_engine_opens_it(
    saved, place, location, engine, tiny_artifact, monkeypatch
):
    from dataclasses import replace

    path = saved(place(location))
    artifact = replace(tiny_artifact("passthrough", engine), folder=path.parent)
    opened = []
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *a, **k: opened.append(a))
    monkeypatch.setattr("openvino.Core", lambda *a, **k: opened.append(a))
    with pytest.raises(BundleError, match="points outside its folder"):
        runtime.open_artifact(artifact)
    assert opened == []


def test_a_link_out_of_the_folder_is_refused(saved, tmp_path):
    path = saved(in_initialiser("weights.bin"))
    (path.parent / "weights.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(BundleError, match="outside its folder through a link"):
        check_external_data(path)


def test_a_linked_folder_is_refused(saved, tmp_path):
    path = saved(in_initialiser("sub/secret.bin"))
    (path.parent / "sub").symlink_to(tmp_path)
    with pytest.raises(BundleError, match="outside its folder through a link"):
        check_external_data(path)


def test_a_missing_file_is_named(saved):
    with pytest.raises(BundleError, match=r"the file 'weights.bin' is missing"):
        check_external_data(saved(in_initialiser("weights.bin")))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_external_data_inside_the_folder_runs(saved, engine, tiny_artifact):
    from dataclasses import replace

    from tiny_models import onnx_specs

    path = saved(in_initialiser("sub/weights.bin"))
    (path.parent / "sub").mkdir()
    (path.parent / "sub" / "weights.bin").write_bytes(np.full(4, 2, np.float32).tobytes())
    graph = onnx.load(path, load_external_data=False).graph
    artifact = replace(
        tiny_artifact("conv", engine),
        folder=path.parent,
        inputs=onnx_specs(graph.input),
        outputs=onnx_specs(graph.output),
    )
    session = runtime.open_artifact(artifact)
    np.testing.assert_array_equal(session.run({"input": np.ones(4, np.float32)})["output"], [3, 3, 3, 3])


def test_a_key_given_twice_hides_nothing(saved):
    path = saved(in_initialiser("weights.bin"))
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data.add(key="location", value="../secret.bin")
    path.write_bytes(model.SerializeToString())
    assert external_files(path) == ("../secret.bin", "weights.bin")


def test_every_cut_of_a_model_is_read_or_refused_never_worse(saved):
    path = saved(in_subgraph("weights.bin"))
    whole = path.read_bytes()
    refused = 0
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        try:
            external_files(path)
        except BundleError:
            refused += 1
    assert refused > len(whole) // 2


def test_random_bytes_are_read_or_refused_never_worse(saved):
    path = saved(in_subgraph("weights.bin"))
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(500):
        changed = whole.copy()
        changed[rng.integers(0, len(whole), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(changed.tobytes())
        try:
            external_files(path)
        except BundleError as exc:
            assert "not an ONNX file" in str(exc)  # noqa: PT017 - either answer is right
