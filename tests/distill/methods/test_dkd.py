import math

import pytest
import torch
import torch.nn.functional as F
from gradient import assert_gradient
from steps import logit_step, preset_total, random_logits

from kdedge.core.errors import ModelError
from kdedge.core.training import MethodUse
from kdedge.distill.base import Network
from kdedge.distill.methods.dkd import Dkd, nontarget_loss, target_loss
from kdedge.distill.methods.logits import LogitsConfig, kd_loss
from kdedge.distill.weights import term_weight

LABELS = torch.tensor([3, 0, 9, 3, 7, 1])
LOSSES = [target_loss, nontarget_loss]


def network(classes=10):
    return Network({}, classes, 8)


def published_loss(student, teacher, labels, temperature, alpha, beta):
    """alpha TCKD + beta NCKD with probabilities that are summed and divided, as the paper writes them."""
    own = F.one_hot(labels, student.shape[1]).bool()
    p, q = (F.softmax(z.double() / temperature, dim=1) for z in (teacher, student))
    p_own, q_own = p[own], q[own]
    tckd = p_own * (p_own / q_own).log() + (1 - p_own) * ((1 - p_own) / (1 - q_own)).log()
    p_rest, q_rest = (x[~own].reshape(len(x), -1) / (1 - x[own][:, None]) for x in (p, q))
    nckd = (p_rest * (p_rest / q_rest).log()).sum(dim=1)
    return temperature**2 * (alpha * tckd + beta * nckd).mean()


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_dkd_losses_by_hand(temperature):
    # Teacher (1/2, 3/8, 1/8), student (1/3, 1/3, 1/3), label 0:
    # target = KL((1/2, 1/2) || (1/3, 2/3)), nontarget = KL((3/4, 1/4) || (1/2, 1/2)), both times T^2.
    teacher, student = temperature * torch.tensor([[4.0, 3.0, 1.0]]).log(), torch.zeros(1, 3)
    target = 0.5 * math.log(0.5 / (1 / 3)) + 0.5 * math.log(0.5 / (2 / 3))
    nontarget = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    label = torch.tensor([0])
    assert target_loss(student, teacher, label, temperature).item() == pytest.approx(temperature**2 * target, rel=1e-5)
    assert nontarget_loss(student, teacher, label, temperature).item() == pytest.approx(
        temperature**2 * nontarget, rel=1e-5
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_dkd_loss_is_zero_for_equal_probabilities(loss):
    logits = random_logits()
    assert loss(logits, logits + 5, LABELS, 4.0).item() == pytest.approx(0, abs=1e-5)


def test_dkd_target_does_not_see_how_the_other_classes_share():
    student, teacher = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[1.0, 0.0, 2.0]])
    assert target_loss(student, teacher, torch.tensor([0]), 1.0).item() == pytest.approx(0, abs=1e-6)


def test_dkd_nontarget_does_not_see_the_label():
    student, teacher = torch.tensor([[50.0, 2.0, 0.0]]), torch.tensor([[-50.0, 2.0, 0.0]])
    assert nontarget_loss(student, teacher, torch.tensor([0]), 1.0).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_dkd_losses_make_up_the_plain_loss(temperature):
    student, teacher, label = random_logits(1, seed=1), random_logits(1, seed=2), torch.tensor([3])
    unsure = 1 - F.softmax(teacher / temperature, dim=1)[0, 3]
    target, nontarget = (loss(student, teacher, label, temperature) for loss in LOSSES)
    torch.testing.assert_close(target + unsure * nontarget, kd_loss(student, teacher, temperature))


@pytest.mark.parametrize("loss", LOSSES)
def test_dkd_gradient_is_that_of_its_finite_differences(loss):
    teacher = random_logits(seed=2)
    assert_gradient(lambda student: loss(student, teacher, LABELS, 4.0), random_logits(seed=1))


def test_dkd_target_gradient_of_a_sure_and_wrong_student_is_not_lost():
    # d/dz_y of T^2 KL is T (q_y - p_y); the student's q_y is e^-60, of which 1 - q_y is 1 in float32.
    student = torch.tensor([[-60.0, 0.0, 0.0]], requires_grad=True)
    target_loss(student, torch.tensor([[60.0, 0.0, 0.0]]), torch.tensor([0]), 1.0).backward()
    assert student.grad[0].tolist() == pytest.approx([-1.0, 0.5, 0.5])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dkd_computes_half_precision_logits_in_float32(loss, dtype):
    student, teacher = (random_logits(scale=300.0, seed=n).to(dtype) for n in (1, 2))
    value = loss(student, teacher, LABELS, 4.0)
    assert value.dtype == torch.float32
    assert value.item() == loss(student.float(), teacher.float(), LABELS, 4.0).item()


@pytest.mark.parametrize(
    ("preset", "temperature", "alpha", "beta", "scale"),
    [("paper", 4, 1, 2, False), ("imagenet", 1, 1, 0.5, False), ("standardized", 2, 9, 18, True)],
)
def test_dkd_preset_is_the_published_loss(preset, temperature, alpha, beta, scale):
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    z_student, z_teacher = (
        (z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True) if scale else z for z in (student, teacher)
    )
    published = published_loss(z_student, z_teacher, LABELS, temperature, alpha, beta)
    ours = preset_total("dkd", preset, logit_step(student, teacher, LABELS), network(), network())
    assert ours.item() == pytest.approx(published.item(), rel=1e-4)
    assert Dkd.presets[preset].cross_entropy == 1


def test_dkd_warms_up_over_the_first_twelfth():
    weights = [term_weight(MethodUse(name="dkd"), Dkd.terms, "dkd/nontarget", at) for at in (0, 1 / 24, 1 / 12, 1)]
    assert weights == pytest.approx([0, 1, 2, 2])


@pytest.mark.parametrize(
    ("classes", "teacher_classes", "line"),
    [
        (
            10,
            100,
            "dkd: the teacher scores 100 classes and the student 10: their probabilities are compared class by class",
        ),
        (2, 2, "dkd: the networks score 2 classes: it compares the wrong ones with each other, which takes 3 in all"),
    ],
)
def test_dkd_refuses(classes, teacher_classes, line):
    with pytest.raises(ModelError) as error:
        Dkd(LogitsConfig(), network(classes), network(teacher_classes))
    assert str(error.value).splitlines()[0] == line
