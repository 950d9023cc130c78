"""The backend and TensorRT's own parser and builder, which need no GPU."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import realtrt
from onnx import TensorProto, helper

from kdedge.core.errors import MissingTool, ModelError
from kdedge.engine import trt as module
from kdedge.engine.base import backend
from kdedge.engine.sidecar import sha256_file, sidecar_path
from kdedge.engine.trt_build import batch_profile, describe, network_flags

MakeNet = Callable[..., Path]
Needs = Callable[[object, str], None]


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "gpu", lambda: "")


# The network is a convolution, a depthwise one, a pooling and a classifier, ReLUs fused into the convolutions.
@pytest.mark.parametrize(
    ("precision", "counted"), [("fp32", {"fp32": 4}), ("fp16", {"fp16": 4}), ("symmetric int8", {"int8": 3})]
)
def test_engine_of_each_precision_computes_in_it(
    needs: Needs, make_net: MakeNet, tmp_path: Path, precision: str, counted: dict[str, int]
) -> None:
    source = make_net(precision)
    sidecar = realtrt.build(needs, source, tmp_path / "net.engine", max_batch=16)
    built = sidecar["precision"]
    if precision == "symmetric int8":
        assert built.pop("fp32") > 0  # what quantizes between the layers
    assert built == counted
    assert sidecar["engine_sha256"] == sha256_file(tmp_path / "net.engine")
    assert sidecar["onnx_sha256"] == sha256_file(source)
    assert sidecar["options"] == backend("trt").settings({"max_batch": 16})
    assert (sidecar["flags"], sidecar["weakly_typed"]) == ([], False)
    assert sidecar["fused_layers"] >= 1
    nodes = {node for layer in sidecar["layers"] for node in layer["nodes"]}
    assert {"node_of_a", "node_of_c"} <= nodes or precision == "symmetric int8"
    assert set(sidecar["versions"]) == {"tensorrt", "gpu"}


def one_node(path: Path, operator: str, shape: list[Any], **attributes: Any) -> Path:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node(operator, ["a"], ["y"], "last", **attributes)]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("acme", 1)]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [x], [y]), opset_imports=opsets, ir_version=8), path)
    return path


def test_open_batch_runs_from_one_image_whatever_it_is_tuned_for() -> None:
    """The last rows of a data set, and images that go through a cascade, come one by one."""
    shapes: list[tuple[Any, ...]] = []
    profile = SimpleNamespace(set_shape=lambda *given: shapes.append(given))
    builder = SimpleNamespace(create_optimization_profile=lambda: profile)
    network = SimpleNamespace(num_inputs=1, get_input=lambda _: SimpleNamespace(name="images", shape=(-1, 3, 8, 8)))
    settings = backend("trt").settings({"opt_batch": 2, "max_batch": 4})
    assert batch_profile(Path("net.onnx"), builder, network, settings) is profile
    assert shapes == [("images", (1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))]


def test_static_batch_needs_no_profile(needs: Needs, tmp_path: Path) -> None:
    path = one_node(tmp_path / "static.onnx", "Softmax", [2, 8])
    assert realtrt.build(needs, path, tmp_path / "net.engine")["precision"] == {"fp32": 1}


@pytest.mark.parametrize(
    ("operator", "attributes", "said"),
    [
        ("Det", {}, "Det node 'last': unsupported node"),
        ("Twirl", {"domain": "acme"}, "Twirl node 'last': invalid node, .*Plugin not found"),
    ],
)
def test_operator_that_there_is_not_is_named_with_its_node(
    needs: Needs, tmp_path: Path, operator: str, attributes: dict[str, Any], said: str
) -> None:
    path = one_node(tmp_path / "odd.onnx", operator, [1, 4, 4], **attributes)
    with pytest.raises(ModelError, match=rf"TensorRT does not take \S*odd.onnx: {said}"):
        realtrt.build(needs, path, tmp_path / "net.engine")
    assert not (tmp_path / "net.engine").exists()


def test_quantization_for_onnxruntime_is_refused_with_what_to_change(
    needs: Needs, make_net: MakeNet, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"DequantizeLinear node '.*has type Int32") as caught:
        realtrt.build(needs, make_net("int8"), tmp_path / "net.engine")
    assert caught.value.fix.startswith("kdedge export --preset tensorrt ")
    assert "CUDA" not in str(caught.value)


def test_axis_other_than_the_batch_may_not_be_open(needs: Needs, tmp_path: Path) -> None:
    path = one_node(tmp_path / "open.onnx", "Softmax", ["batch", "any"])
    with pytest.raises(ModelError, match=r"input x \[\?, \?\] of .*: only its first axis, the batch, may be open"):
        realtrt.build(needs, path, tmp_path / "net.engine")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x08\x08\x12", "the file: model deserialize failed, .*Failed to parse the ONNX model"),
        (b"hello", "TensorRT builds no engine from .*: .*Network must have at least one output"),
    ],
    ids=["truncated", "text"],
)
def test_file_that_is_no_model_is_refused(needs: Needs, tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=said):
        realtrt.build(needs, tmp_path / "broken.onnx", tmp_path / "net.engine")


def test_failed_build_leaves_the_earlier_engine(needs: Needs, make_net: MakeNet, tmp_path: Path) -> None:
    realtrt.build(needs, make_net("fp32"), tmp_path / "net.engine")
    before = sha256_file(tmp_path / "net.engine")
    with pytest.raises(ModelError):
        realtrt.build(needs, one_node(tmp_path / "odd.onnx", "Det", [1, 4, 4]), tmp_path / "net.engine")
    assert sha256_file(tmp_path / "net.engine") == before
    assert sorted(path.name for path in tmp_path.iterdir() if "engine" in path.name) == [
        "net.engine",
        "net.engine.json",
    ]


def test_missing_tensorrt_names_the_extra_and_what_a_jetson_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingTool, match=r"tensorrt is not installed: backend trt needs it") as caught:
        backend("trt").versions()
    assert 'pip install "kdedge[tensorrt]"' in caught.value.fix
    assert "JetPack" in caught.value.fix


def test_tensorrt_without_its_library_is_a_missing_tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.11: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(MissingTool, match=r"does not load: libnvinfer\.so\.11"):
        backend("trt").versions()


@pytest.mark.usefixtures("without_gpu")
def test_engine_built_here_is_not_opened_without_a_gpu(
    needs: Needs, make_net: MakeNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tmp_path / "net.engine"
    sidecar = realtrt.build(needs, make_net("fp32"), engine)
    monkeypatch.setattr(module, "_tensorrt", lambda: SimpleNamespace(__version__=sidecar["versions"]["tensorrt"]))
    sidecar["versions"]["gpu"] = "none"
    sidecar_path(engine).write_text(json.dumps(sidecar))
    with pytest.raises(MissingTool, match=r"was built here, but does not run here: no NVIDIA GPU on this machine"):
        backend("trt").open(engine, {})
    sidecar["versions"]["gpu"] = "Orin 8.7"
    sidecar_path(engine).write_text(json.dumps(sidecar))
    with pytest.raises(ModelError, match=r"versions\.gpu: built with Orin 8\.7, here none\n  kdedge export --trt"):
        backend("trt").open(engine, {})


def test_onnx_file_is_not_opened_as_it_is(make_net: MakeNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_tensorrt", lambda: SimpleNamespace(__version__="11"))
    with pytest.raises(ModelError, match=r"TensorRT opens engines \(\*\.engine\) only"):
        backend("trt").open(make_net("fp32"), {})


def members(**values: int) -> Any:
    """An enumeration of TensorRT's."""
    return SimpleNamespace(**values)


@pytest.mark.parametrize(
    ("flags", "bits"),
    [
        ({"EXPLICIT_BATCH": 0}, 0b1),
        ({"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}, 0b11),
        ({"STRONGLY_TYPED": 0}, 0b1),
    ],
    ids=["8.6", "10.3", "11.4"],
)
def test_network_flags_are_those_that_the_version_has(flags: dict[str, int], bits: int) -> None:
    trt = SimpleNamespace(NetworkDefinitionCreationFlag=members(**flags))
    assert network_flags(trt, weak=False) == bits
    assert network_flags(trt, weak=True) == (1 if "EXPLICIT_BATCH" in flags else 0)


def test_parser_error_of_a_version_that_names_no_nodes_has_the_nodes_number() -> None:
    code = SimpleNamespace(name="UNSUPPORTED_NODE")
    error = SimpleNamespace(node=lambda: 7, code=lambda: code, desc=lambda: "No importer registered for op: Det")
    assert describe(error) == "node 7: unsupported node, No importer registered for op: Det"
