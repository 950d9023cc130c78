"""A detector's losses are torchvision's own, also for images without objects."""

import pytest
import torch
from torch import nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD

from kdedge.core.errors import ModelError
from kdedge.models.zoo import build_model

CLASSES, SIZE = 3, 128
OPTIONS = {
    "retinanet": {"backbone": "resnet18", "channels": 16, "anchor_scale": 1.0},
    "fcos": {"backbone": "resnet18", "channels": 16, "norm": "none"},
    "ssdlite": {"backbone": "mobilenet_v3_small"},
}
LN2, LN3 = 0.693147, 1.098612
TERMS = {"bbox_regression": "boxes", "classification": "classification", "bbox_ctrness": "centerness"}
EMPTY = torch.tensor([-1.0, 0, 0, 0, 0])
OBJECTS = torch.tensor(
    [
        [[0.0, 10, 20, 50, 60], [2, 60, 60, 127, 100], [1, 3, 3, 12, 15]],
        [[1, 0, 0, 128, 128], EMPTY.tolist(), EMPTY.tolist()],
        [EMPTY.tolist()] * 3,
    ]
)


@pytest.fixture(params=OPTIONS)
def name(request):
    return request.param


def detector(name, size=SIZE, **options):
    torch.manual_seed(0)
    return build_model(name, OPTIONS[name] | options, CLASSES, (3, size, size), "detect")


def torchvisions(network, name) -> nn.Module:
    """Torchvision's detector around the same modules, with its own transform, anchors and matching."""
    plain = {"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}
    if name == "ssdlite":
        boxes = DefaultBoxGenerator([[2, 3] for _ in range(6)], min_ratio=0.2, max_ratio=0.95)
        return SSD(network.backbone, boxes, (SIZE, SIZE), CLASSES + 1, head=network.head, **plain)
    kind = {"retinanet": RetinaNet, "fcos": FCOS}[name]
    return kind(network.backbone, CLASSES, min_size=SIZE, max_size=SIZE, head=network.head, **plain)


def as_torchvision_takes_them(targets, name):
    present = [image[image[:, 0] >= 0] for image in targets]
    return [{"boxes": rows[:, 1:], "labels": rows[:, 0].long() + (name == "ssdlite")} for rows in present]


def test_losses_are_those_of_torchvisions_own_training_pass(name):
    network = detector(name).train()
    images = torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    theirs = torchvisions(network, name).train()(list(images), as_torchvision_takes_them(OBJECTS, name))
    losses = network.losses(network(images), OBJECTS)

    assert {TERMS[key] for key in theirs} == set(losses)
    for key, loss in theirs.items():
        torch.testing.assert_close(losses[TERMS[key]], loss)
        assert loss > 0


@pytest.mark.parametrize("rows", [0, 2])
def test_batch_without_any_object_has_finite_losses_and_moves_no_box(name, rows):
    network = detector(name)
    outputs = torch.randn(2, len(network.anchors()), sum(network.columns.values())).requires_grad_()
    losses = network.losses(outputs, EMPTY.repeat(2, rows, 1))
    sum(losses.values()).backward()

    assert losses["boxes"] == 0
    assert outputs.grad.isfinite().all()
    assert not outputs.grad[..., :4].any()
    if name == "fcos":
        assert losses["centerness"] == 0
        assert not outputs.grad[..., -1].any()
    assert outputs.grad.any() == (name != "ssdlite")  # SSD takes as many negatives as it has positives, times 3


def test_losses_of_a_batch_repeated_are_the_same(name):
    network = detector(name)
    outputs = torch.randn(3, len(network.anchors()), sum(network.columns.values()))
    once = network.losses(outputs, OBJECTS)
    twice = network.losses(outputs.repeat(2, 1, 1), OBJECTS.repeat(2, 1, 1))

    for term, loss in once.items():
        torch.testing.assert_close(twice[term], loss)


def test_losses_do_not_depend_on_the_rows_beyond_an_images_objects(name):
    network = detector(name)
    outputs = torch.randn(3, len(network.anchors()), sum(network.columns.values()))
    longer = torch.cat([EMPTY.repeat(3, 2, 1), OBJECTS, torch.tensor([-3.0, 8, 8, 90, 90]).repeat(3, 1, 1)], dim=1)

    assert network.losses(outputs, longer) == network.losses(outputs, OBJECTS)


def test_focal_loss_of_an_empty_image_is_that_of_all_its_negatives():
    network = detector("retinanet", 64, levels="p3-p5")
    losses = network.losses(torch.zeros(1, 9 * 84, 4 + CLASSES), EMPTY.repeat(1, 1, 1))

    # at logit 0: (1 - alpha) * p^gamma * -log(1 - p) = 0.75 * 0.5^2 * ln 2
    assert losses["classification"].item() == pytest.approx(9 * 84 * CLASSES * 0.75 * 0.25 * LN2, rel=1e-5)


def test_fcos_losses_of_one_cell_in_the_middle_of_its_object():
    network = detector("fcos", 64, levels="p3-p5")
    outputs = torch.zeros(1, 64 + 16 + 4, 4 + CLASSES + 1)
    outputs[..., :4] = 0.75  # strides of 8: 6 pixels to each side of (16, 16)
    losses = network.losses(outputs, torch.tensor([[[1.0, 10, 10, 22, 22]]]))

    assert losses["boxes"].item() == pytest.approx(0, abs=1e-5)
    assert losses["centerness"].item() == pytest.approx(LN2, rel=1e-5)
    negatives = 84 * CLASSES - 1
    expected = 0.25 * 0.25 * LN2 + negatives * 0.75 * 0.25 * LN2
    assert losses["classification"].item() == pytest.approx(expected, rel=1e-5)


def test_ssd_loss_takes_three_negatives_for_each_positive():
    network = detector("ssdlite", 128)
    outputs = torch.zeros(1, len(network.anchors()), 4 + 1 + 2)
    network.classes = 2
    losses = network.losses(outputs, torch.tensor([[[0.0, 40, 40, 70, 70], [1, 80, 20, 110, 60]]]))

    assert losses["classification"].item() == pytest.approx(4 * LN3, rel=1e-5)


def test_half_precision_outputs_have_losses_in_full(name):
    network = detector(name)
    outputs = torch.randn(3, len(network.anchors()), sum(network.columns.values())).bfloat16()

    for loss in network.losses(outputs, OBJECTS).values():
        assert loss.dtype == torch.float32
        assert loss.isfinite()


def test_outputs_of_another_image_size_are_refused(name):
    network = detector(name)
    with pytest.raises(ModelError, match=r"for images of 128x128: it has .* anchors, and these outputs are of 5"):
        network.losses(torch.zeros(1, 5, sum(network.columns.values())), EMPTY.repeat(1, 1, 1))
