import pytest
import torch
from fivelevels import NOTHING, detectors, some_targets, targets
from gradient import assert_gradient
from pydantic import ValidationError

from kdedge.core.errors import ModelError
from kdedge.distill.base import Step, View
from kdedge.distill.methods.fgfi import Fgfi, FgfiConfig, imitation_loss, near_anchors

ANCHORS = torch.tensor([[0.0, 0, 4, 4], [4, 0, 8, 4], [0, 4, 4, 8], [4, 4, 8, 8]])


def feature(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def step(student, teacher, labels, images=2, seed=0):
    views = [
        View(
            torch.zeros(images, 1, 7),
            {
                name: feature(images, point.channels, 128 // point.stride, 128 // point.stride, seed=seed + n)
                for name, point in network.stages.items()
            },
        )
        for n, network in enumerate((student, teacher))
    ]
    return Step(labels, torch.arange(images), *views, epoch=0, progress=0.0)


@pytest.mark.parametrize(("psi", "second"), [(0.0, True), (0.2, True), (0.3, False)])
def test_near_anchors_by_hand(psi, second):
    """The box has 12 / 20 of the first anchor and 4 / 28 of the second: that is 0.238 of the largest."""
    box = targets([[1, 0, 0, 16 / 3, 3]])
    assert near_anchors(ANCHORS, box, psi).tolist() == [[True, second, False, False]]


def test_near_anchors_are_those_of_any_object():
    boxes = targets([[0, 0, 0, 4, 4], [1, 4, 4, 8, 8]], [[0, 4, 0, 8, 4], NOTHING])
    assert near_anchors(ANCHORS, boxes, 0.5).tolist() == [[True, False, False, True], [False, True, False, False]]


@pytest.mark.parametrize("boxes", [targets([NOTHING, NOTHING]), targets([[-2, 0, 0, 4, 4]]), torch.zeros(1, 0, 5)])
def test_near_anchors_of_an_image_without_objects_are_none(boxes):
    assert near_anchors(ANCHORS, boxes, 0.5).tolist() == [[False] * 4]


def test_imitation_loss_by_hand():
    student, teacher = torch.zeros(1, 2, 1, 3), torch.tensor([[[[1.0, 2.0, 9.0]], [[3.0, 0.0, 9.0]]]])
    mask = torch.tensor([[[True, True, False]]])
    assert imitation_loss(student, teacher, mask).item() == ((1 + 9) / 2 + (4 + 0) / 2) / 2


def test_imitation_loss_is_zero_for_equal_maps_and_without_a_place():
    maps = feature(2, 3, 2, 2)
    assert imitation_loss(maps, maps, torch.ones(2, 2, 2)).item() == 0
    assert imitation_loss(maps, maps + 1, torch.zeros(2, 2, 2)).item() == 0


def test_imitation_loss_does_not_depend_on_batch_and_map():
    student, teacher, mask = feature(2, 3, 2, 2, seed=1), feature(2, 3, 2, 2, seed=2), torch.eye(2).repeat(2, 1, 1)
    expected = imitation_loss(student, teacher, mask)
    torch.testing.assert_close(imitation_loss(*(torch.cat([x, x]) for x in (student, teacher, mask))), expected)
    enlarged = [x.repeat_interleave(2, 2).repeat_interleave(2, 3) for x in (student, teacher)]
    torch.testing.assert_close(imitation_loss(*enlarged, mask), expected)


def test_imitation_loss_resamples_the_students_map():
    student, teacher = torch.tensor([[[[0.0, 4.0]]]]), torch.tensor([[[[0.0, 1.0, 3.0, 4.0]]]])
    assert imitation_loss(student, teacher, torch.ones(1, 1, 2)).item() == pytest.approx(0)
    assert imitation_loss(student, teacher + 2, torch.tensor([[[1.0, 0.0]]])).item() == pytest.approx(4)


def test_imitation_loss_has_the_gradient_of_its_differences():
    teacher, mask = feature(2, 2, 3, 3, seed=2).double(), torch.eye(3).repeat(2, 1, 1).double()
    assert_gradient(lambda student: imitation_loss(student, teacher, mask), feature(2, 2, 3, 3, seed=1))


def test_imitation_loss_computes_half_precision_features_in_float32():
    student, teacher = ((1000 * feature(2, 3, 4, 4, seed=n)).half() for n in (1, 2))
    mask = torch.ones(2, 4, 4)
    assert (
        imitation_loss(student, teacher, mask).item() == imitation_loss(student.float(), teacher.float(), mask).item()
    )


@pytest.mark.parametrize(("psi", "levels"), [(0.5, {"fgfi/p6"}), (0.3, {"fgfi/p5", "fgfi/p6"})])
def test_fgfi_imitates_an_object_on_the_levels_of_its_size(psi, levels):
    """The object is an anchor of p6; one of p5 shares 48x48 with it, which makes 0.39, the others a quarter."""
    student, teacher = detectors()
    labels = targets([[0, 0, 0, 64, 64]], [NOTHING])
    terms = Fgfi(FgfiConfig(psi=psi), student, teacher)(step(student, teacher, labels))
    assert {name for name, value in terms.items() if value > 0} == levels


def test_fgfi_of_images_without_objects_is_zero_and_has_no_gradient():
    student, teacher = detectors()
    method = Fgfi(FgfiConfig(), student, teacher)
    total = sum(method(step(student, teacher, targets([NOTHING], [NOTHING]))).values())
    total.backward()
    assert total.item() == 0
    assert not any(p.grad.any() for p in method.parameters())


def test_fgfi_of_a_single_level():
    student, teacher = detectors(levels=1)
    terms = Fgfi(FgfiConfig(), student, teacher)(step(student, teacher, some_targets(2)))
    assert list(terms) == ["fgfi/p3"]
    assert terms["fgfi/p3"].item() > 0


def test_fgfi_refuses_a_map_without_anchors():
    with pytest.raises(ModelError) as caught:
        Fgfi(FgfiConfig(stages=["stage1"]), *detectors())
    assert str(caught.value).startswith(
        "fgfi: no anchors stand on 'stage1' of the student: they stand on: p3, p4, p5, p6, p7"
    )


def test_fgfi_paper_weight_is_the_published_sum():
    student, teacher = feature(2, 512, 2, 3, seed=1), feature(2, 512, 2, 3, seed=2)
    mask = (feature(2, 2, 3) > 0).float()
    published = 0.01 * (mask.unsqueeze(1) * (student - teacher).square()).sum() / (2 * mask.sum())
    [weight] = Fgfi.presets["paper"].terms.values()
    torch.testing.assert_close(weight * imitation_loss(student, teacher, mask), published)


@pytest.mark.parametrize("psi", [-0.1, 1.0])
def test_fgfi_config_refuses(psi):
    with pytest.raises(ValidationError):
        FgfiConfig(psi=psi)
