from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from kdedge.core.deployment import Export, Tolerance, Tolerances
from kdedge.core.errors import ModelError
from kdedge.engine.base import backend
from kdedge.engine.rows import run_rows
from kdedge.export.int8 import to_int8
from kdedge.export.parity import Predictions, compare, predict_torch
from kdedge.export.precision import to_fp16

Images = NDArray[np.float32]
LABELS = np.array([0, 1, 1, 0])


def predictions(*rows: tuple[float, float]) -> Predictions:
    return Predictions(np.arange(len(rows)), np.array(rows, dtype=np.float32))


REFERENCE = predictions((4, 0), (0, 4), (0, 4), (4, 0))


def test_first_hop_has_quality_alone() -> None:
    hop = compare(
        "torch", predictions((1, 0), (1, 0), (0, 1), (1, 0)), None, LABELS, Tolerance(max_error=0, agreement=1)
    )
    assert (hop.name, hop.reference, hop.quality.top1, hop.quality.images) == ("torch", None, 0.75, 4)
    assert (hop.max_error, hop.mean_error, hop.agreement, hop.problems) == (None, None, None, [])


def test_compare_measures_errors_relative_to_the_largest_reference_output() -> None:
    """One output off by 2 of 4, the other seven equal."""
    candidate = predictions((4, 0), (0, 2), (0, 4), (4, 0))
    hop = compare("int8", candidate, REFERENCE, LABELS, Tolerance(), reference_name="fp32")
    assert (hop.reference, hop.max_error, hop.mean_error, hop.agreement) == ("fp32", 0.5, 0.0625, 1.0)
    assert hop.problems == []


def test_compare_says_which_limits_were_passed() -> None:
    """The first image changes its class and becomes wrong."""
    candidate = predictions((0, 1), (0, 4), (0, 4), (4, 0))
    hop = compare("int8", candidate, REFERENCE, LABELS, Tolerance(max_error=0.5, agreement=0.999, accuracy_drop=0.01))
    assert hop.problems == [
        "outputs differ by 1 of the largest one, limit 0.5",
        "75 % of the images keep their class, limit 99.9 %",
        "top-1 fell by 25 points, limit 1",
    ]


def test_compare_allows_what_the_limits_do() -> None:
    candidate = predictions((0, 1), (0, 4), (0, 4), (4, 0))
    hop = compare("int8", candidate, REFERENCE, LABELS, Tolerance(max_error=1, agreement=0.75, accuracy_drop=0.25))
    assert hop.problems == []


def test_compare_counts_images_without_finite_outputs_as_wrong() -> None:
    candidate = predictions((np.nan, 0), (0, np.inf), (0, 4), (4, 0))
    hop = compare("fp16", candidate, REFERENCE, LABELS, Tolerance(agreement=0.5, accuracy_drop=0.4))
    assert (hop.quality.top1, hop.agreement, hop.max_error) == (0.5, 0.5, 0.0)
    assert hop.problems == [
        "2 of 4 images have outputs that are not finite (1 NaN, 1 Inf)",
        "top-1 fell by 50 points, limit 40",
    ]
    assert "NaN" not in hop.model_dump_json().replace("1 NaN", "")


def test_compare_has_no_error_when_nothing_is_finite() -> None:
    candidate = predictions(*[(np.nan, np.nan)] * 4)
    hop = compare("fp16", candidate, REFERENCE, LABELS, Tolerance(max_error=1))
    assert (hop.max_error, hop.quality.top1) == (None, 0.0)
    assert hop.problems == ["4 of 4 images have outputs that are not finite (8 NaN, 0 Inf)"]


def test_images_without_finite_outputs_are_not_among_the_top_five() -> None:
    outputs = np.full((1, 6), np.nan, dtype=np.float32)
    hop = compare("fp16", Predictions(np.array([0]), outputs), None, np.array([3]), Tolerance())
    assert hop.quality.top5 == 0


