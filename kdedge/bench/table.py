"""What a comparison found, in one line a contender."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from kdedge.bench.cells import CellResult, TeacherResult
from kdedge.bench.contenders import LABELS, REFERENCES, STANDARDIZED, TUNED
from kdedge.bench.cost import ROUNDS, Cost
from kdedge.core.console import many, percent, size
from kdedge.core.record import Record
from kdedge.report.ablation import points, spread

DEAR = 1.6
"""Times plain KD's seconds, beyond which a line says so."""
COLUMNS = (
    "method", "top-1", "over labels", "over tuned KD", "over standardized KD", "seconds per epoch", "times KD's",
    "peak memory", "extra parameters", "seeds", "notes",
)  # fmt: skip


class Comparison(Record):
    """All that methods.json holds."""

    contenders: list[str]
    seeds: list[int]
    tuned: str
    """The trial whose settings plain KD has."""
    tuning: dict[str, float]
    """Validation top-1 of the first seed, by trial."""
    cells: list[CellResult]
    costs: dict[str, Cost]
    """By contender."""
    failed: list[str]
    teacher: TeacherResult
    recipe: dict[str, Any]
    """What all contenders share."""
    environment: dict[str, str]


@dataclass(frozen=True)
class Line:
    label: str
    top1: list[float]
    """By seed."""
    gains: Mapping[str, float]
    """Means less those of the references, where these were trained."""
    seconds: float
    """Of an epoch, the median."""
    cost: Cost | None

    @property
    def mean(self) -> float:
        return statistics.mean(self.top1)

    @property
    def is_below_labels(self) -> bool:
        return self.label != LABELS and self.gains.get(LABELS, 0) < 0

    def notes(self) -> list[str]:
        below = ["below the student that was not distilled"] if self.is_below_labels else []
        return [*below, *([why_dear(self.cost)] if is_dear(self.cost) else [])]

    def row(self) -> list[str]:
        return [
            self.label,
            spread(self.top1),
            *(points(self.gains.get(name)) if name != self.label else "-" for name in REFERENCES),
            f"{self.seconds:.2f}",
            times(self.cost) if self.cost else "-",
            size(self.cost.memory_bytes) if self.cost else "-",
            many(self.cost.extra_params) if self.cost else "-",
            str(len(self.top1)),
            "; ".join(self.notes()) or "-",
        ]


def lines(made: Comparison) -> list[Line]:
    """In the order of the contenders; one that failed for every seed has none."""
    by_label = {label: [cell for cell in made.cells if cell.contender == label] for label in made.contenders}
    trained = {label: cells for label, cells in by_label.items() if cells}
    means = {label: statistics.mean(cell.top1 for cell in cells) for label, cells in trained.items()}
    return [
        Line(
            label=label,
            top1=[cell.top1 for cell in cells],
            gains={name: means[label] - means[name] for name in REFERENCES if name in means},
            seconds=statistics.median(second for cell in cells for second in cell.epoch_seconds),
            cost=made.costs.get(label),
        )
        for label, cells in trained.items()
    ]


def warnings(found: Iterable[Line]) -> list[str]:
    """What a reader must not overlook."""
    told = []
    for line in found:
        if line.is_below_labels:
            below = -100 * line.gains[LABELS]
            told.append(f"{line.label} ends {below:.2f} points below the student on the labels alone")
        if is_dear(line.cost):
            told.append(f"{line.label} takes {line.cost.times_kd:.2f} times as long as plain KD")
    return told


def is_dear(cost: Cost | None) -> TypeGuard[Cost]:
    return cost is not None and cost.times_kd > DEAR


def why_dear(cost: Cost) -> str:
    return f"more than {DEAR} times the time of plain KD{cost.reason and f': {cost.reason}'}"


def times(cost: Cost) -> str:
    """Plain KD's: the median over rounds, the least and the greatest."""
    return f"{cost.times_kd:.2f} ({'..'.join(f'{end:.2f}' for end in cost.times_kd_range)})"


def markdown(made: Comparison, found: Sequence[Line]) -> str:
    data, teacher = made.recipe["data"]["name"], made.teacher
    rows = "\n".join(f"| {' | '.join(row)} |" for row in (COLUMNS, ["---"] * len(COLUMNS), *(f.row() for f in found)))
    told = "".join(f"\n- {text}" for text in (*warnings(found), *made.failed))
    return (
        f"# {teacher.model} -> {made.recipe['student']['name']}, {data}\n\n{rows}\n"
        f"{told and f'{chr(10)}Warnings:{chr(10)}{told}{chr(10)}'}\n{footer(made)}\n\n![top-1](methods.svg)\n"
    )


def footer(made: Comparison) -> str:
    """How the figures came about."""
    phase, teacher, cell = made.recipe["phases"][0], made.teacher, made.cells[0]
    optimizer = phase["optimizer"]
    views = (
        f"What the teacher makes of the training images was computed once, for {teacher.views} fixed views of each, "
        "and read as fp16: its own pass is in no time and no memory of the table."
        if teacher.views
        else "The teacher was asked at every step."
    )
    tried = ", ".join(f"{label} {percent(top1)}" for label, top1 in made.tuning.items())
    how = next((cost.memory_how for cost in made.costs.values()), "-")
    machine = ", ".join(f"{key} {value}" for key, value in made.environment.items())
    paragraphs = (
        f"{cell.train_images} training images, {phase['epochs']} epochs, batch {phase['batch']}, learning rate "
        f"{optimizer['lr']:g} ({optimizer['schedule']}), weight decay {optimizer['weight_decay']:g}; seeds "
        f"{', '.join(map(str, made.seeds))}. Top-1 on the {cell.test_images} test images after the last epoch, in "
        "percent: mean and sample standard deviation over seeds; gains in points.",
        f"Teacher: {teacher.model}, {percent(teacher.top1)} ({teacher.source}). {views}",
        f"{TUNED}: {made.tuned}, the best of these on the validation images of seed {made.seeds[0]}: {tried}. "
        f"{LABELS}: cross-entropy alone. {STANDARDIZED}: logits of zero mean and unit spread, by its paper's weights.",
        "Seconds of an epoch, with the pass over the validation images, are the median. Times plain KD's: a training "
        f"step of each in turn in one process, median and range of {ROUNDS} rounds. Peak memory is the {how} over a "
        "few steps, in a process of its own. Extra parameters are those of the methods' own layers and of peers.",
        f"Device {teacher.device}; {machine}.",
    )
    return "\n\n".join(paragraphs)
