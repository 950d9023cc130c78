"""What each term of a recipe's loss is worth: the record of `kdedge bench ablation` as rows, sentences and a figure."""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kdedge.core.console import many, percent
from kdedge.core.markdown import table
from kdedge.core.record import Record
from kdedge.core.rundir import read_record

if TYPE_CHECKING:
    from markupsafe import Markup

RECORD = "ablation/ablation.json"
"""Within a run's folder."""
COLUMNS = (
    "trained by", "top-1", "over the labels alone", "the term's part", "seconds per epoch", "extra parameters", "seeds",
    "notes",
)  # fmt: skip
TEXTS = ("notes",)
"""Columns of words."""
NOISE = "within the spread of the seeds"
Role = Literal["labels", "added", "whole", "left out"]


class Trained(Record):
    """One way to train the student, over the seeds."""

    label: str
    role: Role
    term: str = ""
    """What makes the difference to `beside`."""
    beside: str = ""
    """Label of the row that it is held against."""
    top1: dict[int, float]
    """By seed, on the test split."""
    seconds: float
    """Of an epoch, the median."""
    extra_params: int
    """That only the training has."""


class AblationTeacher(Record):
    name: str
    top1: float
    source: str


class Ablation(Record):
    """All that ablation.json holds."""

    recipe: str
    student: str
    data: str
    teachers: list[AblationTeacher]
    seeds: list[int]
    epochs: int
    """Of the student, in all phases."""
    train_images: int
    test_images: int
    trained: list[Trained]
    """One that failed for every seed is not in it."""
    failed: list[str]
    settings: dict[str, Any]
    """The whole recipe as it was trained, with every default."""
    environment: dict[str, str]

    def row(self, label: str) -> Trained | None:
        return next((each for each in self.trained if each.label == label), None)

    def gain(self, row: Trained) -> float | None:
        """Mean top-1 less that of the student on the labels alone."""
        alone = next((each for each in self.trained if each.role == "labels"), None)
        return None if alone is None or row is alone else mean(row) - mean(alone)

    def parts(self, row: Trained) -> list[float]:
        """What the term added, by seed: with it less without it."""
        beside = self.row(row.beside)
        if beside is None:
            return []
        sign = -1 if row.role == "left out" else 1
        return [sign * (top1 - beside.top1[seed]) for seed, top1 in row.top1.items() if seed in beside.top1]


def read(run: Path) -> Ablation | None:
    """A run's record, or None where its terms were not taken apart.

    On the page, where it is not None: `summary(it)` above `table(COLUMNS, rows(it))`, `warnings(it)` as a list, then
    `Chart(TITLE, figure(it), NOTE)`.
    """
    path = run / RECORD
    return read_record(path, Ablation) if path.is_file() else None


TITLE = "Top-1 by terms of the loss"
NOTE = "Dots: seeds. Bars: their mean. Dashed: the student on the labels alone, and by the whole loss."


def rows(made: Ablation) -> list[list[str]]:
    """The labels alone, each term added to those before it, the whole, the whole without each term."""
    return [
        [
            row.label,
            spread(list(row.top1.values())),
            points(made.gain(row)),
            spread(parts, "+.2f") if (parts := made.parts(row)) else "-",
            f"{row.seconds:.2f}",
            many(row.extra_params),
            str(len(row.top1)),
            "; ".join(notes(made, row)) or "-",
        ]
        for row in made.trained
    ]


def notes(made: Ablation, row: Trained) -> Iterator[str]:
    if row.role == "whole" and (made.gain(row) or 0) < 0:
        yield "below the student that was not distilled"
    if is_worse(made, row):
        yield f"{row.term} makes it worse{unsure(made.parts(row))}"


def warnings(made: Ablation) -> list[str]:
    """What a reader must not overlook."""
    told = []
    for row in made.trained:
        if row.role == "whole" and (gain := made.gain(row) or 0) < 0:
            told.append(f"{row.label} ends {-100 * gain:.2f} points below the student on the labels alone")
        if is_worse(made, row):
            lost, where = -100 * statistics.mean(made.parts(row)), unsure(made.parts(row))
            place = "than the whole" if row.role == "left out" else f"than by {row.beside}"
            how = (
                f"without {row.term} the student ends {lost:.2f} points higher"
                if row.role == "left out"
                else (f"with {row.term} added it ends {lost:.2f} points lower")
            )
            told.append(f"{how} {place}{where}")
    return [*told, *made.failed]


def is_worse(made: Ablation, row: Trained) -> bool:
    parts = made.parts(row)
    return bool(parts) and statistics.mean(parts) < 0


def unsure(parts: Sequence[float]) -> str:
    """Said of a difference that other seeds might turn around."""
    if len(parts) == 1:
        return ", by one seed"
    return f", {NOISE}" if abs(statistics.mean(parts)) <= statistics.stdev(parts) else ""


def summary(made: Ablation) -> str:
    """How the figures came about."""
    taught = "".join(f" Teacher: {each.name}, {percent(each.top1)} ({each.source})." for each in made.teachers)
    return (
        f"{made.student} on {made.data}: {made.train_images} training images, {made.epochs} epochs, seeds "
        f"{', '.join(map(str, made.seeds))}; top-1 on the {made.test_images} test images after the last epoch, in "
        "percent: mean and sample standard deviation over seeds. A term's part, in points, is the difference that it "
        "makes to the row before it, or to the whole that it is left out of; both start from the same seed. Seconds of "
        "an epoch, with the pass over the validation images, are the median."
        f"{taught}"
    )


def markdown(made: Ablation) -> str:
    """The file that lies beside the record and the figure."""
    told = "".join(f"- {text}\n" for text in warnings(made))
    machine = ", ".join(f"{key} {value}" for key, value in made.environment.items())
    parts = (
        f"# Terms of {made.recipe}",
        "\n".join(table(COLUMNS, rows(made))),
        *([f"Warnings:\n\n{told}".rstrip()] if told else []),
        summary(made),
        f"{machine}.",
        "![top-1](ablation.svg)",
    )
    return "\n\n".join(parts) + "\n"


def figure(made: Ablation) -> "Markup":
    """Every seed a dot, every mean a bar, in the order of the table."""
    import matplotlib as mpl

    from kdedge.report.svg import SERIES, STYLE, canvas, inline

    colors = {"labels": SERIES[1], "added": SERIES[0], "whole": SERIES[2], "left out": SERIES[3]}
    with mpl.rc_context(STYLE):
        drawn, axes = canvas(0.9 + 0.3 * len(made.trained))
        for place, row in enumerate(made.trained):
            color, top1 = colors[row.role], [100 * value for value in row.top1.values()]
            axes.plot(100 * mean(row), place, "|", color=color, markersize=14, markeredgewidth=2.4)
            axes.plot(top1, [place] * len(top1), "o", color=color, markersize=4, alpha=0.7)
            if row.role in ("labels", "whole"):
                axes.axvline(100 * mean(row), color=color, linestyle="--", linewidth=1)
        axes.set_yticks(range(len(made.trained)), [row.label for row in made.trained])
        axes.invert_yaxis()
        axes.set_xlabel("top-1, percent")
        axes.grid(visible=False, axis="y")
        return inline(drawn, "ablation", f"{TITLE} of {made.recipe}")


def mean(row: Trained) -> float:
    return statistics.mean(row.top1.values())


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Of fractions, in percent: the mean and the sample standard deviation."""
    deviation = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):{form}}{deviation}"


def points(gain: float | None) -> str:
    """A difference of fractions in percentage points."""
    return "-" if gain is None else f"{100 * gain:+.2f}"
