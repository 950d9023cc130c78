"""What the page says of a measured latency."""

from collections.abc import Callable

import pytest

from kdedge.core.energy import Energy, Spread
from kdedge.core.profiling import ProfileReport
from kdedge.report.html import ReportData, render
from kdedge.report.latency import device_facts, facts, process_rows, trouble

MakeProfile = Callable[..., ProfileReport]


def test_device_latency_is_a_fact_of_its_own(make_profile: Callable[..., ProfileReport]) -> None:
    profile = make_profile("fp32", 1.0, 20, 2)
    assert device_facts(profile) == []
    device = profile.latency.model_copy(update={"median": 0.25})
    shown = facts(profile.model_copy(update={"device_latency": device}))
    assert ("on the device alone, median", "0.250 ms, without copies") in shown


@pytest.fixture
def measured(make_profile: MakeProfile) -> ProfileReport:
    """Two processes, the second cut and slower towards its end."""
    report = make_profile("int8", 1.0, 20, 2)
    first, second = report.samples
    samples = [
        first.model_copy(update={"latency_ms": [1.0, 2.0, 3.0, 2.0]}),
        second.model_copy(update={"latency_ms": [2.0] * 4 + [3.0] * 4, "settled": False, "first_ms": 7.5}),
    ]
    return report.model_copy(update={"samples": samples})


def test_each_process_is_a_row_with_its_drift(measured: ProfileReport) -> None:
    assert process_rows(measured) == [
        ["1", "2.000", "2.850", "+100.0 %", "3.100", "400 queries, 210 ms", "yes"],
        ["2", "2.500", "3.000", "+50.0 %", "7.500", "400 queries, 210 ms", "no"],
    ]


def test_trouble_is_throttling_then_warm_up_then_notes(measured: ProfileReport) -> None:
    report = measured.model_copy(update={"throttled": ["GPU: power cap"], "notes": ["busy", "GPU: power cap"]})
    assert trouble(report) == [
        "slowed down by GPU: power cap",
        "the warm-up was cut in process 2",
        "busy",
    ]


def test_energy_is_shown_with_its_repeats(run: Callable[..., ReportData], measured: ProfileReport) -> None:
    spread = Spread(mean=1.25, std=0.05, lowest=1.2, highest=1.3, values=(1.2, 1.3))
    energy = Energy(
        net_mj=spread, gross_mj=spread, power_mw=spread, idle_mw=900, repeats=2, inferences=9, samples=9, rate_hz=1,
        source="VDD_IN; the whole board",
    )  # fmt: skip
    report = measured.model_copy(update={"energy": energy})
    assert ("energy per inference above idle", "1.25 +- 0.05 mJ") in facts(report)
    assert ("power, idle power", "1.25 +- 0.05 mW, 900 mW") in facts(report)
    page = render(run(profiles=[report]))
    assert "Energy in the order measured" in page
    without = report.model_copy(
        update={"energy": energy.model_copy(update={"net_mj": spread.model_copy(update={"values": ()})})}
    )
    assert "Energy in the order measured" not in render(run(profiles=[without]))
