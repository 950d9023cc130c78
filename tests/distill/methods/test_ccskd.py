import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from gradient import assert_gradient
from pydantic import ValidationError
from steps import logit_step, preset_total, random_logits

from kdedge.core.errors import ModelError
from kdedge.core.training import MethodUse
from kdedge.distill.base import Network, View
from kdedge.distill.methods.ccskd import Ccskd, CcskdConfig, answer_weights, channel_loss, weighted_kd_loss
from kdedge.distill.weights import term_weight
from kdedge.models.features import FeaturePoint

SIDE, SAMPLES = 8, 6
STUDENT = {"stage1": FeaturePoint("a", 4, 1), "stage2": FeaturePoint("b", 6, 2)}
TEACHER = {"stage1": FeaturePoint("a", 5, 1), "stage2": FeaturePoint("b", 7, 2)}
STAGES = ("stage1", "stage2")


def network(points, classes=10):
    return Network(points, classes, SIDE)


def ccskd(**options):
    torch.manual_seed(0)
    return Ccskd(CcskdConfig(**options), network(STUDENT), network(TEACHER))


def features(points, seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(SAMPLES, p.channels, SIDE // p.stride, SIDE // p.stride, generator=generator)
        for name, p in points.items()
    }


def staged_step(progress=0.0):
    """Three of six answers of the teacher are right."""
    teacher = random_logits(SAMPLES, seed=2)
    labels = (teacher.argmax(1) + torch.tensor([0, 1, 0, 2, 0, 3])) % 10
    step = logit_step(random_logits(SAMPLES, seed=1), teacher, labels)
    student = View(step.student.logits.requires_grad_(), features(STUDENT, 3))
    return dataclasses.replace(step, student=student, teacher=View(teacher, features(TEACHER, 4)), progress=progress)


def published_correlation(student, teacher):
    """Distance + 2 angle, pair by pair and triple by triple."""
    count, rows = len(student), []
    for vectors in (student, teacher):
        apart = torch.stack([torch.stack([(x - y).norm() for y in vectors]) for x in vectors])
        apart = apart / apart[apart > 0].mean()
        rays = [[F.normalize(x - vertex, dim=0) for x in vectors] for vertex in vectors]
        turns = torch.stack([torch.stack([torch.stack([a @ b for b in own]) for a in own]) for own in rays])
        rows.append((apart, turns))
    (left_apart, left_turns), (right_apart, right_turns) = rows
    distance = F.smooth_l1_loss(left_apart, right_apart, reduction="sum") / count**2
    return distance + 2 * F.smooth_l1_loss(left_turns, right_turns, reduction="sum") / count**3


def published_total(method, step, epoch):
    """The authors' sum but for the labels, in the epoch of 200."""
    log_p = step.student.logits.log_softmax(1)
    p = step.teacher.logits.softmax(1)
    right = step.teacher.logits.argmax(1) == step.labels
    m = ((1 + right.float()) * 0.9 ** (epoch // 30))[:, None]
    selective = (m * p * ((m * p).log() - m * log_p)).sum() / SAMPLES
    total = 0.1 * (p * (p.log() - log_p)).sum() / SAMPLES + (0.1 * selective if epoch >= 60 else 0)
    early_decay = 0.9 ** ((epoch >= 60) + (epoch >= 160))
    for stage in STAGES:
        student = method.adapters[stage](step.student.features[stage]).mean((2, 3))
        teacher = step.teacher.features[stage].mean((2, 3))
        total = (
            total + 6 * early_decay * (student - teacher).pow(2).mean() + 6 * published_correlation(student, teacher)
        )
    return total


def weighed(method, step, **use):
    """What the method adds to the labels' loss in the middle of a phase."""
    given = MethodUse.model_validate({"name": "ccskd"} | use)
    parts = [term_weight(given, Ccskd.terms, name, step.progress) * term for name, term in method(step).items()]
    return torch.stack(parts).sum()


def test_channel_loss_by_hand():
    student, teacher = torch.tensor([[1.0, 2.0], [0.0, 3.0]]), torch.tensor([[0.0, 4.0], [2.0, 3.0]])
    assert channel_loss(student, teacher).item() == pytest.approx((1 + 4 + 4 + 0) / 4)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_weighted_kd_loss_by_hand(temperature):
    # Teacher (1/4, 3/4), student (1/2, 1/2): KL = 1/4 log 1/2 + 3/4 log 3/2; the second sample is of no weight.
    teacher, student = temperature * torch.tensor([[1.0, 3.0], [9.0, 1.0]]).log(), torch.zeros(2, 2)
    divergence = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    loss = weighted_kd_loss(student, teacher, torch.tensor([3.0, 0.0]), temperature)
    assert loss.item() == pytest.approx(temperature**2 * 3 * divergence / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("reference", "by_hand"),
    [(False, [1.0, 0.81, 1.0]), (True, [4 * 0.81**2, 0.81**2, 4 * 0.81**2])],
)
def test_answer_weights_by_hand(reference, by_hand):
    right = torch.tensor([True, False, True])
    torch.testing.assert_close(answer_weights(right, 0.9**2, reference), torch.tensor(by_hand))


def test_weighted_kd_gradient_is_that_of_its_finite_differences():
    teacher, weights = random_logits(seed=2), torch.linspace(0, 1, 6)
    assert_gradient(lambda student: weighted_kd_loss(student, teacher, weights, 2.0), random_logits(seed=1))


def test_channel_gradient_is_that_of_its_finite_differences():
    assert_gradient(channel_loss, random_logits(4, 3, seed=1), random_logits(4, 3, seed=2))


def test_ccskd_is_zero_where_the_student_is_the_teacher():
    method, step = ccskd(), staged_step()
    with torch.no_grad():
        same = {stage: method.adapters[stage](step.student.features[stage]) for stage in STAGES}
    terms = method(dataclasses.replace(step, teacher=View(step.student.logits.detach(), same)))
    torch.testing.assert_close(torch.stack(list(terms.values())), torch.zeros(len(terms)), rtol=0, atol=1e-6)


def test_ccskd_has_the_terms_of_both_stages_and_of_the_answers():
    parts = [f"ccskd/{stage}/{part}" for stage in STAGES for part in ("channel", "distance", "angle")]
    assert list(ccskd()(staged_step())) == [*parts, "ccskd/kd", "ccskd/selective"]


@pytest.mark.parametrize("epoch", range(0, 200, 10))
def test_ccskd_listens_less_to_wrong_answers_with_every_period(epoch):
    step = staged_step(epoch / 200)
    wrong = step.teacher.logits.argmax(1) != step.labels
    weights = torch.where(wrong, 0.9 ** (epoch // 30), 1.0)
    expected = weighted_kd_loss(step.student.logits, step.teacher.logits, weights, 1.0)
    torch.testing.assert_close(ccskd()(step)["ccskd/selective"], expected)


def test_ccskd_without_decay_is_kd():
    terms = ccskd(decay=1.0, temperature=3.0)(staged_step(1.0))
    torch.testing.assert_close(terms["ccskd/selective"], terms["ccskd/kd"])


def test_ccskd_standardize_ignores_shift_and_scale():
    method, step = ccskd(standardize=True), staged_step(0.5)
    moved = (
        View(5 * step.student.logits - 3, step.student.features),
        View(2 * step.teacher.logits + 1, step.teacher.features),
    )
    after = method(dataclasses.replace(step, student=moved[0], teacher=moved[1]))
    torch.testing.assert_close(method(step), after, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("epoch", [0, 59, 60, 150, 160, 199])
def test_ccskd_reference_has_the_published_gradient_in_every_epoch(epoch):
    method, step = ccskd(reference=True), staged_step(epoch / 200)
    inputs = [step.student.logits, *(feature.requires_grad_() for feature in step.student.features.values())]
    ours = torch.autograd.grad(weighed(method, step), inputs)
    published = torch.autograd.grad(published_total(method, step, epoch), inputs)
    torch.testing.assert_close(ours, published, rtol=1e-4, atol=1e-6)


def test_ccskd_paper_preset_is_the_published_loss_but_for_the_offset_of_the_selective_term():
    step = staged_step(1.0)
    torch.manual_seed(0)
    ours = preset_total("ccskd", "paper", step, network(STUDENT), network(TEACHER))
    p, right = step.teacher.logits.softmax(1), step.teacher.logits.argmax(1) == step.labels
    m = ((1 + right.float()) * 0.9**6)[:, None]
    offset = 0.1 * (m * p * (m * p).log() - m**2 * p * p.log()).sum() / SAMPLES  # free of the student
    published = published_total(ccskd(), step, 199) - offset
    torch.testing.assert_close(ours, published, rtol=1e-4, atol=1e-6)
    assert Ccskd.presets["paper"].cross_entropy == 1


def test_ccskd_computes_half_precision_in_float32():
    step = staged_step()
    logits = step.student.logits.detach().half(), step.teacher.logits.half()
    half = ccskd()(
        dataclasses.replace(
            step,
            student=View(logits[0], step.student.features),
            teacher=View(logits[1], step.teacher.features),
        )
    )
    assert half["ccskd/kd"].dtype == torch.float32
    assert (
        half["ccskd/selective"].item() == weighted_kd_loss(*map(torch.Tensor.float, logits), torch.ones(6), 1.0).item()
    )


@pytest.mark.parametrize(
    ("points", "classes", "options", "line"),
    [
        (STUDENT, 100, {}, "ccskd: the teacher scores 10 classes and the student 100: "),
        (STUDENT, 10, {"stages": ("stage3",)}, "ccskd: the student has no stage 'stage3': "),
        ({"stage1": FeaturePoint("a", 4, 4)}, 10, {}, "student and teacher have no feature maps of one size: "),
    ],
    ids=["classes", "stage", "sizes"],
)
def test_ccskd_refuses(points, classes, options, line):
    with pytest.raises(ModelError) as refused:
        Ccskd(CcskdConfig(**options), network(points, classes), network(TEACHER))
    assert str(refused.value).startswith(line)


@pytest.mark.parametrize("options", [{"decay": 0}, {"decay": 1.1}, {"every": 0}, {"every": 2}, {"temperature": 0}])
def test_ccskd_config_refuses(options):
    with pytest.raises(ValidationError):
        CcskdConfig(**options)
