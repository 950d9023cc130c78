import pytest
import torch

from kdedge.core.errors import ModelError
from kdedge.models.zoo import build_model, model_names

IMAGE = (3, 32, 32)


def test_model_names_lists_the_networks_and_nothing_else():
    resnet = ["resnet18", "resnet34", "resnet50", "resnet8x4", "resnet32x4"]
    resnet += [f"resnet{depth}" for depth in (8, 14, 20, 32, 44, 56, 110)]
    wrn = [f"wrn_{name}" for name in ("16_1", "16_2", "16_4", "28_2", "28_4", "28_10", "40_1", "40_2", "40_4")]
    light = ["mobilenetv2", "mobilenetv2_x0_5", "shufflenetv1", "shufflenetv2"]

    assert model_names() == sorted([*resnet, *wrn, *light, "vgg8", "vgg11", "vgg13", "vgg19"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet21", "unknown model 'resnet21': did you mean 'resnet"),
        ("torchvision:mobilenet_v3_smal", "'torchvision:mobilenet_v3_smal': did you mean 'mobilenet_v3_small'"),
        ("torchvision:fcos_resnet50_fpn", "unknown model 'torchvision:fcos_resnet50_fpn'"),
        ("timm:mobilenetv3_smal_050", "did you mean 'mobilenetv3_small_050'"),
        ("torchvison:resnet18", "unknown model source 'torchvison' .*: did you mean 'torchvision'"),
    ],
)
def test_unknown_model_names_the_nearest(name, message):
    with pytest.raises(ModelError, match=message):
        build_model(name, {}, 10, IMAGE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cnov": "dense"}, "cnov: unknown; did you mean 'conv'"),
        ({"conv": "sparse"}, "conv: must be 'dense', 'grouped' or 'depthwise', not 'sparse'"),
        ({"width": "wide"}, "width: must be a valid number, not 'wide'"),
        ({"width": 0}, "width: must be greater than 0, not 0"),
        ({"groups": 2.5}, "groups: must be a valid integer, not 2.5"),
        ({"stem": "small"}, "stem: unknown"),
    ],
)
def test_wrong_options_are_named_with_the_valid_ones(options, message):
    with pytest.raises(ModelError) as caught:
        build_model("resnet20", options, 10, IMAGE)

    assert message in str(caught.value)
    assert caught.value.fix == "valid, with their defaults: conv='dense', groups=None, width=1.0, shortcut='B'"


def test_all_wrong_options_are_named_at_once():
    with pytest.raises(ModelError, match=r"width: must be .*; shortcut: must be 'A' or 'B', not 'C'"):
        build_model("resnet20", {"width": -1, "shortcut": "C"}, 10, IMAGE)


@pytest.mark.parametrize("name", ["torchvision:mobilenet_v3_small", "timm:mobilenetv3_small_050"])
def test_foreign_model_gives_logits_of_the_classes_asked_for(name):
    assert build_model(name, {}, 7, IMAGE).eval()(torch.zeros(2, *IMAGE)).shape == (2, 7)


def test_foreign_model_takes_options_of_its_own():
    assert build_model("torchvision:mobilenet_v3_small", {"dropout": 0.5}, 10, IMAGE).classifier[2].p == 0.5


def test_timm_model_takes_gray_images():
    assert build_model("timm:mobilenetv3_small_050", {}, 10, (1, 32, 32)).eval()(torch.zeros(2, 1, 32, 32)).shape == (
        2,
        10,
    )


@pytest.mark.parametrize(
    ("name", "options", "image", "message"),
    [
        ("torchvision:resnet18", {"wdith": 2}, IMAGE, "unexpected keyword argument 'wdith'"),
        ("timm:resnet18", {"wdith": 2}, IMAGE, "unexpected keyword argument 'wdith'"),
        ("timm:resnet18", {"pretrained": True}, IMAGE, "pretrained: set by kdedge"),
        ("torchvision:resnet18", {}, (1, 32, 32), "1 channel"),
        ("torchvision:googlenet", {"init_weights": False}, IMAGE, "has auxiliary classifiers"),
    ],
)
def test_foreign_model_refuses_what_it_cannot_be(name, options, image, message):
    with pytest.raises(ModelError, match=message):
        build_model(name, options, 10, image)
