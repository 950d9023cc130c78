import pytest
import torch
from torch import nn

from kdedge.core.errors import ModelError
from kdedge.models.cost import Cost, cost, layers, run_once
from kdedge.models.zoo import build_model, model_costs

PUBLISHED = {  # parameters in millions and MMAC of convolutions and linear layers, 32x32 images of 100 classes
    "resnet20": ("0.278", "40.8"),
    "resnet32": ("0.473", "69.1"),
    "resnet56": ("0.862", "125.8"),
    "resnet110": ("1.737", "253.2"),
    "resnet8x4": ("1.234", "177.1"),
    "resnet32x4": ("7.434", "1083"),
    "vgg8": ("3.965", "96.2"),
    "vgg11": ("9.277", "209.4"),
    "vgg13": ("9.462", "284.9"),
    "vgg19": ("20.087", "511.4"),
    "resnet18": ("11.22", "555.5"),
    "resnet50": ("23.71", "1298"),
}


def to_precision_of(printed, value):
    return f"{value:.{len(printed.partition('.')[2])}f}"


def test_costs_equal_the_published_table():
    costs = dict(model_costs(100, (3, 32, 32)))

    ours = {
        name: (to_precision_of(params, costs[name].params / 1e6), to_precision_of(macs, costs[name].macs / 1e6))
        for name, (params, macs) in PUBLISHED.items()
    }
    assert ours == PUBLISHED


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
