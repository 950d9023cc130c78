"""The table of a comparison, on figures made up here."""

import xml.etree.ElementTree as ET
from typing import Any

import pytest

from kdedge.bench import plot, table
from kdedge.bench.cells import CellResult, TeacherResult
from kdedge.bench.contenders import LABELS, STANDARDIZED, TUNED
from kdedge.bench.cost import Cost
from kdedge.bench.table import COLUMNS, Comparison

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
        top1=TOP1[label][seed],
        validation_top1=0.5,
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
                times_kd=TIMES[label],
                times_kd_range=(TIMES[label] - 0.125, TIMES[label] + 0.25),
                memory_bytes=3 * 2**19,
                memory_how="growth",
                extra_params=1500 if label == "reviewkd" else 0,
                reason="it fuses" if label == "reviewkd" else "it taps",
            )
            for label in CONTENDERS
        },
        failed=[],
        teacher=TeacherResult(model="resnet56", source="a.th", top1=0.9339, views=4, device="cpu"),
        recipe=recipe,
        environment={"python": "3.11"},
    )


def rows(made: Comparison) -> dict[str, dict[str, str]]:
    return {line.label: dict(zip(COLUMNS, line.row(), strict=True)) for line in table.lines(made)}


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
