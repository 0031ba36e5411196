import pickle
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from edgekit.errors import ModelError, SpecError, UnknownName
from edgekit.models import (
    class_sources,
    count_parameters,
    is_onnx,
    load_module,
    load_weights,
    module_identity,
    replace_head,
    save_weights,
    state_hash,
)
from edgekit.recipe_training import ModelSpec

NETWORKS = """
import torch
from torch import nn
from helper_layers import width

class Net(nn.Module):
    def __init__(self, classes: int = 3, hidden: int = width):
        super().__init__()
        self.body = nn.Linear(4, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x):
        return self.head(self.norm(self.body(x)).relu())

def broken():
    raise RuntimeError("no such checkpoint")

def text():
    return "a module"

def scripted():
    return torch.jit.script(nn.Linear(2, 2))

def poisoned():
    net = Net()
    with torch.no_grad():
        net.head.weight[0, 0] = float("nan")
    return net

constant = 3
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Iterator[Path]:
    """A recipe's folder with two modules of its own."""
    (tmp_path / "networks.py").write_text(NETWORKS)
    (tmp_path / "helper_layers.py").write_text("width = 8\n")
    yield tmp_path
    for name in ("networks", "helper_layers"):
        sys.modules.pop(name, None)


def _load(recipe: Path, model: str = "networks:Net", seed: int = 0, **fields: Any) -> nn.Module:
    module = load_module(ModelSpec(model=model, **fields), base=recipe, seed=seed, where="edgekit.toml: teacher")
    assert isinstance(module, nn.Module)
    return module


def test_is_onnx() -> None:
    assert is_onnx("folder/Model.ONNX")
    assert not is_onnx("onnx:model")


# ---- factories ----


