"""The way of a detector from torch to its engines, whether its graph gives raw heads or boxes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from answering import LABELS, SHAPE, detector, labels_of, write_onnx
from fivelevels import FiveLevels

from kdedge.core.deployment import Calibration, Export
from kdedge.core.quality import BoxQuality
from kdedge.core.recipe import Normalize
from kdedge.core.report import ExportedFile, Hop
from kdedge.core.rundir import RunDir
from kdedge.engine.base import backend
from kdedge.engine.boxes import decode, pack
from kdedge.engine.boxes_decoding import read_decoding
from kdedge.export.arrays import Arrays
from kdedge.export.int8 import Calibrated
from kdedge.export.precision import to_fp16
from kdedge.export.sensitivity import Judge, within_limit
from kdedge.pipeline.hops import Hops
from kdedge.pipeline.referees import referee_of

COUNT = 24
NORMALIZE = Normalize(mean=(0.0,) * 3, std=(1.0,) * 3)
ORT = {"threads": 1}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Smooth, so that a place is much like those around it."""
    coarse = torch.from_numpy(np.random.default_rng(0).standard_normal((COUNT, 3, 8, 8), np.float32))
    return torch.nn.functional.interpolate(coarse, SHAPE[1:], mode="bilinear").numpy()


@pytest.fixture(scope="module")
def network(images) -> FiveLevels:
    return detector(images)


@pytest.fixture(scope="module")
def arrays(network, images) -> Arrays:
    """With the network's own best boxes for labels."""
    decoding = read_decoding("m", network.decoding())
    with torch.no_grad():
        found = pack(decode(network(torch.from_numpy(images)).numpy(), decoding), decoding.detections)
    return Arrays(images, labels_of(found), np.arange(COUNT), np.full(COUNT, 0.5))


@pytest.fixture(scope="module")
def heads(network, tmp_path_factory) -> Path:
    return write_onnx(network, tmp_path_factory.mktemp("heads") / "fp32.onnx")


@pytest.fixture(scope="module")
def boxes(network, tmp_path_factory) -> Path:
    """The same with NMS in its graph."""
    return write_onnx(network, tmp_path_factory.mktemp("boxes") / "fp32.onnx", nms=True)


def hops_of(run: Path, network: FiveLevels, arrays: Arrays, fp32: Path) -> dict[str, Hop]:
    export, paths = Export(), {name: run / f"export/{name}.onnx" for name in ("fp32", "fp16", "int8")}
    (run / "export").mkdir()
    (run / "arrays").mkdir()
    np.savez(run / "arrays/eval.npz", **arrays._asdict())
    paths["fp32"].write_bytes(fp32.read_bytes())
    to_fp16(fp32, paths["fp16"])
    Calibrated(fp32, arrays.images, export).quantize(paths["int8"])
    for name, path in paths.items():
        backend("ort").build(path, run / f"engine/{name}.engine.onnx", ORT)
    hops = Hops(RunDir(run), export, ("logits",), referee_of("detect", fp32, LABELS))
    hops.compare(network, NORMALIZE, files(run, "export/{}.onnx"), files(run, "engine/{}.engine.onnx"), {})
    return {hop.name: hop for hop in hops.hops}


def files(run: Path, place: str) -> dict[str, ExportedFile]:
    names = {name: place.format(name) for name in ("fp32", "fp16", "int8")}
    return {name: ExportedFile(path=path, bytes=(run / path).stat().st_size, sha256="") for name, path in names.items()}


@pytest.mark.parametrize("gives", ["heads", "boxes"])
def test_every_hop_finds_the_boxes_of_the_one_before(tmp_path, network, arrays, request, gives):
    hops = hops_of(tmp_path, network, arrays, request.getfixturevalue(gives))
    assert [(hop.name, hop.reference) for hop in hops.values()] == [
        ("torch", None),
        ("onnx-fp32", "torch"),
        ("onnx-fp16", "onnx-fp32"),
        ("onnx-int8", "onnx-fp32"),
        ("engine-fp32", "onnx-fp32"),
        ("engine-fp16", "onnx-fp16"),
        ("engine-int8", "onnx-int8"),
    ]
    exact = hops["torch"].quality
    assert isinstance(exact, BoxQuality)
    assert (exact.images, exact.objects, exact.sizes_in) == (COUNT, 3 * COUNT, "picture")
    assert exact.mean_ap > 0.3
    for name in ("onnx-fp32", "engine-fp32"):
        hop = hops[name]
        assert (hop.agreement, hop.problems, hop.max_error, hop.correctness) == (1, [], None, None)
        assert hop.boxes.boxes >= 2 * 3 * COUNT
        assert hop.boxes.least_iou > 0.999
        assert hop.boxes.score_error < 1e-4
        assert hop.quality.accuracy == pytest.approx(exact.mean_ap, abs=1e-3)
    for name in ("onnx-fp16", "engine-fp16", "engine-int8"):
        assert hops[name].problems == []
    assert hops["onnx-int8"].agreement > 0.9
    assert hops["onnx-int8"].boxes.score_error > hops["onnx-fp32"].boxes.score_error
    for name in hops:
        with np.load(tmp_path / f"predictions/{name}.npz") as kept:
            assert kept["outputs"].shape == (COUNT, 20, 6)


def test_pixels_for_the_graph_are_normalized_for_torch(tmp_path, network, heads):
    """Half white is 0.5 after the network's own normalization."""
    pixels = np.full((2, *SHAPE[1:], 3), 51, np.uint8)
    (tmp_path / "arrays").mkdir()
    np.savez(tmp_path / "arrays/eval.npz", images=pixels, labels=np.zeros((2, 1, 5), np.float32), ids=np.arange(2))
    referee = referee_of("detect", heads, LABELS)
    hops = Hops(RunDir(tmp_path), Export(preprocess=True), ("logits",), referee)
    answer = hops.ask_torch(network, NORMALIZE)["logits"]
    with torch.no_grad():
        outputs = network(torch.full((2, *SHAPE), 0.2)).numpy()
    np.testing.assert_allclose(answer, referee.keep({"logits": outputs})["logits"], atol=1e-4)


def test_layers_that_cost_a_detector_its_boxes_are_left_in_float(arrays, heads):
    """A clipped third of all activations ruins it."""
    how = Export(calibration=Calibration(method="percentile", percentile=65))
    judge = Judge(Calibrated(heads, arrays.images, how), arrays, referee_of("detect", heads, LABELS))
    limit = judge.drop([]) / 2
    found = within_limit(judge, limit, "validation")
    assert found.drop <= limit < found.drop_everywhere
    assert found.left_in_float == list(found.errors)[: len(found.left_in_float)]
    assert list(found.errors.values()) == sorted(found.errors.values(), reverse=True)
    assert set(found.errors) == set(judge.calibrated.layers)


def test_layers_are_ranked_by_raw_heads_where_nms_is_in_the_graph(arrays, heads, boxes):
    ranked = []
    for path in (heads, boxes):
        calibrated = Calibrated(path, arrays.images[:4], Export())
        ranked.append(Judge(calibrated, arrays.first(4), referee_of("detect", path, LABELS)).errors())
    assert ranked[0] == pytest.approx(ranked[1])
