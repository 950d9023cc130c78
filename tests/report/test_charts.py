import numpy as np

from kdedge.report.charts import POINTS, envelope, histogram_limit, quantiles
from kdedge.report.charts_training import terms


def test_envelope_keeps_every_extreme():
    samples = np.ones(100_000)
    samples[[7, 55_555]] = 9.0, 0.1
    low, middle, high, at = envelope(samples)
    assert len(low) == len(middle) == len(high) == len(at) == POINTS
    assert (low.min(), high.max()) == (0.1, 9.0)
    assert set(middle) == {1.0}


def test_envelope_of_few_samples_is_the_samples():
    low, middle, high, at = envelope(np.array([3.0, 1.0, 2.0]))
    assert low.tolist() == middle.tolist() == high.tolist() == [3.0, 1.0, 2.0]
    assert at.tolist() == [0.5, 1.5, 2.5]


def test_quantiles_hold_first_and_last_and_their_shares():
    values, shares = quantiles(np.arange(10_000.0)[::-1])
    assert len(values) <= POINTS
    assert (values[0], values[-1]) == (0.0, 9_999.0)
    assert (shares[0], shares[-1]) == (1e-4, 1.0)


def test_histogram_limit_is_the_maximum_without_stragglers():
    assert histogram_limit(np.array([1.0, 2.0, 3.0, 4.0])) == 4.0


def test_histogram_limit_cuts_a_straggler():
    samples = np.concatenate([np.linspace(1, 2, 1000), [500.0]])  # quartiles 1.25 and 1.75
    assert 2.0 < histogram_limit(samples) < 3.3


def test_terms_are_what_is_neither_bookkeeping_nor_accuracy():
    rows = [
        {"epoch": 1, "lr": 0.1, "loss": 2.0, "cross_entropy": 1.0, "train_top1": 0.5},
        {"logits": 1.0, "seconds": 3.0, "validation_mean_ap": 0.5},
    ]
    assert terms(rows) == ["cross_entropy", "logits"]
