"""What is read of a built engine: types, fused nodes, and the split between GPU and accelerator."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kdedge.core.errors import ModelError
from kdedge.engine import trt_layers
from kdedge.engine.trt_layers import Layer, check_types, count, describe_layers, from_inspector, from_log, read_layers

# As TensorRT 8.5 and 8.6 say it: a quantizing copy, an int8 convolution, an fp16 pooling and a copy.
LOG = """\
Name: QuantizeLinear_2, LayerType: Reformat, Inputs: [ { Name: image, Location: Device, Dimensions: [1,3,8,8], \
Format/Datatype: Row major linear FP32 }], Outputs: [ { Name: q, Format/Datatype: Row major Int8 format }]
Name: w + Conv_9, LayerType: CaskConvolution, Inputs: [ { Name: (Unnamed Layer* 1) [Shuffle]_output, \
Format/Datatype: Four wide channel vectorized row major Int8 format }], Outputs: [ { Name: c }], TacticName: fp32_i8
Name: Pool_1, LayerType: CaskPooling, Inputs: [ { Name: c, Format/Datatype: Channel major FP16 format where \
channel % 8 == 0 }], Outputs: [ { Name: p }]
Name: out, LayerType: NoOp, Inputs: [ { Name: p, Format/Datatype: Row major linear FP16 format }], Outputs: [ ]
"""


def test_layers_are_counted_by_the_type_they_take_without_those_that_move() -> None:
    layers = list(from_log(LOG))
    assert count(layers) == {"int8": 1, "fp16": 1}
    assert [layer.precision for layer in layers] == ["", "int8", "fp16", ""]
    assert [layer.nodes for layer in layers] == [(), ("w", "Conv_9"), (), ()]


def test_inspector_is_read_in_either_spelling_and_named_layers_are_passed_over() -> None:
    conv = {"Name": "c", "LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": "Half"}]}
    gemm = {"Name": "g", "LayerType": "gemm", "Inputs": [{"Datatype": "Int8", "Format": "Row major linear"}]}
    cast = {"Name": "__myl_CastReplConc_myl0_1", "LayerType": "kgen", "Inputs": [{"Datatype": "Float"}]}
    dequantize = {"Name": "__myl_CastMul_myl0_2", "LayerType": "kgen", "Inputs": [{"Datatype": "Int8"}]}
    shapes = {"Name": "s", "LayerType": "gather", "Inputs": [{"Datatype": "Int64"}]}
    text = json.dumps({"Layers": [conv, gemm, cast, dequantize, shapes, "only a name"]})
    assert count(from_inspector(text)) == {"fp16": 1, "int8": 1}


# As TensorRT 10 and 11 say it: the ONNX nodes are in the metadata, whatever the layer is called.
NEW_LOG = (
    "Name: stem_myl0_2, LayerType: correlation, "
    "Inputs: [ { Name: b, Dimensions: [-1,3,8,8], Datatype: Half, Format: x }], "
    "Constants: [ { Name: w, Datatype: Float }], Outputs: [ { Name: d, Datatype: Half }], TacticName: t, StreamId: 0, "
    "Metadata: [ONNX Layer: stem]\x1f[ONNX Layer: relu, [1]]\n"
    "Name: __myl_Move_myl0_3, LayerType: kgen, Inputs: [ { Name: d, Datatype: Half }], Constants: [], Outputs: [], "
    "TacticName: m, StreamId: 0, Metadata: \n"
)


def test_nodes_of_a_fused_layer_are_those_of_its_metadata() -> None:
    assert list(from_log(NEW_LOG)) == [
        Layer("stem_myl0_2", "correlation", "fp16", ("stem", "relu, [1]")),
        Layer("__myl_Move_myl0_3", "kgen", "", ()),
    ]
    described = describe_layers(list(from_log(NEW_LOG)))
    assert (described["precision"], described["fused_layers"]) == ({"fp16": 1}, 1)
    assert described["layers"][0]["nodes"] == ("stem", "relu, [1]")


def opened(text: str | None) -> Any:
    """TensorRT with an engine of these layers, or one that it does not open."""
    inspector = SimpleNamespace(get_engine_information=lambda form: text)
    engine = SimpleNamespace(create_engine_inspector=lambda: inspector) if text else None
    return SimpleNamespace(
        ILogger=type("ILogger", (), {"ERROR": 1, "INTERNAL_ERROR": 2}),
        Runtime=lambda log: SimpleNamespace(deserialize_cuda_engine=lambda content: engine),
        LayerInformationFormat=SimpleNamespace(JSON=1),
    )


def test_engine_is_asked_on_a_gpu_and_the_log_where_it_does_not_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    conv = {"Name": "c", "LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": "Int8"}]}
    conv["Metadata"] = "[ONNX Layer: a]\x1e[ONNX Layer: b]"
    path, text = tmp_path / "net.engine", json.dumps({"Layers": [conv], "Bindings": ["x"]})
    path.write_bytes(b"engine")
    monkeypatch.setattr(trt_layers, "gpu", lambda: "Orin 8.7")
    assert read_layers(opened(text), path, LOG) == [Layer("c", "CaskConvolution", "int8", ("a", "b"))]
    assert read_layers(opened(None), path, LOG) == list(from_log(LOG))


@pytest.mark.parametrize(
    ("asked", "built", "fine"),
    [
        (set(), {"fp32": 3}, True),
        ({"fp16"}, {"fp16": 2, "fp32": 1}, True),
        ({"fp16"}, {"fp32": 3}, False),
        ({"int8"}, {"fp32": 3}, False),
        ({"int8", "fp16"}, {"fp16": 3}, False),
        ({"int8", "fp16"}, {"int8": 3}, True),
        ({"int8"}, {}, True),
    ],
)
def test_types_asked_for_are_compared_with_those_built(asked: set[str], built: dict[str, int], fine: bool) -> None:
    if fine:
        check_types(Path("net.onnx"), asked, built)
    else:
        with pytest.raises(ModelError, match=r"net\.onnx was asked for in "):
            check_types(Path("net.onnx"), asked, built)
