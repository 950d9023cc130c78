"""The records that a gate holds against each other: what a run shows, and what was accepted before."""

from typing import Any

from pydantic import Field

from kdedge.core.correctness import Correctness
from kdedge.core.record import Part, Record
from kdedge.core.report import Metric


class Snapshot(Record):
    """What a run shows."""

    fingerprint: dict[str, Any]
    """Of the machine and the way of measuring, as `kdedge.gate.baseline.fingerprint_of` makes it."""
    metrics: dict[str, Metric]
    answers: dict[str, Correctness] = Field({})
    """Of the accuracies among the metrics, where they are known image by image."""


class Accepted(Part):
    """An earlier baseline, as little of it as it takes to see creep."""

    created: str = ""
    reason: str = ""
    accepts: list[str] = Field([])
    """Metrics that were worse than allowed and that this update accepted all the same."""
    machine: str = ""
    """Digest of what must be the same for measured values to be compared."""
    values: dict[str, float]
    samples: dict[str, list[float]] = Field({})
    """Of the measured ones."""


class Baseline(Snapshot):
    schema_version: int = 2
    reason: str = ""
    created: str = ""
    accepts: list[str] = Field([])
    """Metrics that were worse than allowed and that this update accepted all the same."""
    tool: dict[str, str] = Field({})
    history: list[Accepted] = Field([])
    """The baselines before this one, the oldest first."""
