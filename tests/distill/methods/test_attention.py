import math

import pytest
import torch
import torch.nn.functional as F
from gradient import assert_gradient
from pydantic import ValidationError

from kdedge.core.errors import ModelError
from kdedge.distill.base import Network, Step, View
from kdedge.distill.methods.attention import Attention, AttentionConfig, attention_loss, attention_map
from kdedge.models.features import FeaturePoint

FORMS = ["squared", "paper"]


def feature(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(image_size=16, **strides):
    """A network of stages with these strides."""
    points = {name: FeaturePoint(name, 4 * stride, stride) for name, stride in strides.items()}
    return Network(points, classes=10, image_size=image_size)


def attention(student, teacher, **options):
    return Attention(AttentionConfig(**options), student, teacher)


def test_attention_map_by_hand():
    channels = torch.tensor([[[[1.0, -2.0]], [[3.0, 0.0]]]])  # (1, 2, 1, 2)
    assert attention_map(channels, 2).tolist() == [[[[5.0, 2.0]]]]
    assert attention_map(channels, 1).tolist() == [[[[2.0, 1.0]]]]


@pytest.mark.parametrize(("form", "by_hand"), [("squared", 2.0), ("paper", math.sqrt(2))])
def test_attention_loss_of_disjoint_maps(form, by_hand):
    left, right = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 1.0]]]])
    assert attention_loss(left, right, 2, form).item() == pytest.approx(by_hand)


@pytest.mark.parametrize(("form", "by_hand"), [("squared", 0.08), ("paper", math.sqrt(0.08))])
def test_attention_loss_of_overlapping_maps(form, by_hand):
    left, right = (
        torch.tensor([[[[3.0, 4.0]]]]),
        torch.tensor([[[[4.0, 3.0]]]]),
    )  # unit maps (.6, .8) and (.8, .6) at p=1
    assert attention_loss(left, right, 1, form).item() == pytest.approx(by_hand)


@pytest.mark.parametrize(("form", "by_hand"), [("squared", 1.0), ("paper", math.sqrt(2) / 2)])
def test_attention_loss_is_the_mean_over_samples(form, by_hand):
    left, right = torch.tensor([[[[1.0, 0.0]]], [[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 1.0]]], [[[1.0, 0.0]]]])
    assert attention_loss(left, right, 2, form).item() == pytest.approx(by_hand)


@pytest.mark.parametrize("form", FORMS)
def test_attention_loss_is_zero_for_equal_maps_of_other_width(form):
    x = feature(2, 4, 6, 6)
    assert attention_loss(x, x.repeat(1, 3, 1, 1), 2, form).item() == pytest.approx(0, abs=1e-6)


def test_attention_loss_is_the_released_code_times_the_number_of_places():
    student, teacher = feature(3, 4, 8, 8, seed=1), feature(3, 6, 8, 8, seed=2)
    maps = [F.normalize(x.pow(2).mean(1).view(x.size(0), -1)) for x in (student, teacher)]
    released = (maps[0] - maps[1]).pow(2).mean()
    torch.testing.assert_close(attention_loss(student, teacher, 2, "squared"), released * 64)


def test_attention_paper_preset_is_the_released_loss_at_its_map_sizes():
    weights = Attention.presets["paper"].terms
    for stage, size in {"stage1": 32, "stage2": 16, "stage3": 8}.items():
        student, teacher = feature(3, 4, size, size, seed=1), feature(3, 6, size, size, seed=2)
        maps = [F.normalize(x.pow(2).mean(1).view(x.size(0), -1)) for x in (student, teacher)]
        published = 1000 * (maps[0] - maps[1]).pow(2).mean()
        torch.testing.assert_close(weights[stage] * attention_loss(student, teacher, 2, "squared"), published)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("p", [1, 2])
def test_attention_loss_gradient(form, p):
    student, teacher = feature(2, 3, 4, 4, seed=1), feature(2, 5, 2, 2, seed=2)
    assert_gradient(lambda *maps: attention_loss(*maps, p, form), student, teacher)


@pytest.mark.parametrize("form", FORMS)
def test_attention_loss_does_not_depend_on_the_size_of_the_batch(form):
    student, teacher = feature(2, 3, 4, 4, seed=1), feature(2, 5, 4, 4, seed=2)
    twice = attention_loss(torch.cat([student, student]), torch.cat([teacher, teacher]), 2, form)
    torch.testing.assert_close(twice, attention_loss(student, teacher, 2, form))


