"""Who judges a hop: of a classifier its logits, of a detector the boxes that the runtime makes of its outputs."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from kdedge.core.deployment import Tolerance
from kdedge.core.quality import BoxQuality, Task
from kdedge.core.report import Hop
from kdedge.engine.boxes import unpack
from kdedge.engine.boxes_decoding import KEY, read_decoding
from kdedge.engine.boxes_kept import BATCH, kept
from kdedge.export.arrays import Arrays
from kdedge.export.box_parity import compare_boxes
from kdedge.export.onnx import OUTPUT, load, metadata_of
from kdedge.export.parity import Logits, Predictions
from kdedge.export.referee import ClassReferee, Outputs, Referee
from kdedge.pipeline.boxes import box_quality


class BoxReferee(Referee):
    """Keeps boxes (N, detections, 6), see engine/boxes.

    Args:
        source: what messages about the decoding name.
        labels: the names of the classes.
    """

    batch = BATCH
    ranked_on = 16

    def __init__(self, source: str, decoding: Mapping[str, Any], labels: Sequence[str]) -> None:
        self.decoding, self.labels = decoding, labels
        self.known = read_decoding(source, decoding)

    def keep(self, outputs: Outputs) -> Outputs:
        return {OUTPUT: kept(outputs, self.known)}

    def parts(self, outputs: Outputs) -> list[NDArray[Any]]:
        """What places boxes, and what scores them."""
        values = next(iter(outputs.values()))
        return [values[..., :4], values[..., 4:]]

    def quality(self, kept: Logits, arrays: Arrays) -> BoxQuality:
        return box_quality(unpack(kept), arrays.labels, self.labels, arrays.scales)

    def compare(
        self,
        name: str,
        candidate: Predictions,
        reference: Predictions | None,
        arrays: Arrays,
        tolerance: Tolerance,
        reference_name: str | None = None,
    ) -> Hop:
        judge = partial(self.quality, arrays=arrays)
        return compare_boxes(name, candidate, reference, arrays.labels, tolerance, judge, reference_name=reference_name)


def referee_of(task: Task, onnx: Path, labels: Sequence[str]) -> Referee:
    """Args:
    onnx: says how a detector's outputs become boxes.
    """
    if task == "classify":
        return ClassReferee()
    return BoxReferee(str(onnx), metadata_of(load(onnx), KEY), labels)
