import pytest

from kdedge.core.training import Phase, Schedule
from kdedge.distill.phases import learning_rate, schedule_factor


def phase(batch: int = 128, **optimizer: object) -> Phase:
    return Phase.model_validate({"epochs": 10, "batch": batch, "optimizer": {"lr": 0.4, **optimizer}})


@pytest.mark.parametrize(("progress", "by_hand"), [(0, 0.4), (0.5, 0.2), (2 / 3, 0.1), (1, 0)])
def test_learning_rate_follows_half_a_cosine(progress: float, by_hand: float) -> None:
    assert learning_rate(phase(schedule="cosine"), progress) == pytest.approx(by_hand, abs=1e-9)


@pytest.mark.parametrize(("progress", "by_hand"), [(0, 0), (0.1, 0.2), (0.2, 0.4), (0.6, 0.2), (1, 0)])
def test_learning_rate_warms_up_linearly_and_anneals_over_the_rest(progress: float, by_hand: float) -> None:
    assert learning_rate(phase(schedule="cosine", warmup=0.2), progress) == pytest.approx(by_hand, abs=1e-9)


@pytest.mark.parametrize(("progress", "by_hand"), [(0, 0.4), (0.49, 0.4), (0.5, 0.04), (0.75, 0.004), (1, 0.004)])
def test_learning_rate_falls_in_steps_at_the_milestones(progress: float, by_hand: float) -> None:
    assert learning_rate(phase(schedule="step", milestones=[0.5, 0.75], gamma=0.1), progress) == pytest.approx(by_hand)


def test_learning_rate_stays_when_constant() -> None:
    assert [learning_rate(phase(schedule="constant"), at) for at in (0, 0.5, 1)] == [0.4, 0.4, 0.4]


def test_learning_rate_is_that_of_the_recipe_whatever_the_batch() -> None:
    assert learning_rate(phase(256, schedule="constant"), 0.5, devices=2) == 0.4


def test_learning_rate_scales_with_batch_and_devices_when_asked() -> None:
    scaled = phase(256, schedule="constant", scale_lr=True)
    assert learning_rate(scaled, 0.5, devices=2) == pytest.approx(4 * 0.4)  # 256 x 2 images a step, 4 times 128
    assert learning_rate(phase(64, schedule="constant", scale_lr=True), 0.5) == pytest.approx(0.5 * 0.4)


@pytest.mark.parametrize(
    ("progress", "by_hand"), [(0.1, 0), (0.2, 0), (0.3, 0.5), (0.4, 1), (0.59, 1), (0.6, 0.1), (0.8, 0.01), (0.9, 0)]
)
def test_schedule_is_off_outside_its_window_warms_up_and_decays(progress: float, by_hand: float) -> None:
    schedule = Schedule(start=0.2, end=0.85, warmup=0.2, decay_at=(0.6, 0.8), decay=0.1)
    assert schedule_factor(schedule, progress) == pytest.approx(by_hand)


def test_schedule_by_default_changes_nothing() -> None:
    assert [schedule_factor(Schedule(), at) for at in (0, 0.5, 1)] == [1, 1, 1]
