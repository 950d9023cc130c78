import math

import pytest
import torch
from fivelevels import CLASSES, NOTHING, detectors, targets
from gradient import assert_gradient
from pydantic import ValidationError

from kdedge.core.training import MethodUse
from kdedge.distill.base import Step, View
from kdedge.distill.methods.fgd import (
    Fgd,
    FgdConfig,
    Masks,
    channel_attention,
    fgd_losses,
    object_masks,
    spatial_attention,
)
from kdedge.distill.objective import build_methods


def feature(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def step(student, teacher, labels):
    views = []
    for n, network in enumerate((student, teacher)):
        sides = {name: (point.channels, 128 // point.stride) for name, point in network.stages.items()}
        maps = {name: feature(2, width, side, side, seed=n) for name, (width, side) in sides.items()}
        views.append(View(torch.zeros(2, 1, 4 + CLASSES), maps))
    return Step(labels, torch.arange(2), *views, epoch=0, progress=0.0)


def test_object_masks_by_hand():
    """Of an image of 8 pixels on 2x2 places, a box covers the first place and half of the second."""
    masks = object_masks(targets([[0, 0, 0, 6, 4]]), 2, 2, 8)
    assert masks.foreground.tolist() == [[[pytest.approx(1 / 1.5), pytest.approx(0.5 / 1.5)], [0, 0]]]
    assert masks.background.tolist() == [[[0, pytest.approx(0.5 / 2.5)], [pytest.approx(1 / 2.5)] * 2]]
    assert masks.boxes.item() == 1


def test_object_masks_give_the_smaller_box_a_place_of_two():
    masks = object_masks(targets([[0, 0, 0, 8, 8], [1, 0, 0, 4, 4]]), 2, 2, 8)
    assert masks.foreground.tolist() == [[[1, 0.25], [0.25, 0.25]]]
    assert masks.background.tolist() == [[[0, 0], [0, 0]]]
    assert masks.boxes.item() == 2


@pytest.mark.parametrize("labels", [targets([NOTHING, NOTHING]), targets([[-2, 0, 0, 6, 4]]), torch.zeros(1, 0, 5)])
def test_object_masks_without_objects_are_background(labels):
    masks = object_masks(labels, 2, 2, 8)
    assert masks.foreground.tolist() == [[[0, 0], [0, 0]]]
    assert masks.background.tolist() == [[[0.25, 0.25], [0.25, 0.25]]]
    assert masks.boxes.item() == 0


def test_object_masks_count_a_box_once_at_every_size():
    box = targets([[0, 3, 5, 61, 90]])
    sums = [object_masks(box, side, side, 128).foreground.sum().item() for side in (1, 2, 7, 16)]
    assert sums == pytest.approx([1, 1, 1, 1])


def test_attentions_by_hand():
    """Means of 0 and log 3 at T 1 are shares of 1/4 and 3/4."""
    places = torch.tensor([[[[0.0, math.log(3)]]]])
    assert spatial_attention(places, 1.0).flatten().tolist() == pytest.approx([0.5, 1.5])
    channels = torch.tensor([0.0, -math.log(3)]).reshape(1, 2, 1, 1)
    assert channel_attention(channels, 1.0).flatten().tolist() == pytest.approx([0.5, 1.5])
    assert spatial_attention(places, 0.5).flatten().tolist() == pytest.approx([0.2, 1.8])


def test_fgd_losses_by_hand():
    """A teacher of two places, one of them an object's; the student is silent, so that its attention is 1."""
    teacher, student = torch.tensor([[[[0.0, math.log(3)]]]]), torch.zeros(1, 1, 1, 2)
    masks = object_masks(targets([[0, 4, 0, 8, 8]]), 1, 2, 8)
    found = {name: value.item() for name, value in fgd_losses(student, teacher, masks, 1.0).items()}
    assert found == pytest.approx(
        {"foreground": 1.5 * math.log(3) ** 2, "background": 0.0, "spatial": 0.5, "channel": 0.0}
    )
    masks = object_masks(targets([[0, 0, 0, 4, 8]]), 1, 2, 8)
    found = fgd_losses(student, teacher, masks, 1.0)
    assert (found["foreground"].item(), found["background"].item()) == pytest.approx((0, 1.5 * math.log(3) ** 2))


def test_fgd_losses_weigh_channels_by_the_teachers_attention():
    teacher, student = torch.tensor([0.0, math.log(3)]).reshape(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)
    found = fgd_losses(student, teacher, object_masks(targets([[0, 0, 0, 8, 8]]), 1, 1, 8), 1.0)
    assert found["foreground"].item() == pytest.approx((0.5 * 0 + 1.5 * math.log(3) ** 2) / 2)
    assert found["channel"].item() == pytest.approx(0.5)


def test_fgd_foreground_is_the_mean_over_the_boxes_of_the_batch():
    """Of an image with two boxes in places that differ by 1 and by 3, and of one without a box."""
    student, teacher = torch.zeros(2, 1, 1, 2), torch.zeros(2, 1, 1, 2)
    student[0] = torch.tensor([1.0, 3.0])
    boxes = [[0, 0, 0, 4, 8], [0, 4, 0, 8, 8]]
    masks = object_masks(targets(boxes, [NOTHING, NOTHING]), 1, 2, 8)
    assert fgd_losses(student, teacher, masks, 1.0)["foreground"].item() == pytest.approx((1 + 9) / 2)
    masks = object_masks(targets(boxes[:1], [NOTHING]), 1, 2, 8)
    found = fgd_losses(student, teacher, masks, 1.0)
    assert (found["foreground"].item(), found["background"].item()) == pytest.approx((1, 9 / 2))


def test_fgd_losses_are_zero_for_equal_maps():
    maps, masks = feature(2, 3, 4, 4), object_masks(targets([[0, 0, 0, 5, 8]], [NOTHING]), 4, 4, 8)
    assert {value.item() for value in fgd_losses(maps, maps, masks, 0.5).values()} == {0.0}


def test_fgd_losses_do_not_depend_on_batch_and_map():
    student, teacher = feature(2, 3, 2, 2, seed=1), feature(2, 3, 2, 2, seed=2)
    labels = targets([[0, 0, 0, 5, 8]], [NOTHING])
    expected = fgd_losses(student, teacher, object_masks(labels, 2, 2, 8), 0.5)
    twice = [torch.cat([x, x]) for x in (student, teacher, labels)]
    torch.testing.assert_close(fgd_losses(*twice[:2], object_masks(twice[2], 2, 2, 8), 0.5), expected)
    enlarged = [x.repeat_interleave(2, 2).repeat_interleave(2, 3) for x in (student, teacher)]
    torch.testing.assert_close(fgd_losses(*enlarged, object_masks(labels, 4, 4, 8), 0.5), expected)


@pytest.mark.parametrize("part", ["foreground", "background", "spatial", "channel"])
def test_fgd_losses_have_the_gradient_of_their_differences(part):
    teacher = feature(2, 2, 2, 2, seed=2).double()
    masks = Masks(*(x.double() for x in object_masks(targets([[0, 0, 0, 5, 8]], [NOTHING]), 2, 2, 8)))
    assert_gradient(lambda student: fgd_losses(student, teacher, masks, 0.5)[part], feature(2, 2, 2, 2, seed=1))


def test_fgd_without_objects_learns_the_background():
    student, teacher = detectors()
    terms = Fgd(FgdConfig(), student, teacher)(step(student, teacher, targets([NOTHING], [NOTHING])))
    silent = {name for name, value in terms.items() if value == 0}
    assert silent == {*(f"fgd/foreground/p{level}" for level in range(3, 8)), "fgd/spatial/p7"}  # p7 is one place


def test_fgd_of_a_single_level():
    student, teacher = detectors(levels=1)
    terms = Fgd(FgdConfig(), student, teacher)(step(student, teacher, targets([[0, 9, 9, 50, 50]], [NOTHING])))
    assert sorted(terms) == [f"fgd/{part}/p3" for part in ("background", "channel", "foreground", "spatial")]
    assert all(value > 0 for value in terms.values())


def test_fgd_of_levels_of_other_sizes():
    student, teacher = detectors()
    method = Fgd(FgdConfig(stages=[("p4", "p3")]), student, teacher)
    terms = method(step(student, teacher, targets([[0, 9, 9, 50, 50]], [NOTHING])))
    assert all(value.isfinite() for value in terms.values())


def test_fgd_goes_without_levels_that_have_no_weight():
    use = MethodUse(name="fgd", terms={"*/p[4567]": {"weight": 0}, "channel/p3": {"weight": 0}})
    student, teacher = detectors()
    method = build_methods([use], student, [teacher])["fgd"]
    assert (method.student_features, list(method.aligners)) == (("p3",), ["p3"])
    terms = method(step(student, teacher, targets([[0, 9, 9, 50, 50]], [NOTHING])))
    assert sorted(terms) == ["fgd/background/p3", "fgd/foreground/p3", "fgd/spatial/p3"]


def test_fgd_preset_is_the_published_sum():
    """A box of one place in an image of 25x42 places, the size of p5, where the mask of the authors is 1 at it."""
    student, teacher = feature(1, 256, 25, 42, seed=1), feature(1, 256, 25, 42, seed=2)
    masks = object_masks(targets([[0, 2, 2, 4, 4]]), 25, 42, 42)._replace(foreground=torch.zeros(1, 25, 42))
    masks.foreground[0, 2, 2] = 1
    found = fgd_losses(student, teacher, masks, 0.5)
    gap = spatial_attention(teacher, 0.5) * (
        channel_attention(teacher, 0.5)[..., None, None] * (student - teacher).square()
    ).sum(dim=1)
    weights = Fgd.presets["retinanet"].terms
    assert 7.3 * 1e-3 * gap[0, 2, 2].item() == pytest.approx(
        (weights["foreground/*"] * found["foreground"]).item(), 1e-3
    )
    published = 5e-4 * (spatial_attention(student, 0.5) - spatial_attention(teacher, 0.5)).abs().sum()
    assert published.item() == pytest.approx((weights["spatial/p5"] * found["spatial"]).item(), rel=1e-3)


def test_fgd_config_refuses_a_temperature_of_zero():
    with pytest.raises(ValidationError):
        FgdConfig(temperature=0)
