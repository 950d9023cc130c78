"""Layers, a paired gate and devices as rows and sentences."""

from collections.abc import Callable

import pytest
from closeups import ORIN, footprint, layer_times, orin, paired_gate, paired_times

from kdedge.core.profiling import ProfileReport
from kdedge.report import devices, layers, paired
from kdedge.report.charts_layers import byte_step, shortened


def test_slowest_layer_is_first_and_has_the_memory_of_its_nodes() -> None:
    rows = layers.time_rows(layer_times("fp32"), footprint())
    assert len(rows) == layers.SLOWEST
    assert rows[0][1:] == ["Conv", "0.2000", "9.52 %", "12.5 KiB", "3.2 KiB", "conv20 + relu20"]


def test_layer_without_known_nodes_has_no_memory() -> None:
    rows = layers.time_rows(layer_times("fp32", 2), footprint(2))
    assert rows[0][4:] == ["-", "-", "-"]


def test_summaries_say_what_was_measured_and_how_much_is_kept() -> None:
    assert layers.time_summary(layer_times("fp32", 3)) == (
        "Batch 1, 2 threads, 100 queries of 2.500 ms each; 2.200 ms when layers are not timed."
    )
    assert layers.memory_summary(footprint(3)) == (
        "Weights 3.8 KiB. Activations at most 128.0 KiB at once, at batch 1 while conv1 runs."
    )
    assert layers.memory_rows(footprint(1).layers) == [
        ["conv1 + relu1", "Conv + Relu", "640 B", "64.0 KiB", "128.0 KiB"]
    ]


@pytest.mark.parametrize(("most", "step"), [(12288, 4096), (16385, 8192), (16384, 4096), (3, 1), (0, 1)])
def test_axis_of_bytes_is_divided_by_powers_of_two(most: int, step: int) -> None:
    assert byte_step(most) == step


def test_long_layer_names_keep_both_ends() -> None:
    assert shortened("conv_1") == "conv_1"
    assert shortened("InsertedPrecisionFreeCast_getitem_12") == "InsertedPre\N{HORIZONTAL ELLIPSIS}_getitem_12"


def test_paired_rows_are_ratio_interval_and_limit() -> None:
    first, second = paired.rows(paired_gate().times)
    assert first == ["fp32", "0.500 ms", "0.502 ms", "1.004", "0.994 to 1.014", "1.030", "4", "pass"]
    assert second[-1] == "regression"
    assert paired.summary(paired_gate().times) == (
        "Each process measured both models in turns; 8 processes in 18 s. Largest change of the latency: 10.00 %."
    )


def test_paired_rows_without_a_process_that_counts() -> None:
    none = {"ratio": None, "interval": None, "ratios": [], "unsettled": 2, "outcome": "unstable"}
    nothing = paired_times("fp32", 1.0).model_copy(update=none)
    assert paired.rows([nothing])[0][3:] == ["-", "-", "1.030", "0", "unstable"]
    assert paired.remarks([nothing]) == ["fp32: the warm-up did not settle in 2 processes"]
    assert "Largest" not in paired.summary([nothing])


def test_device_says_first_what_machines_are_compared_by() -> None:
    facts = devices.facts(ORIN)
    assert facts[:5] == [
        ("board", "NVIDIA Jetson Orin Nano"),
        ("cpu", "Cortex-A78AE"),
        ("memory total", "7.44 GiB"),
        ("distro", "Ubuntu 22.04"),
        ("power mode", "25W"),
    ]
    assert ("clocks gpu", "918000") in facts
    assert len(facts) == len(dict(facts))


def test_device_has_the_accuracy_of_its_own_engines(make_profile: Callable[..., ProfileReport]) -> None:
    measured = orin([make_profile("fp32", 1.0, 20, 2), make_profile("teacher", 2.0, 20, 2)])
    assert (measured.name, measured.notes) == ("NVIDIA Jetson Orin Nano", ["engine-int8: 128 images"])
    assert [row[:3] for row in devices.rows(measured)] == [
        ["fp32", "87.50 %", "101.6 KiB"],
        ["teacher", "-", "101.6 KiB"],
    ]


def test_this_machine_is_a_device_where_something_was_measured(make_profile: Callable[..., ProfileReport]) -> None:
    assert devices.here(None, []) == []
    (measured,) = devices.here(None, [make_profile("fp32", 1.0, 20, 2)])
    assert (measured.name, measured.accuracies) == ("This machine", {})
