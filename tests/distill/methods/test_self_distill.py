from typing import get_args

import pytest
import scipy.special
import torch
from pydantic import ValidationError

from kdedge.core.errors import ModelError
from kdedge.distill.base import Network, Step, View
from kdedge.distill.methods.logits import kd_loss
from kdedge.distill.methods.self_distill import SelfDistill, SelfDistillConfig, embedding_loss
from kdedge.models.attention import ECA, Attention
from kdedge.models.cost import cost
from kdedge.models.features import FeaturePoint
from kdedge.models.zoo import build_model

POINTS = {"stage1": FeaturePoint("a", 4, 1), "stage2": FeaturePoint("b", 8, 2), "stage3": FeaturePoint("c", 16, 4)}
SIDE = 16


def self_distill(points=POINTS, **options):
    torch.manual_seed(0)
    return SelfDistill(SelfDistillConfig(**options), Network(points, classes=3, image_size=SIDE), None)


def student_view(samples=6):
    random = torch.Generator().manual_seed(0)
    features = {
        name: torch.randn(samples, p.channels, SIDE // p.stride, SIDE // p.stride, generator=random).requires_grad_()
        for name, p in POINTS.items()
    }
    return View(torch.randn(samples, 3, generator=random).requires_grad_(), features)


def step(view, progress=0.0):
    count = torch.arange(len(view.logits))
    return Step(count % 3, count, view, None, epoch=0, progress=progress)


@pytest.mark.parametrize(
    ("left", "right", "by_hand"),
    [
        ([3.0, 4.0], [4.0, 3.0], 0.08),  # unit vectors (.6, .8) and (.8, .6)
        ([1.0, 0.0], [0.0, 5.0], 2.0),
        ([1.0, 0.0], [-2.0, 0.0], 4.0),
        ([1.0, 2.0], [10.0, 20.0], 0.0),
    ],
)
def test_embedding_loss_by_hand(left, right, by_hand):
    assert embedding_loss(torch.tensor([left]), torch.tensor([right])).item() == pytest.approx(by_hand, abs=1e-6)


def test_embedding_loss_is_the_mean_over_samples():
    left, right = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert embedding_loss(left, right).item() == pytest.approx(1.0)


def test_embedding_loss_refuses_other_widths():
    with pytest.raises(RuntimeError, match="size"):
        embedding_loss(torch.ones(2, 3), torch.ones(2, 4))


def test_self_distill_terms_are_the_exits_losses():
    method, view = self_distill(alpha=0.25, temperature=2.0, feature_weight=0.5), student_view()
    terms, exits = method.loss(step(view)), method.exits(view)
    assert list(terms) == [
        f"self_distill/{s}/{part}" for s in ("stage1", "stage2") for part in ("labels", "logits", "feature")
    ]
    for stage, logits in exits.items():
        log_p = scipy.special.log_softmax(logits.detach().numpy(), axis=1)
        cross_entropy = -log_p[range(6), [0, 1, 2, 0, 1, 2]].mean()
        assert terms[f"self_distill/{stage}/labels"].item() == pytest.approx(0.75 * cross_entropy, rel=1e-5)
        torch.testing.assert_close(terms[f"self_distill/{stage}/logits"], 0.25 * kd_loss(logits, view.logits, 2.0))
        embedding = method.heads[stage](view.features[stage])[0]
        pooled = view.features["stage3"].mean((2, 3))
        torch.testing.assert_close(terms[f"self_distill/{stage}/feature"], 0.5 * embedding_loss(embedding, pooled))


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({}, {"labels", "logits"}),
        ({"alpha": 0}, {"labels"}),
        ({"alpha": 1}, {"logits"}),
        ({"feature_weight": 1}, {"labels", "logits", "feature"}),
    ],
)
def test_self_distill_leaves_out_terms_of_weight_zero(options, parts):
    terms = self_distill(**options).loss(step(student_view()))
    assert {name.rsplit("/")[-1] for name in terms} == parts


def test_self_distill_ensemble_teaches_every_classifier_the_mean_logits():
    method, view = self_distill(alpha=0.5, temperature=2.0, target="ensemble"), student_view()
    terms, exits = method.loss(step(view)), method.exits(view)
    mean = (view.logits + exits["stage1"] + exits["stage2"]).detach() / 3
    torch.testing.assert_close(terms["self_distill/deepest/logits"], 0.5 * kd_loss(view.logits, mean, 2.0))
    torch.testing.assert_close(terms["self_distill/stage1/logits"], 0.5 * kd_loss(exits["stage1"], mean, 2.0))


