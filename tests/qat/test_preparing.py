"""A network made ready: where its fake-quantisers stand, how it learns, and what is refused."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from qat_nets import SCHEME, Residual, Tokens, made, pictures, sequences
from torch import Tensor, nn

from edgekit.data import Samples
from edgekit.distillation import checkpoints
from edgekit.distillation.students import distill
from edgekit.distillation.trainer import Keeping, train
from edgekit.errors import DataError, TrainingError, UnknownName
from edgekit.qat.learned import LearnedStep, QuantisedLayer
from edgekit.qat.preparing import RANGES, prepare_qat, weight_step
from edgekit.quantization.schemes import Scheme
from edgekit.recipe_training import Distillation, Training

SETTINGS = Training(epochs=2, batch_size=16, learning_rate=0.003)


def prepared(net: type[nn.Module] = Residual, scheme: Scheme = SCHEME, **more):
    data = pictures(24) if net is Residual else sequences(24)
    return prepare_qat(made(net), scheme, data.batches(8), **more)


def steps_of(module: nn.Module) -> dict[str, LearnedStep]:
    return dict(module.get_submodule(RANGES).named_children())


def output_of(module: nn.Module, data: Samples) -> Tensor:
    with torch.no_grad():
        return module(torch.tensor(next(iter(data.tensors(range(len(data))).values()))))


def test_pairs_stand_where_the_engine_takes_int8():
    module = prepared()
    assert set(steps_of(module)) == {"image", "stem_2", "relu", "two_0", "relu_1", "three_1", "mean"}
    layers = {path for path, part in module.named_modules() if isinstance(part, QuantisedLayer)}
    assert layers == {"stem.0", "one", "two.0", "three.0", "head"}
    # One step for what goes into the pooling and what comes out of it; none between a convolution and its ReLU.
    uses = [str(node.target) for node in module.graph.nodes if str(node.target).startswith(RANGES)]
    assert uses.count(f"{RANGES}.stem_2") == 2
    assert steps_of(module)["three_1"].largest == pytest.approx(6 / 255)


def test_matrix_products_of_a_transformer_read_int8_and_give_floats():
    assert set(steps_of(prepared(Tokens))) == {"tokens", "mul", "mean"}


def test_the_module_stays_and_the_copy_is_as_good_as_int8():
    module, data = made(Residual), pictures(24)
    before = copy.deepcopy(module.state_dict())
    copied = prepare_qat(module, SCHEME, data.batches(8)).eval()
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    expected = output_of(module, data)
    error = (output_of(copied, data) - expected).square().mean() / expected.square().mean()
    assert 0 < error < 1e-2


@pytest.mark.parametrize(
    ("signed", "symmetric", "relu", "image"),
    [
        (False, False, (0, 0, 255), None),
        (True, False, (-128, -128, 127), None),
        (True, True, (0, -128, 127), (0, -128, 127)),
        (False, True, (0, 0, 255), (128, 0, 255)),
    ],
)
def test_activations_are_as_the_scheme_says(signed, symmetric, relu, image):
    scheme = replace(SCHEME, activation_signed=signed, activation_symmetric=symmetric)
    steps = steps_of(prepared(scheme=scheme))
    found = {name: (int(step.zero_point), step.low, step.high) for name, step in steps.items()}
    assert found["relu"] == relu
    assert found["image"] == image or (image is None and found["image"][0] not in (0, 128, -128))


def test_weights_are_as_the_scheme_says():
    layer = nn.Conv2d(3, 4, 3)
    for scheme, high, shape in (
        (SCHEME, 127, (4,)),
        (replace(SCHEME, reduce_range=True), 64, (4,)),
        (replace(SCHEME, per_channel=False), 127, ()),
    ):
        step = weight_step(layer.weight.detach(), scheme)
        assert (step.low, step.high, tuple(step.scale.shape)) == (-high, high, shape)
        assert (step(layer.weight) - layer.weight).abs().max() <= step.scale.max() / 2 * 1.001
        assert torch.equal(step(layer.weight).abs().max(), layer.weight.abs().max()) or high == 64


def test_channels_and_layers_of_zeros_have_a_step():
    weights = torch.ones(3, 2)
    weights[1] = 0
    assert weight_step(weights, SCHEME).scale[1] == pytest.approx(1e-5 / 127)
    assert (weight_step(torch.zeros(3, 2), SCHEME).scale == 1 / 127).all()


def test_four_bits_are_sixteen_levels_and_the_best_of_their_shares():
    module = prepared(weight_bits=4)
    for part in module.modules():
        if isinstance(part, QuantisedLayer):
            for row in part.step(part.layer.weight).detach().flatten(1):
                assert len(row.unique()) <= 16
    weight = torch.randn(4, 200, generator=torch.Generator().manual_seed(0))
    best, widest = weight_step(weight, SCHEME, 4), LearnedStep(
        weight.abs().amax(1) / 7, torch.zeros(4, dtype=torch.int32), low=-8, high=7, axis=0
    )  # fmt: skip
    assert (best(weight) - weight).square().sum() < 0.8 * (widest(weight) - weight).square().sum()


def test_ranges_are_begun_by_the_method():
    wide, narrow = (steps_of(prepared(method=method))["image"].scale for method in ("minmax", "mse"))
    assert narrow < wide


def test_a_mask_stays_in_float():
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.b(torch.relu(self.a(tokens))) + self.a(tokens * 1e9 - 1e9)[..., :3] * 1e-9

    module = prepared(Masked)
    assert "mul" not in str(steps_of(module).keys())
    assert isinstance(module.b, QuantisedLayer)


def test_a_copy_and_a_state_hold_all_of_it():
    module, data = prepared().eval(), pictures(24)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.1)
    other = prepare_qat(made(Residual, seed=5), SCHEME, pictures(24, seed=5).batches(8)).eval()
    assert not torch.equal(output_of(other, data), output_of(module, data))
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(torch.tensor(data.tensors(range(24))["image"])), output_of(module, data))
    assert torch.equal(output_of(copy.deepcopy(module), data), output_of(module, data))


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9}, {"optimizer": "sgd", "learning_rate": 0.1}])
def test_it_learns_in_the_trainer(changes):
    module, data = prepared(), pictures(96)
    before = copy.deepcopy(module.state_dict())
    history = train(module, data, pictures(24, seed=1), SETTINGS.model_copy(update=changes), seed=0)
    assert history.losses[1] < history.losses[0]
    moved = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert {f"{RANGES}.image.ratio", "stem.0.step.ratio", "stem.0.layer.weight", "head.layer.bias"} <= moved
    assert not any(name.endswith(("start", "zero_point")) for name in moved)


def test_it_learns_in_half_precision():
    history = train(
        prepared(), pictures(48), pictures(12), SETTINGS.model_copy(update={"mixed_precision": "bf16"}), seed=0
    )
    assert np.isfinite(history.losses).all()


def test_the_float_network_can_teach_it():
    teacher, data = made(Residual), pictures(96)
    train(teacher, data, pictures(24, seed=1), SETTINGS.model_copy(update={"epochs": 4, "learning_rate": 0.02}), seed=0)
    student = prepare_qat(teacher, SCHEME, data.batches(16))
    settings = Distillation(epochs=2, batch_size=16, learning_rate=0.001, soft_weight=1.0)
    _, history = distill(teacher, student, data, pictures(24, seed=1), settings, seed=0)
    assert np.isfinite(history.losses).all()
    assert (output_of(student, data).argmax(1) == output_of(teacher, data).argmax(1)).float().mean() > 0.9


class Killed(Exception):
    pass


def test_a_killed_training_goes_on_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "EVERY_SECONDS", 0.0)
    data, validation = pictures(64), pictures(12, seed=1)
    whole, cut, again = prepared(), prepared(), prepared()
    train(whole, data, validation, SETTINGS, seed=3)
    keeping, told = Keeping(checkpoint=tmp_path / "run.checkpoint"), []

    def killing(*progress) -> None:
        told.append(progress)
        if len(told) == 6:
            raise Killed

    with pytest.raises(Killed):
        train(cut, data, validation, SETTINGS, seed=3, keeping=keeping, progress=killing)
    train(again, data, validation, SETTINGS, seed=3, keeping=keeping)
    states = zip(whole.state_dict().items(), again.state_dict().items(), strict=True)
    assert all(torch.equal(first, second) for (_, first), (_, second) in states)


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"operators": {}}, r"(?s)its operators cannot be trained for.*the engine's own tool.*post-training int8"),
        ({"preset": "mixed"}, "its operators cannot be trained for"),
        ({"weight_symmetric": False}, r"(?s)its weight_symmetric cannot be trained for.*False.*True"),
        ({"operators": {"Conv": (0,)}}, r"(?s)its operators cannot.*not both factors are in int8"),
    ],
)
def test_a_scheme_that_cannot_be_trained_for_is_told(changes, message):
    with pytest.raises(TrainingError, match=message):
        prepared(scheme=replace(SCHEME, **changes))


def test_a_prepared_module_is_told():
    with pytest.raises(TrainingError, match=r"(?s)has fake-quantisers already.*prepare the float network"):
        prepare_qat(prepared(), SCHEME, pictures(8).batches(4))


def test_odd_bits_and_methods_are_told():
    with pytest.raises(TrainingError, match=r"(?s)weight_bits.*3.*4 or 8"):
        prepared(weight_bits=3)
    with pytest.raises(UnknownName, match=r"(?s)unknown range method 'minmix'.*did you mean 'minmax'"):
        prepared(method="minmix")


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.ReLU()), r"(?s)nothing in this module can be quantised.*no convolution"),
        (nn.Sequential(nn.ConvTranspose2d(2, 3, 2)), r"(?s)nothing in this.*exported as Conv or Gemm or MatMul"),
    ],
)
def test_a_module_without_anything_to_quantise_is_told(net, message):
    with pytest.raises(TrainingError, match=message):
        prepare_qat(net, SCHEME, pictures(8).batches(4))


def test_samples_that_say_nothing_are_told():
    def batches(x: np.ndarray):
        return Samples(name="x", count=len(x), fetch=lambda i: {"image": x[i]}).batches(4)

    with pytest.raises(DataError, match=r"(?s)no calibration samples.*at least 1"):
        prepare_qat(made(Residual), SCHEME, batches(np.zeros((0, 2, 12, 12), np.float32)))
    with pytest.raises(DataError, match=r"(?s)input 'image' are constant.*1 everywhere, in all 8 samples"):
        prepare_qat(made(Residual), SCHEME, batches(np.ones((8, 2, 12, 12), np.float32)))
    broken = np.random.default_rng(0).normal(size=(8, 2, 12, 12)).astype(np.float32)
    broken[6] = np.nan
    with pytest.raises(DataError, match=r"calibration batch 1: NaN or infinity in input 'image'"):
        prepare_qat(made(Residual), SCHEME, batches(broken))
