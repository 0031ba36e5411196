"""Attacks against their closed forms on linear models, and what they leave alone."""

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.data import Samples
from edgekit.distillation.adversarial import partly_perturbed, perturbed, robust_accuracy
from edgekit.errors import DataError, TrainingError
from edgekit.recipe_augmentation import Adversarial

FGSM = Adversarial(epsilon=0.1)
PGD = Adversarial(attack="pgd", epsilon=0.1)
WEIGHTS = torch.tensor([1.0, -2.0, 0.5, -0.25])


class TwoClasses(nn.Module):
    """Logits 0 and ``w·x + b``."""

    def __init__(self, bias=0.0):
        super().__init__()
        self.weights = nn.Parameter(WEIGHTS.clone())
        self.bias = bias

    def forward(self, x):
        score = x @ self.weights + self.bias
        return torch.stack([torch.zeros_like(score), score], dim=1)


def batch(count=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 4, generator=generator)
    return {"input": x}, torch.arange(count) % 2


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def cross_entropy(module, inputs, labels):
    with torch.no_grad():
        return nn.functional.cross_entropy(module(*inputs.values()), labels, reduction="none")


def test_fgsm_on_a_linear_model_is_epsilon_times_the_sign_of_its_weights():
    inputs, labels = batch()
    found = perturbed(TwoClasses(), inputs, labels, FGSM)["input"]
    toward = torch.where(labels == 1, -1.0, 1.0)[:, None]  # away from the label
    torch.testing.assert_close(found, inputs["input"] + 0.1 * toward * WEIGHTS.sign())


@pytest.mark.parametrize("start", [None, 0, 1])
def test_pgd_on_a_linear_model_ends_in_the_same_corner(start):
    inputs, labels = batch()
    settings = Adversarial(attack="pgd", epsilon=0.1, steps=8)  # 8 quarters cross the whole box
    found = perturbed(TwoClasses(), inputs, labels, settings, generator=None if start is None else generator(start))
    torch.testing.assert_close(found["input"], perturbed(TwoClasses(), inputs, labels, FGSM)["input"])


def curved():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 2)).eval()


def test_pgd_is_stronger_than_fgsm_on_a_curved_model():
    module, (inputs, labels) = curved(), batch(200)
    size = {"epsilon": 1.0}
    clean, once, often = (
        cross_entropy(module, x, labels).mean()
        for x in (
            inputs,
            perturbed(module, inputs, labels, Adversarial(**size)),
            perturbed(module, inputs, labels, Adversarial(attack="pgd", steps=20, **size), generator=generator()),
        )
    )
    assert clean < once < often


@pytest.mark.parametrize("settings", [FGSM, PGD, Adversarial(attack="pgd", epsilon=0.1, steps=3, step=0.5)])
def test_no_value_moves_further_than_epsilon(settings):
    inputs, labels = batch(100)
    moved = perturbed(curved(), inputs, labels, settings, generator=generator())["input"] - inputs["input"]
    assert moved.abs().max() <= 0.1 + 1e-6
    assert moved.abs().max() > 0.09


