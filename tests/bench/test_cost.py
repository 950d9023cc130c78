"""How two trainings are timed against each other, with times made up here."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from kdedge.bench import cost


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whose block of steps ran, in order; phases are strings here, and take as many seconds as their digits say."""
    taken: list[str] = []

    @contextmanager
    def steps_of(phase: str) -> Iterator[Callable[[], float]]:
        def take() -> float:
            taken.append(phase)
            return float(phase.split()[1])

        yield take

    monkeypatch.setattr(cost, "steps_of", steps_of)
    return taken


def test_race_warms_up_and_then_takes_turns(turns: list[str]) -> None:
    assert cost.race("mine 3", "kd 2") == [1.5] * cost.ROUNDS  # type: ignore[arg-type]
    assert turns == ["mine 3", "kd 2"] + ["mine 3", "kd 2", "kd 2", "mine 3"] * cost.ROUNDS


def test_phases_count_by_their_epochs(turns: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def job(*phases: tuple[str, int]) -> Any:
        made = [SimpleNamespace(text=text, epochs=epochs) for text, epochs in phases]
        return SimpleNamespace(phases=made, run=None)

    monkeypatch.setattr(cost, "phase_of", lambda job, index: job.phases[index].text)
    monkeypatch.setattr(cost, "make_fabric", lambda _: SimpleNamespace(device="cpu"))
    monkeypatch.setattr(cost, "keep_answers", lambda *_: ())
    found = cost.times_of(job(("mine 1", 10), ("mine 4", 30)), job(("kd 2", 5)))
    assert found == [(10 * 0.5 + 30 * 2.0) / 40] * cost.ROUNDS
    assert "mine 4" in turns
