"""What the processes of a training do in tests; a module of its own because they import it."""

import hashlib
import os
import threading
from pathlib import Path

import torch
from lightning_fabric import Fabric

from kdedge.core.console import progress_bar
from kdedge.core.errors import TrainingError
from kdedge.core.recipe import Run
from kdedge.distill.job import Job, make_fabric
from kdedge.distill.processes import launch
from kdedge.distill.trainer import PhaseRun


def train_an_epoch(fabric: Fabric, job: Job, notes: Path) -> None:
    """Note each rank's images, its row of the log, and a hash of its weights."""
    torch.set_num_threads(1)
    phase = PhaseRun(fabric, job, 0, 0, None, None)
    seen = [index for batch in phase.loader.epoch(0) for index in batch.indices.tolist()]
    with phase.objective, phase.staff() as staff, progress_bar("", 1, shown=False) as bar:
        row = phase.run_epoch(0, staff, bar)
    parameters = torch.cat([p.detach().flatten() for p in phase.objective.parameters()])
    digest = hashlib.sha256(parameters.numpy().tobytes()).hexdigest()
    torch.save({"seen": seen, "row": row, "weights": digest}, notes / f"{fabric.global_rank}.pt")


def fail_in_the_second(fabric: Fabric) -> None:
    if fabric.global_rank == 1:
        raise TrainingError("student: out of memory", "a batch of 64 does not fit", "--set phases.0.batch=32")
    fabric.barrier()


def break_in_the_second(fabric: Fabric) -> None:
    if fabric.global_rank == 1:
        raise ZeroDivisionError("a bug")
    fabric.barrier()


def tell_and_wait(fabric: Fabric, told: Path) -> None:
    with told.open("a") as file:
        file.write(f"{os.getpid()}\n")
    threading.Event().wait()


def start_two_that_wait(told: str) -> None:
    launch(make_fabric(Run(accelerator="cpu", devices=2)), tell_and_wait, Path(told))
