"""Which run dominates which: worked out by hand."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from entries import HERE, SVHN, THERE, entry
from hypothesis import given
from hypothesis import strategies as some

from kdedge.core.quality import MEASURES
from kdedge.core.report import Metric
from kdedge.report.compare import columns, markdown, plain, rows, sentences
from kdedge.report.fronts import COSTS, Point, beats, front, fronts
from kdedge.report.pareto import fronts_file, shortened

LATENCY, SIZE, _, ENERGY = COSTS
SMALL = entry("small", HERE, fp32=(0.90, 4096, 1.0), int8=(0.89, 1024, 0.5))
LARGE = entry("large", HERE, fp32=(0.95, 8192, 2.0), int8=(0.90, 2048, 1.5))
ELSEWHERE = entry("board", THERE, fp32=(0.91, 4096, 0.1), int8=(0.80, 512, 0.05))
UNMEASURED = entry("unmeasured", {}, fp32=(0.5, 9000, 0))


def test_rows_have_a_line_for_each_precision_and_a_dash_for_what_is_not_there():
    assert rows([SMALL, UNMEASURED]) == [
        ["small", "resnet8", "fp32", "90.00 %", "1.5k", "-", "4.0 KiB", "1.000", "-", "-", "A"],
        ["small", "resnet8", "int8", "89.00 %", "1.5k", "-", "1.0 KiB", "0.500", "-", "-", "A"],
        ["unmeasured", "resnet8", "fp32", "50.00 %", "1.5k", "-", "8.8 KiB", "-", "-", "-", "-"],
    ]


def test_front_of_size_is_over_all_machines():
    by_size = next(one for one in fronts([SMALL, LARGE, ELSEWHERE]) if one.cost == SIZE)
    assert list(map(str, by_size.best)) == ["board int8", "small int8", "large int8", "board fp32", "large fp32"]
    assert [(str(point), str(better)) for point, better in by_size.beaten] == [("small fp32", "board fp32")]


def test_front_of_latency_is_of_one_machine():
    found = [one for one in fronts([SMALL, LARGE, ELSEWHERE]) if one.cost == LATENCY]
    assert [one.machine for one in found] == [0, 1]
    assert list(map(str, found[0].best)) == ["small int8", "small fp32", "large fp32"]
    assert list(map(str, found[1].best)) == ["board int8", "board fp32"]


def test_sentences_say_what_dominates_and_what_is_not_compared():
    entries = [SMALL, LARGE, ELSEWHERE, UNMEASURED]
    said = list(sentences(entries, list(fronts(entries))))
    assert said[0] == "accuracy against latency on machine A: the front is small int8, small fp32, large fp32"
    assert said[1] == "small fp32 dominates large int8: the same top-1, 33.3 % less latency"
    assert said[-2] == (
        "latency, memory and energy of different machines are not compared: A and B differ in cpu fast and slow"
    )
    assert said[-1] == "not measured: unmeasured"


def test_sentences_name_no_machine_where_there_is_one():
    said = list(sentences([SMALL, LARGE], list(fronts([SMALL, LARGE]))))
    assert said[0] == "accuracy against latency: the front is small int8, small fp32, large fp32"
    assert not [text for text in said if "machine" in text]


@pytest.mark.parametrize(
    ("other", "beaten"),
    [((0.9, 1.02), False), ((0.9, 1.04), True), ((0.89, 1.02), True), ((0.91, 1.04), False), ((0.9, 1.0), False)],
)
def test_measured_difference_counts_beyond_noise_only(other, beaten):
    assert beats(Point("a", "fp32", 0.9, 1.0), Point("b", "fp32", *other), noise=0.03) is beaten


def test_run_dominates_one_whose_every_precision_it_beats():
    worse = entry("worse", HERE, fp32=(0.89, 4096, 1.2), int8=(0.89, 1024, 0.6))
    found = {one.cost.title: one.runs for one in fronts([worse, SMALL])}
    assert found == {"latency": [("small", "worse")], "size": []}  # int8 of both are as large
    assert "run small dominates run worse in all its precisions" in sentences(
        [worse, SMALL], list(fronts([worse, SMALL]))
    )


def test_equal_points_stand_on_the_front_together():
    found = front([Point("a", "fp32", 0.9, 10), Point("b", "fp32", 0.9, 10)], SIZE)
    assert len(found.best) == 2
    assert found.beaten == []


POINTS = some.lists(some.tuples(some.integers(0, 5), some.integers(95, 110)), min_size=1, max_size=12)


@given(POINTS, some.sampled_from([0.0, 0.03]))
def test_every_point_is_on_the_front_or_told_with_one_that_beats_it(pairs, noise):
    cost = LATENCY if noise else SIZE
    found = [Point(str(number), "fp32", float(top1), float(price)) for number, (top1, price) in enumerate(pairs)]
    result = front(found, cost)
    assert sorted([*result.best, *(point for point, _ in result.beaten)]) == sorted(found)
    assert result.best
    assert all(beats(better, point, noise) and better in result.best for point, better in result.beaten)
    assert not any(beats(one, other, noise) for one in result.best for other in result.best)


def test_markdown_has_the_table_and_the_sentences():
    lines = markdown([SMALL, LARGE]).splitlines()
    assert lines[0].startswith("| run | student | precision | top-1 |")
    assert lines[2].startswith("| small | resnet8 | fp32 | 90.00 % |")
    assert "- small fp32 dominates large int8: the same top-1, 33.3 % less latency" in lines


def test_plain_has_each_front_and_what_it_beats():
    told = plain([SMALL, LARGE])
    assert [run["name"] for run in told["runs"]] == ["small", "large"]
    latency = told["fronts"][0]
    assert (latency["cost"], latency["machine"], len(latency["front"])) == ("latency_median_ms", "A", 3)
    (beaten,) = latency["dominated"]
    assert (beaten["point"]["run"], beaten["by"]["run"]) == ("large", "small")


def test_detectors_are_compared_by_their_own_measure():
    small, large = (
        replace(each, measure=MEASURES["detect"], metrics=renamed(each.metrics), intervals=renamed(each.intervals))
        for each in (SMALL, LARGE)
    )
    assert rows([small])[0][3] == "90.00 %"
    assert columns([small])[3] == "mAP"
    said = list(sentences([small, large], list(fronts([small, large]))))
    assert said[1] == "small fp32 dominates large int8: the same mAP, 33.3 % less latency"
    front_ = plain([small, large])["fronts"][0]["front"]
    assert front_[0].items() >= {"run": "small", "mean_ap": 0.89, "mean_ap_interval": (0.88, 0.9)}.items()
    assert 'aria-label="mAP against latency, size"' in fronts_file([small, large], list(fronts([small, large])))


def renamed(values):
    return {name.replace("top1", "mean_ap"): value for name, value in values.items()}


def test_detector_and_classifier_are_not_compared():
    detector = replace(LARGE, measure=MEASURES["detect"], metrics=renamed(LARGE.metrics))
    assert [{point.run for point in one.best} for one in fronts([SMALL, detector])] == [
        {"small"},
        {"small"},
        {"large"},
        {"large"},
    ]
    assert columns([SMALL, detector])[3] == "top-1 or mAP"
    said = list(sentences([SMALL, detector], []))
    assert "test set 1 and test set 2 differ in accuracy top-1 and mAP" in said[0]


def test_plain_names_accuracy_by_its_measure():
    point = plain([SMALL, LARGE])["fronts"][0]["front"][0]
    assert list(point) == ["run", "precision", "top1", "cost", "top1_interval", "cost_interval"]


def test_runs_with_other_test_images_are_not_compared():
    other = entry("other", HERE, SVHN, fp32=(0.99, 10, 0.1), int8=(0.98, 5, 0.05))
    entries = [SMALL, other, LARGE]
    found = list(fronts(entries))
    assert [(one.cost.title, one.test_set) for one in found] == [
        ("latency", 0),
        ("size", 0),
        ("latency", 1),
        ("size", 1),
    ]
    assert not any("other" in str(point) for one in found[:2] for point in one.best)
    said = list(sentences(entries, found))
    assert "accuracy against size, test set 2: the front is other int8, other fp32" in said
    assert said[-3:] == [
        "accuracies on different test images are not compared: "
        "test set 1 and test set 2 differ in data digits and svhn, images 360 and 26032",
        "test set 1: small, large",
        "test set 2: other",
    ]
    assert [one["test_set"] for one in plain(entries)["fronts"]] == [1, 1, 2, 2]


def test_cost_that_is_not_known_of_some_is_told():
    energy = {f"{name}/energy_net_mj": Metric(value=2.0, unit="mJ", better="lower") for name in ("fp32", "int8")}
    entries = [replace(SMALL, metrics=SMALL.metrics | energy), LARGE]
    found = next(one for one in fronts(entries) if one.cost == ENERGY)
    assert {str(point) for point in found.best} == {"small fp32"}
    assert found.missing == ["large fp32", "large int8"]
    assert "no energy is known of large fp32, large int8" in sentences(entries, [found])


def names(figure: str, *runs: str) -> list[int]:
    return [figure.count(f">{run}</text>") for run in runs]


def test_figure_has_a_panel_for_each_front_and_names_its_points():
    figure = fronts_file([SMALL, LARGE], list(fronts([SMALL, LARGE])))
    assert ET.fromstring(figure).tag == "{http://www.w3.org/2000/svg}svg"
    assert names(figure, "latency", "size", "median latency, ms", "fp32", "int8", "front") == [1] * 6
    assert names(figure, "small", "large") == [4, 4]  # two precisions in two panels
    assert not re.search(r"var\(|currentColor|#0000[01]\d", figure)
    assert fronts_file([SMALL, LARGE], list(fronts([SMALL, LARGE]))) == figure


def test_figure_keeps_machines_apart():
    entries = [SMALL, LARGE, ELSEWHERE]
    figure = fronts_file(entries, list(fronts(entries)))
    assert names(figure, "latency on machine A", "latency on machine B", "size") == [1, 1, 1]
    assert names(figure, "board") == [4]


def test_figure_draws_the_intervals():
    bare = [replace(each, intervals={}) for each in (SMALL, LARGE)]
    drawn = [fronts_file(each, list(fronts(each))).count("stroke-opacity: 0.4") for each in ([SMALL, LARGE], bare)]
    assert drawn[0] - drawn[1] == 4 * 2 + 4  # of accuracy in both panels, of latency in one


def test_long_names_keep_both_ends():
    assert shortened("resnet_dw-1263bf8a") == "resnet_dw-1263bf8a"
    assert shortened("resnet_grouped_long-1263bf8a") == "resnet_grou\N{HORIZONTAL ELLIPSIS}g-1263bf8a"
    assert len(shortened("x" * 100)) == 22