def test_self_distill_schedules_move_alpha_and_the_feature_term():
    options = {"alpha": 0.4, "feature_weight": 2.0}
    ramps = {"alpha_schedule": {"warmup": 0.5}, "feature_schedule": {"start": 0.5}}
    method, plain, view = self_distill(**options, **ramps), self_distill(**options), student_view()
    full = plain.loss(step(view))
    at = {progress: method.loss(step(view, progress)) for progress in (0.0, 0.25, 1.0)}
    assert all(list(terms) == list(full) for terms in at.values())  # an epoch's log needs the same terms at every step
    name = "self_distill/stage1"
    labels = full[f"{name}/labels"] / 0.6
    torch.testing.assert_close(at[0.0][f"{name}/labels"], labels)
    torch.testing.assert_close(at[0.25][f"{name}/labels"], 0.8 * labels)
    torch.testing.assert_close(at[0.25][f"{name}/logits"], 0.5 * full[f"{name}/logits"])
    assert at[0.25][f"{name}/feature"] == 0
    torch.testing.assert_close(at[1.0], full)


def test_self_distill_control_is_deep_supervision_with_the_same_exits():
    name, options = SelfDistill.control({"alpha": 0.5, "feature_weight": 1.0, "attention": "se", "target": "ensemble"})
    assert (name, options) == ("deep supervision", {"attention": "se", "alpha": 0.0, "feature_weight": 0.0})
    assert set(self_distill(**options).loss(step(student_view()))) == {
        "self_distill/stage1/labels",
        "self_distill/stage2/labels",
    }


def test_self_distill_without_distillation_has_no_control():
    assert SelfDistill.control({"alpha": 0}) is None


def test_self_distill_holds_the_deepest_classifier_fixed():
    method, view = self_distill(feature_weight=1.0), student_view()
    torch.stack(list(method.loss(step(view)).values())).sum().backward()
    assert view.logits.grad is None
    assert view.features["stage3"].grad is None
    assert all(view.features[stage].grad.abs().sum() > 0 for stage in ("stage1", "stage2"))


def test_self_distill_exits_are_the_logits_of_every_stage_but_the_last():
    exits = self_distill().exits(student_view(samples=5))
    assert {stage: tuple(logits.shape) for stage, logits in exits.items()} == {"stage1": (5, 3), "stage2": (5, 3)}


def test_self_distill_brings_each_map_to_the_last_stage():
    method, view = self_distill(), student_view()
    for stage, head in method.heads.items():
        assert head.steps(view.features[stage]).shape == view.features["stage3"].shape


def test_self_distill_attention_costs_a_few_weights_in_the_exits():
    with_eca, without = self_distill(), self_distill(attention="none")
    sizes = [sum(p.numel() for p in method.parameters()) for method in (with_eca, without)]
    assert sum(isinstance(module, ECA) for module in with_eca.modules()) == 2
    assert not any(isinstance(module, ECA) for module in without.modules())
    assert 0 < sizes[0] - sizes[1] <= 2 * 5


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "vgg11"])
@pytest.mark.parametrize("conv", ["dense", "grouped", "depthwise"])
def test_self_distill_default_attention_costs_less_than_a_thousandth(name, conv):
    shape = (3, 32, 32)
    with torch.device("meta"):
        student = build_model(name, {"conv": conv}, 100, shape)
        network = Network(student.feature_points, classes=100, image_size=32)
        frameworks = [SelfDistill(SelfDistillConfig(attention=kind), network, None) for kind in ("eca", "none")]

    def price(method):
        heads = [
            cost(head, (point.channels, 32 // point.stride, 32 // point.stride))
            for head, point in zip(method.heads.values(), student.feature_points.values(), strict=False)
        ]
        return sum(head.params for head in heads), sum(head.macs for head in heads)

    (params, macs), (bare_params, bare_macs) = map(price, frameworks)
    whole = cost(student, shape)
    assert 0 < params - bare_params < 0.001 * whole.params
    assert 0 < macs - bare_macs < 0.001 * whole.macs


@pytest.mark.parametrize("attention", get_args(Attention))
def test_self_distill_trains_every_layer_of_its_exits_and_the_stages_below(attention):
    method, view = self_distill(attention=attention), student_view()
    torch.stack(list(method.loss(step(view)).values())).sum().backward()
    assert all(parameter.grad is not None for parameter in method.parameters())
    assert all(parameter.grad.abs().sum() > 0 for name, parameter in method.named_parameters() if "weight" in name)
    assert all(view.features[stage].grad.abs().sum() > 0 for stage in ("stage1", "stage2"))


@pytest.mark.parametrize("stages", [0, 1])
def test_self_distill_refuses_a_student_of_fewer_than_two_stages(stages):
    with pytest.raises(ModelError, match="fewer than two stages"):
        self_distill(dict(list(POINTS.items())[:stages]))


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 1.1},
        {"alpha": -0.1},
        {"temperature": 0},
        {"feature_weight": -1},
        {"attention": "cbam"},
        {"target": "teacher"},
        {"beta": 1},
    ],
)
def test_self_distill_config_refuses(options):
    with pytest.raises(ValidationError):
        SelfDistillConfig(**options)
