from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kdedge.core.errors import ModelError
from kdedge.engine.rows import run_rows

TEN = np.arange(20, dtype=np.float32).reshape(10, 2)


class Recorder:
    """A session that doubles its rows and sums them, and remembers what it was fed."""

    model = "recorder"

    def __init__(self, batch: int | None, max_batch: int | None = None) -> None:
        self.inputs, self.max_batch = [SimpleNamespace(name="x", shape=(batch, 2))], max_batch
        self.seen: list[NDArray[Any]] = []

    def run(self, feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.seen.append(feeds["x"])
        return {"double": 2 * feeds["x"], "sum": feeds["x"].sum(axis=1)}


@pytest.mark.parametrize(
    ("session", "sizes"),
    [
        (Recorder(None), [10]),
        (Recorder(None, max_batch=4), [4, 4, 2]),
        (Recorder(None, max_batch=64), [10]),
        (Recorder(1), [1] * 10),
        (Recorder(4), [4, 4, 4]),
    ],
    ids=["open", "at most 4", "at most 64", "fixed at 1", "fixed at 4"],
)
def test_every_row_gets_its_own_answer_whatever_the_batch(session: Recorder, sizes: list[int]) -> None:
    outputs = run_rows(session, TEN)  # type: ignore[arg-type]
    assert outputs["double"].tolist() == (2 * TEN).tolist()
    assert outputs["sum"].tolist() == TEN.sum(axis=1).tolist()
    assert [len(part) for part in session.seen] == sizes


def test_last_batch_of_a_fixed_one_is_filled_with_its_last_row() -> None:
    session = Recorder(4)
    run_rows(session, TEN)  # type: ignore[arg-type]
    assert session.seen[2].tolist() == TEN[[8, 9, 9, 9]].tolist()


def test_no_rows_are_an_error() -> None:
    with pytest.raises(ModelError, match="nothing to run recorder on: there are no rows"):
        run_rows(Recorder(None), TEN[:0])  # type: ignore[arg-type]
