"""A run of a detector as the pipeline would report it: made up, but of the sizes and shapes of a real one."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from boxruns import quality
from numpy.typing import NDArray

from kdedge.core.quality import BoxAgreement, BoxQuality
from kdedge.core.recipe import Normalize
from kdedge.core.report import Check, ExportedFile, ExportReport, GateResult, Hop, TrainedModel, TrainingReport
from kdedge.report.answers import Asked

CELLS = ["RBC", "WBC", "Platelets"]
SIDE = 160
NORMALIZE = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def network(model: str, params: int, mean_ap: float, **more: Any) -> TrainedModel:
    return TrainedModel(
        model=model,
        params=params,
        macs=300 * params,
        weight_bytes=4 * params,
        input_shape=[3, SIDE, SIDE],
        accuracy=mean_ap,
        validation_accuracy=mean_ap + 0.01,
        **more,
    )


def training() -> TrainingReport:
    options = {"backbone": "resnet18"}
    return TrainingReport(
        recipe="mkd_retinanet",
        task="detect",
        seed=0,
        train_images=205,
        validation_images=87,
        test_images=72,
        labels=CELLS,
        methods=["mkd"],
        student=network("retinanet", 2_400_000, 0.4812, options=options, epochs=60, seconds=4_100.0, source="trained"),
        teachers=[network("retinanet", 24_100_000, 0.5544, options={"backbone": "resnet34"}, epochs=60, seconds=9e3)],
        baseline=network("retinanet", 2_400_000, 0.4561, options=options, epochs=60, seconds=2_900.0, source="trained"),
        environment={"torch": "2.15.0", "python": "3.11.2", "threads": "2", "device": "cpu"},
    )


def curve(final: float, terms: dict[str, float], epochs: int = 60) -> list[dict[str, float]]:
    rows = []
    for epoch in range(1, epochs + 1):
        done = 1 - math.exp(-4 * epoch / epochs)
        own = {name: scale * (1.6 - 1.35 * done) for name, scale in terms.items()}
        row = {"epoch": epoch, "lr": 0.01, "loss": sum(own.values()), **own, "seconds": 60.0}
        rows.append({**row, "validation_mean_ap": final * done * (1 + 0.04 * math.sin(5 * epoch))})
    return rows


def curves() -> dict[str, list[dict[str, float]]]:
    own = {"classification": 0.8, "boxes": 0.6}
    return {"student": curve(0.49, own | {"mkd/soft": 0.5, "mkd/attention": 0.04}), "baseline": curve(0.46, own)}


def of_cells(mean_ap: float, **changes: Any) -> BoxQuality:
    parts = {"images": 72, "objects": 958, "per_class": [mean_ap, mean_ap + 0.1, mean_ap - 0.05]}
    return quality(mean_ap, **(parts | changes))


def hop(name: str, reference: str | None, mean_ap: float, kept: float = 1.0, score: float = 2e-6, **more: Any) -> Hop:
    if reference is None:
        return Hop(name=name, quality=of_cells(mean_ap), **more)
    boxes = BoxAgreement(score=0.3, boxes=911, least_iou=1 - 40 * score, score_error=score)
    return Hop(name=name, reference=reference, agreement=kept, boxes=boxes, quality=of_cells(mean_ap), **more)


def exported() -> ExportReport:
    return ExportReport(
        onnx={
            "fp32": ExportedFile(path="student.onnx", bytes=9_700_000, sha256="a" * 64),
            "int8": ExportedFile(path="student-int8.onnx", bytes=2_700_000, sha256="c" * 64),
        },
        engines={
            "fp32": ExportedFile(path="student.ort", bytes=9_800_000, sha256="d" * 64),
            "int8": ExportedFile(path="student-int8.ort", bytes=2_750_000, sha256="f" * 64),
        },
        hops=[
            hop("torch", None, 0.4812),
            hop("onnx-fp32", "torch", 0.4812),
            hop("engine-fp32", "onnx-fp32", 0.4812, score=0.0),
            hop("onnx-int8", "onnx-fp32", 0.4702, 0.968, 7e-3, problems=["mAP fell by 1.1 points, limit 1"]),
            hop("engine-int8", "onnx-int8", 0.4702, 0.9991, 1e-3, notes=["the heads stay in float"]),
        ],
        opset=18,
        backend="ort",
        environment={"onnx": "1.20.1", "onnxruntime": "1.27.0"},
    )


def gated() -> GateResult:
    drop = Check(metric="student/mean_ap", value=0.4812, unit="fraction", limit=">= 45.00 %", verdict="pass")
    return GateResult(verdict="pass", checks=[drop])


def packed(rows: Sequence[Sequence[Sequence[float]]], width: int) -> NDArray[np.float32]:
    """(N, most rows, width), filled up with rows of class -1."""
    found = np.zeros((len(rows), max(map(len, rows)), width), np.float32)
    found[..., 0] = -1
    for image, own in zip(found, rows, strict=True):
        image[: len(own)] = np.reshape(own, (len(own), width))
    return found


def boxed(
    labels: Sequence[Sequence[Sequence[float]]],
    found: dict[str, Sequence[Sequence[Sequence[float]]]],
    names: Sequence[str] = CELLS,
    side: int = 100,
) -> Asked:
    """Rows of class, x1, y1, x2, y2 and by hop of class, score, x1, y1, x2, y2 for each image; black images."""
    return Asked(
        images=np.zeros((len(labels), side, side, 3), np.uint8),
        normalize=None,
        labels=packed(labels, 5),
        ids=10 * np.arange(len(labels)),
        names=names,
        deployed={who: packed(rows, 6) for who, rows in found.items()},
    )


def made_up_boxes(names: Sequence[str] = CELLS, images: int = 24, objects: int = 8, side: int = SIDE) -> Asked:
    """Bright rectangles on noise, in pictures of 4:3 in gray squares; found more or less, least of all in int8."""
    random = np.random.default_rng(3)
    height = 3 * side // 4
    pixels = np.full((images, side, side, 3), 114, np.uint8)
    pixels[:, :height] = random.integers(60, 100, (images, height, side, 3))
    corners = random.uniform(0, (0.75 * side, 0.5 * side), (images, objects, 2))
    boxes = np.concatenate([corners, corners + random.uniform(0.08, 0.24, (images, objects, 2)) * side], axis=2)
    classes = random.integers(0, len(names), (images, objects))
    for image, rows, kinds in zip(pixels, boxes.round().astype(int), classes, strict=True):
        for (x1, y1, x2, y2), kind in zip(rows, kinds, strict=True):
            image[y1:y2, x1:x2, kind % 3] = 200
    mean, std = (np.array(values, np.float32) for values in (NORMALIZE.mean, NORMALIZE.std))
    return Asked(
        images=((pixels.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2),
        normalize=NORMALIZE,
        labels=np.concatenate([classes[..., None], boxes], axis=2).astype(np.float32),
        ids=np.arange(images),
        names=names,
        deployed={"engine-fp32": finds(classes, boxes, 0.012, 1), "engine-int8": finds(classes, boxes, 0.018, 2)},
        others={"teacher": finds(classes, boxes, 0.008, 3), "labels alone": finds(classes, boxes, 0.02, 4)},
    )


def finds(classes: NDArray[Any], boxes: NDArray[Any], error: float, seed: int) -> NDArray[np.float32]:
    """Every object nearby, some as another class, most twice, and as many false ones, which score less."""
    random = np.random.default_rng(seed)
    images, objects = classes.shape
    moved = [boxes + random.normal(0, error * SIDE, boxes.shape) for _ in range(2)]
    nothing = random.uniform(0, 0.6 * SIDE, (images, objects, 2))
    moved.append(np.concatenate([nothing, nothing + 0.2 * SIDE], axis=2))
    scores = [random.uniform(low, high, classes.shape) for low, high in ((0.3, 1), (0.05, 0.4), (0.02, 0.35))]
    kinds = np.where(random.random(classes.shape) < 3 * error, (classes + 1) % (classes.max() + 1), classes)
    rows = [np.dstack([kinds, score, sides]) for score, sides in zip(scores, moved, strict=True)]
    found = np.concatenate(rows, axis=1).astype(np.float32)
    return np.take_along_axis(found, np.argsort(-found[..., 1], axis=1)[..., None], axis=1)


def detector_run(**changes: Any) -> dict[str, Any]:
    """What differs from the run of a classifier."""
    columns = ("model", "mAP", "parameters", "MACs", "bytes", "median", "p95", "peak memory")
    rows = [
        ("teacher", "55.44 %", "24.1M", "7.2G", "91.9 MiB", "-", "-", "-"),
        ("student fp32", "48.12 %", "2.4M", "720M", "9.3 MiB", "11.2 ms", "12.0 ms", "30.0 MiB"),
        ("student int8", "47.02 %", "2.4M", "720M", "2.6 MiB", "6.1 ms", "6.9 ms", "20.0 MiB"),
    ]
    parts = {
        "title": "mkd_retinanet",
        "recipe": {"version": 1, "name": "mkd_retinanet", "task": "detect", "data": {"name": "bccd"}},
        "training": training(),
        "curves": curves(),
        "export": exported(),
        "gate": gated(),
        "summary": (columns, rows),
        "command": "kdedge run recipes/mkd_retinanet.yaml",
        "asked": made_up_boxes(),
        "against": None,
        "ablation": None,
        "devices": [],
        "earlier": [],
    }
    return parts | changes
