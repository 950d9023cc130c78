import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdedge.core.errors import ModelError
from kdedge.models.blocks import Spatial
from kdedge.models.wrn import PreActBlock
from kdedge.models.zoo import build_model

IMAGE = (3, 32, 32)


def block(inputs, outputs, stride):
    """One whose branch gives zero."""
    made = PreActBlock(inputs, outputs, stride, Spatial(), 0.0).eval()
    nn.init.zeros_(made.conv2.weight)
    return made


def test_block_passes_its_input_on_without_an_activation():
    feature = torch.randn(2, 4, 6, 6)

    assert block(4, 4, 1)(feature).equal(feature)


def test_block_projects_its_activated_input_where_the_shape_changes():
    feature = torch.randn(2, 4, 6, 6)
    made = block(4, 8, 2)
    nn.init.constant_(made.bn1.bias, 0.5)

    active = F.relu(feature / (1 + made.bn1.eps) ** 0.5 + 0.5)
    torch.testing.assert_close(made(feature), F.conv2d(active[:, :, ::2, ::2], made.shortcut.weight))


@pytest.mark.parametrize("depth", [16, 28, 40])
def test_wrn_has_the_convolutions_of_its_name(depth):
    with torch.device("meta"):
        model = build_model(f"wrn_{depth}_2", {}, 10, IMAGE)

    assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) == depth  # the three shortcuts count


@pytest.mark.parametrize(
    ("name", "millions"), [("wrn_40_1", "0.6"), ("wrn_40_2", "2.2"), ("wrn_40_4", "8.9"), ("wrn_28_10", "36.5")]
)
def test_wrn_has_the_parameters_of_the_paper(name, millions):
    with torch.device("meta"):
        model = build_model(name, {}, 10, IMAGE)

    assert f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f}" == millions


def test_wrn_drops_out_in_training_only():
    model = build_model("wrn_16_1", {"dropout": 0.5}, 10, (1, 8, 8))
    images = torch.randn(4, 1, 8, 8)

    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize("dropout", [1.0, -0.1])
def test_wrn_refuses_a_dropout_that_is_no_probability_below_one(dropout):
    with pytest.raises(ModelError, match=r"dropout: must be (less than 1|greater than or equal to 0), not"):
        build_model("wrn_16_1", {"dropout": dropout}, 10, IMAGE)


def test_grouped_wrn_names_the_groups_that_divide():
    with pytest.raises(ModelError, match=r"groups 5 does not divide .* 16 -> 16 channels: valid there: 1, 2, 4, 8, 16"):
        build_model("wrn_16_1", {"conv": "grouped", "groups": 5}, 10, IMAGE)
