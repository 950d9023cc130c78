from dataclasses import replace

import pytest
from tree import plant

from kdedge.profile.sysfs import Clock, Cooler, Zone
from kdedge.profile.throttle import Evidence, State, evidence, state, watched

CALM = State(
    events={"oc1": 0, "oc3": 40},
    alarms={"VDD_IN crit": 0, "VDD_IN max": 1},
    coolers={"cooling_device1": Cooler("cpufreq-cpu0", 1)},
    zones={"tj-thermal": Zone(50.0, 95.0), "gpu-thermal": Zone(None, None)},
    clocks={"17000000.gpu": Clock(306.0, 306.0, 918.0, "")},
    loads={"17000000.gpu": 0.0},
)


def test_run_without_any_sign_has_no_evidence():
    busy = replace(CALM, clocks={"17000000.gpu": Clock(910.0, 306.0, 918.0, "")}, loads={"17000000.gpu": 99.0})
    assert evidence([CALM, busy, CALM]) == []
    assert evidence([CALM]) == evidence([]) == []


def test_over_current_counts_what_was_added():
    assert evidence([CALM, replace(CALM, events={"oc1": 0, "oc3": 52})]) == [
        Evidence("over-current", "throttled by instantaneous over-current (oc3): 12 events during the run")
    ]


def test_counter_that_went_back_tells_of_a_restart():
    (found,) = evidence([CALM, replace(CALM, events={"oc1": 0, "oc3": 2})])
    assert found.text == "the counter oc3 went back: the board was started anew during the run"


def test_alarm_that_was_up_before_is_not_of_the_run():
    alarmed = replace(CALM, alarms={"VDD_IN crit": 1, "VDD_IN max": 1})
    expected = [Evidence("alarm", "rail VDD_IN went over its critical current")]
    assert evidence([CALM, alarmed, CALM]) == evidence([CALM, alarmed]) == expected


def test_cooling_above_its_state_at_the_start():
    hot = replace(CALM, coolers={"cooling_device1": Cooler("cpufreq-cpu0", 4)})
    expected = "slowed down for heat: cpufreq-cpu0 (cooling_device1) went from state 1 to 4"
    assert evidence([CALM, hot, CALM]) == [Evidence("cooling", expected)]


def test_busy_gpu_below_its_highest_clock_at_the_start():
    """Thermal limits lower the highest clock as well, so that of the start is the one that counts."""
    slow = replace(CALM, clocks={"17000000.gpu": Clock(612.0, 306.0, 612.0, "")}, loads={"17000000.gpu": 97.0})
    late = replace(slow, clocks={"17000000.gpu": Clock(306.0, 306.0, 918.0, "")})
    full = replace(slow, clocks={"17000000.gpu": Clock(918.0, 306.0, 918.0, "")})
    text = "17000000.gpu ran at 612 MHz under load, not at 918 MHz"
    assert evidence([CALM, slow, slow, CALM]) == [Evidence("clock", text)]
    assert evidence([CALM, late, full, full, CALM]) == []
    assert evidence([CALM, replace(slow, loads={"17000000.gpu": 89.0}), CALM]) == []


def test_zone_near_its_passive_trip():
    warm = replace(CALM, zones={"tj-thermal": Zone(92.5, 95.0), "gpu-thermal": Zone(94.0, None)})
    cooler = replace(CALM, zones={"tj-thermal": Zone(92.0, 95.0)})
    text = "tj-thermal reached 92.5 C, and is slowed down from 95.0 C on"
    assert evidence([CALM, warm, CALM]) == [Evidence("temperature", text)]
    assert evidence([CALM, cooler, CALM]) == []


def test_reasons_of_the_driver_leave_out_idle_and_what_the_user_set():
    capped = replace(CALM, reasons=0x01 | 0x02 | 0x04)
    text = "the GPU's driver reports software power cap in 1 of 3 samples"
    assert evidence([CALM, capped, replace(CALM, reasons=0x13)]) == [Evidence("driver", text)]


class Gpu:
    def clock_reasons(self):
        return 8


def test_state_is_read_from_the_machine(tmp_path):
    root = plant(
        tmp_path,
        {
            "sys/class/hwmon/hwmon0/name": "soctherm_oc",
            "sys/class/hwmon/hwmon0/oc2_event_cnt": 5,
            "sys/class/thermal/thermal_zone0/type": "tj-thermal",
            "sys/class/thermal/thermal_zone0/temp": 41000,
            "sys/class/devfreq/gpu-gpc-0/cur_freq": 500000000,
            "sys/class/devfreq/gpu-gpc-0/max_freq": 1575000000,
            "sys/class/devfreq/gpu-gpc-0/device/load": 1000,
            "sys/class/devfreq/15340000.vic/cur_freq": 115200000,
        },
    )
    assert state(root, Gpu()) == State(
        events={"oc2": 5},
        zones={"tj-thermal": Zone(41.0, None)},
        clocks={"gpu-gpc-0": Clock(500.0, None, 1575.0, "")},
        loads={"gpu-gpc-0": 100.0},
        reasons=8,
    )


def test_watched_block_tells_what_happened_in_it(tmp_path):
    counter = "sys/class/hwmon/hwmon0/oc2_event_cnt"
    root = plant(tmp_path, {"sys/class/hwmon/hwmon0/name": "soctherm_oc", counter: 5})
    with watched(root, period=0.001) as found:
        plant(root, {counter: 8})
        assert found == []
    assert found == [Evidence("over-current", "throttled by average over-current (oc2): 3 events during the run")]


def test_watched_block_that_fails_says_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), watched(tmp_path) as found:
        raise ZeroDivisionError
    assert found == []
