"""Cascades of hand-made stages.

An image is one row (a, b, c) of numbers; exit k gives the logits (its kth number, 0), and each stage hands the row on
with one added to every number, which the next one takes away again.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from kdedge.core.errors import KdedgeError, ModelError
from kdedge.engine.base import Session, backend
from kdedge.engine.cascade import Cascade, Link, cascade_record, confidence, open_cascade, set_threshold

Rows = NDArray[np.float32]
WIDTH = 3
LN3 = float(np.log(3))  # the first of the logits (ln 3, 0) has the probability 3/4


def stage_model(number: int, batch: int | str, pixels: bool) -> onnx.ModelProto:
    """Stage 1, 2 or 3; `pixels`: the first one takes whole numbers as uint8."""
    entry, last = "images" if number == 1 else f"stage{number - 1}", number == WIDTH
    taken = TensorProto.UINT8 if pixels and number == 1 else TensorProto.FLOAT
    pick = np.zeros((WIDTH, 2), np.float32)
    pick[number - 1, 0] = 1
    constants = {"less": np.float32(0 if number == 1 else -1), "more": np.float32(1), "pick": pick}
    logits = "logits" if last else f"exit{number}"
    nodes = [
        helper.make_node("Cast", [entry], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["float", "less"], ["row"]),
        helper.make_node("MatMul", ["row", "pick"], [logits]),
    ]
    outputs = [helper.make_tensor_value_info(logits, TensorProto.FLOAT, [batch, 2])]
    if not last:
        nodes.append(helper.make_node("Add", ["row", "more"], [f"stage{number}"]))
        outputs.append(helper.make_tensor_value_info(f"stage{number}", TensorProto.FLOAT, [batch, WIDTH]))
    graph = helper.make_graph(
        nodes,
        "stage",
        [helper.make_tensor_value_info(entry, taken, [batch, WIDTH])],
        outputs,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """make(threshold, batch=, pixels=) -> the cascade's JSON, engines beside it."""

    def build(threshold: float | None = None, batch: int | str = "batch", pixels: bool = False) -> Path:
        links = []
        for number in range(1, WIDTH + 1):
            name = f"cascade{number}.fp32"
            onnx.save(stage_model(number, batch, pixels), tmp_path / f"{name}.onnx")
            backend("ort").build(tmp_path / f"{name}.onnx", tmp_path / f"{name}.engine.onnx", {"threads": 1})
            entry, feature = "images" if number == 1 else f"stage{number - 1}", f"stage{number}"
            last = number == WIDTH
            links.append(
                Link(
                    f"{name}.engine.onnx",
                    entry,
                    None if last else feature,
                    "logits" if last else f"exit{number}",
                )
            )
        record = cascade_record("fp32", "ort", {"threads": 1}, links) | {"threshold": threshold}
        (tmp_path / "cascade.fp32.json").write_text(json.dumps(record))
        return tmp_path / "cascade.fp32.json"

    return build


def rows(*values: tuple[float, float, float]) -> Rows:
    return np.array(values, dtype=np.float32)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """How many rows each stage model was run on, query by query."""
    seen: dict[str, list[int]] = {}
    run = Session.run

    def watched(self: Session, feeds: dict[str, Any]) -> dict[str, Any]:
        seen.setdefault(self.model[:8], []).append(len(next(iter(feeds.values()))))
        return run(self, feeds)

    monkeypatch.setattr(Session, "run", watched)
    return seen


def test_each_image_stops_at_the_first_exit_that_is_sure(make: Make, computed: dict[str, list[int]]) -> None:
    """At 0.7 a logit of ln 3 (0.75) is enough and one of 0.5 (0.62) is not."""
    images = rows((0.5, LN3, 9), (LN3, 0, 9), (0.5, 0.5, 0.25), (9, 0, 0), (-9, 0, 0))
    with open_cascade(make()) as cascade:
        answer = cascade.run(images, 0.7)
    assert answer.exit.tolist() == [1, 0, 2, 0, 0]
    np.testing.assert_allclose(answer.logits, [[LN3, 0], [LN3, 0], [0.25, 0], [9, 0], [-9, 0]], atol=1e-6)
    assert computed == {"cascade1": [5], "cascade2": [2], "cascade3": [1]}


