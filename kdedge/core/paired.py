"""The record of a gate that measures: a run held against another model, both on one machine and in turns."""

from pydantic import Field

from kdedge.core.record import Record
from kdedge.core.report import GateResult, Verdict


class PairedTimes(Record):
    """One model's time against another's, from fresh processes that each measured both."""

    name: str
    """The precision."""
    outcome: Verdict
    ratio: float | None
    """New to base: trimmed geometric mean over the processes; None without one that counts."""
    interval: tuple[float, float] | None
    """95 % of the ratio; None below two processes."""
    ratios: list[float]
    """Of the processes that count, in order."""
    base_ms: float
    """Median query, in the process whose ratio is the median one; so is the next."""
    new_ms: float
    limit: float
    """Slow-down that is allowed, as a fraction."""
    throttled: list[str] = Field([])
    """What slowed the machine down in processes that do not count."""
    unsettled: int = 0
    """Processes in which a warm-up was cut by its cap."""
    seconds: float


class AgainstReport(Record):
    result: GateResult
    times: list[PairedTimes]
    onnx: dict[str, str] = Field({})
    """SHA-256 of the run's ONNX files, by precision."""
