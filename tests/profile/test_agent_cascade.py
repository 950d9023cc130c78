"""A cascade of two stages on the agent: what it answers, where images stop, and how it is asked."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kdedge.core.errors import KdedgeError, ModelError
from kdedge.profile.agent import respond
from kdedge.profile.targets import LocalTarget

# At exit 1 the logits are (4, 0) and (0.4, 0), so that class 0 has 0.982 and 0.599; exit 2 says class 1 of both.
IMAGES = np.array([[1, 0], [0.1, 0]], dtype=np.float32)


def linear(path: Path, takes: str, gives: dict[str, float]) -> None:
    """A model whose outputs are its input (n, 2) times a factor each."""
    factors = [numpy_helper.from_array(np.float32(value), f"{name}/factor") for name, value in gives.items()]
    nodes = [helper.make_node("Mul", [takes, f"{name}/factor"], [name]) for name in gives]
    shapes = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in (takes, *gives)}
    graph = helper.make_graph(nodes, "linear", [shapes[takes]], [shapes[name] for name in gives], factors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


@pytest.fixture
def request_of(tmp_path: Path):
    """request_of(threshold=0.9): what the agent is asked."""
    linear(tmp_path / "one.onnx", "images", {"stage1": 1, "exit1": 4})
    linear(tmp_path / "two.onnx", "stage1", {"logits": -1})
    stages = [
        {"model": "one.onnx", "input": "images", "feature": "stage1", "logits": "exit1"},
        {"model": "two.onnx", "input": "stage1", "feature": None, "logits": "logits"},
    ]
    record = {"schema_version": 1, "precision": "fp32", "backend": "ort", "options": {}, "threshold": None}
    (tmp_path / "cascade.json").write_text(json.dumps({**record, "stages": stages}))
    np.savez(tmp_path / "arrays.npz", images=IMAGES[[0, 1, 0, 1, 1]])
    asked = {
        "mode": "cascade",
        "backend": "ort",
        "model": str(tmp_path / "cascade.json"),
        "options": {"threads": 1},
        "threshold": 0.9,
        "arrays": str(tmp_path / "arrays.npz"),
        "images": 1000,
        "warmup_cap": 0.1,
    }
    return lambda **changes: {**asked, **changes}


def test_images_stop_where_they_are_sure(request_of) -> None:
    reply = LocalTarget().run(request_of())
    assert reply["ids"] == [0, 1, 2, 3, 4]
    assert reply["exits"] == [0, 1, 0, 1, 1]
    assert reply["labels"] == [0, 1, 0, 1, 1]
    assert len(reply["latency_ms"]) == 5
    assert min(reply["latency_ms"]) > 0
    assert sum(reply["latency_ms"]) < 1000  # milliseconds, not nanoseconds


@pytest.mark.parametrize(("threshold", "exits"), [(0.0, [0] * 5), (0.5, [0] * 5), (1.0, [1] * 5)])
def test_threshold_is_the_requests(request_of, threshold: float, exits: list[int]) -> None:
    assert respond(request_of(threshold=threshold))["exits"] == exits


def test_fewer_images_are_taken_evenly(request_of) -> None:
    assert respond(request_of(images=3))["ids"] == [0, 2, 4]


def test_arrays_without_images_are_an_error(request_of, tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", labels=np.zeros(3))
    with pytest.raises(ModelError, match=r"other\.npz: it has no 'images"):
        respond(request_of(arrays=str(tmp_path / "other.npz")))


def test_options_win_over_those_in_the_file(request_of) -> None:
    with pytest.raises(KdedgeError, match="option threads of backend ort"):
        respond(request_of(options={"threads": -1}))
