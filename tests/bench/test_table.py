"""The table of a comparison, on figures made up here."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from kdedge.bench import plot, table
from kdedge.bench.cells import CellResult, TeacherResult
from kdedge.bench.contenders import LABELS, STANDARDIZED, TUNED
from kdedge.bench.cost import Cost
from kdedge.bench.table import Comparison
from kdedge.core.rundir import read_record

METHODS = Path(__file__).parents[2] / "benchmarks/methods"

CONTENDERS = [LABELS, TUNED, STANDARDIZED, "attention", "reviewkd"]
TOP1 = {
    LABELS: (0.5, 0.6),
    TUNED: (0.62, 0.64),
    STANDARDIZED: (0.7, 0.6),
    "attention": (0.52, 0.56),
    "reviewkd": (0.71, 0.75),
}
TIMES = {LABELS: 0.75, TUNED: 1.0, STANDARDIZED: 1.05, "attention": 1.6, "reviewkd": 1.7}
FASTEST = (10.0, 12.0)
"""Epoch of either seed."""


def cell(label: str, seed: int) -> CellResult:
    return CellResult(
        contender=label,
        seed=seed,
        run=f"{label}-{seed}",
        epochs=3,
        train_images=9000,
        test_images=10000,
        accuracy=TOP1[label][seed],
        validation_accuracy=0.5,
        epoch_seconds=[FASTEST[seed] + 4, FASTEST[seed], FASTEST[seed] + 1],
    )


@pytest.fixture
def made() -> Comparison:
    phase = {"epochs": 3, "batch": 64, "optimizer": {"lr": 0.05, "schedule": "step", "weight_decay": 5e-4}}
    recipe: dict[str, Any] = {"data": {"name": "cifar10"}, "student": {"name": "resnet8"}, "phases": [phase]}
    return Comparison(
        contenders=CONTENDERS,
        seeds=[0, 1],
        tuned="logits T=4",
        tuning={"logits T=2": 0.5, "logits T=4": 0.61},
        cells=[cell(label, seed) for label in CONTENDERS for seed in (0, 1)],
        costs={
            label: Cost(
                times=TIMES[label],
                times_range=(TIMES[label] - 0.125, TIMES[label] + 0.25),
                memory_bytes=3 * 2**19,
                memory_how="growth",
                extra_params=1500 if label == "reviewkd" else 0,
                reason="it fuses" if label == "reviewkd" else "it taps",
            )
            for label in CONTENDERS
        },
        failed=[],
        teacher=TeacherResult(model="resnet56", source="a.th", accuracy=0.9339, views=4, device="cpu"),
        recipe=recipe,
        environment={"python": "3.11"},
    )


def rows(made: Comparison) -> dict[str, dict[str, str]]:
    return {line.label: dict(zip(table.columns(made.task), line.row(), strict=True)) for line in table.lines(made)}


def test_means_deviations_and_gains_by_hand(made: Comparison) -> None:
    found = rows(made)
    assert list(found) == CONTENDERS
    assert found[LABELS]["top-1"] == "55.00 ± 7.07"  # |0.6 - 0.5| / sqrt(2)
    assert found[TUNED]["top-1"] == "63.00 ± 1.41"
    review = found["reviewkd"]
    assert review["top-1"] == "73.00 ± 2.83"
    assert (review["over labels"], review["over tuned KD"], review["over standardized KD"]) == (
        "+18.00",
        "+10.00",
        "+8.00",
    )
    assert (found[LABELS]["over labels"], found[LABELS]["over tuned KD"]) == ("-", "-8.00")
    assert (review["peak memory"], review["extra parameters"], review["seeds"]) == ("1.5 MiB", "1.5k", "2")


def test_seconds_are_the_median_and_times_show_their_range(made: Comparison) -> None:
    found = rows(made)
    assert found[TUNED]["seconds per epoch"] == "12.50"  # of 14, 10, 11 and 16, 12, 13
    assert found[LABELS]["times KD's"] == "0.75 (0.62..1.00)"


def test_method_below_the_student_on_labels_and_dear_method_are_told(made: Comparison) -> None:
    found = table.lines(made)
    assert table.warnings(found) == [
        "attention ends 1.00 points below the student on the labels alone",
        "reviewkd takes 1.70 times as long as plain KD",
    ]
    assert rows(made)["attention"]["notes"] == "below the student that was not distilled"
    assert rows(made)["reviewkd"]["notes"] == "more than 1.6 times the time of plain KD: it fuses"
    assert rows(made)[TUNED]["notes"] == "-"


def test_markdown_says_how_the_figures_came_about(made: Comparison) -> None:
    text = table.markdown(made, table.lines(made))
    assert text.count("\n| ") == 2 + len(CONTENDERS)
    for said in (
        "- attention ends 1.00 points below",
        "9000 training images, 3 epochs, batch 64, learning rate 0.05 (step)",
        "Teacher: resnet56, 93.39 %",
        "4 fixed views of each, and read as fp16",
        "logits T=2 50.00 %, logits T=4 61.00 %",
    ):
        assert said in text


def test_table_does_without_what_failed_and_says_so(made: Comparison) -> None:
    made = made.model_copy(
        update={
            "cells": [each for each in made.cells if each.contender != TUNED and each.run != "attention-1"],
            "costs": {},
            "failed": ["attention, seed 1: the loss is not finite"],
        }
    )
    found = rows(made)
    assert TUNED not in found
    assert (found["attention"]["top-1"], found["attention"]["seeds"]) == ("52.00", "1")
    assert {found["attention"][name] for name in ("over tuned KD", "times KD's", "peak memory")} == {"-"}
    assert "- attention, seed 1: the loss is not finite" in table.markdown(made, table.lines(made))


def test_plot_names_every_method(made: Comparison) -> None:
    text = plot.figure(made, table.lines(made))
    shown = "".join(ET.fromstring(text).itertext())
    assert all(label in shown for label in CONTENDERS)


@pytest.fixture
def boxes(made: Comparison) -> Comparison:
    """Of detectors: the student alone, and two methods."""
    labels = [LABELS, "attention", "reviewkd"]
    return made.model_copy(
        update={
            "task": "detect",
            "contenders": labels,
            "tuned": "",
            "tuning": {},
            "cells": [each for each in made.cells if each.contender in labels],
            "costs": {label: made.costs[label] for label in labels},
        }
    )


def test_detectors_are_held_against_the_student_alone_by_map(boxes: Comparison) -> None:
    assert table.columns("detect") == [
        "method", "mAP", "over labels", "seconds per epoch", "times labels'", "peak memory", "extra parameters",
        "seeds", "notes",
    ]  # fmt: skip
    found = rows(boxes)
    assert (found["reviewkd"]["mAP"], found["reviewkd"]["over labels"]) == ("73.00 ± 2.83", "+18.00")
    assert found["attention"]["notes"] == "below the student that was not distilled"


def test_teachers_pass_makes_every_detector_dear_and_none_is_told_of(boxes: Comparison) -> None:
    lines = table.lines(boxes)
    assert table.warnings(lines) == ["attention ends 1.00 points below the student on the labels alone"]
    assert rows(boxes)["reviewkd"]["notes"] == "-"


def test_markdown_of_detectors_speaks_of_no_classifier(boxes: Comparison) -> None:
    text = table.markdown(boxes, table.lines(boxes))
    for said in ("mAP on the 10000 test images", "93.39 % mAP (a.th)", "the boxes alone", "Times the labels'"):
        assert said in text
    assert not re.search("top-1|cross-entropy|plain KD|tuned", text, re.IGNORECASE)
    assert "mAP on the test images" in "".join(ET.fromstring(plot.figure(boxes, table.lines(boxes))).itertext())


def test_records_of_before_there_were_detectors_are_read(made: Comparison) -> None:
    old = made.model_dump(mode="json", exclude={"task"})
    for cell in old["cells"]:
        cell |= {"top1": cell.pop("accuracy"), "validation_top1": cell.pop("validation_accuracy")}
    for each in old["costs"].values():
        each |= {"times_kd": each.pop("times"), "times_kd_range": each.pop("times_range")}
    old["teacher"]["top1"] = old["teacher"].pop("accuracy")
    assert Comparison.model_validate(old) == made


@pytest.mark.parametrize("folder", sorted(METHODS.glob("*/methods.json")), ids=lambda path: path.parent.name)
def test_committed_comparison_still_makes_its_table(folder: Path) -> None:
    made = read_record(folder, Comparison)
    text, kept = table.markdown(made, table.lines(made)), folder.with_suffix(".md").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line[:1] in "|-"] == [
        line for line in kept.splitlines() if line[:1] in "|-"
    ]
