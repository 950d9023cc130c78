"""What a comparison found, in one line a contender."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from kdedge.bench.cells import CellResult, TeacherResult
from kdedge.bench.contenders import LABELS, REFERENCES, STANDARDIZED, TUNED
from kdedge.bench.cost import ROUNDS, Cost
from kdedge.core.console import many, percent, size
from kdedge.core.markdown import table
from kdedge.core.quality import MEASURES, Measure, Task
from kdedge.core.record import Record
from kdedge.report.ablation import points, spread

DEAR = 1.6
"""Times plain KD's seconds, beyond which a line says so."""
OVER = {LABELS: "over labels", TUNED: "over tuned KD", STANDARDIZED: "over standardized KD"}
"""Columns of the gains, by reference."""
TIMES: dict[Task, tuple[str, str]] = {
    "classify": ("times KD's", "Times plain KD's"),
    "detect": ("times labels'", "Times the labels'"),
}
"""What a step's time is held against: in the table, and below it."""


class Comparison(Record):
    """All that methods.json holds."""

    task: Task = "classify"
    contenders: list[str]
    seeds: list[int]
    tuned: str
    """The trial whose settings plain KD has; empty for detectors, where nothing is tuned."""
    tuning: dict[str, float]
    """Validation accuracy of the first seed, by trial."""
    cells: list[CellResult]
    costs: dict[str, Cost]
    """By contender."""
    failed: list[str]
    teacher: TeacherResult
    recipe: dict[str, Any]
    """What all contenders share."""
    environment: dict[str, str]

    @property
    def measure(self) -> Measure:
        """What every accuracy in here is."""
        return MEASURES[self.task]


@dataclass(frozen=True)
class Line:
    label: str
    accuracy: list[float]
    """By seed."""
    gains: Mapping[str, float | None]
    """Means less those of the references; None for one that was not trained."""
    seconds: float
    """Of an epoch, the median."""
    cost: Cost | None
    dear: str = ""
    """Why it is, where it is."""

    @property
    def mean(self) -> float:
        return statistics.mean(self.accuracy)

    @property
    def is_below_labels(self) -> bool:
        return self.label != LABELS and (self.gains.get(LABELS) or 0) < 0

    def notes(self) -> list[str]:
        below = ["below the student that was not distilled"] if self.is_below_labels else []
        return [*below, *([self.dear] if self.dear else [])]

    def row(self) -> list[str]:
        return [
            self.label,
            spread(self.accuracy),
            *(points(gain) if name != self.label else "-" for name, gain in self.gains.items()),
            f"{self.seconds:.2f}",
            times(self.cost) if self.cost else "-",
            size(self.cost.memory_bytes) if self.cost else "-",
            many(self.cost.extra_params) if self.cost else "-",
            str(len(self.accuracy)),
            "; ".join(self.notes()) or "-",
        ]


def columns(task: Task) -> list[str]:
    """Of the table of a comparison."""
    gains = [OVER[name] for name in REFERENCES[task]]
    after = ["seconds per epoch", TIMES[task][0], "peak memory", "extra parameters", "seeds", "notes"]
    return ["method", MEASURES[task].label, *gains, *after]


def lines(made: Comparison) -> list[Line]:
    """In the order of the contenders; one that failed for every seed has none."""
    by_label = {label: [cell for cell in made.cells if cell.contender == label] for label in made.contenders}
    trained = {label: cells for label, cells in by_label.items() if cells}
    means = {label: statistics.mean(cell.accuracy for cell in cells) for label, cells in trained.items()}
    return [
        Line(
            label=label,
            accuracy=[cell.accuracy for cell in cells],
            gains={name: means[label] - means[name] if name in means else None for name in REFERENCES[made.task]},
            seconds=statistics.median(second for cell in cells for second in cell.epoch_seconds),
            cost=(cost := made.costs.get(label)),
            dear=why_dear(cost) if made.task == "classify" and is_dear(cost) else "",
        )
        for label, cells in trained.items()
    ]


def warnings(found: Iterable[Line]) -> list[str]:
    """What a reader must not overlook."""
    told = []
    for line in found:
        if line.is_below_labels:
            below = -100 * (line.gains[LABELS] or 0)
            told.append(f"{line.label} ends {below:.2f} points below the student on the labels alone")
        if line.dear and line.cost:
            told.append(f"{line.label} takes {line.cost.times:.2f} times as long as plain KD")
    return told


def is_dear(cost: Cost | None) -> TypeGuard[Cost]:
    return cost is not None and cost.times > DEAR


def why_dear(cost: Cost) -> str:
    return f"more than {DEAR} times the time of plain KD{cost.reason and f': {cost.reason}'}"


def times(cost: Cost) -> str:
    """The reference's: the median over rounds, the least and the greatest."""
    return f"{cost.times:.2f} ({'..'.join(f'{end:.2f}' for end in cost.times_range)})"


def markdown(made: Comparison, found: Sequence[Line]) -> str:
    data, teacher = made.recipe["data"]["name"], made.teacher
    rows = "\n".join(table(columns(made.task), [line.row() for line in found]))
    told = "".join(f"\n- {text}" for text in (*warnings(found), *made.failed))
    return (
        f"# {teacher.model} -> {made.recipe['student']['name']}, {data}\n\n{rows}\n"
        f"{told and f'{chr(10)}Warnings:{chr(10)}{told}{chr(10)}'}\n{footer(made)}\n\n"
        f"![{made.measure.label}](methods.svg)\n"
    )


def footer(made: Comparison) -> str:
    """How the figures came about."""
    phase, teacher, cell, measure = made.recipe["phases"][0], made.teacher, made.cells[0], made.measure.label
    optimizer = phase["optimizer"]
    views = (
        f"What the teacher makes of the training images was computed once, for {teacher.views} fixed views of each, "
        "and read as fp16: its own pass is in no time and no memory of the table."
        if teacher.views
        else "The teacher was asked at every step."
    )
    how = next((cost.memory_how for cost in made.costs.values()), "-")
    machine = ", ".join(f"{key} {value}" for key, value in made.environment.items())
    paragraphs = (
        f"{cell.train_images} training images, {phase['epochs']} epochs, batch {phase['batch']}, learning rate "
        f"{optimizer['lr']:g} ({optimizer['schedule']}), weight decay {optimizer['weight_decay']:g}; seeds "
        f"{', '.join(map(str, made.seeds))}; {measure} on the {cell.test_images} test images after the last epoch, in "
        "percent: mean and sample standard deviation over seeds; gains in points.",
        f"Teacher: {teacher.model}, {percent(teacher.accuracy)} {measure} ({teacher.source}). {views}",
        references(made),
        f"Seconds of an epoch, with the pass over the validation images, are the median. {TIMES[made.task][1]}: a "
        f"training step of each in turn in one process, median and range of {ROUNDS} rounds. Peak memory is the {how} "
        "over a few steps, in a process of its own. Extra parameters are of the methods' own layers and of peers.",
        f"Device {teacher.device}; {machine}.",
    )
    return "\n\n".join(paragraphs)


def references(made: Comparison) -> str:
    """What every line is held against."""
    if made.task == "detect":
        return f"{LABELS}: the student by the boxes alone, which no method and no teacher has a part in."
    tried = ", ".join(f"{label} {percent(accuracy)}" for label, accuracy in made.tuning.items())
    return (
        f"{TUNED}: {made.tuned}, the best of these on the validation images of seed {made.seeds[0]}: {tried}. "
        f"{LABELS}: cross-entropy alone. {STANDARDIZED}: logits of zero mean and unit spread, by its paper's weights."
    )
