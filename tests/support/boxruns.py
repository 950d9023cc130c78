"""Records of a detector, made up; and a classifier's run that tells of boxes."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from kdedge.core.quality import BoxQuality


def quality(mean_ap: float, **changes: Any) -> BoxQuality:
    """AP50 is 0.2 more, AP75 0.1 less; no object is small, of the large ones it is 0.1 more."""
    values = {"images": 10, "objects": 30, "mean_ap": mean_ap, "ap50": mean_ap + 0.2, "ap75": mean_ap - 0.1}
    values |= {"small": None, "medium": mean_ap, "large": mean_ap + 0.1, "sizes_in": "picture"}
    return BoxQuality(**values | {"per_class": [mean_ap]} | changes)


def tell_of_boxes(run: Path, mean_ap: float) -> None:
    """Every hop has the same mAP, and every test image one object."""
    change(run / "recipe.json", lambda record: as_detector(record["recipe"]))
    change(run / "training.json", lambda record: record.update(task="detect"))
    made = quality(mean_ap).model_dump()
    change(run / "export.json", lambda record: [hop.update(quality=made, correctness=None) for hop in record["hops"]])
    with np.load(run / "arrays/eval.npz") as arrays:
        known = dict(arrays)
    boxes = np.ones((len(known["labels"]), 1, 5), np.float32)
    boxes[:, 0, 0] = known["labels"]
    np.savez(run / "arrays/eval.npz", **known | {"labels": boxes})


def change(path: Path, edit: Any) -> None:
    record = json.loads(path.read_text())
    edit(record)
    path.write_text(json.dumps(record))


def as_detector(recipe: dict[str, Any]) -> None:
    recipe["task"] = "detect"
    for phase in (*recipe["phases"], *(teacher["training"] for teacher in recipe["teachers"])):
        phase.pop("cross_entropy", None)
