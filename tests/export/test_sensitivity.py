"""Which layers stay in float: on a network in which two are known to be ruined by int8."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kdedge.core.deployment import Export, Quantization
from kdedge.core.errors import ModelError
from kdedge.core.report import Sensitivity
from kdedge.export.arrays import Arrays
from kdedge.export.int8 import Calibrated
from kdedge.export.onnx import load
from kdedge.export.referee import ClassReferee
from kdedge.export.sensitivity import Judge, within_limit

CLASSES, COUNT, LOUD = 4, 200, 2000.0
RNG = np.random.default_rng(0)
LABELS = np.arange(COUNT) % CLASSES
IMAGES = (0.5 + 0.5 * np.eye(CLASSES)[LABELS] + RNG.uniform(-0.1, 0.1, (COUNT, CLASSES))).astype(np.float32)
IMAGES = IMAGES[:, :, None, None]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """`stem` copies its four channels; `loud` adds a fifth one, 2000 at every image, that `head` does not read.

    Whatever holds the fifth channel has steps of about 8 in int8, and the others are 0.4 to 1.1: all information is
    lost where `loud` gives its output in int8, and where `head` takes its input in int8.
    """
    loud = np.concatenate([np.eye(CLASSES), np.zeros((1, CLASSES))]).astype(np.float32)
    bias = np.array([0, 0, 0, 0, LOUD], np.float32)
    head = np.concatenate([np.eye(CLASSES), np.zeros((CLASSES, 1))], axis=1).astype(np.float32)
    constants = {
        "stem.weight": np.eye(CLASSES, dtype=np.float32)[:, :, None, None],
        "loud.weight": loud[:, :, None, None],
        "loud.bias": bias,
        "head.weight": head[:, :, None, None],
        "shape": np.array([0, -1]),
    }
    nodes = [
        helper.make_node("Conv", ["images", "stem.weight"], ["a"], "node1"),
        helper.make_node("Conv", ["a", "loud.weight", "loud.bias"], ["b"], "node2"),
        helper.make_node("Conv", ["b", "head.weight"], ["c"], "node3"),
        helper.make_node("Reshape", ["c", "shape"], ["logits"], "node4"),
    ]
    graph = helper.make_graph(
        nodes,
        "loud",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", CLASSES, 1, 1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    path = tmp_path / "loud.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


Judging = Callable[..., Judge]


@pytest.fixture
def judging(source: Path) -> Judging:
    def make(**quantization: str) -> Judge:
        export = Export(quantization=Quantization.model_validate(quantization))
        arrays = Arrays(IMAGES, LABELS, np.arange(COUNT))
        return Judge(Calibrated(source, IMAGES, export), arrays, ClassReferee())

    return make


def test_layers_are_called_as_their_modules(judging: Judging) -> None:
    assert judging().calibrated.layers == {"stem": ["node1"], "loud": ["node2"], "head": ["node3"]}


def test_errors_put_the_layers_that_lose_information_first(judging: Judging) -> None:
    errors = judging().errors()
    assert set(list(errors)[:2]) == {"loud", "head"}
    assert list(errors.values()) == sorted(errors.values(), reverse=True)
    assert errors["stem"] < 1e-3 < 0.05 < errors["head"]


def test_as_few_layers_as_it_takes_are_left_in_float(judging: Judging) -> None:
    judge = judging()
    found = within_limit(judge, 0.01, "validation")
    assert set(found.left_in_float) == {"loud", "head"}
    assert found.drop_everywhere == pytest.approx(0.75)  # every image is given the same class
    assert found.drop == 0
    assert judge.drop(found.left_in_float[:1]) > 0.01
    assert found.told()[0].startswith("int8 everywhere loses 75.00 points of 200 validation images, with ")


def test_nothing_is_left_in_float_where_int8_is_good_enough(judging: Judging) -> None:
    found = within_limit(judging(), 0.8, "validation")
    assert (found.left_in_float, found.errors, found.told()) == ([], {}, [])
    assert found.drop == found.drop_everywhere == pytest.approx(0.75)


def test_limit_that_no_layer_in_int8_keeps_is_refused(judging: Judging, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = judging()
    monkeypatch.setattr(judge, "drop", lambda keep: 0.5)
    with pytest.raises(ModelError, match=r"^int8 loses more than 1 points with all but one layer in float: everywhere"):
        within_limit(judge, 0.01, "validation")


@pytest.mark.parametrize(("rest", "kind"), [("fp32", TensorProto.FLOAT), ("fp16", TensorProto.FLOAT16)])
def test_layers_left_in_float_have_the_type_that_is_asked_for(
    judging: Judging, tmp_path: Path, rest: str, kind: int
) -> None:
    judge, path = judging(rest=rest), tmp_path / "mixed.onnx"
    judge.calibrated.quantize(path, keep=["loud", "head"])
    graph = load(path).graph
    weights = {value.name: value.data_type for value in graph.initializer}
    assert [weights["loud.weight"], weights["head.weight"]] == [kind, kind]
    dequantized = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    stem = next(node for node in graph.node if node.op_type == "Conv" and set(node.input) <= dequantized)
    assert not any(node.op_type == "Cast" and set(node.output) & set(stem.input) for node in graph.node)
    assert judge.drop(["loud", "head"]) == 0


def test_report_without_layers_left_in_float_says_nothing() -> None:
    assert Sensitivity(images=1, split="validation", limit=0.1, drop_everywhere=0.0, drop=0.0).told() == []
