"""Runs side by side, and which of them nobody would choose: the Pareto front of accuracy against each cost.

A cost that was measured is compared on one machine alone, and only a difference beyond NOISE counts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from kdedge.core.console import many, percent, size
from kdedge.core.markdown import escaped, table
from kdedge.core.report import Metric

NOISE = 0.03
"""Relative; two measurements of the same thing lie so far apart."""


class Cost(NamedTuple):
    title: str
    metric: str
    """After the precision's name, as the gate calls it."""
    measured: bool


COSTS = (
    Cost("latency", "latency_median_ms", True),
    Cost("size", "onnx_bytes", False),
    Cost("energy", "energy_net_mj", True),
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

    def value(self, metric: str) -> float | None:
        found = self.metrics.get(metric)
        return found.value if found else None


class Point(NamedTuple):
    """One precision of one run."""

    run: str
    precision: str
    top1: float
    cost: float

    def __str__(self) -> str:
        return f"{self.run} {self.precision}"


class Front(NamedTuple):
    """One cost against accuracy, among runs that can be compared in it."""

    cost: Cost
    machine: int | None
    """Which, as `machines` counts them; None where any will do."""
    best: list[Point]
    """None of these is beaten; cheapest first."""
    beaten: list[tuple[Point, Point]]
    """A point, and the one of the front that is no worse in either and better in one."""
    runs: list[tuple[str, str]]
    """A run, and one whose every point is beaten by a point of the first."""


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
    found: list[dict[str, Any]] = []
    for entry in entries:
        if entry.machine and entry.machine not in found:
            found.append(entry.machine)
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


def fronts(entries: Sequence[Entry]) -> Iterator[Front]:
    """Of each cost that two points or more have; a measured one once for each machine."""
    known = machines(entries)
    for cost in COSTS:
        groups = [(number, [one for one in entries if one.machine == known[number]]) for number in range(len(known))]
        for number, group in groups if cost.measured else [(None, list(entries))]:
            found = list(points(group, cost))
            if len(found) > 1:
                yield front(found, cost, number)


def points(entries: Sequence[Entry], cost: Cost) -> Iterator[Point]:
    for entry in entries:
        for precision in entry.precisions:
            top1, price = entry.value(f"{precision}/top1"), entry.value(f"{precision}/{cost.metric}")
            if top1 is not None and price is not None:
                yield Point(entry.name, precision, top1, price)


def front(found: Sequence[Point], cost: Cost, machine: int | None) -> Front:
    """Which points nobody beats; a beaten one is told with the most accurate that beats it."""
    noise = NOISE if cost.measured else 0.0
    beating = {point: [other for other in found if beats(other, point, noise)] for point in found}
    best = sorted((point for point in found if not beating[point]), key=lambda point: point.cost)
    beaten = [
        (point, max(others, key=lambda other: (other in best, other.top1, -other.cost)))
        for point, others in beating.items()
        if others
    ]
    return Front(cost, machine, best, beaten, dominated_runs(beating))


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
    known = machines(entries)
    for one in found:
        where = f" on machine {letter(one.machine)}" if one.machine is not None and len(known) > 1 else ""
        names = ", ".join(map(str, one.best))
        yield f"accuracy against {one.cost.title}{where}: the front is {names}"
        yield from (f"run {better} dominates run {worse} in all its precisions" for better, worse in one.runs)
        yield from (f"{better} dominates {point}: {gain(better, point, one.cost)}" for point, better in one.beaten)
    if len(known) > 1:
        yield "latency, memory and energy of different machines are not compared: " + "; ".join(differing(known))
    if unmeasured := [entry.name for entry in entries if not entry.machine]:
        yield f"not measured: {', '.join(unmeasured)}"


def gain(better: Point, point: Point, cost: Cost) -> str:
    higher, less = 100 * (better.top1 - point.top1), 1 - better.cost / point.cost
    accuracy = f"{higher:+.2f} points of top-1" if higher else "the same top-1"
    return f"{accuracy}, " + (f"{100 * less:.1f} % less {cost.title}" if less else f"the same {cost.title}")


def differing(known: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What tells each machine from the first."""
    first = known[0]
    for number, other in enumerate(known[1:], 1):
        names = sorted(name for name in first.keys() | other.keys() if first.get(name) != other.get(name))
        told = ", ".join(f"{name} {first.get(name)} and {other.get(name)}" for name in names)
        yield f"{letter(0)} and {letter(number)} differ in {told}"


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
                "metrics": {name: metric.model_dump(mode="json") for name, metric in entry.metrics.items()},
            }
            for entry in entries
        ],
        "fronts": [
            {
                "cost": one.cost.metric,
                "machine": None if one.machine is None else letter(one.machine),
                "front": [point._asdict() for point in one.best],
                "dominated_runs": [{"run": worse, "by": better} for better, worse in one.runs],
                "dominated": [{"point": point._asdict(), "by": better._asdict()} for point, better in one.beaten],
            }
            for one in fronts(entries)
        ],
    }
