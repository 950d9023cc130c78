"""How much worse a metric may be than its baseline where the recipe does not say."""

from typing import NamedTuple

from kdedge.core.quality import MEASURES

SLOWER, SLOWER_MS = 0.03, 0.01
"""A slow-down counts that exceeds both."""
LARGER = {"bytes": 0.01, "count": 0.0}
"""Growth that is allowed, by unit: names and notes in a file are no weights."""
WORSE, SIGNIFICANT = 0.001, 0.05
"""Top-1 that may be lost, as a fraction; more is a regression where chance explains it with less than this."""
WORSE_UNPAIRED = 0.005
"""Top-1 that may be lost where the images that were lost are not known."""
WORSE_BOXES = 0.01
"""Average precision that may be lost: it has no right or wrong by image, and two trainings of one detector on COCO that
differ by their seed lie up to 0.5 points apart (github.com/facebookresearch/detectron2/issues/457)."""
LEAST_PROCESSES = 4
"""Three against three give p = 0.1 at the least, four against four 0.029."""


class Limit(NamedTuple):
    relative: float
    """Of the baseline; of an accuracy, the accuracy itself."""
    absolute: float = 0.0
    """In the metric's unit; a change counts that exceeds both."""

    def room(self, before: float, unit: str) -> float:
        """In the metric's unit."""
        return self.relative if unit == "fraction" else max(self.relative * abs(before), self.absolute)


MEASURED = {
    "latency_median_ms": Limit(SLOWER, SLOWER_MS),
    "device_latency_median_ms": Limit(SLOWER, SLOWER_MS),
    "latency_p95_ms": Limit(0.10, 0.05),
    "peak_memory_bytes": Limit(0.05, 2**20),
    "energy_net_mj": Limit(0.05, 0.05),
}
"""By the last part of a metric's name: what a machine decides as well as the model."""
ENGINE_BYTES = Limit(0.05)
"""A builder may choose other kernels for the same model."""
BESIDE = ("teacher/", "original/")
"""What is not deployed, but only there to be compared with."""
GAINS = tuple(f"student/{measure.key}_gain" for measure in MEASURES.values())
"""Of the deployed student over the whole network trained on the labels alone."""
AT_ONE_OVERLAP = ("ap50", "ap75")
"""Parts of mAP, each steeper in its threshold than the whole."""


def last_part(name: str) -> str:
    return name.rpartition("/")[2]


def is_measured(name: str) -> bool:
    return last_part(name) in MEASURED


def default_limit(name: str, unit: str) -> Limit:
    if is_measured(name):
        return MEASURED[last_part(name)]
    return ENGINE_BYTES if last_part(name) == "engine_bytes" else Limit(LARGER.get(unit, 0.0))


def is_average_precision(name: str) -> bool:
    return last_part(name).removesuffix("_gain") in (MEASURES["detect"].key, *AT_ONE_OVERLAP)


def unpaired_limit(name: str) -> Limit:
    """Of an accuracy, where the images that were lost are not known."""
    return Limit(WORSE_BOXES if is_average_precision(name) else WORSE_UNPAIRED)


def only_told(name: str) -> bool:
    """Whether a change for the worse is reported, but fails nothing where the recipe does not speak of it."""
    return name.startswith(BESIDE) or name in GAINS or last_part(name) in (*AT_ONE_OVERLAP, "engine_layers")
