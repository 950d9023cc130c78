"""Layers: what the agent replies, the nodes behind their names, and their shares."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kdedge.core.deployment import Profile
from kdedge.core.errors import KdedgeError
from kdedge.engine.base import Backend, LayerTimes
from kdedge.engine.ort import OrtBackend
from kdedge.profile.agent import respond
from kdedge.profile.layer_costs import profile_layers
from kdedge.profile.layer_nodes import nodes_of_layers
from kdedge.profile.layers import COLD, summary
from kdedge.profile.measure import Model
from kdedge.profile.targets import LocalTarget


def test_first_queries_of_a_session_that_times_layers_are_left_out():
    layer = LayerTimes("conv", "Conv", ("conv",), [900.0] * COLD + [1.0, 2.0, 6.0])
    assert summary(layer) == {"name": "conv", "kind": "Conv", "nodes": ["conv"], "mean_ms": 3.0, "median_ms": 2.0}


def request(path, **more):
    asked = {"mode": "layers", "backend": "ort", "model": str(path), "options": {"threads": 1}, "batch": 2}
    return {**asked, "seconds": 0.02, "warmup_cap": 0.05, **more}


def test_layers_reply_holds_each_layer_beside_the_query_with_and_without_timing(linear):
    reply = respond(request(linear()))
    assert [(layer["name"], layer["kind"]) for layer in reply["layers"]] == [("MatMul_0", "MatMul")]
    assert reply["shapes"] == {"x": (2, 3)}
    assert 5 <= reply["queries"] <= 100
    assert 0 < reply["plain_ms"] < 1000
    assert 0 < reply["query_ms"] < 1000


def test_backend_that_does_not_time_layers_says_so(linear):
    untimed = type("Untimed", (OrtBackend,), {"_open_profiled": Backend._open_profiled})
    with pytest.raises(KdedgeError, match=r"layers of .*linear\.onnx: backend ort does not time them"):
        untimed().open_profiled(linear(), {"threads": 1})


def residual(tmp_path):
    """conv0, relu0 -> conv1 + short -> add -> relu1 -> quantize -> dequantize -> fc (no name, int8 weights)."""
    weight = numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "w")
    scales = [numpy_helper.from_array(np.float32(1), "s"), numpy_helper.from_array(np.uint8(0), "z")]
    nodes = [
        helper.make_node("DequantizeLinear", ["wq", "s"], ["wd"], name="fc_weight"),
        helper.make_node("Conv", ["x", "w"], ["c0"], name="conv0"),
        helper.make_node("Relu", ["c0"], ["r0"], name="relu0"),
        helper.make_node("Conv", ["r0", "w"], ["c1"], name="conv1"),
        helper.make_node("Conv", ["r0", "w"], ["c2"], name="short"),
        helper.make_node("Add", ["c1", "c2"], ["a"], name="add"),
        helper.make_node("Relu", ["a"], ["r1"], name="relu1"),
        helper.make_node("QuantizeLinear", ["r1", "s", "z"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="d"),
        helper.make_node("MatMul", ["d", "wd"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 4, 4]) for name in "xy"]
    packed = numpy_helper.from_array(np.ones((4, 4), np.int8), "wq")
    graph = helper.make_graph(nodes, "net", values[:1], values[1:], [weight, packed, *scales])
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("layers", "nodes"),
    [
        (["conv0", "relu0", "conv1", "short", "add", "relu1"],
         [["conv0"], ["relu0"], ["conv1"], ["short"], ["add"], ["relu1"]]),
        (["ReorderInput", "r0_nchwc", "c2_nchwc", "c1_nchwc", "ReorderOutput_token_3", "y"],
         [[], ["conv0", "relu0"], ["short"], ["conv1", "add", "relu1"], [], ["y"]]),
        (["fused conv0", "conv1_token_4", "short_token_11", "add", "y/MatMulAddFusion"],
         [["conv0", "relu0"], ["conv1"], ["short"], ["add", "relu1"], ["y"]]),
        (["InsertedPrecisionFreeCast_r0_nchwc", "conv1", "short", "relu1_token_2", "q", "y_quant"],
         [["conv0", "relu0"], ["conv1"], ["short", "add"], ["relu1"], ["q"], ["y"]]),
        (["{ForeignNode[...]}"], [[]]),
    ],
)  # fmt: skip
def test_layers_are_led_back_to_their_nodes_as_far_as_names_tell(tmp_path, layers, nodes):
    assert nodes_of_layers(layers, residual(tmp_path)) == nodes


class Replying(LocalTarget):
    def __init__(self, *layers, provider="CPUExecutionProvider"):
        self.layers, self.provider, self.requests = layers, provider, []

    def run(self, request):
        self.requests.append(request)
        layers = [
            {"name": name, "kind": kind, "nodes": nodes, "mean_ms": median + 0.5, "median_ms": median}
            for name, kind, nodes, median in self.layers
        ]
        answer = {"layers": layers, "queries": 100, "plain_ms": 4.5, "query_ms": 6.0, "shapes": {"x": [2, 3]}}
        answer["throttled"] = ["slowed down for heat"]
        return {**answer, "provider": self.provider, "options": {"threads": 1}, "device": {"match": {}, "note": {}}}


def layers_of(path, target, library="ort", onnx_file=None):
    return profile_layers(Model("net", path, onnx_file, library, {}, {}), Profile(threads=1), target)


def test_shares_are_of_the_medians_of_all_layers(tmp_path):
    path = residual(tmp_path)
    target = Replying(("conv0", "Conv", [], 3.0), ("ReorderOutput", "ReorderOutput", [], 2.0))
    report = layers_of(path, target, onnx_file=path)
    assert target.requests[0]["mode"] == "layers"
    assert [(layer.share, layer.nodes) for layer in report.layers] == [(0.6, ["conv0", "relu0"]), (0.4, [])]
    assert (report.batch, report.queries, report.total_ms) == (2, 100, 5.0)
    assert report.notes == [
        "layers add up to 5.000 ms of a query of 6.000 ms, which takes 4.500 ms when they are not timed",
        "ONNX Runtime counts whole microseconds for each layer",
        "1 of 2 layers have names that tell of no ONNX node",
        "slowed down for heat",
    ]


def test_nodes_that_the_library_tells_are_believed(tmp_path):
    target = Replying(("conv0 + relu0", "CaskConvolution", ["conv0", "relu0"], 2.0), provider="TensorRT")
    report = layers_of(residual(tmp_path), target, "trt", residual(tmp_path))
    assert report.layers[0].nodes == ["conv0", "relu0"]
    assert len(report.notes) == 2


def test_layers_that_take_no_time_have_no_share(linear):
    assert layers_of(linear(), Replying(("a", "Add", ["a"], 0.0))).layers[0].share == 0


def test_layers_are_measured_for_real(linear):
    path = linear()
    report = layers_of(path, LocalTarget(), onnx_file=path)
    assert [(layer.kind, layer.share, layer.nodes) for layer in report.layers] == [("MatMul", 1.0, [])]
    assert type(report).model_validate_json(report.model_dump_json()) == report
