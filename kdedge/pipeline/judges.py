"""Who judges a network: of a detector the boxes count, made of its outputs as the runtime makes them."""

import torch
from torch import Tensor, nn

from kdedge.core.quality import MEASURES, BoxQuality
from kdedge.data.sets import Dataset
from kdedge.distill.judge import ClassJudge, Judge
from kdedge.engine.boxes import decode, pack, unpack
from kdedge.engine.boxes_decoding import read_decoding
from kdedge.models.detector import Detector
from kdedge.pipeline.boxes import box_quality


class BoxJudge(Judge):
    """Keeps boxes (N, detections, 6), see engine/boxes; labels are (N, M, 5), see data/boxes."""

    measure = MEASURES["detect"]

    def __init__(self, detector: Detector, labels: tuple[str, ...]) -> None:
        self.decoding, self.labels = read_decoding(type(detector).__name__, detector.decoding()), labels

    def read(self, outputs: Tensor) -> Tensor:
        return torch.from_numpy(pack(decode(outputs.numpy(), self.decoding), self.decoding.detections))

    def quality(self, kept: Tensor, labels: Tensor) -> BoxQuality:
        return box_quality(unpack(kept.numpy()), labels.numpy(), self.labels)


def judge_of(network: nn.Module, dataset: Dataset) -> Judge:
    return BoxJudge(network, dataset.labels) if isinstance(network, Detector) else ClassJudge()
