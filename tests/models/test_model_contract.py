"""What holds for every network that kdedge registers."""

import pytest
import torch

from kdedge.models.features import FeatureTap
from kdedge.models.zoo import build_model, model_names

IMAGE = (1, 8, 8)
CONVS = [{"conv": "dense"}, {"conv": "grouped", "groups": 2}, {"conv": "depthwise"}]


@pytest.mark.parametrize("options", CONVS, ids=lambda options: options["conv"])
@pytest.mark.parametrize("name", model_names())
def test_model_trains_and_its_feature_points_are_as_declared(name, options):
    model = build_model(name, {"width": 0.25, **options}, 7, IMAGE).train()

    with FeatureTap(model, model.feature_points) as tap:
        logits = model(torch.randn(4, *IMAGE))
        features = tap.features
    logits.square().sum().backward()

    assert logits.shape == (4, 7)
    assert list(features) == [f"stage{n}" for n in range(1, len(features) + 1)]
    for stage, point in model.feature_points.items():
        side = 8 // point.stride
        assert features[stage].shape == (4, point.channels, side, side), stage
        assert features[stage].min() >= 0, "taken after the activation"
    assert [
        path for path, weight in model.named_parameters() if weight.grad is None or not weight.grad.isfinite().all()
    ] == []


@pytest.mark.parametrize("name", model_names())
def test_model_keeps_its_stem_dense(name):
    with torch.device("meta"):
        model = build_model(name, {"conv": "depthwise"}, 10, (3, 32, 32))
    stem = next(module for module in model.modules() if isinstance(module, torch.nn.Conv2d))

    assert (stem.in_channels, stem.kernel_size, stem.groups) == (3, (3, 3), 1)
