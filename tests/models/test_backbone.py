"""A classifier's weights become a detector's backbone: the same images give the same maps."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from kdedge.core.errors import ModelError
from kdedge.models.lighten import lighten
from kdedge.models.weights import load_backbone
from kdedge.models.zoo import build_model

SHAPE = (3, 64, 64)


def classifier(name: str, **options: Any) -> nn.Module:
    """With statistics and scales that are nobody's first ones."""
    torch.manual_seed(7)
    network = models.get_model(name, weights=None, **options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    return network.eval()


def detector(name: str = "retinanet", **options: Any) -> Any:
    torch.manual_seed(0)
    sized = {} if name == "ssdlite" else {"channels": 64, "levels": "p2-p5", "backbone": "resnet18"}
    return build_model(name, {**sized, **options}, 3, SHAPE, "detect").eval()


def kept(state: dict[str, Tensor], path: Path) -> Path:
    torch.save(state, path)
    return path


@pytest.fixture
def resnet18(tmp_path: Path) -> Path:
    return kept(classifier("resnet18").state_dict(), tmp_path / "resnet18.pth")


def stages(network: nn.Module, images: Tensor) -> list[Tensor]:
    """Of a classifier, by its own forward as far as the stages go."""
    if isinstance(network, models.ResNet):
        x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
        return [x := stage(x) for stage in (network.layer1, network.layer2, network.layer3, network.layer4)]
    found, x = [], images
    for block in network.features:
        if x.shape[-1] != (after := block(x)).shape[-1]:
            found.append(x)
        x = after
    return [*found[-3:], x]


@pytest.mark.parametrize("kind", ["retinanet", "fcos"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v3_large", "mobilenet_v3_small"])
def test_pyramid_stands_on_the_maps_of_the_classifier(kind: str, name: str, tmp_path: Path) -> None:
    source, network, images = classifier(name), detector(kind, backbone=name), torch.randn(2, *SHAPE)
    load_backbone(network, kept(source.state_dict(), tmp_path / "net.pth"))
    with torch.no_grad():
        found = list(network.backbone.body(images).values())
        wanted = stages(source, images)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["mobilenet_v3_large", "mobilenet_v3_small"])
def test_ssdlite_looks_at_the_maps_of_the_classifier(name: str, tmp_path: Path) -> None:
    norm = partial(nn.BatchNorm2d, eps=0.001)
    source, images = classifier(name, norm_layer=norm), torch.randn(2, *SHAPE)
    network = detector("ssdlite", backbone=name, reduced_tail=False)
    load_backbone(network, kept(source.state_dict(), tmp_path / "net.pth"))
    with torch.no_grad():
        inner, last = list(network.backbone(images).values())[:2]
        before, after = stages(source, images)[-2:]
        expanded = source.features[last_stride(source)].block[0](before)
    torch.testing.assert_close(last, after, rtol=0, atol=0)
    torch.testing.assert_close(inner, expanded, rtol=0, atol=0)


def last_stride(source: nn.Module) -> int:
    """The block whose stride, 2, is the last of the network's."""
    return max(n for n, block in enumerate(source.features) if getattr(block, "_is_cn", False))


def test_all_but_the_backbone_stays_as_it_was(resnet18: Path) -> None:
    network, untouched = detector(), detector()
    load_backbone(network, resnet18)
    before = untouched.state_dict()
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[:2][1] for name in changed} == {"body"}
    assert len(changed) == 20 + 4 * 20  # of ResNet-18's 20 convolutions and their BN, whose step counters stay at 0


@pytest.mark.parametrize("nested", ["state_dict", "model"])
def test_checkpoints_are_read_as_whole_networks_are(nested: str, tmp_path: Path) -> None:
    state = {f"module.{name}": tensor for name, tensor in classifier("resnet18").state_dict().items()}
    one, other = detector(), detector()
    torch.save({nested: state, "epoch": 90}, tmp_path / "net.pth")
    load_backbone(one, tmp_path / "net.pth")
    save_file(classifier("resnet18").state_dict(), tmp_path / "net.safetensors")
    load_backbone(other, tmp_path / "net.safetensors")
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(one.backbone.body.conv1.weight, classifier("resnet18").conv1.weight)


@pytest.mark.parametrize("head", [{}, {"fc.0.weight": torch.zeros(7, 512)}, {"fc.weight": torch.zeros(7, 512)}])
def test_head_may_be_any_or_none(head: dict[str, Tensor], tmp_path: Path) -> None:
    state = classifier("resnet18").state_dict()
    body = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    network = detector()
    load_backbone(network, kept({**body, **head}, tmp_path / "net.pth"))
    torch.testing.assert_close(network.backbone.body.conv1.weight, state["conv1.weight"])


def test_another_network_is_listed_and_leaves_the_detector_alone(tmp_path: Path) -> None:
    path = kept(classifier("resnet34").state_dict(), tmp_path / "resnet34.pth")
    network = detector()
    with pytest.raises(ModelError) as caught:
        load_backbone(network, path)
    first, unexpected, fix = str(caught.value).splitlines()
    assert first.startswith(f"{path} does not fit the backbone of RetinaNetDetector: its tensors differ")
    assert unexpected.startswith("  unexpected: layer1.2.conv1.weight, layer1.2.bn1.weight")
    assert fix.strip() == "check the detector's options (backbone; of ssdlite reduced_tail: false, width: 1)"
    torch.testing.assert_close(network.state_dict(), detector().state_dict(), rtol=0, atol=0)


def test_tensors_that_are_missing_or_of_another_shape_are_named(tmp_path: Path) -> None:
    state = classifier("resnet18").state_dict()
    del state["layer4.1.bn2.running_var"]
    state["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    with pytest.raises(ModelError) as caught:
        load_backbone(detector(), kept(state, tmp_path / "net.pth"))
    assert str(caught.value).splitlines()[1:3] == [
        "  missing: layer4.1.bn2.running_var",
        "  of another shape: conv1.weight 64x1x7x7, not 64x3x7x7",
    ]


def test_ssdlite_of_half_a_tail_says_which_option_to_change(tmp_path: Path) -> None:
    path = kept(classifier("mobilenet_v3_large").state_dict(), tmp_path / "net.pth")
    with pytest.raises(ModelError, match="reduced_tail: false"):
        load_backbone(detector("ssdlite"), path)


def test_classifier_has_no_backbone_to_load(resnet18: Path) -> None:
    network = build_model("resnet8", {}, 3, SHAPE)
    with pytest.raises(ModelError, match=r"resnet18\.pth for ResNet: only a detector"):
        load_backbone(network, resnet18)


def test_lightening_keeps_what_it_does_not_rewrite(resnet18: Path) -> None:
    network, source = detector(), classifier("resnet18")
    load_backbone(network, resnet18)
    lighten(network, SHAPE, "depthwise", layers=("backbone.body.*",))
    body = network.backbone.body
    torch.testing.assert_close(body.conv1.weight, source.conv1.weight)
    torch.testing.assert_close(body.layer2[0].downsample[0].weight, source.layer2[0].downsample[0].weight)
    torch.testing.assert_close(body.layer4[1].bn2.running_var, source.layer4[1].bn2.running_var)
    assert "depthwise" in dict(body.layer4[1].conv2.named_children())