@pytest.mark.parametrize(
    ("candidate", "labels", "message"),
    [
        (Predictions(np.array([0, 1, 2, 4]), REFERENCE.outputs), LABELS, "different images: the ids differ"),
        (Predictions(REFERENCE.ids, np.zeros((4, 3), np.float32)), LABELS, r"differ in shape: \(4, 3\) and \(4, 2\)"),
        (REFERENCE, LABELS[:3], "4 ids, 4 predictions and 3 labels"),
        (Predictions(REFERENCE.ids[:3], REFERENCE.outputs), LABELS, "3 ids, 4 predictions and 4 labels"),
    ],
    ids=["ids", "shape", "labels", "rows"],
)
def test_compare_refuses_hops_of_different_images(candidate: Predictions, labels: NDArray[Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        compare("int8", candidate, REFERENCE, labels, Tolerance())


def test_predictions_survive_a_file(tmp_path: Path) -> None:
    Predictions(np.array([7, 3]), np.array([[0.5, -1], [2, 3]], dtype=np.float32)).save(tmp_path / "hops" / "torch.npz")
    found = Predictions.load(tmp_path / "hops" / "torch.npz")
    assert (found.ids.dtype, found.outputs.dtype) == (np.int64, np.float32)
    assert (found.ids.tolist(), found.outputs.tolist()) == ([7, 3], [[0.5, -1], [2, 3]])
    assert [path.name for path in (tmp_path / "hops").iterdir()] == ["torch.npz"]


@pytest.mark.parametrize("content", ["missing", "text", "other arrays", "objects"])
def test_predictions_refuse_what_is_not_theirs(tmp_path: Path, content: str) -> None:
    path = tmp_path / "torch.npz"
    if content == "text":
        path.write_text("not an archive")
    elif content == "other arrays":
        np.savez(path, images=np.zeros(3))
    elif content == "objects":
        np.savez(path, ids=np.array([{}], dtype=object), outputs=np.zeros((1, 2)))
    with pytest.raises(ModelError, match=r"cannot read predictions from .*torch\.npz"):
        Predictions.load(path)


def test_predict_torch_runs_in_eval_mode_and_restores_it(net: nn.Sequential, images: Images) -> None:
    net[4].eval()
    try:
        modes = [module.training for module in net.modules()]
        whole, parts = (predict_torch(net, images, ["logits"], batch)["logits"] for batch in (256, 10))
        assert [module.training for module in net.modules()] == modes
    finally:
        net[4].train()
    assert (whole.shape, whole.dtype) == ((64, 7), np.float32)
    np.testing.assert_allclose(parts, whole, atol=1e-5)


def test_predict_torch_restores_the_modes_after_a_failure(net: nn.Sequential) -> None:
    with pytest.raises(RuntimeError):
        predict_torch(net, np.zeros((2, 5, 16, 16), np.float32), ["logits"])
    assert all(module.training for module in net.modules())


def test_prediction_of_nothing_is_an_error(net: nn.Sequential) -> None:
    with pytest.raises(ModelError, match="no images"):
        predict_torch(net, np.zeros((0, 3, 16, 16), np.float32), ["logits"])


def test_every_hop_to_the_engine_keeps_what_the_model_says(
    net: nn.Sequential, fp32: Path, images: Images, tmp_path: Path
) -> None:
    """torch -> ONNX -> fp16 and int8 -> engines, against torch's own classes."""
    exact = Predictions(np.arange(64), predict_torch(net, images, ["logits"])["logits"])
    labels = exact.outputs.argmax(axis=1)
    to_fp16(fp32, tmp_path / "fp16.onnx")
    to_int8(fp32, tmp_path / "int8.onnx", images, Export())
    limits, ort = Tolerances(), backend("ort")
    int8 = Tolerance(max_error=0.05, agreement=0.9, accuracy_drop=0.1)
    for name, path, limit in [
        ("fp32", fp32, limits.fp32),
        ("fp16", tmp_path / "fp16.onnx", limits.fp16),
        ("int8", tmp_path / "int8.onnx", int8),
    ]:
        ort.build(path, tmp_path / f"{name}.engine.onnx", {"threads": 1})
        with ort.open(tmp_path / f"{name}.engine.onnx", {"threads": 1}) as session:
            outputs = run_rows(session, images, batch=24)["logits"]
        hop = compare(f"engine-{name}", Predictions(exact.ids, outputs), exact, labels, limit)
        assert hop.problems == []
        assert hop.quality.images == 64
    torch.testing.assert_close(torch.tensor(hop.quality.top1), torch.tensor(hop.agreement))
