"""Two devices, on the CPU: two processes that share the work and end as one."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import ranks
import torch
from forked import Forkserver, Halt
from safetensors.torch import load_file
from torch.multiprocessing.spawn import ProcessRaisedException

from kdedge.core.errors import TrainingError
from kdedge.core.recipe import Run
from kdedge.distill.job import Job, make_fabric
from kdedge.distill.processes import launch
from kdedge.distill.trainer import train

MakeJob = Callable[..., Job]
TWO = {"devices": 2}


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, forkserver: Forkserver) -> None:
    """Fabric puts the port of the first process into the environment."""
    monkeypatch.setenv("MASTER_PORT", "0")
    monkeypatch.delenv("MASTER_PORT")


def test_two_processes_see_disjoint_images_and_end_in_the_same_weights(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job({"epochs": 1, "batch": 8, "methods": [{"name": "self_distill"}]}, run=TWO)
    launch(make_fabric(job.run), ranks.train_an_epoch, job, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert sorted(first["seen"] + second["seen"]) == list(range(64))
    assert first["weights"] == second["weights"]
    assert first["row"] == second["row"]


def test_two_processes_that_train_for_int8_end_in_the_same_weights(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job({"epochs": 1, "batch": 8, "quantize": {}}, run=TWO)
    launch(make_fabric(job.run), ranks.train_an_epoch, job, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["weights"] == second["weights"]


def test_training_in_two_processes_gives_its_weights_to_the_one_that_started_them(make_job: MakeJob) -> None:
    job = make_job({"epochs": 2, "batch": 8, "ema": 0.5}, run=TWO)
    before = job.student.linear.weight.detach().clone()
    result = train(job)
    assert result.epochs == 2
    saved = load_file(job.folder / "weights.safetensors")
    assert torch.equal(job.student.linear.weight, saved["linear.weight"])
    assert not torch.equal(job.student.linear.weight, before)


def test_error_of_one_process_reaches_the_user_as_it_is() -> None:
    fabric = make_fabric(Run(accelerator="cpu", devices=2))
    with pytest.raises(TrainingError) as caught:
        launch(fabric, ranks.fail_in_the_second)
    assert caught.value.args == (
        "student: out of memory",
        "a batch of 64 does not fit",
        "--set phases.0.batch=32",
    )


def test_bug_in_one_process_keeps_its_traceback() -> None:
    fabric = make_fabric(Run(accelerator="cpu", devices=2))
    with pytest.raises(ProcessRaisedException, match="ZeroDivisionError: a bug"):
        launch(fabric, ranks.break_in_the_second)


RECIPE = """
version: 1
data: {name: digits, train_limit: 64, validation: 0.2}
student: {name: resnet8, options: {conv: depthwise}}
phases: [{epochs: 100000, batch: 16}]
baseline: false
run: {accelerator: cpu, devices: 2, threads: 2}
"""


def test_interrupting_a_training_in_two_processes_ends_them_all(forkserver: Forkserver, tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(RECIPE)
    waiting = Halt("torch.multiprocessing.spawn:ProcessContext.join", 1, signal.SIGTERM)
    code, process = forkserver.run(["distill", "long.yaml"], tmp_path, waiting)
    assert code == 130, process.stderr
    left = [each for each in psutil.process_iter(["cwd"]) if each.info["cwd"] == str(tmp_path)]
    assert psutil.wait_procs(left, timeout=20)[1] == []


def test_processes_end_when_the_one_that_started_them_is_killed(forkserver: Forkserver, tmp_path: Path) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    with open(os.open(told, os.O_RDWR)) as pipe:  # noqa: PTH123  (also for writing, so that it has no end between two)
        process = forkserver.start([], tmp_path, setup=f"import ranks; ranks.start_two_that_wait({str(told)!r})")
        started = [psutil.Process(int(pipe.readline())) for _ in range(2)]
    process.kill()
    assert process.end() == -signal.SIGKILL
    assert psutil.wait_procs(started, timeout=20)[1] == []
