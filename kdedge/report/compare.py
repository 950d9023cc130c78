"""Runs side by side: a table, and in words which of them nobody would choose."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kdedge.core.console import many, percent, size
from kdedge.core.markdown import escaped, table
from kdedge.core.quality import Measure
from kdedge.report.fronts import Entry, Front, Point, asked, fronts, machines, test_sets


def columns(entries: Sequence[Entry]) -> tuple[str, ...]:
    """What `rows` stand under."""
    accuracy = " or ".join(dict.fromkeys(entry.measure.label for entry in entries))
    return (
        "run", "student", "precision", accuracy, "parameters", "MACs", "bytes", "median ms", "memory", "mJ", "machine",
    )  # fmt: skip


def rows(entries: Sequence[Entry]) -> list[list[str]]:
    """One row a precision."""
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
        cell(f"{precision}/{entry.measure.key}", percent),
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


def sentences(entries: Sequence[Entry], found: Sequence[Front]) -> Iterator[str]:
    """The fronts in words, and what could not be compared."""
    known, sets = machines(entries), test_sets(entries)
    for one in found:
        yield f"accuracy against {place(one, entries)}: the front is {', '.join(map(str, one.best))}"
        yield from (f"run {better} dominates run {worse} in all its precisions" for better, worse in one.runs)
        yield from (f"{better} dominates {point}: {gain(better, point, one)}" for point, better in one.beaten)
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
    return (entry.name for entry in entries if asked(entry) == test_set)


def gain(better: Point, point: Point, one: Front) -> str:
    higher, less = 100 * (better.accuracy - point.accuracy), 1 - better.cost / point.cost
    label, cost = one.measure.label, one.cost.title
    accuracy = f"{higher:+.2f} points of {label}" if higher else f"the same {label}"
    return f"{accuracy}, " + (f"{100 * less:.1f} % less {cost}" if less else f"the same {cost}")


def differing(known: Sequence[dict[str, Any]], name: Callable[[int], str]) -> Iterator[str]:
    """What tells each from the first."""
    first = known[0]
    for number, other in enumerate(known[1:], 1):
        keys = sorted(key for key in first.keys() | other.keys() if first.get(key) != other.get(key))
        told = ", ".join(f"{key} {first.get(key)} and {other.get(key)}" for key in keys)
        yield f"{name(0)} and {name(number)} differ in {told}"


def markdown(entries: Sequence[Entry]) -> str:
    found = list(fronts(entries))
    lines = [*table(columns(entries), rows(entries)), "", *(f"- {escaped(text)}" for text in sentences(entries, found))]
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
                "front": [plain_point(point, one.measure) for point in one.best],
                "dominated_runs": [{"run": worse, "by": better} for better, worse in one.runs],
                "dominated": [
                    {"point": plain_point(point, one.measure), "by": plain_point(better, one.measure)}
                    for point, better in one.beaten
                ],
                "missing": one.missing,
            }
            for one in fronts(entries)
        ],
    }


def plain_point(point: Point, measure: Measure) -> dict[str, Any]:
    """Accuracy under its measure's name."""
    return {name.replace("accuracy", measure.key): value for name, value in point._asdict().items()}