@pytest.mark.parametrize("form", FORMS)
def test_attention_loss_does_not_depend_on_the_size_of_the_maps(form):
    student, teacher = feature(2, 3, 4, 4, seed=1), feature(2, 5, 4, 4, seed=2)
    enlarged = [x.repeat_interleave(3, 2).repeat_interleave(3, 3) for x in (student, teacher)]
    torch.testing.assert_close(attention_loss(*enlarged, 2, form), attention_loss(student, teacher, 2, form))


@pytest.mark.parametrize("turn", [lambda x: x, lambda x: x.mT], ids=["row", "column"])
def test_attention_loss_averages_the_larger_map_down(turn):
    large, small = turn(torch.tensor([[[[2.0, 4.0, 8.0, 0.0]]]])), turn(torch.tensor([[[[4.0, 3.0]]]]))  # 3, 4 and 4, 3
    assert attention_loss(large, small, 1, "squared").item() == pytest.approx(0.08)
    assert attention_loss(small, large, 1, "squared").item() == pytest.approx(0.08)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dead", [0.0, 1e-20])
def test_attention_loss_of_a_dead_map_has_a_finite_gradient(form, dead):
    student = torch.full((2, 3, 4, 4), dead, requires_grad=True)
    loss = attention_loss(student, feature(2, 3, 4, 4), 2, form)
    loss.backward()
    assert loss.item() == pytest.approx(1, abs=1e-5)
    assert student.grad.isfinite().all()


def test_attention_loss_of_equal_maps_has_a_finite_gradient_in_the_paper_form():
    x = feature(2, 3, 4, 4)
    student = x.clone().requires_grad_()
    attention_loss(student, x, 2, "paper").backward()
    assert student.grad.isfinite().all()


def test_attention_loss_computes_half_precision_features_in_float32():
    student, teacher = ((1000 * feature(2, 3, 4, 4, seed=n)).half() for n in (1, 2))  # squares are beyond float16
    loss = attention_loss(student, teacher, 2, "squared")
    assert loss.dtype == torch.float32
    assert loss.item() == attention_loss(student.float(), teacher.float(), 2, "squared").item()


def test_attention_pairs_stages_by_resolution():
    method = attention(network(stage1=1, stage2=2, stage3=4), network(stage1=2, stage2=2, stage3=4, stage4=8))
    assert method.pairs == [("stage2", "stage2"), ("stage3", "stage3")]
    assert attention(network(a=4), network(b=2, c=4)).pairs == [("a", "c")]


def test_attention_leaves_out_maps_of_one_place_when_it_pairs():
    deep = network(image_size=8, stage1=2, stage2=8)
    assert attention(deep, deep).pairs == [("stage1", "stage1")]


def test_attention_takes_names_and_pairs_of_stages():
    method = attention(network(stage1=1, stage2=2), network(stage1=1, last=8), stages=["stage1", ["stage2", "last"]])
    assert method.student_features == ("stage1", "stage2")
    assert method.teacher_features == ("stage1", "last")
    student = {"stage1": feature(2, 4, 16, 16), "stage2": feature(2, 8, 8, 8, seed=1)}
    teacher = {"stage1": student["stage1"], "last": feature(2, 32, 2, 2, seed=2)}
    views = [View(torch.zeros(2, 10), features) for features in (student, teacher)]
    terms = method.loss(Step(torch.zeros(2), torch.arange(2), *views, epoch=0, progress=0.0))
    assert list(terms) == ["attention/stage1", "attention/stage2"]
    assert terms["attention/stage1"].item() == 0
    assert terms["attention/stage2"].item() == attention_loss(student["stage2"], teacher["last"], 2, "squared").item()


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (["stage9"], "the student has no stage 'stage9': did you mean 'stage"),
        ([["stage1", "stgae2"]], "the teacher has no stage 'stgae2': did you mean 'stage2'"),
        (["stage3"], "'stage3' of the student is a map of one place"),
    ],
)
def test_attention_refuses_stages(stages, message):
    deep = network(image_size=8, stage1=1, stage2=2, stage3=8)
    with pytest.raises(ModelError, match=message.replace("?", r"\?")):
        attention(deep, deep, stages=stages)


def test_attention_refuses_networks_without_a_common_map():
    with pytest.raises(ModelError, match="no feature maps of one size"):
        attention(network(stage1=1), network(stage1=2))
    with pytest.raises(ModelError, match="map of one place"):
        attention(network(stage1=16), network(stage1=16))


@pytest.mark.parametrize(
    "options",
    [
        {"stages": []},
        {"stages": "stage1"},
        {"stages": [["a", "b", "c"]]},
        {"stages": ["a", ["a", "b"]]},
        {"p": 0},
        {"form": "l1"},
    ],
)
def test_attention_config_refuses(options):
    with pytest.raises(ValidationError):
        AttentionConfig(**options)
