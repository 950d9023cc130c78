"""What each term of a recipe's loss is worth: the record of `kdedge bench ablation` as rows, sentences and a figure."""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import AliasChoices, Field

from kdedge.core.console import many, percent
from kdedge.core.markdown import table
from kdedge.core.quality import MEASURES, Measure, Task
from kdedge.core.record import Record
from kdedge.core.rundir import read_record

if TYPE_CHECKING:
    from markupsafe import Markup

RECORD = "ablation/ablation.json"
"""Within a run's folder."""
TEXTS = ("notes",)
"""Columns of words."""
NOISE = "within the spread of the seeds"
Role = Literal["labels", "added", "whole", "left out", "beside"]
"""Of a row; beside are other ways to train the student, which take nothing from the recipe's loss."""


class Trained(Record):
    """One way to train the student, over the seeds."""

    label: str
    role: Role
    term: str = ""
    """What makes the difference to `beside`."""
    beside: str = ""
    """Label of the row that it is held against."""
    accuracy: dict[int, float] = Field(validation_alias=AliasChoices("accuracy", "top1"))
    """By seed, on the test split, by the measure of the task."""
    seconds: float
    """Of an epoch, the median."""
    extra_params: int
    """That only the training has."""


class AblationTeacher(Record):
    name: str
    accuracy: float = Field(validation_alias=AliasChoices("accuracy", "top1"))
    source: str


class Ablation(Record):
    """All that ablation.json holds."""

    recipe: str
    task: Task = "classify"
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

    @property
    def measure(self) -> Measure:
        """What every accuracy in here is."""
        return MEASURES[self.task]

    def row(self, label: str) -> Trained | None:
        return next((each for each in self.trained if each.label == label), None)

    @property
    def alone(self) -> Trained | None:
        """The student on the labels alone."""
        return next((each for each in self.trained if each.role == "labels"), None)

    def gain(self, row: Trained) -> float | None:
        """Mean accuracy less that of the student on the labels alone."""
        alone = self.alone
        return None if alone is None or row is alone else mean(row) - mean(alone)

    def parts(self, row: Trained) -> list[float]:
        """What the term added, by seed: with it less without it."""
        beside = self.row(row.beside)
        sign = -1 if row.role == "left out" else 1
        return [sign * part for part in differences(row, beside)] if beside else []


def read(run: Path) -> Ablation | None:
    """A run's record, or None where its terms were not taken apart.

    On the page, where it is not None: `summary(it)` above `table(columns(it), rows(it))`, `warnings(it)` as a list,
    then `Chart(TITLE, figure(it), NOTE)`.
    """
    path = run / RECORD
    return read_record(path, Ablation) if path.is_file() else None


TITLE = "What the terms of the loss are worth"
NOTE = "Dots: seeds. Bars: their mean. Dashed: the student on the labels alone, and by the whole loss."


def columns(made: Ablation) -> tuple[str, ...]:
    return (
        "trained by", made.measure.label, "over the labels alone", "the term's part", "seconds per epoch",
        "extra parameters", "seeds", "notes",
    )  # fmt: skip


def rows(made: Ablation) -> list[list[str]]:
    """The labels alone, each term added to those before it, the whole, the whole without each term, what is beside."""
    return [
        [
            row.label,
            spread(list(row.accuracy.values())),
            points(made.gain(row)),
            spread(parts, "+.2f") if (parts := made.parts(row)) else "-",
            f"{row.seconds:.2f}",
            many(row.extra_params),
            str(len(row.accuracy)),
            "; ".join(notes(made, row)) or "-",
        ]
        for row in made.trained
    ]


def notes(made: Ablation, row: Trained) -> Iterator[str]:
    if row.role in ("whole", "beside") and made.alone:
        gain, doubt = made.gain(row) or 0, unsure(differences(row, made.alone))
        if gain < 0:
            yield f"below the student that was not distilled{doubt}"
        elif gain and doubt:
            yield f"above the labels alone{doubt}"
    if is_worse(made, row):
        yield f"{row.term} makes it worse{unsure(made.parts(row))}"


