"""Terms between layers: found by path, sized by a dry run, checked before training, learnt with the student."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.data import Samples
from edgekit.distillation.feature_losses import hints
from edgekit.distillation.matching import FEATURE_LOSSES, make_matches
from edgekit.distillation.projectors import Embedding, Projector, Review
from edgekit.distillation.students import distill
from edgekit.distillation.taps import feature_shapes, tapped
from edgekit.errors import EdgeKitError, TrainingError
from edgekit.recipe_training import Distillation, FeatureMatch


class Net(nn.Module):
    """Two stages of convolutions, then a head."""

    def __init__(self, width: int, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stage1 = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.stage2 = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.ReLU())
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(2 * width, 4)
        self.spare = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.stage2(self.stage1(x))))


BATCH = {"x": torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))}
PAIRS = {
    "hints": ("stage2", "stage2"),
    "attention_transfer": ("stage1", "stage1"),
    "similarity": ("stage2", "stage1"),
    "relational": ("pool", "pool"),
    "contrastive": ("pool", "stage2"),
    "review": (["stage1", "stage2"], ["stage1", "stage2"]),
}


def match(loss: str, student=None, teacher=None, **more) -> FeatureMatch:
    ours, theirs = PAIRS.get(loss, ("stage2", "stage2"))
    return FeatureMatch(loss=loss, student=student or ours, teacher=teacher or theirs, **more)


def matches(*specs: FeatureMatch, seed: int = 0):
    return make_matches(specs, Net(8, seed=1).eval(), Net(4), BATCH, seed=seed)


@pytest.mark.parametrize("loss", FEATURE_LOSSES)
def test_every_loss_gives_a_gradient_to_the_student_and_to_its_projectors_alone(loss):
    teacher, student = Net(8, seed=1).eval(), Net(4)
    found = make_matches([match(loss)], teacher, student, BATCH, seed=0)
    with tapped(student, found.student_paths) as ours, tapped(teacher, found.teacher_paths) as theirs:
        student(**BATCH)
        with torch.no_grad():
            teacher(**BATCH)
        value = found(ours, theirs, torch.tensor([0, 1, 2, 3]))
    value.backward()
    assert value.ndim == 0
    assert student.stage1[0].weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is not None for parameter in found.parameters())
    assert bool(list(found.parameters())) == (loss in ("hints", "contrastive", "review"))


def test_weights_multiply_and_terms_add_up():
    teacher, student = Net(8, seed=1).eval(), Net(4)

    def value(*specs):
        found = make_matches(specs, teacher, student, BATCH, seed=0)
        with torch.no_grad(), tapped(student, found.student_paths) as a, tapped(teacher, found.teacher_paths) as b:
            student.eval()(**BATCH)
            teacher(**BATCH)
            return found(a, b, None).item()

    one, other = match("similarity"), match("attention_transfer")
    assert value(match("similarity", weight=3.0)) == pytest.approx(3 * value(one), rel=1e-5)
    assert value(one, other) == pytest.approx(value(one) + value(other), rel=1e-5)


def test_the_same_seed_gives_the_same_projectors_and_leaves_torchs_state():
    state = torch.get_rng_state()
    first, second, other = matches(match("hints")), matches(match("hints")), matches(match("hints"), seed=1)
    assert torch.equal(state, torch.get_rng_state())
    weights = [next(found.parameters()) for found in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("spec", "problem", "fix"),
    [
        (match("hints", student="stage3"), "Net has no module 'stage3'", "did you mean 'stage"),
        (match("hints", teacher="stage2.9"), "Net has no module 'stage2.9'", "did you mean"),
        (match("hints", student="spare"), "layer 'spare' of Net is not called", "name the module around it"),
        (match("hints", student="pool"), "the features of these layers cannot be matched", "similarity or relational"),
        (match("attention_transfer", student="pool"), "compares maps of where layers look", "before the pooling"),
        (match("review", student="stage1", teacher="stage1"), "several layers", None),
        (match("hints", student=["stage1", "stage2"]), "one layer of the student with one", None),
        (match("relational", args={"angel": 1.0}), "has no argument 'angel'", "did you mean 'angle'"),
        (match("hintz"), "unknown feature loss 'hintz'", "did you mean 'hints'"),
    ],
)
def test_what_does_not_fit_is_told_before_training(spec, problem, fix):
    with pytest.raises(EdgeKitError, match=problem) as caught:
        matches(spec)
    if fix is not None:
        assert fix in str(caught.value)


def test_a_loss_of_the_users_own_must_give_a_scalar(tmp_path, monkeypatch):
    (tmp_path / "own_losses.py").write_text(
        "def good(student, teacher, power=2.0):\n    return (student.mean() - teacher.mean()).abs() ** power\n"
        "def bad(student, teacher):\n    return (student.mean((2, 3)) ** 2)\n"
    )
    spec = match("own_losses:good", args={"power": 1.0})
    assert make_matches([spec], Net(8).eval(), Net(4), BATCH, seed=0, base=tmp_path).terms
    with pytest.raises(TrainingError, match="gives no scalar"):
        make_matches([match("own_losses:bad")], Net(8).eval(), Net(4), BATCH, seed=0, base=tmp_path)


def test_a_dry_run_changes_nothing():
    net = Net(4).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert feature_shapes(net, ["stage2", "pool"], BATCH) == {"stage2": (4, 8, 4, 4), "pool": (4, 8)}
    assert net.training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert not net.stage2._forward_hooks


@pytest.mark.parametrize(
    ("student", "teacher"),
    [((2, 4, 8, 8), (2, 6, 4, 4)), ((2, 4, 4, 4), (2, 6, 8, 8)), ((2, 9, 4), (2, 9, 6)), ((2, 4), (2, 6))],
)
def test_a_projector_gives_the_teachers_shape(student, teacher):
    assert Projector(student, teacher)(torch.randn(student)).shape == teacher


@pytest.mark.parametrize(("student", "teacher"), [((2, 4, 8, 8), (2, 6)), ((2, 9, 4), (2, 8, 6))])
def test_shapes_that_no_projector_matches_are_refused(student, teacher):
    with pytest.raises(TrainingError, match="cannot be matched"):
        Projector(student, teacher)


@pytest.mark.parametrize("shape", [(3, 5, 4, 4), (3, 7, 5), (3, 5)])
def test_an_embedding_is_a_vector_a_sample(shape):
    assert Embedding(shape, 16)(torch.randn(shape)).shape == (3, 16)


def test_review_mixes_what_comes_from_below_into_what_is_above():
    torch.manual_seed(0)
    review = Review([(2, 4, 8, 8), (2, 8, 4, 4)], [(2, 6, 8, 8), (2, 12, 4, 4)]).eval()
    students = [torch.randn(2, 4, 8, 8), torch.randn(2, 8, 4, 4, requires_grad=True)]
    teachers = [torch.randn(2, 6, 8, 8), torch.zeros(2, 12, 4, 4)]
    with torch.no_grad():
        review.widen[1].weight.zero_()
        review.widen[1].bias.zero_()  # the deep stage costs nothing now; only through the shallow one is it seen
    review(students, teachers).backward()
    assert students[1].grad.abs().sum() > 0


def test_hints_bring_a_students_layer_near_the_teachers():
    """With hints alone, ahead of everything else, the student's stage learns what the teacher's gives."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(64, 1, 8, 8)).astype(np.float32)
    teacher, student = Net(4, seed=3).eval(), Net(4, seed=4)
    labels = teacher(torch.from_numpy(images)).argmax(1).numpy()
    data = Samples(name="images", count=64, fetch=lambda indices: {"x": images[indices]}, targets=labels)

    def gap() -> float:
        with torch.no_grad(), tapped(student, ["stage1"]) as ours, tapped(teacher, ["stage1"]) as theirs:
            student.eval()(torch.from_numpy(images))
            teacher(torch.from_numpy(images))
            return hints(ours["stage1"], theirs["stage1"]).item()

    before = gap()
    settings = Distillation(
        epochs=15,
        batch_size=16,
        learning_rate=0.02,
        soft_weight=1.0,
        features=[match("hints", student="stage1", teacher="stage1", weight=50.0)],
    )
    distill(teacher, student, data, data, settings, seed=0)
    assert gap() < 0.3 * before
