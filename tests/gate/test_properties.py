"""What holds of the rules whatever the numbers are."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from kdedge.core.correctness import correctness
from kdedge.core.deployment import Budget, Gate
from kdedge.core.gating import Baseline, Snapshot
from kdedge.core.report import Metric, Verdict
from kdedge.gate.baseline import load_baseline, make_baseline, save_baseline
from kdedge.gate.rules import WORST_FIRST, decide, worst

NAMES = ("a/top1", "a/params", "a/onnx_bytes", "a/latency_median_ms", "a/peak_memory_bytes", "teacher/top1")
UNITS = {"top1": "fraction", "params": "count", "onnx_bytes": "bytes", "latency_median_ms": "ms"}
VALUES = st.floats(0.001, 1e6)
SAMPLES = st.lists(VALUES, min_size=1, max_size=6)


@st.composite
def metrics(draw: st.DrawFn, names: tuple[str, ...] = NAMES) -> dict[str, Metric]:
    found = {}
    for name in draw(st.sets(st.sampled_from(names))):
        unit = UNITS.get(name.partition("/")[2], "bytes")
        samples = draw(SAMPLES) if "latency" in name or "memory" in name else []
        better = "higher" if unit == "fraction" else "lower"
        found[name] = Metric(value=draw(VALUES), unit=unit, better=better, samples=samples)
    return found


def verdict_of(now: dict[str, Metric], before: dict[str, Metric], *budgets: Budget) -> Verdict:
    baseline = Baseline(fingerprint={"match": {"cpu": "A"}}, metrics=before)
    return decide(Snapshot(fingerprint={"match": {"cpu": "A"}}, metrics=now), Gate(budgets=budgets), baseline).verdict


@given(st.lists(st.sampled_from(WORST_FIRST)), st.lists(st.sampled_from(WORST_FIRST)))
def test_worst_of_parts_is_worst_of_the_whole_in_any_order(one: list[Verdict], other: list[Verdict]) -> None:
    assert worst([worst(one), worst(other)]) == worst([*other, *one]) == worst(reversed([*one, *other]))


@given(metrics(), metrics(), st.sampled_from(NAMES), st.floats(1.0, 10.0))
def test_worse_value_never_improves_the_verdict(
    now: dict[str, Metric], before: dict[str, Metric], name: str, factor: float
) -> None:
    if name not in now:
        return
    metric = now[name]
    by = 1 / factor if metric.better == "higher" else factor
    samples = [sample * by for sample in metric.samples]
    worse = now | {name: metric.model_copy(update={"value": metric.value * by, "samples": samples})}
    ranks = [WORST_FIRST.index(verdict_of(each, before)) for each in (now, worse)]
    assert ranks[1] <= ranks[0]


@given(VALUES, VALUES, st.floats(0, 2))
def test_direction_is_symmetric(now: float, before: float, allowed: float) -> None:
    """What is as much worse in a metric that should be low as in one that should be high has the same verdict."""
    budget = Budget(metric="a/any", max_change=allowed)
    low, high = (
        [{"a/any": Metric(value=sign * value, unit="x", better=better)} for value in (now, before)]
        for sign, better in ((1, "lower"), (-1, "higher"))
    )
    assert verdict_of(*low, budget) == verdict_of(*high, budget)


@given(metrics())
def test_run_against_itself_is_no_regression(now: dict[str, Metric]) -> None:
    assert verdict_of(now, now) in ("pass", "insufficient")


@given(metrics(), metrics())
def test_metric_that_vanished_fails_and_a_new_one_does_not(now: dict[str, Metric], before: dict[str, Metric]) -> None:
    lost = {name for name in before.keys() - now.keys() if not name.startswith("teacher/")}
    assert not lost or verdict_of(now, before) == "regression"
    assert verdict_of(now, {}) == "pass"


@settings(max_examples=30)
@given(metrics(), st.text(), st.text(), st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 3))
def test_baseline_goes_to_a_file_and_back(
    now: dict[str, Metric], reason: str, cpu: str, right: list[bool], updates: int
) -> None:
    answers = {"a/top1": correctness(right, range(len(right)), range(len(right)))}
    run = Snapshot(fingerprint={"match": {"cpu": cpu}, "note": {}}, metrics=now, answers=answers)
    baseline = make_baseline(run, reason, "2026-01-02")
    for _ in range(updates):
        baseline = make_baseline(run, reason, "2026-01-02", baseline, accepts=now)
    with TemporaryDirectory() as folder:
        path = Path(folder, "baseline.json")
        save_baseline(path, baseline)
        assert load_baseline(path) == baseline
        plain = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=lambda pairs: [key for key, _ in pairs])
    assert plain == sorted(plain)