def test_a_factory_gets_its_arguments_and_its_seed(recipe: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    module = _load(recipe, args={"classes": 5})
    assert torch.rand(1) == expected  # the caller's random state is left alone
    assert module.head.out_features == 5
    assert not module.training
    assert state_hash(module) == state_hash(_load(recipe, args={"classes": 5}))
    assert state_hash(module) != state_hash(_load(recipe, args={"classes": 5}, seed=1))


@pytest.mark.parametrize(
    ("model", "error", "match"),
    [
        ("networks:Nett", SpecError, "did you mean 'Net'"),
        ("netwroks:Net", SpecError, "cannot import module 'netwroks'"),
        ("Net", UnknownName, "package.module:attr"),
        ("networks:constant", ModelError, r"cannot be called\n\s+found:\s+int"),
        (
            "networks:broken",
            ModelError,
            r"failed while making the module\n\s+found:\s+RuntimeError: no such checkpoint",
        ),
        ("networks:text", ModelError, r"did not make a torch module\n\s+found:\s+str"),
        ("networks:poisoned", ModelError, r"NaN or infinity\n\s+found:\s+1 of 24 values of head.weight"),
        ("teacher.onnx", ModelError, "ONNX: it can be deployed as it is"),
        ("teacher.pt2", ModelError, "torch.export archive"),
        ("teacher.pt", ModelError, "TorchScript"),
        ("teacher.safetensors", ModelError, "weights without the network"),
    ],
)
def test_models_that_cannot_be_made(recipe: Path, model: str, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=rf"^edgekit.toml: teacher: (.|\n)*{match}"):
        _load(recipe, model)


def test_wrong_arguments_name_the_nearest(recipe: Path) -> None:
    with pytest.raises(ModelError, match=r"wrong arguments(.|\n)*classes: int(.|\n)*did you mean 'classes'"):
        _load(recipe, args={"clases": 5})


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_torchscript_is_not_a_module_that_can_cross(recipe: Path) -> None:
    with pytest.raises(ModelError, match="not TorchScript"):
        _load(recipe, "networks:scripted")


def test_timm_makes_a_network_without_downloading(recipe: Path) -> None:
    pytest.importorskip("timm", reason="timm is in the extra 'vision'")
    module = _load(recipe, "timm:resnet18", args={"num_classes": 7})
    assert module.fc.out_features == 7
    with pytest.raises(ModelError, match="did you mean 'resnet18'"):
        _load(recipe, "timm:resnet_18")
    with pytest.raises(ModelError, match="'pretrained' of timm is not used: nothing is downloaded"):
        _load(recipe, "timm:resnet18", args={"pretrained": True})
    with pytest.raises(ModelError, match="timm has no model"):
        _load(recipe, "timm:hf-hub:someone/something")


def test_without_timm_the_message_says_what_mends_it(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r'timm, which is not installed(.|\n)*pip install "edgekit\[vision\]"'):
        _load(recipe, "timm:resnet18")


# ---- weights ----


def _weights(recipe: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = _load(recipe, seed=5).state_dict()
    return state


def test_weights_that_the_factory_gives_are_its_own(recipe: Path) -> None:
    assert state_hash(_load(recipe, seed=5, weights="factory")) == state_hash(_load(recipe, seed=5))
    with pytest.raises(ModelError, match="timm gives timm:resnet18 random weights"):
        _load(recipe, "timm:resnet18", weights="factory")


def test_weights_round_trip_as_safetensors(recipe: Path) -> None:
    module = _load(recipe, seed=5)
    save_weights(module, recipe / "w.safetensors")
    assert state_hash(_load(recipe, weights="w.safetensors")) == state_hash(module)


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
@pytest.mark.parametrize("key", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_checkpoints_of_training_scripts(recipe: Path, suffix: str, key: str | None, prefix: str) -> None:
    state = {prefix + name: tensor for name, tensor in _weights(recipe).items()}
    torch.save(state if key is None else {key: state, "epoch": 3}, recipe / f"w{suffix}")
    assert state_hash(_load(recipe, weights=f"w{suffix}")) == state_hash(_load(recipe, seed=5))


def test_old_checkpoints_lack_the_batch_counters(recipe: Path) -> None:
    state = {name: tensor for name, tensor in _weights(recipe).items() if "num_batches" not in name}
    save_file(state, recipe / "w.safetensors")
    assert state_hash(_load(recipe, weights="w.safetensors")) == state_hash(_load(recipe, seed=5))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 4, bias=False)
        self.head = nn.Linear(4, 4, bias=False)
        self.head.weight = self.embed.weight


def test_tied_tensors_are_kept_once(tmp_path: Path) -> None:
    module, other = Tied(), Tied()
    save_weights(module, tmp_path / "w.safetensors")
    assert len(load_file(tmp_path / "w.safetensors")) == 1
    load_weights(other, tmp_path / "w.safetensors", where="student")
    assert torch.equal(other.head.weight, module.embed.weight)
    assert count_parameters(other) == 16


class _Planted:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_a_pickle_with_code_is_refused_and_never_runs(recipe: Path) -> None:
    planted = recipe / "planted"
    torch.save({"body.weight": _Planted(planted)}, recipe / "zipped.pt")
    (recipe / "bare.pt").write_bytes(pickle.dumps({"body.weight": _Planted(planted)}, protocol=2))
    for name in ("zipped.pt", "bare.pt"):
        with pytest.raises(ModelError, match=rf"{name}: holds more than weights, and reading that could run code"):
            _load(recipe, weights=name)
    assert not planted.exists()
    pickle.loads((recipe / "bare.pt").read_bytes())  # noqa: S301  # shows that the trap works
    assert planted.exists()


def test_a_pickled_module_is_refused(recipe: Path) -> None:
    torch.save(nn.Linear(4, 3), recipe / "w.pt")
    with pytest.raises(ModelError, match=r"holds more than weights(.|\n)*torch.save\(module.state_dict\(\)"):
        _load(recipe, weights="w.pt")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_torchscript_weights_are_refused(recipe: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(4, 3)), recipe / "w.pt")
    with pytest.raises(ModelError, match=r"not plain weights\n\s+found:\s+TorchScript"):
        _load(recipe, weights="w.pt")


def test_weights_that_do_not_fit(recipe: Path) -> None:
    state = _weights(recipe)
    state["bodi.weight"] = state.pop("body.weight")
    state["head.bias"] = torch.zeros(9)
    save_file(state, recipe / "w.safetensors")
    with pytest.raises(
        ModelError,
        match=r"edgekit.toml: teacher.weights: .*w.safetensors: the weights do not fit the model\n"
        r"\s+found:\s+1 missing in the file: body.weight; 1 not in the model: bodi.weight; "
        r"1 of another shape: head.bias: \[9\] in the file, \[3\] in the model\n(.|\n)*did you mean 'bodi.weight'",
    ):
        _load(recipe, weights="w.safetensors")


def test_nan_in_weights_names_the_tensor(recipe: Path) -> None:
    state = _weights(recipe)
    state["norm.running_var"][2] = float("inf")
    save_file(state, recipe / "w.safetensors")
    with pytest.raises(
        ModelError, match=r"w.safetensors: the weights hold NaN(.|\n)*1 of 8 values of norm.running_var"
    ):
        _load(recipe, weights="w.safetensors")


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("missing.safetensors", None, "no such file"),
        ("w.safetensors", b"nonsense", "cannot be read"),
        ("w.pt", b"", "cannot be read"),
        ("w.pt", b"PK\x03\x04 cut short", "cannot be read|holds more than weights"),
        ("w.pt2", b"", "torch.export archive"),
        ("w.h5", b"", r"found:\s+.h5\n\s+allowed:\s+.safetensors"),
    ],
)
def test_weights_files_that_cannot_be_read(recipe: Path, name: str, content: bytes | None, match: str) -> None:
    if content is not None:
        (recipe / name).write_bytes(content)
    with pytest.raises(ModelError, match=match):
        _load(recipe, weights=name)


