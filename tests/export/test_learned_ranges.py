"""What training for int8 leaves, in the exported file: the same ranges, and the same codes as it rounded to."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, save
from torch import nn

from kdedge.core.deployment import Export, Quantization
from kdedge.core.stats import output_error
from kdedge.core.training import Quantize
from kdedge.distill.int8 import FakeInt8, key, learned_ranges
from kdedge.export.int8 import Calibrated
from kdedge.export.onnx import load

Images = NDArray[Any]
LAYOUTS = [
    (Quantize(), Quantization()),
    (Quantize(reduce_range=True), Quantization(reduce_range=True)),
    (
        Quantize(activations="int8", symmetric=True),
        Quantization(activations="int8", symmetric=True, quantize_bias=False),
    ),
]


def constants(path: Path) -> dict[str, Images]:
    return {value.name: numpy_helper.to_array(value) for value in load(path).graph.initializer}


def trained(net: nn.Module, images: Images, how: Quantize) -> FakeInt8:
    fake = FakeInt8(copy.deepcopy(net), how)
    fake.calibrate([torch.tensor(images[:32])])
    return fake.eval()


def exported(fp32: Path, fake: FakeInt8, images: Images, how: Quantization, out: Path) -> Path:
    """Calibrated on images a tenth as bright, so that calibration cannot stand in for what was learned."""
    ranges = learned_ranges(fake.state_dict())
    Calibrated(fp32, images / 10, Export(quantization=how), ranges).quantize(out)
    return out


@pytest.mark.parametrize(("training", "layout"), LAYOUTS, ids=["uint8", "7 bits", "symmetric int8"])
def test_codes_of_weights_are_those_that_training_rounded_to(
    net: nn.Sequential, fp32: Path, images: Images, tmp_path: Path, training: Quantize, layout: Quantization
) -> None:
    """Of the convolutions that a batch norm is folded into as well, since none of theirs turns a sign."""
    fake = trained(net, images, training)
    fake(torch.tensor(images))
    made = constants(exported(fp32, fake, images, layout, tmp_path / "int8.onnx"))
    layers = {path: layer for path, layer in net.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))}
    assert len(layers) == 6
    for path, layer in layers.items():
        scale = fake.weights[key(path)].scale.reshape(-1, *[1] * (layer.weight.dim() - 1))
        wanted = torch.round(layer.weight.detach() / scale).numpy()
        codes = made[f"{path}.weight_quantized"].astype(int)
        if codes.shape != wanted.shape:  # a fully connected layer may be stored the other way round
            codes = codes.T
        gaps = np.abs(codes - wanted)
        assert gaps.max() <= 1  # a half is rounded this way or that
        assert (gaps > 0).mean() < 0.01


def test_layers_take_the_ranges_that_were_learned(
    net: nn.Sequential, fp32: Path, images: Images, tmp_path: Path
) -> None:
    fake = trained(net, images, Quantize())
    path = exported(fp32, fake, images, Quantization(), tmp_path / "int8.onnx")
    low, high = learned_ranges(fake.state_dict())["0"]
    assert constants(path)["images_scale"] == pytest.approx((high - low) / 255, rel=1e-5)
    assert high > 3  # of a normal distribution; a tenth of it was calibrated on


@pytest.mark.parametrize(("training", "layout"), LAYOUTS, ids=["uint8", "7 bits", "symmetric int8"])
def test_file_answers_as_the_student_did_in_training(
    net: nn.Sequential,
    fp32: Path,
    images: Images,
    infer: Callable[[Path, Images], Images],
    tmp_path: Path,
    training: Quantize,
    layout: Quantization,
) -> None:
    """Nearer to it than to the network without rounding; the logits are rounded in the file alone."""
    fake = trained(net, images, training)
    ranges = learned_ranges(fake.state_dict())
    Calibrated(fp32, images, Export(quantization=layout), ranges).quantize(tmp_path / "int8.onnx")
    answers = infer(tmp_path / "int8.onnx", images)
    with torch.no_grad():
        simulated = fake(torch.tensor(images)).numpy()
    assert output_error(simulated, answers)[1] < output_error(infer(fp32, images), answers)[1]
    assert output_error(simulated, answers)[0] < 0.02


def test_layer_that_the_file_does_not_have_is_left_out(fp32: Path, images: Images) -> None:
    """As where the network was cut short at an early exit."""
    calibrated = Calibrated(fp32, images, Export(), {"0": (-1.0, 1.0), "gone": (0.0, 9.0)})
    assert calibrated.layout.learned == 1
    assert "; 1 layers with the ranges that training for int8 left" in calibrated.layout.told()[0]
    assert calibrated.ranges["images"].range_value == (-1, 1)


def test_layer_that_is_called_twice_has_one_range_and_one_precision(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["images", "twice.weight"], ["a"], name="first"),
        helper.make_node("Conv", ["a", "twice.weight"], ["b"], name="second"),
        helper.make_node("Conv", ["b", "head.weight"], ["logits"], name="third"),
    ]
    weights = [
        numpy_helper.from_array(np.full((2, 2, 1, 1), 0.5, np.float32), name)
        for name in ("twice.weight", "head.weight")
    ]
    given, made = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2, 1, 1]) for name in ("images", "logits")
    )
    graph = helper.make_graph(nodes, "g", [given], [made], weights)
    save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(tmp_path / "net.onnx")
    )
    images = np.ones((4, 2, 1, 1), np.float32)
    calibrated = Calibrated(tmp_path / "net.onnx", images, Export(), {"twice": (-3.0, 5.0)})
    assert calibrated.layers == {"twice": ["first", "second"], "head": ["third"]}
    assert [calibrated.ranges[name].range_value for name in ("images", "a")] == [(-3, 5), (-3, 5)]
    calibrated.quantize(tmp_path / "int8.onnx", keep=["twice"])
    found = {node.name: node.input[1] for node in load(tmp_path / "int8.onnx").graph.node if node.op_type == "Conv"}
    assert [found[name] for name in ("first", "second")] == ["twice.weight", "twice.weight"]
    assert found["third"] != "head.weight"
