from math import nan

import numpy as np
import pytest

from kdedge.core.errors import Unstable
from kdedge.profile.energy import Run, Trace, energy, measure, record, run_for, trace


def constant(milliwatts, seconds, rails=("VDD_IN",)):
    """Ten samples a second, the first and the last included."""
    times = np.linspace(0, seconds, round(10 * seconds) + 1)
    return Trace(times, np.full(len(times), float(milliwatts)), rails)


IDLE = constant(2000, 10)


def test_energy_by_hand():
    """30 s at 5 W for 1,000 inferences are 150 mJ each, of which 2 W x 30 ms = 60 mJ would be used anyway."""
    runs = [Run(constant(5000, 30), 30.0, 1000), Run(constant(6000, 30), 30.0, 1000)]
    result = energy(IDLE, runs, "a meter")
    assert (result.gross_mj.mean, result.net_mj.mean) == pytest.approx((165.0, 105.0))
    assert (result.gross_mj.lowest, result.gross_mj.highest) == pytest.approx((150.0, 180.0))
    assert result.net_mj.std == result.gross_mj.std == pytest.approx(450**0.5)
    assert (result.power_mw.mean, result.idle_mw) == pytest.approx((5500.0, 2000.0))
    assert (result.repeats, result.inferences, result.samples) == (2, 2000, 602)
    assert result.rate_hz == pytest.approx(10.0)
    assert result.source == "rail VDD_IN by a meter"
    assert result.notes == ()


def test_mean_power_weighs_samples_by_time():
    """1 W for 3 s, then up to 5 W within one: (3 x 1 + 3) / 4."""
    assert Trace(np.array([0.0, 3.0, 4.0]), np.array([1000.0, 1000.0, 5000.0]), ()).mean() == 1500.0


def test_spread_of_one_repeat_is_not_known():
    result = energy(IDLE, [Run(constant(5000, 30), 30.0, 10)], "a meter")
    assert result.net_mj.std is None
    assert result.notes == ("one repeat: the spread is not known",)


def test_total_that_is_a_sum_says_of_what():
    rails = ("VDD_GPU_SOC", "VDD_CPU_CV")
    result = energy(constant(1, 10, rails), [Run(constant(5, 30, rails), 30.0, 10)] * 2, "a meter")
    assert result.source == "the sum of VDD_GPU_SOC, VDD_CPU_CV, as there is no rail for all by a meter"


def test_power_that_changes_within_a_run_is_noted():
    times = np.linspace(0, 30, 300)
    power = Trace(times, np.where(times < 15, 4000.0, 6000.0), ("VDD_IN",))
    result = energy(IDLE, [Run(power, 30.0, 10)] * 2, "a meter")
    assert result.notes == ("power changed by +50% within a run: not stationary",)


def test_idle_power_above_that_of_the_run_is_noted():
    result = energy(constant(5000, 10), [Run(constant(4900, 30), 30.0, 10)] * 2, "a meter")
    assert result.notes == ("idle power (5000 mW) is not below that of the run: the net energy means nothing",)


GOOD = Run(constant(5000, 30), 30.0, 10)
HOLED = Trace(np.concatenate([np.linspace(0, 10, 100), np.linspace(14, 30, 100)]), np.full(200, 5.0), ("VDD_IN",))
BROKEN = Trace(np.linspace(0, 30, 300), np.array([nan] + [5.0] * 299), ("VDD_IN",))


@pytest.mark.parametrize(
    ("idle", "runs", "why"),
    [
        (IDLE, [], "there is no run"),
        (constant(2000, 8), [GOOD], "8.0 s are too short, 10 s are the least"),
        (IDLE, [GOOD, Run(constant(5000, 12), 12.0, 10)], "12.0 s are too short, 30 s are the least"),
        (IDLE, [Run(Trace(np.linspace(0, 30, 20), np.ones(20), ("VDD_IN",)), 30.0, 10)], "20 samples are too few"),
        (IDLE, [Run(HOLED, 30.0, 10)], "no sample for 4.0 s"),
        (IDLE, [Run(BROKEN, 30.0, 10)], "not a number"),
        (IDLE, [Run(constant(5000, 30), 30.0, 0)], "0 inferences"),
        (IDLE, [Run(constant(5000, 30, ("GPU",)), 30.0, 10)], "other rails"),
        (trace([], []), [GOOD], "no rail was read"),
    ],
)
def test_what_cannot_be_trusted_is_refused(idle, runs, why):
    with pytest.raises(Unstable, match=why):
        energy(idle, runs, "a meter")


def test_trace_leaves_out_samples_that_lack_a_rail():
    result = trace([0.0, 1.0, 2.0, 3.0], [{"A": 1.0, "B": 2.0}, {"A": 1.0}, {}, {"A": 3.0, "B": 5.0}])
    assert (result.seconds.tolist(), result.milliwatts.tolist(), result.rails) == ([0.0, 3.0], [3.0, 8.0], ("A", "B"))


def test_run_for_counts_whole_queries():
    ticks = iter([0.0, 0.4, 0.8, 1.2])
    assert run_for(lambda: None, 1.0, lambda: next(ticks)) == (3, 1.2)


class Meter:
    name, scope = "a meter", "the module, not the wall"

    def __init__(self):
        self.milliwatts, self.reads = 2000.0, 0

    def read(self):
        self.reads += 1
        return {"VDD_IN": self.milliwatts}

    def close(self):
        pass


def test_record_samples_while_the_block_runs():
    meter = Meter()

    def block():
        while meter.reads < 6:  # one of them before the block begins
            pass

    result = record(meter, block, rate=1000.0)
    assert len(result.seconds) >= 5
    assert result.rails == ("VDD_IN",)
    assert (np.diff(result.seconds) >= 0).all()


def test_measure_refuses_a_run_that_is_too_short():
    with pytest.raises(Unstable, match=r"idle power: \d+ samples are too few"):
        measure(lambda: None, Meter(), repeats=1, seconds=0.01, idle=lambda _: None)


def test_measure_rests_first_and_then_runs_as_often_as_asked(monkeypatch):
    """At 5 W, what is used for an inference is 5 W times the time it takes."""
    monkeypatch.setattr("kdedge.profile.energy.IDLE_SECONDS", 0.0)
    monkeypatch.setattr("kdedge.profile.energy.LEAST_SAMPLES", 2)
    meter = Meter()

    def rest(seconds):
        while meter.reads < 3:
            pass
        meter.milliwatts = 5000.0

    result = measure(lambda: None, meter, repeats=2, seconds=0.15, idle=rest)
    assert (result.repeats, result.power_mw.mean, result.power_mw.std) == (2, 5000.0, 0.0)
    assert result.gross_mj.lowest * result.inferences >= 5000.0 * 0.15
    assert result.net_mj.mean == pytest.approx(result.gross_mj.mean * (5000.0 - result.idle_mw) / 5000.0)
    assert result.source == "rail VDD_IN by a meter; the module, not the wall"