def test_a_checkpoint_without_tensors(recipe: Path) -> None:
    torch.save({"epoch": 3, "lr": 0.1}, recipe / "w.pt")
    with pytest.raises(ModelError, match=r"not a state dict\n\s+found:\s+a dict with epoch, lr"):
        _load(recipe, weights="w.pt")


def test_weights_in_a_folder_of_the_environment(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_weights(_load(recipe, seed=5), recipe / "w.safetensors")
    monkeypatch.setenv("SOME_FOLDER", str(recipe))
    assert state_hash(_load(recipe, weights="$SOME_FOLDER/w.safetensors")) == state_hash(_load(recipe, seed=5))
    monkeypatch.delenv("SOME_FOLDER")
    with pytest.raises(ModelError, match="SOME_FOLDER is not set"):
        _load(recipe, weights="$SOME_FOLDER/w.safetensors")


# ---- identity ----


def test_identity_holds_weights_arguments_and_the_recipes_source(recipe: Path) -> None:
    spec = ModelSpec(model="networks:Net")
    module = _load(recipe)
    first = module_identity(module, spec, recipe)
    assert first == module_identity(_load(recipe), spec, recipe)
    assert first != module_identity(_load(recipe, seed=1), spec, recipe)
    assert first != module_identity(module, ModelSpec(model="networks:Net", args={"hidden": 8}), recipe)
    (recipe / "helper_layers.py").write_text("width = 8  # or more\n")
    assert first != module_identity(module, spec, recipe)


@pytest.mark.parametrize(("name", "counts"), [("edgekit.late", False), ("users_own.late", True)])
def test_identity_leaves_edgekits_own_modules_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, counts: bool
) -> None:
    module, spec = nn.ReLU(), ModelSpec(model="torch.nn:ReLU")
    before = module_identity(module, spec, tmp_path)
    late = types.ModuleType(name)
    late.__file__ = str(tmp_path / "late.py")
    (tmp_path / "late.py").write_text("imported = True\n")
    monkeypatch.setitem(sys.modules, name, late)
    assert (module_identity(module, spec, tmp_path) != before) == counts


def test_identity_of_half_precision_and_scalars() -> None:
    module = nn.BatchNorm1d(3).to(torch.bfloat16)
    mark = state_hash(module)
    module.num_batches_tracked += 1
    assert mark != state_hash(module)


def test_class_sources_follow_the_users_code_and_not_torchs(recipe: Path) -> None:
    assert class_sources(nn.Sequential(nn.Linear(2, 2), nn.ReLU())) == []
    module = nn.Sequential(_load(recipe), nn.ReLU())
    first = class_sources(module)
    assert len(first) == 1
    (recipe / "networks.py").write_text(NETWORKS + "# a change")
    assert class_sources(module) != first


def test_class_sources_of_a_class_without_a_file() -> None:
    typed_in = type("TypedIn", (nn.Module,), {"__module__": "__nowhere__"})
    assert class_sources(typed_in()) == []


# ---- heads ----


def test_a_new_head_is_fresh_and_seeded(recipe: Path) -> None:
    module = replace_head(_load(recipe), "head", classes=10, seed=3)
    assert module(torch.ones(2, 4)).shape == (2, 10)
    again = replace_head(_load(recipe), "head", classes=10, seed=3)
    assert torch.equal(module.head.weight, again.head.weight)
    other = replace_head(_load(recipe), "head", classes=10, seed=4)
    assert not torch.equal(module.head.weight, other.head.weight)


def test_a_head_may_be_a_nested_pointwise_convolution() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(8, 5, 1, bias=False)))
    replace_head(module, "1.1", classes=2, seed=0)
    assert module[1][1].weight.shape == (2, 8, 1, 1)
    assert module[1][1].bias is None
    assert module[1][1].training


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("haed", r"no layer 'haed'(.|\n)*did you mean 'head'"),
        ("norm", r"cannot be a classification head\n\s+found:\s+BatchNorm1d\n\s+allowed:.*body, head"),
        ("", "no layer ''"),
    ],
)
def test_heads_that_cannot_be_replaced(recipe: Path, path: str, match: str) -> None:
    with pytest.raises(ModelError, match=match):
        replace_head(_load(recipe), path, classes=2, seed=0)
