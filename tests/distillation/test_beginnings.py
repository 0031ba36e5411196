"""Students that begin as cut copies of their teacher, or with some of its weights."""

import pytest
import torch
from nets_to_cut import Bag, Encoder, ResNet, Vision, make_net
from torch import nn

from edgekit.conversion.onnx_export import to_onnx
from edgekit.distillation.beginnings import cut_copy, refresh, take_weights
from edgekit.errors import ModelError, TrainingError
from edgekit.models import state_hash
from edgekit.recipe_student import StudentSpec

CUTS = [
    ("resnet", {"depth": 0.5, "width": 0.5}),
    ("mobile", {"width": 0.5}),
    ("encoder", {"depth": 0.5, "width": 0.5, "embeddings": 2}),
    ("sinusoids", {"width": 0.5, "initial": "random"}),
    ("fused", {"depth": 0.5, "width": 0.5, "initial": "random"}),
    ("separate", {"keep": {"blocks": [1, 2]}, "width": 0.5}),
    ("bag", {"embeddings": 4}),
    ("gru", {"width": 0.5}),
]


@pytest.mark.parametrize(("name", "cuts"), CUTS)
def test_a_cut_copy_learns_and_exports(name, cuts, tmp_path):
    teacher, inputs = make_net(name)
    before = state_hash(teacher)
    student, notes = cut_copy(teacher, StudentSpec(**cuts), inputs, seed=0)
    assert notes
    assert not student.training
    target = torch.tensor([0, 1, 2, 0])
    optimizer, losses = torch.optim.Adam(student.parameters(), 0.01), []
    for _ in range(20):
        loss = nn.functional.cross_entropy(student(inputs["input"]), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    to_onnx(student, {"input": inputs["input"].numpy()}, tmp_path)  # raises under 90 dB
    assert state_hash(teacher) == before
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_copy_is_the_same_each_time_and_hangs_on_the_seed_only_where_it_is_random():
    teacher, inputs = make_net("fused")
    state = torch.random.get_rng_state()

    def made(seed, **cuts):
        return state_hash(cut_copy(teacher, StudentSpec(**cuts), inputs, seed)[0])

    assert made(0, width=0.5) == made(1, width=0.5)
    assert made(0, initial="random") == made(0, initial="random")
    assert len({made(0, initial="random"), made(1, initial="random"), state_hash(teacher)}) == 3
    assert torch.equal(torch.random.get_rng_state(), state)


def test_fresh_weights_are_those_of_the_layers_and_nothing_of_the_teacher_stays():
    net, _ = make_net("fused")
    old = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with torch.no_grad():
        net.norm.weight.fill_(7.0)
        net.places.mul_(20.0)
    told = [f"{name}: drawn with its mean and deviation" for name in ("token", "places")]
    assert refresh(net, 0) == ["fresh weights", *told]
    assert net.norm.weight.unique().tolist() == [1.0]
    assert net.head.weight.abs().max() <= 24**-0.5
    assert 1.0 < net.places.std() < 4.0
    for name, tensor in net.state_dict().items():
        assert not torch.equal(tensor, old[name]) or "norm" in name, name
    net, _ = make_net("resnet")
    refresh(net, 0)
    assert not net.stem[1].running_mean.any()
    encoder = Encoder()
    refresh(encoder, 0)
    assert not encoder.encoder.layers[0].self_attn.out_proj.bias.any(), "torch's attention sets it itself"


def test_what_cannot_be_copied_is_told():
    net, inputs = make_net("bag")
    net.made = (each for each in ())
    with pytest.raises(ModelError, match="Bag cannot be copied"):
        cut_copy(net, StudentSpec(width=0.5), inputs, 0)


# ---- weights that are taken ----


def test_weights_are_taken_whole_or_their_leading_part():
    teacher, inputs = make_net("resnet")
    student = ResNet(blocks=2, width=8)
    notes = take_weights(student, teacher, {"stem": "stem", "layer2.1": "layer2.3"})
    assert notes == ["stem: all of stem", "layer2.1: all of layer2.3"]
    assert torch.equal(student.layer2[1].conv1.weight, teacher.layer2[3].conv1.weight)
    assert torch.equal(student.stem[1].running_mean, teacher.stem[1].running_mean)
    assert not torch.equal(student.layer1[0].conv1.weight, teacher.layer1[0].conv1.weight)
    narrow = ResNet(blocks=2, width=4)
    assert take_weights(narrow, teacher, {"layer2.0": "layer2.0"}) == ["layer2.0: the leading part of layer2.0"]
    assert torch.equal(narrow.layer2[0].conv1.weight, teacher.layer2[0].conv1.weight[:8, :4])
    assert narrow(inputs["input"]).shape == (4, 3)


def test_a_narrower_embedding_begins_with_the_most_that_it_can_hold():
    teacher, _ = make_net("bag")
    student = Bag(width=4)
    assert take_weights(student, teacher, {"words": "words"}) == [
        "words: the leading 4 of 16 singular directions of words"
    ]
    values = torch.linalg.svdvals(teacher.words.weight)
    assert torch.allclose(student.words.weight.norm(), values[:4].norm(), rtol=1e-4)
    assert not student.words.weight[0].any()


@pytest.mark.parametrize(
    ("pairs", "error", "message"),
    [
        (
            {"block": "blocks.0"},
            TrainingError,
            r"student.take: Vision has no module 'block'(.|\n)*did you mean 'blocks",
        ),
        ({"blocks.0": "block.0"}, TrainingError, r"\(in the teacher\): Vision has no module 'block.0'"),
        ({"blocks.0": "blocks.0"}, ModelError, r"norm1.weight of blocks.0 cannot be cut(.|\n)*\[32\](.|\n)*\[24\]"),
        ({"head": "blocks.0"}, ModelError, r"head cannot begin with blocks.0(.|\n)*weight of head is not in"),
        ({"blocks.0.mlp.1": "blocks.0.mlp.1"}, ModelError, "has no weights"),
    ],
)
def test_weights_that_cannot_be_taken_are_told(pairs, error, message):
    with pytest.raises(error, match=message):
        take_weights(Vision(width=32), make_net("fused")[0], pairs)