def test_stages_behind_a_sure_exit_do_not_run_at_all(make: Make, computed: dict[str, list[int]]) -> None:
    with open_cascade(make()) as cascade:
        assert cascade.run(rows((9, 0, 0)), 0.9).exit.tolist() == [0]
        assert computed == {"cascade1": [1]}
        assert cascade.run(rows((0, 9, 0)), 0.9).exit.tolist() == [1]
    assert computed == {"cascade1": [1, 1], "cascade2": [1]}


def test_confidence_equal_to_the_threshold_is_enough(make: Make) -> None:
    """Logits (0, 0) are sure to exactly one half."""
    images = rows((0, 0, 0))
    with open_cascade(make()) as cascade:
        assert cascade.run(images, 0.5).exit.tolist() == [0]
        assert cascade.run(images, float(np.nextafter(0.5, 1))).exit.tolist() == [2]


@pytest.mark.parametrize(("threshold", "exit_"), [(0.0, 0), (1.0, 2), (1.1, 2)])
def test_extreme_thresholds_stop_all_at_the_first_or_the_last_exit(make: Make, threshold: float, exit_: int) -> None:
    with open_cascade(make()) as cascade:
        assert cascade.run(rows((3, 2, 1), (-3, 9, 2)), threshold).exit.tolist() == [exit_] * 2


def test_threshold_of_one_is_reached_by_a_probability_that_rounds_to_one(make: Make) -> None:
    with open_cascade(make()) as cascade:
        assert cascade.run(rows((100, 0, 0)), 1.0).exit.tolist() == [0]


def test_threshold_is_the_files_unless_one_is_given(make: Make) -> None:
    images = rows((LN3, 9, 0))
    with open_cascade(make(0.8)) as cascade:
        assert cascade.threshold == 0.8
        assert cascade.run(images).exit.tolist() == [1]
        assert cascade.run(images, 0.7).exit.tolist() == [0]
        assert cascade.run(images, 0.0).exit.tolist() == [0]


def test_set_threshold_changes_nothing_else(make: Make, tmp_path: Path) -> None:
    path = make()
    changed(path, note="of somebody's own")
    before, files = json.loads(path.read_text()), sorted(tmp_path.iterdir())
    set_threshold(path, 0.8)
    assert json.loads(path.read_text()) == {**before, "threshold": 0.8}
    assert sorted(tmp_path.iterdir()) == files
    with open_cascade(path) as cascade:
        assert cascade.threshold == 0.8
        assert cascade.run(rows((LN3, 9, 0))).exit.tolist() == [1]


def test_without_any_threshold_nothing_is_run(make: Make, computed: dict[str, list[int]]) -> None:
    with open_cascade(make()) as cascade, pytest.raises(KdedgeError, match=r"cascade\.fp32\.json has no threshold"):
        cascade.run(rows((1, 2, 3)))
    assert computed == {}


def test_exits_gives_the_logits_of_all_and_stops_nothing(make: Make) -> None:
    with open_cascade(make(0.0)) as cascade:
        assert cascade.names == ["exit1", "exit2", "logits"]
        logits = cascade.exits(rows((9, 2, 3), (4, 5, 6)))
    assert logits.tolist() == [[[9, 0], [4, 0]], [[2, 0], [5, 0]], [[3, 0], [6, 0]]]
    assert logits.dtype == np.float32


@pytest.mark.parametrize("batch", ["batch", 1, 4])
def test_batches_of_any_size_keep_the_order_of_images(make: Make, batch: int | str) -> None:
    """600 images, more than are run at a time: every third stops at each exit, with its own number as its logit."""
    images = np.full((600, WIDTH), 0, np.float32)
    images[np.arange(600), np.arange(600) % 3] = 10 + np.arange(600) % 50
    with open_cascade(make(batch=batch)) as cascade:
        answer = cascade.run(images, 0.9)
        every = cascade.exits(images[:10])
    assert answer.exit.tolist() == [n % 3 for n in range(600)]
    np.testing.assert_allclose(answer.logits[:, 0], 10 + np.arange(600) % 50, atol=1e-5)
    np.testing.assert_allclose(every[:, :, 0], images[:10].T, atol=1e-5)


