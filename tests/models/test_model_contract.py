"""What holds for every network that kdedge registers."""

import pytest
import torch

from kdedge.models.blocks import MODELS
from kdedge.models.features import FeatureTap
from kdedge.models.zoo import build_model, model_names, model_options

IMAGE = (1, 8, 8)
CONVS = [{}, {"conv": "grouped", "groups": 2}, {"conv": "depthwise"}]
BUILDS = [
    (name, conv) for name in model_names() for conv in CONVS if model_options(MODELS.get(name)).keys() >= conv.keys()
]
SIGNED = ("mobilenetv2", "wrn_")
"""Networks whose stages end in a sum or a linear layer, not in a ReLU."""


@pytest.mark.parametrize(
    ("name", "conv"), BUILDS, ids=lambda value: value if type(value) is str else value.get("conv", "own")
)
def test_model_trains_and_its_feature_points_are_as_declared(name, conv):
    model = build_model(name, {"width": 0.25, **conv}, 7, IMAGE).train()

    with FeatureTap(model, model.feature_points) as tap:
        logits = model(torch.randn(4, *IMAGE))
        features = tap.features
    logits.square().sum().backward()

    assert logits.shape == (4, 7)
    assert list(features) == [f"stage{n}" for n in range(1, len(features) + 1)]
    for stage, point in model.feature_points.items():
        side = -(-8 // point.stride)
        assert features[stage].shape == (4, point.channels, side, side), stage
        assert (features[stage].min() < 0) == name.startswith(SIGNED), stage
    assert [
        path for path, weight in model.named_parameters() if weight.grad is None or not weight.grad.isfinite().all()
    ] == []


@pytest.mark.parametrize("name", model_names())
def test_logits_depend_on_nothing_but_the_feature_point(name):
    model = build_model(name, {"width": 0.25}, 7, IMAGE).eval()
    these, others = torch.randn(2, 1, *IMAGE).double()
    model.double()
    with torch.no_grad(), FeatureTap(model, model.feature_points) as tap:
        expected = model(these)
        features = {stage: feature.clone() for stage, feature in tap.features.items()}

    for stage, point in model.feature_points.items():
        swap = model.get_submodule(point.module).register_forward_hook(lambda *_, kept=features[stage]: kept)
        with torch.no_grad():
            torch.testing.assert_close(model(others), expected)
        swap.remove()
    with torch.no_grad():
        assert not torch.allclose(model(others), expected)


@pytest.mark.parametrize("size", [33, 64, 72])
@pytest.mark.parametrize("name", ["resnet20", "resnet18", "wrn_16_2", "mobilenetv2", "shufflenetv1", "shufflenetv2"])
def test_stride_holds_for_odd_and_for_large_images(name, size):
    with torch.device("meta"):
        model = build_model(name, {"width": 0.25}, 7, (3, size, size))
        with FeatureTap(model, model.feature_points) as tap:
            model(torch.zeros(2, 3, size, size))
            sides = {stage: feature.shape[2] for stage, feature in tap.features.items()}

    assert sides == {stage: -(-size // point.stride) for stage, point in model.feature_points.items()}


@pytest.mark.parametrize("name", model_names())
def test_model_keeps_its_stem_dense(name):
    options = {"conv": "depthwise"} if "conv" in model_options(MODELS.get(name)) else {}
    with torch.device("meta"):
        model = build_model(name, options, 10, (3, 32, 32))
    stem = next(module for module in model.modules() if isinstance(module, torch.nn.Conv2d))

    assert (stem.in_channels, stem.groups) == (3, 1)
    assert stem.kernel_size == ((1, 1) if name.startswith("shufflenet") else (3, 3))
