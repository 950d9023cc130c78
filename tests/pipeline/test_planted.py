"""A regression of each kind, planted into a run: verdict, exit code, JUnit and Markdown."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest
from forked import Forkserver
from mini import Finished

from kdedge.core.correctness import correctness

Plant = Callable[[Path], None]
CALM = [1.00, 1.01, 1.02, 1.03, 1.04]
"""Milliseconds: the median query of each process."""
IMAGES = 1000


@contextmanager
def edited(path: Path) -> Iterator[Any]:
    record = json.loads(path.read_text())
    yield record
    path.write_text(json.dumps(record))


def measure(run: Path, name: str, times: list[float]) -> None:
    """As if processes with these medians had been measured."""
    with edited(run / f"profile/{name}.json") as record:
        process = record["samples"][0] | {"settled": True}
        record["samples"] = [process] * len(times)
        record["peak_memory_bytes"] = process["peak_bytes"] - process["baseline_bytes"]
        record["latency"] |= {"median": median(times), "by_process": {"p50": times}}
        record["latency"]["percentiles"] = {}
        record["throttled"] = []


def answer(run: Path, right: int) -> None:
    """As if the int8 engine had been asked a thousand images and were right about the first so many."""
    ids = range(IMAGES)
    known = correctness((index < right for index in ids), ids, [0] * IMAGES)
    with edited(run / "export.json") as record:
        [hop] = [hop for hop in record["hops"] if hop["name"] == "engine-int8"]
        hop["correctness"] = known.model_dump(mode="json")
        hop["quality"] |= {"images": IMAGES, "top1": right / IMAGES}


def lose_a_point(run: Path) -> None:
    answer(run, 890)


def grow(run: Path) -> None:
    with edited(run / "export.json") as record:
        record["onnx"]["int8"]["bytes"] = record["onnx"]["int8"]["bytes"] * 11 // 10


def slow_down(run: Path) -> None:
    measure(run, "int8", [1.1 * time for time in CALM])


def lose_a_metric(run: Path) -> None:
    with edited(run / "export.json") as record:
        record["onnx"]["int8"]["layers"] = None


def change_the_device(run: Path) -> None:
    for path in (run / "profile").glob("*.json"):
        with edited(path) as record:
            record["device"]["match"]["cpu"] = "another one"


def throttle(run: Path) -> None:
    with edited(run / "profile/int8.json") as record:
        record["throttled"] = ["the clock fell to 600 MHz"]


def measure_three_only(run: Path) -> None:
    measure(run, "int8", CALM[:3])


class Planted(NamedTuple):
    plant: Plant
    verdict: str
    code: int
    metric: str
    junit: str
    headline: str
    reason: str


FAILED, UNDECIDED = "### kdedge gate failed: a limit is not kept", "### kdedge gate undecided: "
LATENCY = "int8/latency_median_ms"
KINDS = [
    Planted(
        lose_a_point, "regression", 1, "int8/top1", "failure", FAILED,
        "-1.00 points: 10 images lost, 0 won, p = 0.00098",  # 1 / 2^10
    ),
    Planted(grow, "regression", 1, "int8/onnx_bytes", "failure", FAILED, "+10.0 %"),
    Planted(slow_down, "regression", 1, LATENCY, "failure", FAILED, "+10.0 %, p = 0.0079"),  # 2 of 252 orders
    Planted(lose_a_metric, "regression", 1, "int8/onnx_layers", "failure", FAILED, "vanished: the baseline has it"),
    Planted(
        change_the_device, "incomparable", 3, LATENCY, "skipped",
        f"{UNDECIDED}the baseline is from another environment", "is another one",
    ),
    Planted(
        throttle, "unstable", 4, LATENCY, "error",
        f"{UNDECIDED}a measurement did not settle", "the clock fell to 600 MHz",
    ),
    Planted(
        measure_three_only, "insufficient", 3, LATENCY, "skipped",
        f"{UNDECIDED}there is too little to compare with", "3 against 5 processes, 4 against 4 are the least",
    ),
]  # fmt: skip


@pytest.fixture
def accepted(forkserver: Forkserver, copied: Finished) -> Finished:
    """A run without budgets whose numbers are the baseline."""
    with edited(copied.run / "recipe.json") as saved:
        saved["recipe"]["gate"] = {"budgets": [], "baseline": str(copied.folder / "baseline.json")}
    for path in (copied.run / "profile").glob("*.json"):
        measure(copied.run, path.stem, CALM)
    answer(copied.run, 900)
    code, process = forkserver.run(["gate", str(copied.run), "--update", "--reason", "first"], copied.folder)
    assert code == 0, process.stderr
    return copied


def test_gate_passes_what_has_not_changed(forkserver: Forkserver, accepted: Finished) -> None:
    assert forkserver.run(["gate", str(accepted.run)], accepted.folder)[0] == 0
    assert ElementTree.parse(accepted.run / "gate.xml").getroot().get("failures") == "0"
    assert "### kdedge gate passed" in (accepted.run / "gate.md").read_text()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plant.__name__)
def test_planted_regression_is_found_and_told(forkserver: Forkserver, accepted: Finished, kind: Planted) -> None:
    kind.plant(accepted.run)
    assert forkserver.run(["gate", str(accepted.run)], accepted.folder)[0] == kind.code

    result = accepted.json("gate.json")
    [check] = [check for check in result["checks"] if check["metric"] == kind.metric]
    assert (result["verdict"], check["verdict"]) == (kind.verdict, kind.verdict)
    assert kind.reason in check["reason"]

    cases = ElementTree.parse(accepted.run / "gate.xml").getroot().iter("testcase")
    [case] = [case for case in cases if case.get("name", "").startswith(f"{kind.metric} ")]
    [told] = case
    assert (told.tag, told.get("type")) == (kind.junit, kind.verdict)
    assert kind.reason in told.get("message", "")

    lines = (accepted.run / "gate.md").read_text().splitlines()
    assert kind.headline in lines
    [row] = [line for line in lines if line.startswith(f"| {kind.metric} |") and line.count("|") == 7]
    assert f" {kind.verdict} |" in row