def test_fixed_batch_of_one_is_run_row_by_row(make: Make, computed: dict[str, list[int]]) -> None:
    with open_cascade(make(batch=1)) as cascade:
        cascade.run(rows((0, 9, 0), (9, 0, 0), (0, 0, 9)), 0.9)
    assert computed == {"cascade1": [1, 1, 1], "cascade2": [1, 1], "cascade3": [1]}


def test_pixels_go_into_the_first_stage_as_they_are(make: Make) -> None:
    with open_cascade(make(pixels=True)) as cascade:
        answer = cascade.run(np.array([[0, 200, 0], [255, 0, 0]], np.uint8), 0.9)
        with pytest.raises(ModelError, match="uint8"):
            cascade.run(rows((1, 2, 3)), 0.9)
    assert answer.exit.tolist() == [1, 0]
    assert answer.logits.tolist() == [[200, 0], [255, 0]]


def test_outputs_that_are_no_numbers_are_never_sure(make: Make) -> None:
    with open_cascade(make()) as cascade:
        answer = cascade.run(rows((np.nan, 9, 0), (9, 0, 0)), 0.0)
    assert answer.exit.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("logits", "sure"), [((LN3, 0), 0.75), ((0, 0), 0.5), ((5000, 0), 1), ((-5000, 0), 1), ((-np.inf, 0), 1)]
)
def test_confidence_is_the_largest_softmax_probability(logits: tuple[float, float], sure: float) -> None:
    assert confidence(np.array([logits], np.float32)) == pytest.approx(sure)


def changed(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "cannot be read"),
        ("[]", "not as kdedge writes it"),
        ("{}", "not as kdedge writes it"),
        ('{"schema_version": 1, "stages": []}', "not as kdedge writes it"),
    ],
)
def test_broken_file_is_an_error_that_says_how_to_write_it_again(make: Make, text: str, told: str) -> None:
    path = make()
    path.write_text(text)
    with pytest.raises(ModelError, match=rf"cascade\.fp32\.json.*{told}.*\n  kdedge export --exit all"):
        open_cascade(path)


@pytest.mark.parametrize("keys", [{"schema_version": 2}, {"stages": []}, {"threshold": "0.9"}, {"threshold": True}])
def test_values_that_kdedge_does_not_write_are_an_error(make: Make, keys: dict[str, Any]) -> None:
    path = make()
    changed(path, **keys)
    with pytest.raises(ModelError, match="schema_version, stages or threshold"):
        open_cascade(path)


def test_missing_file_or_stage_is_an_error(make: Make, tmp_path: Path) -> None:
    path = make()
    with pytest.raises(ModelError, match=r"cascade .*none\.json: there is no such file"):
        open_cascade(tmp_path / "none.json")
    (tmp_path / "cascade2.fp32.engine.onnx").unlink()
    with pytest.raises(ModelError, match=r"cascade2\.fp32\.engine\.onnx: there is no such file"):
        open_cascade(path)


def test_unknown_backend_is_an_error(make: Make) -> None:
    path = make()
    changed(path, backend="orr")
    with pytest.raises(KdedgeError, match="did you mean 'ort'"):
        open_cascade(path)


def test_stages_in_another_order_do_not_fit(make: Make) -> None:
    path = make()
    stages = json.loads(path.read_text())["stages"]
    stages[0]["model"], stages[1]["model"] = stages[1]["model"], stages[0]["model"]
    changed(path, stages=stages)
    with pytest.raises(ModelError, match=r"cascade2.* does not fit its cascade: it takes stage1 and gives exit2"):
        open_cascade(path)


def test_stages_are_closed_when_a_later_one_fails_to_open(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    path = make()
    monkeypatch.setattr("kdedge.engine.ort.OrtSession.close", lambda self: closed.append(self.model))
    (tmp_path / "cascade3.fp32.engine.onnx").unlink()
    with pytest.raises(ModelError):
        open_cascade(path)
    assert sorted(name[:8] for name in closed) == ["cascade1", "cascade2"]


def test_cascade_closes_its_stages(make: Make) -> None:
    cascade: Cascade = open_cascade(make())
    cascade.close()
    with pytest.raises(ValueError, match="closed"):
        cascade.exits(rows((1, 2, 3)))
