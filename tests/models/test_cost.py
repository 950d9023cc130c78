import pytest
import torch
from torch import nn

from kdedge.core.errors import ModelError
from kdedge.models.cost import Cost, cost, layers, run_once
from kdedge.models.zoo import build_model


def test_cost_counts_convolutions_and_linear_layers_only():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5)
    )
    params = 3 * 8 * 9 + 16 + 128 * 5 + 5

    assert cost(model, (3, 4, 4)) == Cost(
        params=params, macs=16 * 3 * 8 * 9 + 128 * 5, weight_bytes=4 * (params + 16) + 8
    )


def test_layers_sum_up_to_the_whole():
    model = build_model("resnet8", {"conv": "depthwise"}, 10, (3, 32, 32))
    rows = {layer.path: layer for layer in layers(model, (3, 32, 32))}
    whole = cost(model, (3, 32, 32))

    assert (rows[""].params, rows[""].macs) == (whole.params, whole.macs)
    leaves = [path for path, module in model.named_modules() if not list(module.children())]
    assert sum(rows[path].macs for path in leaves) == whole.macs
    assert rows["layer2.0.conv1.depthwise"].shape == (16, 16, 16)
    assert rows["layer2.0.conv1.depthwise"].macs == 16 * 16 * 16 * 9


def test_run_once_names_a_size_that_the_network_does_not_take():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))

    with pytest.raises(ModelError, match="Sequential does not run on images of 3x5x5"):
        run_once(model, (3, 5, 5))


def test_cost_leaves_modes_and_statistics_alone():
    model = build_model("resnet8", {}, 10, (1, 8, 8)).train()
    model.bn1.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    cost(model, (1, 8, 8))

    assert model.training
    assert not model.bn1.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_eval_mode_is_undone_after_an_error():
    model = nn.Sequential(nn.Dropout(), nn.Unflatten(1, (2, 2)))

    with pytest.raises(ModelError):
        run_once(model, (3, 5, 5))
    assert model[0].training