def test_the_generator_decides_where_pgd_starts():
    inputs, labels = batch()
    one_step = Adversarial(attack="pgd", epsilon=0.1, steps=1, step=0.001)
    first, again, other = (
        perturbed(curved(), inputs, labels, one_step, generator=generator(seed))["input"] for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert (first - other).abs().mean() > 0.01
    still = perturbed(curved(), inputs, labels, one_step)["input"]
    assert (still - inputs["input"]).abs().max() <= 0.001 + 1e-6


def test_clipped_values_stay_in_the_range_of_the_batch():
    inputs = {"input": torch.linspace(0, 1, 20).reshape(5, 4)}
    labels = torch.arange(5) % 2
    free = perturbed(TwoClasses(), inputs, labels, FGSM)["input"]
    clipped = perturbed(TwoClasses(), inputs, labels, FGSM, clip=True)["input"]
    assert free.min() < 0
    assert free.max() > 1
    torch.testing.assert_close(clipped, free.clamp(0, 1))


def test_a_samples_attack_does_not_hang_on_the_batch(net):
    inputs, _ = batch(30)
    labels = torch.arange(30) % 3
    whole = perturbed(net(), inputs, labels, FGSM)["input"]
    part = perturbed(net(), {"input": inputs["input"][10:13]}, labels[10:13], FGSM)["input"]
    torch.testing.assert_close(part, whole[10:13])


def test_modes_gradients_and_statistics_stay(net):
    module = net().train()
    module.head.eval()
    inputs, labels = batch()
    nn.functional.cross_entropy(module(inputs["input"]), labels).backward()
    kept = {name: value.clone() for name, value in module.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in module.parameters()]
    modes = [part.training for part in module.modules()]
    given = inputs["input"].clone()
    found = perturbed(module, inputs, labels, PGD, generator=generator())["input"]
    assert all(torch.equal(value, kept[name]) for name, value in module.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(module.parameters(), gradients, strict=True))
    assert [part.training for part in module.modules()] == modes
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert torch.equal(inputs["input"], given)
    assert not inputs["input"].requires_grad
    assert not found.requires_grad


def test_frozen_modules_are_attacked_too_and_without_gradients_around():
    module = TwoClasses().requires_grad_(False)
    inputs, labels = batch()
    with torch.no_grad():
        found = perturbed(module, inputs, labels, FGSM)["input"]
    torch.testing.assert_close(found, perturbed(TwoClasses(), inputs, labels, FGSM)["input"])


def test_samples_without_labels_are_attacked_on_the_modules_own_answer():
    inputs, labels = batch()
    own = TwoClasses()(inputs["input"]).argmax(1)
    some = torch.where(torch.arange(12) < 6, labels, -1)
    expected = torch.where(torch.arange(12) < 6, labels, own)
    for given, meant in ((None, own), (some, expected)):
        found, wanted = (perturbed(TwoClasses(), inputs, x, FGSM)["input"] for x in (given, meant))
        assert torch.equal(found, wanted)


def test_shares_of_classes_are_labels_too():
    inputs, labels = batch()
    found = perturbed(TwoClasses(), inputs, torch.eye(2)[labels], FGSM)["input"]
    assert torch.equal(found, perturbed(TwoClasses(), inputs, labels, FGSM)["input"])


def test_a_loss_of_the_callers_is_made_large():
    inputs, _ = batch()
    found = perturbed(TwoClasses(), inputs, None, FGSM, loss=lambda logits, labels: logits[:, 1].sum())["input"]
    torch.testing.assert_close(found, inputs["input"] + 0.1 * WEIGHTS.sign())


class Several(nn.Module):
    """Uses a float and a whole input, and leaves another float unused."""

    def forward(self, x, ids, unused):
        return torch.stack([x.sum(1), ids.sum(1).float()], dim=1)


def test_only_float_inputs_move():
    inputs = {"x": torch.zeros(3, 2), "ids": torch.ones(3, 2, dtype=torch.int64), "unused": torch.ones(3, 2)}
    found = perturbed(Several(), inputs, torch.ones(3, dtype=torch.int64), FGSM)
    torch.testing.assert_close(found["x"], torch.full((3, 2), 0.1))
    assert found["ids"] is inputs["ids"]
    assert torch.equal(found["unused"], inputs["unused"])


def test_a_part_of_a_batch_is_attacked():
    inputs, labels = batch(10)
    settings = Adversarial(epsilon=0.1, share=0.3)
    found = partly_perturbed(TwoClasses(), inputs, labels, settings)["input"]
    whole = perturbed(TwoClasses(), inputs, labels, settings)["input"]
    assert torch.equal(found[:3], whole[:3])
    assert torch.equal(found[3:], inputs["input"][3:])
    least = partly_perturbed(TwoClasses(), inputs, None, Adversarial(epsilon=0.1, share=0.01))["input"]
    assert ((least != inputs["input"]).any(1)).tolist() == [True] + [False] * 9


class Detached(nn.Module):
    def forward(self, x):
        return x[:, :2].detach()


class Infinite(nn.Module):
    def forward(self, x):
        return torch.sqrt(x[:, :2] * 0)


@pytest.mark.parametrize(
    ("module", "inputs", "match"),
    [
        (
            TwoClasses(),
            {"ids": torch.ones(2, 4, dtype=torch.int64)},
            r"no input that could be moved(.|\n)*int64\[n, 4\]",
        ),
        (Detached(), {"x": torch.ones(2, 4)}, "Detached cannot be attacked: no gradient reaches its inputs"),
        (Infinite(), {"x": torch.ones(2, 4)}, "gradient with respect to input 'x' has NaN or infinity"),
    ],
)
def test_what_cannot_be_attacked(module, inputs, match):
    with pytest.raises(TrainingError, match=match):
        perturbed(module, inputs, torch.zeros(2, dtype=torch.int64), FGSM)


def line(targets, count=21):
    """Samples along the first axis from -1 to 1 (so that ``w·x`` is the place), labelled by its sign."""
    x = np.zeros((count, 4), np.float32)
    x[:, 0] = np.linspace(-1, 1, count)
    return Samples(name="line", count=count, fetch=lambda i: {"input": x[i]}, targets=targets)


@pytest.mark.parametrize("settings", [FGSM, Adversarial(attack="pgd", epsilon=0.1, steps=8)])
@pytest.mark.parametrize("batch_size", [5, 256])
def test_robust_accuracy_of_a_line(settings, batch_size):
    """An attack of 0.1 moves the score by 0.1 · |w|₁ = 0.375, so what lies nearer to 0 falls."""
    places = np.linspace(-1, 1, 21)
    labels = (places > 0.01).astype(np.int64)
    expected = np.mean(np.abs(places) > 0.375)
    assert robust_accuracy(TwoClasses(-0.001), line(labels), settings, batch_size) == pytest.approx(expected)


def test_unlabelled_samples_are_left_out_of_robust_accuracy():
    labels = np.full(21, -1)
    labels[[0, 9, 20]] = [0, 0, 1]
    assert robust_accuracy(TwoClasses(), line(labels), FGSM) == pytest.approx(2 / 3)
    for none in (None, np.full(21, -1)):
        with pytest.raises(DataError, match="line: robust accuracy needs labels"):
            robust_accuracy(TwoClasses(), line(none), FGSM)
