import math

import pytest
import torch
from fivelevels import FiveLevels
from gradient import assert_gradient

from kdedge.core.errors import ModelError
from kdedge.core.training import MethodUse
from kdedge.distill.base import Network, Step, View
from kdedge.distill.layout import Layout, Level
from kdedge.distill.methods.box_logits import (
    BoxLogits,
    BoxLogitsConfig,
    binary_divergence,
    boxes_loss,
    classification_loss,
)
from kdedge.distill.objective import build_methods

ANCHORS = torch.tensor([[0.0, 0, 4, 4], [4, 0, 8, 4]])


def layout(scores="sigmoid", classes=2, anchors=ANCHORS):
    coder = "distances" if scores == "centerness" else "deltas"
    return Layout((Level("p3", 1, 2, 1),), anchors, classes, scores, coder)


def network(scores="sigmoid", classes=2, anchors=ANCHORS):
    return Network({}, classes, 8, layout=layout(scores, classes, anchors))


def scored(*anchors):
    """(1, A, 4 + ...): outputs of boxes at their anchors and these logits."""
    return torch.tensor([[[0.0] * 4 + list(logits) for logits in anchors]])


def logits(*probabilities):
    return torch.tensor(probabilities).logit().tolist()


def logs(*probabilities):
    return torch.tensor(probabilities).log().tolist()


def binary(teacher, student):
    return teacher * math.log(teacher / student) + (1 - teacher) * math.log((1 - teacher) / (1 - student))


def random_outputs(seed, images=2, values=6):
    return torch.randn(images, 2, values, generator=torch.Generator().manual_seed(seed))


def step(student, teacher):
    count = len(student)
    labels = torch.full((count, 1, 5), -1.0)
    return Step(labels, torch.arange(count), View(student), View(teacher), epoch=0, progress=0.0)


def terms_of(student, teacher, scores="sigmoid"):
    method = BoxLogits(BoxLogitsConfig(), network(scores), network(scores))
    return {name: term.item() for name, term in method(step(student, teacher)).items()}


def test_classification_loss_of_sigmoids_by_hand():
    """Two anchors, weighed by 0.9 and 0.6: together that is more than one."""
    student, teacher = scored(logits(0.5, 0.5), logits(0.2, 0.6)), scored(logits(0.9, 0.2), logits(0.6, 0.6))
    by_hand = (0.9 * (binary(0.9, 0.5) + binary(0.2, 0.5)) + 0.6 * binary(0.6, 0.2)) / 1.5
    assert classification_loss(student, teacher, layout(), 1.0).item() == pytest.approx(by_hand, rel=1e-5)


def test_classification_loss_of_an_image_without_objects_counts_it_as_one_anchor():
    student, teacher = scored(logits(0.5, 0.01), logits(0.01, 0.01)), scored(logits(0.01, 0.01), logits(0.01, 0.01))
    by_hand = 0.01 * binary(0.01, 0.5)
    assert classification_loss(student, teacher, layout(), 1.0).item() == pytest.approx(by_hand, rel=1e-4)


def test_classification_loss_of_softmaxes_by_hand():
    """The background comes first and does not weigh; the weights 0.6 and 0.2 are less than one together."""
    student, teacher = (
        scored(logs(0.5, 0.25, 0.25), logs(0.7, 0.2, 0.1)),
        scored(logs(0.3, 0.6, 0.1), logs(0.7, 0.2, 0.1)),
    )
    divergence = 0.3 * math.log(0.3 / 0.5) + 0.6 * math.log(0.6 / 0.25) + 0.1 * math.log(0.1 / 0.25)
    found = classification_loss(student, teacher, layout("softmax"), 1.0)
    assert found.item() == pytest.approx(0.6 * divergence, rel=1e-5)


@pytest.mark.parametrize("scores", ["sigmoid", "softmax"])
def test_classification_loss_at_a_temperature_divides_logits_and_keeps_the_weights(scores):
    student, teacher = random_outputs(1, values=7), random_outputs(2, values=7)
    weights = layout(scores, 3 - (scores == "softmax")).certainty(teacher)
    halved = [torch.cat([x[..., :4], x[..., 4:] / 2], dim=2) for x in (student, teacher)]
    found = classification_loss(student, teacher, layout(scores, 3 - (scores == "softmax")), 2.0)
    parts = [x[..., 4:] for x in halved]
    if scores == "softmax":
        ours, theirs = (x.log_softmax(dim=2) for x in parts)
        each = (theirs.exp() * (theirs - ours)).sum(dim=2)
    else:
        ours, theirs = (x.sigmoid() for x in parts)
        each = (theirs * (theirs / ours).log() + (1 - theirs) * ((1 - theirs) / (1 - ours)).log()).sum(dim=2)
    torch.testing.assert_close(found, 4 * (each * weights).sum() / max(weights.sum().item(), 2), rtol=1e-4, atol=1e-6)


