import pytest
import torch

from kdedge.core.errors import ModelError
from kdedge.models.features import FeaturePoint
from kdedge.models.zoo import build_model

IMAGE = (3, 32, 32)


def test_mobilenetv2_matches_torchvision_when_given_its_weights():
    theirs = build_model("torchvision:mobilenet_v2", {}, 10, (3, 65, 65)).eval()
    ours = build_model("mobilenetv2", {}, 10, (3, 65, 65)).eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, 65, 65)

    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize(
    ("options", "size", "strides"),
    [
        ({}, 64, [2, 4, 8, 16]),
        ({}, 65, [4, 8, 16, 32]),
        ({"stem": "large"}, 32, [4, 8, 16, 32]),
        ({"stem": "small"}, 96, [2, 4, 8, 16]),
    ],
)
def test_mobilenetv2_takes_its_layout_from_the_image_size_or_the_option(options, size, strides):
    with torch.device("meta"):
        model = build_model("mobilenetv2", options, 10, (3, size, size))

    assert [point.stride for point in model.feature_points.values()] == strides


def test_half_width_is_exact_by_name_and_rounded_by_option():
    with torch.device("meta"):
        exact = build_model("mobilenetv2_x0_5", {}, 10, IMAGE)
        rounded = build_model("mobilenetv2", {"width": 0.5}, 10, IMAGE)

    assert exact.feature_points["stage1"] == FeaturePoint("layer1", 12, 2)
    assert rounded.feature_points["stage1"] == FeaturePoint("layer1", 16, 2)


@pytest.mark.parametrize(("width", "channels"), [(0.25, 1280), (1.0, 1280), (1.4, 1792)])
def test_last_convolution_is_widened_but_never_narrowed(width, channels):
    with torch.device("meta"):
        model = build_model("mobilenetv2", {"width": width}, 10, IMAGE)

    assert model.linear.in_features == channels


def test_mobilenetv2_offers_no_other_convolutions():
    with pytest.raises(ModelError) as caught:
        build_model("mobilenetv2", {"conv": "depthwise"}, 10, IMAGE)

    assert "conv: unknown" in str(caught.value)
    assert caught.value.fix == "valid, with their defaults: width=1.0, stem=None"
