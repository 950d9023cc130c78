import pytest
import torch
from torch import nn

from kdedge.core.errors import ModelError
from kdedge.models.features import FeaturePoint
from kdedge.models.resnet import ZeroPadShortcut, make_shortcut
from kdedge.models.zoo import build_model


def test_shortcut_a_takes_every_other_pixel_and_pads_channels_on_both_sides():
    feature = torch.arange(32.0).view(1, 2, 4, 4)

    out = ZeroPadShortcut(2, 4, stride=2)(feature)

    zeros = [[0, 0], [0, 0]]
    assert out.tolist() == [[zeros, [[0, 2], [8, 10]], [[16, 18], [24, 26]], zeros]]


def test_shortcut_is_identity_where_nothing_changes():
    assert isinstance(make_shortcut("A", 16, 16, 1), nn.Identity)
    assert isinstance(make_shortcut("B", 16, 16, 1), nn.Identity)


def test_shortcut_a_cannot_take_channels_away():
    with pytest.raises(ModelError, match="set shortcut: B"):
        make_shortcut("A", 32, 16, 2)


def test_cifar_resnet_has_the_parameter_names_of_public_checkpoints():
    names = set(build_model("resnet8", {"shortcut": "A"}, 10, (3, 32, 32)).state_dict())

    blocks = {f"layer{stage}.0.{part}" for stage in (1, 2, 3) for part in ("conv1", "bn1", "conv2", "bn2")}
    bare = {name.rpartition(".")[0] for name in names}
    assert bare == {"conv1", "bn1", "linear", *blocks}


@pytest.mark.parametrize(("shortcut", "params"), [("A", 269_722), ("B", 269_722 + 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64)])
def test_resnet20_has_the_published_parameters(shortcut, params):
    model = build_model("resnet20", {"shortcut": shortcut}, 10, (3, 32, 32))

    assert sum(parameter.numel() for parameter in model.parameters()) == params


@pytest.mark.parametrize(
    ("options", "size", "strides"),
    [
        ({}, 64, [1, 2, 4, 8]),
        ({}, 65, [4, 8, 16, 32]),
        ({"stem": "large"}, 32, [4, 8, 16, 32]),
        ({"stem": "small"}, 96, [1, 2, 4, 8]),
    ],
)
def test_imagenet_resnet_takes_its_stem_from_the_image_size_or_the_option(options, size, strides):
    with torch.device("meta"):
        model = build_model("resnet18", options, 10, (3, size, size))

    assert [point.stride for point in model.feature_points.values()] == strides


def test_resnet50_features_have_the_expanded_channels():
    with torch.device("meta"):
        model = build_model("resnet50", {}, 10, (3, 32, 32))

    assert model.feature_points["stage4"] == FeaturePoint("layer4", 2048, 8)


def test_resnet50_matches_torchvision_when_given_its_weights():
    theirs = build_model("torchvision:resnet50", {}, 10, (3, 96, 96)).eval()
    ours = build_model("resnet50", {"stem": "large"}, 10, (3, 96, 96)).eval()
    renamed = {
        name.replace("downsample", "shortcut").replace("fc.", "linear."): value
        for name, value in theirs.state_dict().items()
    }
    ours.load_state_dict(renamed)
    images = torch.randn(2, 3, 96, 96)

    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))
