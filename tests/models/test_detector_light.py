"""Detectors cost what their maps say, are lightened like any network, and average and load like one."""

import copy

import pytest
import torch
from detectors_alive import enliven
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torchvision.models import detection

from kdedge.core.errors import ModelError
from kdedge.distill.average import moving_average
from kdedge.models.cost import cost, layers
from kdedge.models.inherit import inherit
from kdedge.models.lighten import lighten
from kdedge.models.weights import load_weights, save_weights
from kdedge.models.zoo import build_model, model_costs

SHAPE = (3, 64, 64)
SMALL = {"backbone": "resnet18", "channels": 64}
V2 = {"norm": "group", "box_loss": "giou", "p6": "c5"}
FROZEN = 53_120
"""Weights and biases of a ResNet-50's BN, which the published checkpoints of the first version hold still."""
OFFICIAL = [  # torchvision's own count of parameters, with 91 classes
    ("retinanet", {}, 91, detection.retinanet_resnet50_fpn, 34_014_999 + FROZEN),
    ("retinanet", V2, 91, detection.retinanet_resnet50_fpn_v2, 38_198_935),
    ("fcos", {}, 91, detection.fcos_resnet50_fpn, 32_269_600 + FROZEN),
    ("ssdlite", {}, 90, detection.ssdlite320_mobilenet_v3_large, 3_440_060),
]
CELLS = 64 + 16 + 4 + 1 + 1
"""Of the levels p3 to p7 at 64 pixels."""


def detector(name="retinanet", classes=3, **options):
    torch.manual_seed(0)
    return build_model(name, options, classes, SHAPE, "detect")


def on_meta(name, options, classes, size=64):
    with torch.device("meta"):
        return build_model(name, options, classes, (3, size, size), "detect")


@pytest.mark.parametrize(("name", "options", "classes", "build", "params"), OFFICIAL)
def test_detector_has_the_weights_of_torchvisions(name, options, classes, build, params):
    ours = on_meta(name, options, classes)
    with torch.device("meta"):
        theirs = build(weights=None, weights_backbone=None, num_classes=91)

    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: value.shape for key, value in theirs.state_dict().items()
    }
    assert sum(weight.numel() for weight in ours.parameters()) == params
    assert all(weight.requires_grad for weight in ours.parameters())


def test_checkpoint_of_torchvision_loads_and_gives_its_outputs(tmp_path):
    torch.manual_seed(1)
    theirs = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4).eval()
    enliven(theirs, SHAPE)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    ours = detector("ssdlite").eval()
    load_weights(ours, tmp_path / "theirs.pth")
    images = torch.randn(2, *SHAPE)
    with torch.no_grad():
        found = theirs.head(list(theirs.backbone(images).values()))
        assert found["cls_logits"].std() > 0.1
        torch.testing.assert_close(ours(images), torch.cat([found["bbox_regression"], found["cls_logits"]], dim=2))


def renamed(name):
    """As files from before torchvision 0.13 have it: activations counted, no norm beside a convolution."""
    if name.startswith("backbone.fpn") and "blocks" in name and "extra" not in name:
        return name.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
    if "_head.conv." in name:
        head, _, rest = name.partition(".conv.")
        number, _, kind = rest.split(".")
        return f"{head}.conv.{2 * int(number)}.{kind}"
    return name


def test_checkpoint_of_an_old_torchvision_loads(tmp_path):
    first, second = detector(**SMALL), detector(**SMALL)
    with torch.no_grad():
        for weight in first.parameters():
            weight.add_(1)
    old = {renamed(name): tensor for name, tensor in first.state_dict().items()}
    assert {"backbone.fpn.inner_blocks.0.weight", "head.regression_head.conv.6.bias"} <= set(old)
    torch.save(old, tmp_path / "old.pth")
    load_weights(second, tmp_path / "old.pth")

    assert all(torch.equal(second.state_dict()[name], tensor) for name, tensor in first.state_dict().items())


@pytest.mark.parametrize("conv", [None, "depthwise"])
def test_own_weights_are_saved_and_loaded(conv, tmp_path):
    first, second = (build_model("fcos", SMALL, 3, SHAPE, "detect") for _ in range(2))
    if conv:
        lighten(first, SHAPE, conv)
        lighten(second, SHAPE, conv)
    save_weights(first, tmp_path / "weights.safetensors")
    load_weights(second, tmp_path / "weights.safetensors")

    assert all(torch.equal(second.state_dict()[name], tensor) for name, tensor in first.state_dict().items())


def test_ssdlite_has_the_published_multiply_accumulates():
    assert round(cost(on_meta("ssdlite", {}, 90, 320), (3, 320, 320)).macs / 1e9, 3) == 0.583


