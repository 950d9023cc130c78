import weakref

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kdedge.core.errors import ModelError
from kdedge.models.features import FeaturePoint, FeatureTap, feature_points, match_stages
from kdedge.models.zoo import build_model

IMAGES = torch.arange(2 * 64.0).view(2, 1, 8, 8) / 128


def small():
    return build_model("resnet8", {"conv": "depthwise"}, 10, (1, 8, 8)).eval()


def point(module):
    return {"here": FeaturePoint(module, 4, 1)}


def hooks(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_tap_keeps_what_the_module_puts_out():
    model = small()

    with FeatureTap(model, ["stage1"]) as tap:
        model(IMAGES)
        feature = tap.features["stage1"]

    by_hand = model.layer1(torch.relu(model.bn1(model.conv1(IMAGES))))
    torch.testing.assert_close(feature, by_hand)
    assert feature.requires_grad


def test_tap_lives_as_long_as_its_block_even_after_an_error():
    model = small()

    with FeatureTap(model, ["stage1", "stage2"]):
        assert hooks(model) == 3
    assert hooks(model) == 0
    with pytest.raises(RuntimeError), FeatureTap(model, ["stage1"]):
        model(torch.zeros(1, 5, 8, 8))
    assert hooks(model) == 0


def test_tap_lets_go_of_its_tensors_at_the_end():
    model = small()

    with FeatureTap(model, ["stage1"]) as tap:
        model(IMAGES)
        feature = weakref.ref(tap.features["stage1"])
    assert feature() is None


def test_tap_forgets_the_last_pass_when_the_next_begins():
    model = small()

    with FeatureTap(model, model.feature_points) as tap:
        model(IMAGES)
        first = tap.features
        model(IMAGES[:1])
        assert len(tap.features["stage1"]) == 1
        assert len(first["stage1"]) == 2


def test_tap_takes_points_of_its_own_and_names_only_where_they_are_declared():
    model = nn.Sequential(nn.Conv2d(1, 4, 3))

    with FeatureTap(model, point("0")) as tap:
        model(IMAGES)
        assert tap.features["here"].shape == (2, 4, 6, 6)
    with pytest.raises(ModelError, match="Sequential has no feature point 'stage1'"):
        FeatureTap(model, ["stage1"])
    with pytest.raises(ModelError, match="ResNet has no feature point 'stage4': did you mean 'stage"):
        FeatureTap(small(), ["stage4"])


def test_tap_refuses_a_module_that_is_not_there():
    model = small()

    with (
        pytest.raises(ModelError, match=r"no module 'layer2.0.con1' \(feature here\): did you mean 'layer2.0.con"),
        FeatureTap(model, point("layer2.0.con1")),
    ):
        pass
    assert hooks(model) == 0


def test_tap_complains_about_a_module_that_runs_twice():
    relu = nn.ReLU()
    model = nn.Sequential(nn.Conv2d(1, 4, 3), relu, nn.Conv2d(4, 4, 3), relu)

    with FeatureTap(model, point("1")), pytest.raises(ModelError, match="'1' runs more than once"):
        model(IMAGES)


def test_tap_complains_about_a_feature_overwritten_in_place():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True))

    with FeatureTap(model, point("1")) as tap:
        model(IMAGES)
        with pytest.raises(ModelError, match=r"feature here was overwritten in place: .* follows module '1'"):
            _ = tap.features
    with FeatureTap(model, point("2")) as tap:
        model(IMAGES)
        assert tap.features["here"].min() == 0


def test_tap_complains_about_a_module_that_did_not_run():
    model = small()

    with FeatureTap(model, ["stage1"]) as tap:
        with pytest.raises(ModelError, match="feature stage1 is missing"):
            _ = tap.features
        model(IMAGES)
        assert "stage1" in tap.features
        tap.clear()
        with pytest.raises(ModelError, match="feature stage1 is missing"):
            _ = tap.features


def test_tap_complains_about_an_output_that_is_no_tensor():
    model = nn.Sequential(nn.MaxPool2d(2, return_indices=True))

    with FeatureTap(model, point("0")), pytest.raises(ModelError, match="'0' puts out a tuple"):
        model(IMAGES)


@pytest.mark.parametrize(
    "context", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)]
)
def test_tap_works_under_autocast_and_without_gradients(context):
    model = small()

    with FeatureTap(model, ["stage1"]) as tap, context():
        model(IMAGES)
        assert tap.features["stage1"].shape == (2, 16, 8, 8)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler
