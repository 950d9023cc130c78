import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from kdedge.core.errors import ModelError
from kdedge.models.blocks import ChannelShuffle
from kdedge.models.cost import cost
from kdedge.models.features import feature_points
from kdedge.models.lighten import compare, lighten, residual_blocks
from kdedge.models.zoo import build_model

SMALL = (3, 32, 32)


def built(name, **options):
    return build_model(name, options, classes=100, image_shape=SMALL)


@pytest.mark.parametrize(
    ("name", "conv", "params", "most"),
    [
        ("vgg11", "depthwise", 1_109_924, 1_150_000),
        ("vgg11", "grouped", 2_365_284, 2_400_000),
        ("resnet18", "depthwise", 1_492_580, 1_550_000),
        ("resnet18", "grouped", 2_981_028, 3_000_000),
    ],
)
def test_lighten_reaches_the_published_sizes(name, conv, params, most):
    network = built(name)
    lighten(network, SMALL, conv)
    assert cost(network, SMALL).params == params <= most


@pytest.mark.parametrize("name", ["resnet20", "vgg11", "resnet50", "wrn_16_2"])
@pytest.mark.parametrize("conv", ["grouped", "depthwise"])
def test_lighten_makes_what_the_network_builds_by_itself(name, conv):
    network, own = built(name), built(name, conv=conv)
    points = feature_points(network, SMALL)
    lighten(network, SMALL, conv)
    assert cost(network, SMALL) == cost(own, SMALL)
    assert {key: value.shape for key, value in network.state_dict().items()} == {
        key: value.shape for key, value in own.state_dict().items()
    }
    assert feature_points(network, SMALL) == points


@pytest.mark.parametrize(
    "name", ["torchvision:resnet18", "torchvision:vgg11_bn", "torchvision:googlenet", "torchvision:densenet121"]
)
def test_lighten_rewrites_networks_of_others_but_for_the_stem(name):
    options = {"aux_logits": False, "init_weights": False} if "googlenet" in name else {}
    shape = (3, 64, 64)
    network = build_model(name, options, classes=10, image_shape=shape)
    convs = [path for path, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    large = {path for path in convs if network.get_submodule(path).kernel_size != (1, 1)}
    before = cost(network, shape)
    plan = lighten(network, shape, "depthwise")
    assert {step.path for step in plan} == large - {convs[0]}
    assert isinstance(network.get_submodule(convs[0]), nn.Conv2d)
    after = cost(network, shape)
    assert after.params < before.params
    assert after.macs < before.macs
    assert network.eval()(torch.zeros(2, *shape)).shape == (2, 10)


class Odd(nn.Module):
    """Kernel, stride, padding and dilation that no common network has, behind a stem."""

    def __init__(self, **options):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv = nn.Conv2d(8, 12, (5, 3), stride=(2, 1), padding=(4, 1), dilation=(2, 1), **options)

    def forward(self, images):
        return self.conv(self.stem(images))


@pytest.mark.parametrize("conv", ["grouped", "depthwise"])
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"padding_mode": "reflect"}])
def test_lighten_keeps_the_geometry_of_a_convolution(conv, options):
    network = Odd(**options)
    shape = network(torch.zeros(1, 3, 16, 12)).shape
    lighten(network, (3, 16, 12), conv, groups=2 if conv == "grouped" else None)
    assert network(torch.zeros(1, 3, 16, 12)).shape == shape
    last = list(network.conv)[-1]
    assert (last.bias is None) == (options.get("bias") is False)
    spatial = network.conv.depthwise if conv == "depthwise" else network.conv.grouped
    assert spatial.padding_mode == options.get("padding_mode", "zeros")


def test_lighten_depthwise_puts_norm_and_relu_between():
    network = Odd()
    lighten(network, (3, 16, 12), "depthwise")
    assert [type(module) for module in network.conv] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Conv2d]
    depthwise, _, _, pointwise = network.conv
    assert (depthwise.groups, depthwise.out_channels, depthwise.bias) == (8, 8, None)
    assert (pointwise.kernel_size, pointwise.in_channels, pointwise.out_channels) == ((1, 1), 8, 12)


