import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxsim
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn

from kdedge.core.errors import ModelError
from kdedge.export.onnx import at_opset, load, opset_of, read_metadata

Write = Callable[..., Path]
Infer = Callable[[Path, NDArray[Any]], NDArray[np.float32]]


def logits(net: nn.Module, images: NDArray[np.float32]) -> NDArray[np.float32]:
    training = [module for module in net.modules() if module.training]
    net.eval()
    with torch.no_grad():
        result = net(torch.from_numpy(images)).numpy()
    for module in training:
        module.training = True
    return result


@pytest.mark.parametrize("count", [1, 5, 64])
def test_export_computes_what_the_model_does_in_eval_mode(
    net: nn.Sequential, fp32: Path, images: NDArray[np.float32], infer: Infer, count: int
) -> None:
    np.testing.assert_allclose(infer(fp32, images[:count]), logits(net, images[:count]), atol=1e-5)


def test_export_leaves_the_model_as_it_was(net: nn.Sequential, fp32: Path, write: Write, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net[1].eval()
    try:
        modes = [module.training for module in net.modules()]
        write(net, tmp_path / "model.onnx")
        assert [module.training for module in net.modules()] == modes
    finally:
        net[1].train()
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_export_folds_batch_norm_into_the_convolution(net: nn.Sequential, fp32: Path) -> None:
    graph = load(fp32).graph
    assert [node.op_type for node in graph.node].count("Conv") == 5
    assert "BatchNormalization" not in {node.op_type for node in graph.node}
    conv, norm = net[0], net[1]
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    weights = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    first = next(node for node in graph.node if node.op_type == "Conv")
    np.testing.assert_allclose(weights[first.input[1]], conv.weight.detach() * scale[:, None, None, None], rtol=1e-5)
    np.testing.assert_allclose(weights[first.input[2]], norm.bias.detach() - norm.running_mean * scale, rtol=1e-4)


def test_export_fixes_the_batch_at_one_when_it_is_not_dynamic(
    net: nn.Sequential, write: Write, infer: Infer, images: NDArray[np.float32], tmp_path: Path
) -> None:
    path = write(net, tmp_path / "model.onnx", dynamic_batch=False)
    assert [dim.dim_value for dim in load(path).graph.input[0].type.tensor_type.shape.dim] == [1, 3, 16, 16]
    np.testing.assert_allclose(infer(path, images[:3]), logits(net, images[:3]), atol=1e-5)


@pytest.mark.parametrize("opset", [17, 21])
def test_export_writes_the_opset_asked_for(
    net: nn.Sequential, write: Write, infer: Infer, images: NDArray[np.float32], tmp_path: Path, opset: int
) -> None:
    path = write(net, tmp_path / "model.onnx", opset=opset)
    assert [(entry.domain, entry.version) for entry in onnx.load(path).opset_import] == [("", opset)]
    assert read_metadata(path)["opset"] == opset
    np.testing.assert_allclose(infer(path, images[:5]), logits(net, images[:5]), atol=1e-5)


class Halves(nn.Module):
    """Its Split has no form in opset 17 that the converter knows."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 7, 16)

    def forward(self, images: Tensor) -> Tensor:
        left, right = self.body(images).flatten(1).relu().split([3, 4], dim=1)
        return torch.cat([right, left], dim=1)


def test_export_refuses_an_opset_that_the_graph_cannot_be_lowered_to(write: Write, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"export.opset 17: .*Split\n  --set export.opset=18"):
        write(Halves(), tmp_path / "model.onnx", opset=17)


def test_another_opset_than_the_one_asked_for_is_an_error(fp32: Path) -> None:
    assert opset_of(load(fp32)) == 18
    with pytest.raises(ModelError, match=r"export\.opset 20: the exporter wrote 18"):
        at_opset(load(fp32), 20)


def test_export_says_in_the_model_what_a_user_must_know(fp32: Path, pixels_fp32: Path) -> None:
    found = read_metadata(fp32)
    assert found.pop("exporter").startswith("torch 2.")
    assert found.pop("producer").startswith("kdedge ")
    assert found == {
        "labels": ["ant", "bee", "cat", "dog", "elk", "fox", "gnu"],
        "image_shape": [3, 16, 16],
        "layout": "NCHW",
        "dtype": "float32",
        "preprocess": False,
        "normalize": {"mean": [0.48, 0.45, 0.40], "std": [0.23, 0.22, 0.25]},
        "opset": 18,
        "precision": "fp32",
    }
    pixels = read_metadata(pixels_fp32)
    assert (pixels["layout"], pixels["dtype"], pixels["preprocess"]) == ("NHWC", "uint8", True)
    assert "uint8 NHWC, pixels of any size" in load(pixels_fp32).doc_string


def test_export_names_no_source_file_of_this_machine(fp32: Path) -> None:
    content = fp32.read_bytes()
    assert b".py" not in content
    assert str(Path(__file__).parents[2]).encode() not in content


def test_export_is_silent_and_leaves_one_file(
    net: nn.Sequential, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(net, tmp_path / "out" / "model.onnx", preprocess=True)
    assert capfd.readouterr() == ("", "")
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*")] == [Path("out"), Path("out/model.onnx")]


class Fickle(nn.Module):
    """What it computes depends on the values, which no graph can hold."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :7] if images.sum() > 0 else -images.flatten(1)[:, :7]


def test_failed_export_keeps_the_earlier_file(write: Write, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("earlier")
    with pytest.raises(ModelError, match="Fickle cannot be exported to ONNX: "):
        write(Fickle(), path)
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_export_refuses_a_model_with_another_number_of_classes(write: Write, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"it should have .*'logits', 'batch', 7"):
        write(nn.Sequential(nn.Flatten(), nn.Linear(768, 5)), tmp_path / "model.onnx")


def test_export_refuses_a_simplification_that_changes_the_outputs(
    net: nn.Sequential, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(graph: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
        wrong = onnx.ModelProto()
        wrong.CopyFrom(graph)
        bias = next(value for value in wrong.graph.initializer if list(value.dims) == [7])
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 0.1, bias.name))
        return wrong, True

    monkeypatch.setattr(onnxsim, "simplify", careless)
    with pytest.raises(ModelError, match="simplifying the ONNX graph changed its outputs"):
        write(net, tmp_path / "model.onnx")


@pytest.mark.parametrize("content", [None, b"", b"not a model", "half"], ids=["missing", "empty", "text", "truncated"])
def test_read_metadata_refuses_what_is_not_a_model(fp32: Path, tmp_path: Path, content: bytes | str | None) -> None:
    path = tmp_path / "broken.onnx"
    if content is not None:
        whole = fp32.read_bytes()
        path.write_bytes(content if isinstance(content, bytes) else whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"broken\.onnx"):
        read_metadata(path)


def test_read_metadata_is_empty_for_a_model_of_others(tmp_path: Path) -> None:
    value = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "theirs", value[:1], value[1:])
    model = helper.make_model(graph, producer_name="theirs")
    helper.set_model_props(model, {"names": json.dumps(["a"])})
    onnx.save(model, tmp_path / "theirs.onnx")
    assert read_metadata(tmp_path / "theirs.onnx") == {}
