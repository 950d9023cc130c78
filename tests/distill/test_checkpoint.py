import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kdedge.core.errors import TrainingError
from kdedge.distill.checkpoint import (
    Checkpoint,
    last_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
)


def checkpoint(epoch: int, identity: str = "a") -> Checkpoint:
    weights = {"student": {"w": torch.full((3,), float(epoch))}, "methods": {}}
    return Checkpoint(epoch, weights, {"identity": identity, "rows": [{"epoch": epoch}]})


def test_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(3))
    found = last_checkpoint(tmp_path, "a")
    assert found is not None
    assert found.epoch == 3
    assert found.weights["student"]["w"].tolist() == [3, 3, 3]
    assert found.state["rows"] == [{"epoch": 3}]


def test_checkpoint_keeps_tensors_that_are_not_contiguous(tmp_path: Path) -> None:
    weight = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    save_checkpoint(tmp_path, Checkpoint(1, {"student": {"w": weight}, "methods": {}}, {"identity": "a"}))
    found = last_checkpoint(tmp_path)
    assert found is not None
    assert torch.equal(found.weights["student"]["w"], weight)


def test_only_the_newest_checkpoint_is_kept(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        save_checkpoint(tmp_path, checkpoint(epoch))
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-0003"]


def test_there_is_no_checkpoint_before_the_first_epoch_or_of_another_training(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path, "a") is None
    save_checkpoint(tmp_path, checkpoint(1, identity="b"))
    assert last_checkpoint(tmp_path, "a") is None


def test_checkpoint_of_another_training_makes_room(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(40, identity="b"))
    save_checkpoint(tmp_path, checkpoint(1, identity="a"))
    found = last_checkpoint(tmp_path, "a")
    assert found is not None
    assert found.epoch == 1


def test_what_a_killed_process_left_does_not_stand_in_the_way(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    half = tmp_path / ".epoch-0002.part"
    half.mkdir()
    (half / "student.safetensors").write_bytes(b"half")
    found = last_checkpoint(tmp_path, "a")
    assert found is not None
    assert found.epoch == 1
    save_checkpoint(tmp_path, checkpoint(2))
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-0002"]


class Code:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return exec, ("raise SystemExit('ran')",)


def truncate(folder: Path) -> None:
    path = folder / "student.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def garble(folder: Path) -> None:
    (folder / "state.pt").write_bytes(b"\x00garbage")


def empty(folder: Path) -> None:
    (folder / "state.pt").write_bytes(b"")


def put_code_in(folder: Path) -> None:
    (folder / "state.pt").write_bytes(pickle.dumps(Code(), protocol=2))


def lose_weights(folder: Path) -> None:
    (folder / "student.safetensors").unlink()


def lose_state(folder: Path) -> None:
    (folder / "state.pt").unlink()


def forget_identity(folder: Path) -> None:
    torch.save({"rows": []}, folder / "state.pt")


@pytest.mark.parametrize(
    "damage",
    [truncate, garble, empty, put_code_in, lose_weights, lose_state, forget_identity],
    ids=lambda f: f.__name__,
)
def test_damaged_checkpoint_is_an_error_that_names_the_folder(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    save_checkpoint(tmp_path, checkpoint(2))
    folder = tmp_path / "epoch-0002"
    damage(folder)
    with pytest.raises(TrainingError, match=r"cannot be read: .+") as caught:
        last_checkpoint(tmp_path, "a")
    assert f"checkpoint {folder} " in str(caught.value)
    assert f"rm -r {folder}" in str(caught.value)


def test_random_state_comes_back() -> None:
    torch.manual_seed(5)
    state = random_state()
    first = torch.rand(4)
    torch.rand(100)
    restore_random_state(state)
    assert torch.equal(torch.rand(4), first)