class Bottle(nn.Module):
    """A 3x3 convolution right after a 1x1 one, and another after that."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.reduce = nn.Conv2d(8, 8, 1)
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, images):
        return self.second(F.relu(self.first(F.relu(self.reduce(self.stem(images))))))


@pytest.mark.parametrize(("shuffle", "second"), [(True, nn.Sequential), (False, nn.Conv2d)])
def test_lighten_shuffles_channels_that_no_pointwise_convolution_has_mixed(shuffle, second):
    network = Bottle()
    lighten(network, (3, 8, 8), "grouped", groups=4, shuffle=shuffle)
    assert type(network.first) is nn.Conv2d
    assert type(network.second) is second
    assert any(isinstance(module, ChannelShuffle) for module in network.modules()) == shuffle


def test_lighten_leaves_what_is_not_rewritten_as_it_was():
    network = built("resnet20")
    kept = {key: value.clone() for key, value in network.state_dict().items() if not key.startswith("layer")}
    lighten(network, SMALL, "grouped")
    for key, value in kept.items():
        torch.testing.assert_close(network.state_dict()[key], value)


def test_lighten_auto_groups_residual_branches_and_takes_wide_plain_convolutions_apart():
    residual, plain = built("resnet20"), built("vgg11")
    assert {step.conv for step in lighten(residual, SMALL, "auto")} == {"grouped"}
    steps = lighten(plain, SMALL, "auto")
    assert [(step.path, step.conv) for step in steps] == [
        (path, "depthwise") for path in ("block2.3", "block3.3", "block4.0", "block4.3")
    ]  # 256 -> 256 and 512 -> 512; where channels change, dense as it was


def test_lighten_auto_leaves_dense_what_the_groups_do_not_divide():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.squeeze, self.back = nn.Conv2d(12, 10, 3, padding=1), nn.Conv2d(10, 12, 3, padding=1)
            self.whole = nn.Conv2d(12, 12, 3, padding=1)

        def forward(self, feature):
            return feature + self.whole(self.back(self.squeeze(feature)))

    network = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), Block())
    assert [step.path for step in lighten(network, (3, 8, 8), "auto", groups=4)] == ["1.whole"]


@pytest.mark.parametrize(
    ("add", "found"),
    [
        (lambda a, b: a + b, {"block"}),
        (lambda a, b: torch.add(a, b), {"block"}),
        (lambda a, b: a.clone().add_(b), {"block"}),
        (lambda a, b: a * b, set()),
        (lambda a, b: a + 1, set()),
        (lambda a, b: torch.cat([a, b], 1), set()),
    ],
)
def test_residual_blocks_are_the_modules_that_add_two_maps(add, found):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, feature):
            return add(feature, self.conv(feature))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Block()

        def forward(self, images):
            return self.block(images)

    assert residual_blocks(Network(), (3, 4, 4)) == found


def test_lighten_rewrites_only_the_layers_that_a_pattern_fits():
    network = built("resnet20")
    plan = lighten(network, SMALL, "depthwise", layers=["layer3.*", "layer1.0.conv2"])
    third = [f"layer3.{block}.conv{number}" for block in range(3) for number in (1, 2)]
    assert [step.path for step in plan] == ["layer1.0.conv2", *third]


def test_lighten_refuses_a_pattern_that_fits_nothing():
    with pytest.raises(ModelError, match=r"'layer4\.\*' fits no convolution that can be rewritten: such as layer1"):
        lighten(built("resnet20"), SMALL, "depthwise", layers=["layer3.*", "layer4.*"])


@pytest.mark.parametrize(
    ("network", "arguments", "message"),
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2)), ("grouped",), "it has no convolution"),
        (lambda: built("mobilenetv2"), ("depthwise",), "every convolution but the stem is 1x1 or grouped already"),
        (lambda: built("vgg11"), ("grouped", 3), "valid for every convolution of this network: 2, 4, 8, 16, 32, 64"),
        (lambda: built("resnet20"), ("grouped", 32), r"layer1.0.conv1 \(16 -> 16\)"),
        (lambda: built("vgg11"), ("depthwise", 4), "only grouped convolutions have groups"),
        (lambda: built("vgg11", width=0.125), ("auto",), "auto finds nothing to rewrite"),
    ],
)  # fmt: skip
def test_lighten_refuses_in_one_clear_line(network, arguments, message):
    with pytest.raises(ModelError, match=message):
        lighten(network(), SMALL, *arguments)


class Gained(nn.Conv2d):
    """A convolution with a weight of its own kind."""

    def __init__(self):
        super().__init__(8, 8, 3, padding=1)
        self.gain = nn.Parameter(torch.ones(8, 1, 1, 1))


@pytest.mark.parametrize(
    ("conv", "what"),
    [(Gained, "has gain beside its weight"), (lambda: weight_norm(nn.Conv2d(8, 8, 3)), "has a parametrization")],
)
def test_lighten_refuses_convolutions_that_are_more_than_their_weight(conv, what):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), conv())
    with pytest.raises(ModelError, match=f"2 cannot be lightened: this .* {what}"):
        lighten(network, SMALL, "depthwise")
    assert [step.path for step in lighten(network, SMALL, "depthwise", layers=["1"])] == ["1"]


@pytest.mark.parametrize(("groups", "nearest"), [(3, 2), (5, 4), (100, 64)])
def test_lighten_offers_the_nearest_groups_that_divide(groups, nearest):
    with pytest.raises(ModelError, match=f"\n  lighten.groups: {nearest}$"):
        lighten(built("vgg11"), SMALL, "grouped", groups)


def test_compare_lists_layers_and_the_whole_before_and_after():
    changes = {change.path: change for change in compare(built("vgg11"), SMALL, conv="depthwise")}
    third = changes["block2.3"]
    assert (third.layer, third.became) == ("conv 3x3 256 -> 256", "depthwise")
    assert third.params == (256 * 256 * 9 + 256, 256 * 9 + 2 * 256 + 256 * 256 + 256)
    assert third.macs == (256 * 256 * 9 * 64, (256 * 9 + 256 * 256) * 64)
    assert changes["block0.0"].became == ""
    assert changes["block0.0"].params == (1792, 1792)
    assert changes["all"].params == (9_277_284, 1_109_924)
    assert list(changes)[-1] == "all"


def test_lighten_takes_no_memory_for_weights_on_the_meta_device():
    with torch.device("meta"):
        network = built("resnet18")
    lighten(network, SMALL, "depthwise")
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}
