"""Runs side by side, and which of them nobody would choose: the Pareto front of accuracy against each cost.

Only runs that answered the same test images are compared.  A cost that was measured is compared on one machine alone,
and only a difference beyond NOISE counts.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kdedge.core.console import many, percent, size
from kdedge.core.markdown import escaped, table
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

    def value(self, metric: str) -> float | None:
        found = self.metrics.get(metric)
        return found.value if found else None


class Point(NamedTuple):
    """One precision of one run."""

    run: str
    precision: str
    top1: float
    cost: float
    top1_interval: Interval | None = None
    cost_interval: Interval | None = None

    def __str__(self) -> str:
        return f"{self.run} {self.precision}"


class Front(NamedTuple):
    """One cost against accuracy, among runs that can be compared in it."""

    cost: Cost
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


COLUMNS = (
    "run",
    "student",
    "precision",
    "top-1",
    "parameters",
    "MACs",
    "bytes",
    "median ms",
    "memory",
    "mJ",
    "machine",
)


def machines(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The different ones, in the order in which they come."""
    return different(entry.machine for entry in entries if entry.machine)


def test_sets(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    return different(entry.test_set for entry in entries)


def different(items: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for item in items:
        if item not in found:
            found.append(item)
    return found


def rows(entries: Sequence[Entry]) -> list[list[str]]:
    """One row a precision, under COLUMNS."""
    known = machines(entries)
    return [row(entry, precision, known) for entry in entries for precision in entry.precisions]


def row(entry: Entry, precision: str, known: list[dict[str, Any]]) -> list[str]:
    def cell(metric: str, form: Any) -> str:
        value = entry.value(metric)
        return "-" if value is None else str(form(value))

    return [
        entry.name,
        entry.student,
        precision,
        cell(f"{precision}/top1", percent),
        cell("student/params", many),
        cell("student/macs", many),
        cell(f"{precision}/onnx_bytes", size),
        cell(f"{precision}/latency_median_ms", "{:.3f}".format),
        cell(f"{precision}/peak_memory_bytes", size),
        cell(f"{precision}/energy_net_mj", "{:.3g}".format),
        letter(known.index(entry.machine)) if entry.machine else "-",
    ]


def letter(machine: int) -> str:
    """A, B, ... of a machine; M27 after Z."""
    return chr(ord("A") + machine) if machine < 26 else f"M{machine + 1}"


def numeral(test_set: int) -> str:
    return f"test set {test_set + 1}"


def fronts(entries: Sequence[Entry]) -> Iterator[Front]:
    """Of each cost that two points or more have; a measured one once for each machine."""
    known = machines(entries)
    for number, test_set in enumerate(test_sets(entries)):
        same = [entry for entry in entries if entry.test_set == test_set]
        for cost in COSTS:
            for machine in range(len(known)) if cost.measured else [None]:
                group = [entry for entry in same if machine is None or entry.machine == known[machine]]
                found = list(points(group, cost))
                if len(found) > 1:
                    yield front(found, cost, number, machine, list(without(group, cost)))


def points(entries: Sequence[Entry], cost: Cost) -> Iterator[Point]:
    for entry in entries:
        for precision in entry.precisions:
            names = f"{precision}/top1", f"{precision}/{cost.metric}"
            top1, price = map(entry.value, names)
            if top1 is not None and price is not None:
                yield Point(entry.name, precision, top1, price, *map(entry.intervals.get, names))


def without(entries: Sequence[Entry], cost: Cost) -> Iterator[str]:
    for entry in entries:
        for precision in entry.precisions:
            if entry.value(f"{precision}/{cost.metric}") is None:
                yield f"{entry.name} {precision}"


def front(
    found: Sequence[Point], cost: Cost, test_set: int = 0, machine: int | None = None, missing: Sequence[str] = ()
) -> Front:
    """Which points nobody beats; a beaten one is told with the most accurate that beats it."""
    noise = NOISE if cost.measured else 0.0
    beating = {point: [other for other in found if beats(other, point, noise)] for point in found}
    best = sorted((point for point in found if not beating[point]), key=lambda point: point.cost)
    beaten = [
        (point, max(others, key=lambda other: (other in best, other.top1, -other.cost)))
        for point, others in beating.items()
        if others
    ]
    return Front(cost, test_set, machine, best, beaten, dominated_runs(beating), list(missing))


def dominated_runs(beating: dict[Point, list[Point]]) -> list[tuple[str, str]]:
    """Each run with the runs that it leaves no reason to choose."""
    names = dict.fromkeys(point.run for point in beating)
    by = {point: {other.run for other in others} for point, others in beating.items()}
    pairs = [(one, other) for one in names for other in names if one != other]
    return [(one, other) for one, other in pairs if all(one in by[point] for point in by if point.run == other)]


def beats(one: Point, other: Point, noise: float) -> bool:
    """No worse in accuracy and cost, and better in one; of a measured cost, by more than noise."""
    if one.top1 < other.top1 or one.cost > other.cost:
        return False
    return one.top1 > other.top1 or one.cost < other.cost * (1 - noise)


def sentences(entries: Sequence[Entry], found: Sequence[Front]) -> Iterator[str]:
    """The fronts in words, and what could not be compared."""
    known, sets = machines(entries), test_sets(entries)
    for one in found:
        yield f"accuracy against {place(one, entries)}: the front is {', '.join(map(str, one.best))}"
        yield from (f"run {better} dominates run {worse} in all its precisions" for better, worse in one.runs)
        yield from (f"{better} dominates {point}: {gain(better, point, one.cost)}" for point, better in one.beaten)
        if one.missing:
            yield f"no {one.cost.title} is known of {', '.join(one.missing)}"
    if len(sets) > 1:
        yield "accuracies on different test images are not compared: " + "; ".join(differing(sets, numeral))
        yield from (f"{numeral(number)}: {', '.join(names_of(entries, each))}" for number, each in enumerate(sets))
    if len(known) > 1:
        yield "latency, memory and energy of different machines are not compared: " + "; ".join(
            differing(known, letter)
        )
    if unmeasured := [entry.name for entry in entries if not entry.machine]:
        yield f"not measured: {', '.join(unmeasured)}"


def place(one: Front, entries: Sequence[Entry]) -> str:
    """Its cost, with the machine and the test set where there are several."""
    where = f" on machine {letter(one.machine)}" if one.machine is not None and len(machines(entries)) > 1 else ""
    return one.cost.title + where + (f", {numeral(one.test_set)}" if len(test_sets(entries)) > 1 else "")


def names_of(entries: Sequence[Entry], test_set: dict[str, Any]) -> Iterator[str]:
    return (entry.name for entry in entries if entry.test_set == test_set)


def gain(better: Point, point: Point, cost: Cost) -> str:
    higher, less = 100 * (better.top1 - point.top1), 1 - better.cost / point.cost
    accuracy = f"{higher:+.2f} points of top-1" if higher else "the same top-1"
    return f"{accuracy}, " + (f"{100 * less:.1f} % less {cost.title}" if less else f"the same {cost.title}")


def differing(known: Sequence[dict[str, Any]], name: Callable[[int], str]) -> Iterator[str]:
    """What tells each from the first."""
    first = known[0]
    for number, other in enumerate(known[1:], 1):
        keys = sorted(key for key in first.keys() | other.keys() if first.get(key) != other.get(key))
        told = ", ".join(f"{key} {first.get(key)} and {other.get(key)}" for key in keys)
        yield f"{name(0)} and {name(number)} differ in {told}"


def markdown(entries: Sequence[Entry]) -> str:
    found = list(fronts(entries))
    lines = [*table(COLUMNS, rows(entries)), "", *(f"- {escaped(text)}" for text in sentences(entries, found))]
    return "\n".join(lines).rstrip() + "\n"


def plain(entries: Sequence[Entry]) -> dict[str, Any]:
    """For a machine."""
    return {
        "runs": [
            {
                "name": entry.name,
                "student": entry.student,
                "machine": entry.machine,
                "test_set": entry.test_set,
                "intervals": entry.intervals,
                "metrics": {name: metric.model_dump(mode="json") for name, metric in entry.metrics.items()},
            }
            for entry in entries
        ],
        "fronts": [
            {
                "cost": one.cost.metric,
                "test_set": one.test_set + 1,
                "machine": None if one.machine is None else letter(one.machine),
                "front": [point._asdict() for point in one.best],
                "dominated_runs": [{"run": worse, "by": better} for better, worse in one.runs],
                "dominated": [{"point": point._asdict(), "by": better._asdict()} for point, better in one.beaten],
                "missing": one.missing,
            }
            for one in fronts(entries)
        ],
    }