def warnings(made: Ablation) -> list[str]:
    """What a reader must not overlook."""
    told = []
    for row in made.trained:
        if row.role in ("whole", "beside") and (gain := made.gain(row) or 0) < 0:
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


def differences(row: Trained, other: Trained) -> list[float]:
    """Of two rows' accuracies, by the seeds that both have."""
    return [accuracy - other.accuracy[seed] for seed, accuracy in row.accuracy.items() if seed in other.accuracy]


def unsure(parts: Sequence[float]) -> str:
    """Said of a difference that other seeds might turn around."""
    if len(parts) < 2:
        return ", by one seed" if parts else ""
    return f", {NOISE}" if abs(statistics.mean(parts)) <= statistics.stdev(parts) else ""


def summary(made: Ablation) -> str:
    """How the figures came about."""
    measure = made.measure.label
    taught = "".join(
        f"Teacher: {each.name}, {percent(each.accuracy)} {measure} ({each.source}). " for each in made.teachers
    )
    return (
        f"{taught}Student: {made.student} on {made.data}: {made.train_images} training images, {made.epochs} epochs, "
        f"seeds {', '.join(map(str, made.seeds))}; {measure} on the {made.test_images} test images after the last "
        "epoch, in percent: mean and sample standard deviation over seeds. A term's part, in points, is the difference "
        "that it makes to the row before it, or to the whole that it is left out of; both start from the same seed. "
        "Seconds of an epoch, with the pass over the validation images, are the median."
    )


def markdown(made: Ablation) -> str:
    """The file that lies beside the record and the figure."""
    told = "".join(f"- {text}\n" for text in warnings(made))
    machine = ", ".join(f"{key} {value}" for key, value in made.environment.items())
    parts = (
        f"# Terms of {made.recipe}",
        summary(made),
        "\n".join(table(columns(made), rows(made))),
        *([f"Warnings:\n\n{told}".rstrip()] if told else []),
        f"{machine}.",
        f"![{made.measure.label}](ablation.svg)",
    )
    return "\n\n".join(parts) + "\n"


def figure(made: Ablation) -> "Markup":
    """Every seed a dot, every mean a bar, in the order of the table."""
    import matplotlib as mpl

    from kdedge.report.svg import SERIES, STYLE, canvas, inline

    colors = {
        "labels": SERIES[1], "added": SERIES[0], "whole": SERIES[2], "left out": SERIES[3], "beside": SERIES[4],
    }  # fmt: skip
    with mpl.rc_context(STYLE):
        drawn, axes = canvas(0.9 + 0.3 * len(made.trained))
        for place, row in enumerate(made.trained):
            color, values = colors[row.role], [100 * value for value in row.accuracy.values()]
            axes.plot(100 * mean(row), place, "|", color=color, markersize=14, markeredgewidth=2.4)
            axes.plot(values, [place] * len(values), "o", color=color, markersize=4, alpha=0.7)
            if row.role in ("labels", "whole"):
                axes.axvline(100 * mean(row), color=color, linestyle="--", linewidth=1)
        axes.set_yticks(range(len(made.trained)), [row.label for row in made.trained])
        axes.invert_yaxis()
        axes.set_xlabel(f"{made.measure.label}, percent")
        axes.grid(visible=False, axis="y")
        return inline(drawn, "ablation", f"{TITLE} of {made.recipe}")


def mean(row: Trained) -> float:
    return statistics.mean(row.accuracy.values())


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Of fractions, in percent: the mean and the sample standard deviation."""
    deviation = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):{form}}{deviation}"


def points(gain: float | None) -> str:
    """A difference of fractions in percentage points."""
    return "-" if gain is None else f"{100 * gain:+.2f}"
