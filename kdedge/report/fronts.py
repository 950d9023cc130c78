"""The Pareto front of accuracy against each cost: the points of runs that nobody would pass over for another.

Only runs that answered the same test images are compared.  A cost that was measured is compared on one machine alone,
and only a difference beyond NOISE counts.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kdedge.core.quality import MEASURES, Measure
from kdedge.core.report import Metric

Interval = tuple[float, float]
"""Of 95 % confidence."""

NOISE = 0.03
"""Relative; two measurements of the same thing lie so far apart."""


class Cost(NamedTuple):
    title: str
    metric: str
    """After the precision's name, as the gate calls it."""
    measured: bool
    axis: str
    """What it is, and its unit."""


COSTS = (
    Cost("latency", "latency_median_ms", True, "median latency, ms"),
    Cost("size", "onnx_bytes", False, "size of the ONNX file"),
    Cost("memory", "peak_memory_bytes", True, "peak memory"),
    Cost("energy", "energy_net_mj", True, "energy above idle, mJ an inference"),
)


@dataclass(frozen=True)
class Entry:
    """One run, as it is compared."""

    name: str
    student: str
    metrics: dict[str, Metric]
    """As the gate collects them, and PRECISION/energy_net_mj where it was measured."""
    precisions: tuple[str, ...]
    machine: dict[str, Any]
    """What must be equal for measured costs to be compared; empty where nothing was measured."""
    test_set: dict[str, Any]
    """What must be equal for accuracies to be compared."""
    intervals: dict[str, Interval] = field(default_factory=dict)
    """Of metrics, where they are known."""
    measure: Measure = MEASURES["classify"]
    """What accuracies are."""

    def value(self, metric: str) -> float | None:
        found = self.metrics.get(metric)
        return found.value if found else None


class Point(NamedTuple):
    """One precision of one run."""

    run: str
    precision: str
    accuracy: float
    cost: float
    accuracy_interval: Interval | None = None
    cost_interval: Interval | None = None

    def __str__(self) -> str:
        return f"{self.run} {self.precision}"


class Front(NamedTuple):
    """One cost against accuracy, among runs that can be compared in it."""

    cost: Cost
    measure: Measure
    test_set: int
    """Which, as `test_sets` counts them."""
    machine: int | None
    """Which, as `machines` counts them; None where any will do."""
    best: list[Point]
    """None of these is beaten; cheapest first."""
    beaten: list[tuple[Point, Point]]
    """A point, and the one of the front that is no worse in either and better in one."""
    runs: list[tuple[str, str]]
    """A run, and one whose every point is beaten by a point of the first."""
    missing: list[str]
    """Precisions of runs for which the cost is not known."""


def machines(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The different ones, in the order in which they come."""
    return different(entry.machine for entry in entries if entry.machine)


def test_sets(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The different ones, with what is measured on them."""
    return different(asked(entry) for entry in entries)


def asked(entry: Entry) -> dict[str, Any]:
    return {**entry.test_set, "accuracy": entry.measure.label}


def different(items: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for item in items:
        if item not in found:
            found.append(item)
    return found


def fronts(entries: Sequence[Entry]) -> Iterator[Front]:
    """Of each cost that two points or more have; a measured one once for each machine."""
    known = machines(entries)
    for number, test_set in enumerate(test_sets(entries)):
        same = [entry for entry in entries if asked(entry) == test_set]
        for cost in COSTS:
            for machine in range(len(known)) if cost.measured else [None]:
                group = [entry for entry in same if machine is None or entry.machine == known[machine]]
                found = list(points(group, cost))
                if len(found) > 1:
                    yield front(found, cost, same[0].measure, number, machine, list(without(group, cost)))


def points(entries: Sequence[Entry], cost: Cost) -> Iterator[Point]:
    for entry in entries:
        for precision in entry.precisions:
            names = f"{precision}/{entry.measure.key}", f"{precision}/{cost.metric}"
            accuracy, price = map(entry.value, names)
            if accuracy is not None and price is not None:
                yield Point(entry.name, precision, accuracy, price, *map(entry.intervals.get, names))


def without(entries: Sequence[Entry], cost: Cost) -> Iterator[str]:
    for entry in entries:
        for precision in entry.precisions:
            if entry.value(f"{precision}/{cost.metric}") is None:
                yield f"{entry.name} {precision}"


def front(
    found: Sequence[Point],
    cost: Cost,
    measure: Measure = MEASURES["classify"],
    test_set: int = 0,
    machine: int | None = None,
    missing: Sequence[str] = (),
) -> Front:
    """Which points nobody beats; a beaten one is told with the most accurate that beats it."""
    noise = NOISE if cost.measured else 0.0
    beating = {point: [other for other in found if beats(other, point, noise)] for point in found}
    best = sorted((point for point in found if not beating[point]), key=lambda point: point.cost)
    beaten = [
        (point, max(others, key=lambda other: (other in best, other.accuracy, -other.cost)))
        for point, others in beating.items()
        if others
    ]
    return Front(cost, measure, test_set, machine, best, beaten, dominated_runs(beating), list(missing))


def dominated_runs(beating: dict[Point, list[Point]]) -> list[tuple[str, str]]:
    """Each run with the runs that it leaves no reason to choose."""
    names = dict.fromkeys(point.run for point in beating)
    by = {point: {other.run for other in others} for point, others in beating.items()}
    pairs = [(one, other) for one in names for other in names if one != other]
    return [(one, other) for one, other in pairs if all(one in by[point] for point in by if point.run == other)]


def beats(one: Point, other: Point, noise: float) -> bool:
    """No worse in accuracy and cost, and better in one; of a measured cost, by more than noise."""
    if one.accuracy < other.accuracy or one.cost > other.cost:
        return False
    return one.accuracy > other.accuracy or one.cost < other.cost * (1 - noise)