def test_heads_count_for_every_level_that_they_look_at():
    rows = {layer.path: layer for layer in layers(on_meta("retinanet", SMALL, 3), SHAPE)}
    conv = rows["head.classification_head.conv.0.0"]

    assert (conv.macs, conv.params, conv.calls) == (CELLS * 64 * 64 * 9, 64 * 64 * 9 + 64, 5)
    assert rows["head.regression_head.bbox_reg"].macs == CELLS * 64 * 9 * 4 * 9
    assert rows["backbone.fpn.layer_blocks.1.0"].macs == 16 * 64 * 64 * 9


def test_costs_of_all_detectors_are_listed():
    assert [name for name, _ in model_costs(3, SHAPE, "detect")] == ["fcos", "retinanet", "ssdlite"]


def test_lighten_rewrites_backbone_pyramid_and_heads():
    network = on_meta("retinanet", SMALL, 3)
    plan = [step.path for step in lighten(network, SHAPE, "depthwise")]
    counts = {part: sum(path.startswith(part) for path in plan) for part in ("backbone.body", "backbone.fpn", "head")}

    assert counts == {"backbone.body": 16, "backbone.fpn": 3 + 2, "head": 2 * (4 + 1)}
    assert sum(weight.numel() for weight in network.head.regression_head.conv[0][0].parameters()) == (
        64 * 9 + 2 * 64 + 64 * 64 + 64  # depthwise, GN, pointwise with its bias
    )
    assert network.backbone.body.conv1.groups == 1


def test_lighten_takes_patterns_of_a_detectors_parts():
    network = on_meta("retinanet", SMALL, 3)
    plan = lighten(network, SHAPE, "grouped", layers=["backbone.body.*", "head.*.conv.*"])

    assert {step.path.split(".")[0] for step in plan} == {"backbone", "head"}
    assert isinstance(network.head.classification_head.cls_logits, nn.Conv2d)
    assert isinstance(network.backbone.fpn.extra_blocks.p6, nn.Conv2d)


def test_lighten_says_how_to_leave_out_what_no_groups_divide():
    with pytest.raises(ModelError, match=r"cls_logits \(64 -> 27\)(.|\n)*or leave them out by lighten.layers"):
        lighten(on_meta("retinanet", SMALL, 3), SHAPE, "grouped")


def test_ssdlite_is_light_already():
    with pytest.raises(ModelError, match="every convolution but the stem is 1x1 or grouped already"):
        lighten(on_meta("ssdlite", {}, 3), SHAPE, "depthwise")


def test_lighten_normalizes_by_groups_where_one_convolution_sees_several_maps():
    network = on_meta("retinanet", SMALL, 3)
    lighten(network, SHAPE, "depthwise")
    norms = {path: module for path, module in network.named_modules() if path.endswith((".gn1", "_blocks.0.0.bn1"))}
    kinds = {path.split(".")[0]: type(module) for path, module in norms.items()}

    assert kinds == {"backbone": nn.BatchNorm2d, "head": nn.GroupNorm}
    assert norms["head.regression_head.conv.3.0.gn1"].num_groups == 4  # of 16 channels


def test_lighten_keeps_how_rare_an_object_is_thought_to_be():
    network = detector(**SMALL)
    lighten(network, SHAPE, "depthwise", layers=["head.*"])
    bias = network.head.classification_head.cls_logits.pointwise.bias

    torch.testing.assert_close(bias, torch.full((27,), -4.59512))  # log(0.01 / 0.99)


@pytest.mark.parametrize("conv", ["depthwise", "grouped"])
def test_inherit_fits_a_head_on_all_levels(conv):
    dense = detector(**SMALL, levels="p3-p5").eval()
    images = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(0))
    enliven(dense, SHAPE)
    light = copy.deepcopy(dense)
    plan = lighten(light, SHAPE, conv, layers=["head.*_head.conv.*"])
    inherit(light, dense, plan, images)
    with torch.no_grad():
        wanted, found = dense(images), light(images)
    parts = [outputs[..., :4].split([9 * side * side for side in dense.sides], dim=1) for outputs in (wanted, found)]
    first, second, third = (torch.corrcoef(torch.stack(both).flatten(1))[0, 1] for both in zip(*parts, strict=True))

    assert min(first, second) > 0.75  # 0.65 at most when fitted on the last level alone
    assert third > 0.5  # 2x2 places


def test_moving_average_follows_a_detector():
    network = detector("fcos", **SMALL)
    average = AveragedModel(network, multi_avg_fn=moving_average(0.5), use_buffers=True)
    average.update_parameters(network)
    with torch.no_grad():
        network.head.regression_head.bbox_ctrness.bias.fill_(2)
    average.update_parameters(network)

    assert average.module.head.regression_head.bbox_ctrness.bias.item() == 1
    assert torch.equal(average.module.anchors(), network.anchors())
    assert average.module.decoding() == network.decoding()
