import math

import pytest
import torch

from kdedge.core.errors import TrainingError
from kdedge.distill.meter import TermMeter

NAN, INF = math.nan, math.inf


def step(meter: TermMeter, total: float, right: int = 1, images: int = 2, **terms: float) -> None:
    values = {name: torch.tensor(value) for name, value in terms.items()}
    meter.add(torch.tensor(total), values, torch.tensor(right), images)


def test_meter_means_are_over_steps_and_top1_over_images() -> None:
    meter = TermMeter()
    step(meter, 3.0, right=1, images=2, kd=1.0, labels=2.0)
    step(meter, 5.0, right=4, images=6, kd=4.0, labels=1.0)
    meter.check("student", 1)
    assert meter.means() == {"loss": 4.0, "kd": 2.5, "labels": 1.5, "train_top1": 5 / 8}


def test_meter_means_do_not_depend_on_when_it_is_checked() -> None:
    often, once = TermMeter(), TermMeter()
    for number in range(5):
        for meter in (often, once):
            step(meter, 0.1 * number, kd=0.3 * number)
        often.check("student", 1)
    once.check("student", 1)
    assert often.means() == pytest.approx(once.means())


@pytest.mark.parametrize(
    ("steps", "named"),
    [
        ([(1, 1, 1), (NAN, NAN, 1), (NAN, NAN, NAN)], "'kd' is not finite: first in epoch 7, step 2"),
        ([(1, 1, 1), (1, 1, 1), (-INF, 1, -INF)], "'labels' is not finite: first in epoch 7, step 3"),
        ([(NAN, NAN, NAN)], "'labels' is not finite: first in epoch 7, step 1"),
        ([(INF, 1e38, 1e38)], "'loss' is not finite: first in epoch 7, step 1"),
    ],
    ids=["the term that was first", "not the sum that holds it", "the last of several", "the sum when no term is"],
)
def test_meter_names_what_was_not_finite_first(steps: list[tuple[float, float, float]], named: str) -> None:
    meter = TermMeter()
    for total, kd, labels in steps:
        step(meter, total, kd=kd, labels=labels)
    with pytest.raises(TrainingError, match=f"^student: the loss term {named}\n") as caught:
        meter.check("student", 7)
    assert "lower optimizer.lr" in str(caught.value)


def test_meter_counts_steps_from_the_start_of_the_epoch_not_from_the_last_check() -> None:
    meter = TermMeter()
    for _ in range(3):
        step(meter, 1.0, kd=1.0)
    meter.check("student", 1)
    step(meter, 1.0, kd=1.0)
    step(meter, NAN, kd=NAN)
    with pytest.raises(TrainingError, match="step 5"):
        meter.check("student", 1)


def test_meter_of_two_processes_names_the_first_of_either_and_shares_the_means() -> None:
    other = {"min": torch.tensor([2.0**31, 1.0, 2.0**31]), "mean": 3.0, "sum": torch.tensor([1.0, 2.0])}

    def reduce(tensor: torch.Tensor, how: str) -> torch.Tensor:
        theirs = other[how]
        return {
            "min": lambda: torch.minimum(tensor, torch.as_tensor(theirs)),
            "mean": lambda: (tensor + theirs) / 2,
            "sum": lambda: tensor + theirs,
        }[how]()

    meter = TermMeter(reduce)
    step(meter, 1.0, right=2, images=2, kd=1.0)
    assert meter.names == ["loss", "kd"]
    with pytest.raises(TrainingError, match=r"'kd' is not finite: first in epoch 1, step 2"):
        meter.check("student", 1)
    assert meter.means() == {"loss": 2.0, "kd": 2.0, "train_top1": 3 / 4}