def test_binary_divergence_is_finite_where_both_are_sure():
    sure = torch.tensor([1e4, -1e4])
    assert binary_divergence(sure, -sure).tolist() == [1e4, 1e4]
    assert binary_divergence(sure, sure).tolist() == [0, 0]


def test_boxes_loss_by_hand():
    """IoU 8 / 24 of boxes that fill 24 of 24; then two that do not touch: 16 and 16 in an enclosing box of 48."""
    theirs = ANCHORS[:1].repeat(2, 1).unsqueeze(0)
    ours = torch.tensor([[[2.0, 0, 6, 4], [8, 0, 12, 4]]])
    first, second = 1 - 8 / 24, 1 + (48 - 32) / 48
    assert boxes_loss(ours, theirs, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(first)
    assert boxes_loss(ours, theirs, torch.tensor([[0.9, 0.6]])).item() == pytest.approx(
        (0.9 * first + 0.6 * second) / 1.5
    )


def test_box_logits_compares_decoded_boxes():
    """The student's box is moved by half its anchor's width."""
    student, teacher = (scored(logits(0.5, 0.5), logits(0.5, 0.5)) for _ in range(2))
    student[0, 0, 0] = 0.5
    assert terms_of(student, teacher)["box_logits/boxes"] == pytest.approx(0.5 * (1 - 8 / 24))


def test_box_logits_compares_centerness_where_there_is_one():
    """Certainty is the root of class score times centerness: 0.4 and 0.3."""
    student = scored(logits(0.32, 0.1, 0.2), logits(0.1, 0.18, 0.5))
    teacher = scored(logits(0.32, 0.1, 0.5), logits(0.1, 0.18, 0.5))
    student[..., :4] = teacher[..., :4] = 1
    terms = terms_of(student, teacher, "centerness")
    assert terms["box_logits/centerness"] == pytest.approx(0.4 * binary(0.5, 0.2), rel=1e-5)
    assert terms["box_logits/classification"] == pytest.approx(0, abs=1e-6)
    assert terms["box_logits/boxes"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("scores", ["sigmoid", "softmax", "centerness"])
def test_box_logits_are_zero_for_equal_answers(scores):
    outputs = random_outputs(1, values=6 + (scores != "sigmoid"))
    outputs[..., :4] = outputs[..., :4].abs()
    terms = terms_of(outputs, outputs, scores)
    assert terms == pytest.approx(dict.fromkeys(terms, 0.0), abs=1e-6)


def test_box_logits_do_not_depend_on_the_size_of_the_batch():
    student, teacher = random_outputs(1), random_outputs(2)
    twice = terms_of(torch.cat([student, student]), torch.cat([teacher, teacher]))
    assert twice == pytest.approx(terms_of(student, teacher), rel=1e-5)


@pytest.mark.parametrize("scores", ["sigmoid", "softmax"])
def test_classification_loss_has_the_gradient_of_its_differences(scores):
    found, values = layout(scores), 6 + (scores == "softmax")
    teacher = random_outputs(2, values=values).double()
    assert_gradient(lambda student: classification_loss(student, teacher, found, 2.0), random_outputs(1, values=values))


def test_boxes_loss_has_the_gradient_of_its_differences():
    found, teacher, weights = layout(), random_outputs(2), torch.full((2, 2), 0.7).double()
    boxes = found.boxes(teacher, ANCHORS).double()
    assert_gradient(lambda student: boxes_loss(found.boxes(student, ANCHORS), boxes, weights), random_outputs(1))


def test_box_logits_compute_half_precision_in_float32():
    student, teacher = random_outputs(1).half(), random_outputs(2).half()
    assert terms_of(student, teacher) == terms_of(student.float(), teacher.float())


def test_box_logits_of_a_single_level_and_without_a_term():
    networks = FiveLevels(4, "centerness", levels=1).network(), FiveLevels(6, "centerness", levels=1).network()
    use = MethodUse(name="box_logits", terms={"boxes": {"weight": 0}})
    method = build_methods([use], networks[0], [networks[1]])["box_logits"]
    outputs = torch.rand(2, len(networks[0].layout.anchors), 8)
    assert sorted(method(step(outputs, outputs.flip(1)))) == ["box_logits/centerness", "box_logits/classification"]
    assert list(method.parameters()) == []
    assert method.state_dict() == {}


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (network(classes=3), "box_logits: the teacher scores 3 classes and the student 2"),
        (network("softmax"), "box_logits: the student's scores are of the kind sigmoid, the teacher's softmax"),
        (network(anchors=ANCHORS[:1]), "box_logits: student and teacher have other anchors, 2 and 1"),
        (network(anchors=ANCHORS + 1), "box_logits: student and teacher have other anchors, 2 and 2"),
        (Network({}, 2, 8), "box_logits: one of the networks has no anchors"),
    ],
)
def test_box_logits_refuses_a_teacher_of_other_answers(teacher, message):
    with pytest.raises(ModelError) as caught:
        BoxLogits(BoxLogitsConfig(), network(), teacher)
    assert str(caught.value).startswith(message)