def test_tap_works_on_a_compiled_network():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    compiled = torch.compile(model, backend="aot_eager")

    with FeatureTap(compiled, point("1")) as tap:
        for batch in (IMAGES, IMAGES + 1):
            model.zero_grad()
            compiled(batch)
            feature = tap.features["here"]
            feature.sum().backward()
            torch.testing.assert_close(feature, torch.relu(model[0](batch)))
            assert model[0].weight.grad.abs().sum() > 0


def test_tap_works_on_a_distributed_network(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(small())
        with FeatureTap(wrapped, ["stage3"]) as tap:
            wrapped(IMAGES).sum().backward()
            assert tap.features["stage3"].shape == (2, 64, 2, 2)
    finally:
        torch.distributed.destroy_process_group()


def test_tap_works_on_a_network_of_fabric():
    wrapped = Fabric(accelerator="cpu", devices=1).setup(small())

    with FeatureTap(wrapped, ["stage3"]) as tap:
        wrapped(IMAGES)
        assert tap.features["stage3"].shape == (2, 64, 2, 2)


def test_match_stages_pairs_by_stride_and_takes_the_deepest():
    def points(*strides):
        return {f"stage{n}": FeaturePoint(f"layer{n}", 8, stride) for n, stride in enumerate(strides, 1)}

    assert match_stages(points(1, 2, 4), points(1, 2, 4)) == [
        ("stage1", "stage1"),
        ("stage2", "stage2"),
        ("stage3", "stage3"),
    ]
    assert match_stages(points(1, 2, 4), points(1, 2, 4, 8, 8)) == [
        ("stage1", "stage1"),
        ("stage2", "stage2"),
        ("stage3", "stage3"),
    ]
    assert match_stages(points(2, 4, 8), points(1, 2, 4, 8, 8)) == [
        ("stage1", "stage2"),
        ("stage2", "stage3"),
        ("stage3", "stage5"),
    ]
    with pytest.raises(ModelError, match="strides 1, 2 against 4, 8"):
        match_stages(points(1, 2), points(4, 8))


TRACED = [  # by hand from each paper's table; the stem's single convolution is no stage
    ("torchvision:resnet18", 64, {"layer1": (64, 4), "layer2": (128, 8), "layer3": (256, 16), "layer4": (512, 32)}),
    ("torchvision:resnet50", 64, {"layer1": (256, 4), "layer2": (512, 8), "layer3": (1024, 16), "layer4": (2048, 32)}),
    (
        "torchvision:mobilenet_v3_small",
        64,
        {"features.1": (16, 4), "features.3": (24, 8), "features.8": (48, 16), "features": (576, 32)},
    ),
    (
        "torchvision:regnet_y_400mf",
        64,
        {
            "trunk_output.block1": (48, 4),
            "trunk_output.block2": (104, 8),
            "trunk_output.block3": (208, 16),
            "trunk_output": (440, 32),
        },
    ),
    (
        "timm:mobilenetv3_small_050",
        64,
        {"blocks.0": (8, 4), "blocks.1": (16, 8), "blocks.3": (24, 16), "blocks": (288, 32)},
    ),
]


@pytest.mark.parametrize(("name", "size", "expected"), TRACED, ids=[name for name, *_ in TRACED])
def test_feature_points_of_foreign_networks_are_the_ends_of_their_stages(name, size, expected):
    model = build_model(name, {}, 10, (3, size, size))

    points = feature_points(model, (3, size, size))

    assert list(points) == ["stage1", "stage2", "stage3", "stage4"]
    assert {p.module: (p.channels, p.stride) for p in points.values()} == expected
    with FeatureTap(model, points) as tap:
        model(torch.zeros(2, 3, size, size))
        assert [feature.shape[2] for feature in tap.features.values()] == [16, 8, 4, 2]


def test_feature_points_do_not_follow_a_map_that_grows_again():
    model = build_model("torchvision:vgg11_bn", {}, 10, (3, 32, 32))  # ends by stretching 1x1 to 7x7

    assert [point.stride for point in feature_points(model, (3, 32, 32)).values()] == [2, 4, 8, 16]


def test_feature_points_take_a_1x1_map_when_there_is_nothing_else():
    model = nn.Sequential(nn.Conv2d(1, 4, 8), nn.Flatten(), nn.Linear(4, 2))

    assert feature_points(model, (1, 8, 8)) == {"stage1": FeaturePoint("0", 4, 8)}


def test_feature_points_need_maps():
    with pytest.raises(ModelError, match="no feature maps"):
        feature_points(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), (1, 8, 8))
