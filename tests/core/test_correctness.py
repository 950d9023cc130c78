import pytest
from pydantic import ValidationError

from kdedge.core.correctness import Correctness, correctness

IDS, LABELS = list(range(10)), [3] * 10
RIGHT = [True, False, True, True, False, False, False, False, True, False]


def test_correctness_packs_eight_images_a_byte() -> None:
    """1011 0000 and 10, then six bits of padding: b0 80."""
    kept = correctness(RIGHT, IDS, LABELS)
    assert (kept.images, kept.right) == (10, "sIA=")
    assert Correctness.model_validate_json(kept.model_dump_json()) == kept


def test_correctness_counts_what_was_lost_and_won() -> None:
    now = correctness([not RIGHT[0], True, *RIGHT[2:9], True], IDS, LABELS)
    assert now.since(correctness(RIGHT, IDS, LABELS)) == (1, 2)


@pytest.mark.parametrize(
    ("ids", "labels"),
    [(IDS[::-1], LABELS), (IDS, [4] * 10), (IDS[:9], LABELS[:9])],
    ids=["another order", "other labels", "fewer"],
)
def test_correctness_of_other_images_is_not_compared(ids: list[int], labels: list[int]) -> None:
    assert correctness(RIGHT[: len(ids)], ids, labels).since(correctness(RIGHT, IDS, LABELS)) is None


@pytest.mark.parametrize(
    ("images", "right", "why"), [(10, "sIA", "not base64"), (17, "sIA=", "2 bytes for 17 images"), (0, "", "images")]
)
def test_correctness_that_is_damaged_is_refused(images: int, right: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Correctness(images=images, right=right, of="")
