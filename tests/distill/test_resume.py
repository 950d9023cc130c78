"""Killed, interrupted or left alone: the same weights in the end."""

import csv
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from forked import Forkserver, Halt

from kdedge.models.weights import save_weights
from kdedge.models.zoo import build_model

RECIPE = """
version: 1
data: {name: digits, train_limit: 160, validation: 0.2, augment: {crop_padding: 1}}
student: {name: resnet8, options: {conv: depthwise}}
teachers: [{name: resnet8, checkpoint: teacher.safetensors}]
phases:
  - epochs: 2
    batch: 32       # 4 steps an epoch
    ema: 0.9
    methods: [{name: logits}, {name: self_distill, weight: 0.5}]
  - epochs: 2
    batch: 64       # 2 steps an epoch
    methods: [{name: self_distill}]
baseline: false
run: {accelerator: cpu, threads: 1}
"""
STEP = "kdedge.distill.trainer:PhaseRun.step"


@dataclass
class Place:
    """A folder with the recipe and its teacher, and the command that trains there."""

    folder: Path
    server: Forkserver

    def start(self, halt: Halt | None = None) -> tuple[int, str]:
        code, process = self.server.run(["distill", "tiny.yaml"], self.folder, halt)
        return code, process.stderr

    @property
    def run(self) -> Path:
        return next(self.folder.glob("runs/tiny-*"))

    def finished(self) -> list[int]:
        """The epochs that have a checkpoint."""
        return sorted(int(path.name[-4:]) for path in self.run.glob("student/checkpoints/epoch-*"))

    def result(self) -> dict[str, object]:
        """All that a training leaves and that may not depend on the clock."""
        student = self.run / "student"
        with (student / "log.csv").open() as file:
            log = [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]
        weights = {path.name: path.read_bytes() for path in student.glob("*.safetensors")}
        return weights | {"log": log, "files": sorted(path.name for path in student.iterdir())}


@pytest.fixture
def place(tmp_path: Path, forkserver: Forkserver) -> Place:
    return settle(tmp_path, forkserver)


def settle(folder: Path, forkserver: Forkserver) -> Place:
    (folder / "tiny.yaml").write_text(RECIPE)
    torch.manual_seed(1)
    save_weights(build_model("resnet8", {}, 10, (1, 8, 8)), folder / "teacher.safetensors")
    return Place(folder, forkserver)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, forkserver: Forkserver) -> dict[str, object]:
    place = settle(tmp_path_factory.mktemp("uninterrupted"), forkserver)
    code, stderr = place.start()
    assert code == 0, stderr
    return place.result()


KILLS = {
    "in the first epoch": (Halt(STEP, 3), []),
    "half way through the first checkpoint": (Halt("kdedge.distill.checkpoint:save_file", 2), []),
    "with the second epoch in the log but not kept": (Halt("kdedge.distill.trainer:save_checkpoint", 2), [1]),
    "in the second epoch": (Halt(STEP, 2), [1]),
    "before the older checkpoint is removed": (Halt("shutil:rmtree", 2), [1, 2]),
    "at the first step of the second phase": (Halt(STEP, 1), [1, 2]),
    "in the last epoch": (Halt(STEP, 3), [3]),
    "before the last checkpoint has its name": (Halt("pathlib:Path.rename", 1), [3]),
    "while the result is written": (Halt("kdedge.distill.result:save_file", 1), [4]),
}


def test_training_killed_again_and_again_ends_in_the_same_bytes(place: Place, uninterrupted: dict[str, object]) -> None:
    for when, (halt, finished) in KILLS.items():
        code, stderr = place.start(halt)
        assert code == -signal.SIGKILL, f"{when}: {stderr}"
        assert place.finished() == finished, when
    code, stderr = place.start()
    assert code == 0, stderr
    assert place.result() == uninterrupted
    assert [path.name for path in place.run.rglob(".*")] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("call", [STEP, "kdedge.distill.checkpoint:save_file"], ids=["step", "checkpoint"])
def test_training_that_is_interrupted_ends_with_130_and_goes_on(
    place: Place, uninterrupted: dict[str, object], number: int, call: str
) -> None:
    code, stderr = place.start(Halt(call, 5, number))
    assert code == 130
    assert stderr == "\ninterrupted; what is finished is kept, and the same command goes on from there\n"
    assert place.finished() == [1]
    code, stderr = place.start()
    assert code == 0, stderr
    assert place.result() == uninterrupted
    assert [path.name for path in place.run.rglob(".*")] == []


def test_two_trainings_exclude_each_other_until_the_first_is_killed(
    place: Place, uninterrupted: dict[str, object]
) -> None:
    first = place.server.start(["distill", "tiny.yaml"], place.folder, Halt(STEP, 6, None))
    first.wait_for_halt()
    code, stderr = place.start()
    assert code == 2
    run = place.run.relative_to(place.folder)
    assert f"error: {run} is in use: process {first.process.pid} works in it\n  wait for it, or stop it\n" in stderr
    first.kill()
    assert first.end() == -signal.SIGKILL
    code, stderr = place.start()
    assert code == 0, stderr
    assert place.result() == uninterrupted


def test_damaged_checkpoint_ends_the_command_with_the_line_that_helps(place: Place) -> None:
    assert place.start(Halt(STEP, 6))[0] == -signal.SIGKILL
    checkpoint = place.run.relative_to(place.folder) / "student/checkpoints/epoch-0001"
    (place.folder / checkpoint / "state.pt").write_bytes(b"\x80\x02garbage")
    code, stderr = place.start()
    assert code == 2
    assert f"error: checkpoint {checkpoint} cannot be read: " in stderr
    assert f"rm -r {checkpoint}" in stderr
    assert "Traceback" not in stderr
