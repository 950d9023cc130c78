"""One network to train: what it takes, where its results go, and the parts that are made from that."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from lightning_fabric import Fabric
from torch import nn
from torch.optim import SGD, AdamW

from kdedge.core.errors import ModelError
from kdedge.core.recipe import Data, Run
from kdedge.core.training import Phase
from kdedge.data.sets import Dataset
from kdedge.distill.base import Method, Network
from kdedge.distill.checkpoint import Checkpoint
from kdedge.distill.judge import ClassJudge, Judge
from kdedge.distill.layout import Layout
from kdedge.distill.objective import Objective, build_methods
from kdedge.distill.processes import parallel
from kdedge.distill.teachers import FrozenTeacher, Keeper
from kdedge.models.detector import Detector
from kdedge.models.features import feature_points


@dataclass
class Job:
    label: str
    student: nn.Module
    dataset: Dataset
    data: Data
    phases: tuple[Phase, ...]
    run: Run
    seed: int
    folder: Path
    """Gets checkpoints/, log.csv, tensorboard/ and, at the end, weights.safetensors, methods.safetensors and, where it
    trained for int8, int8.json."""
    identity: str
    """Hash of all that decides the weights; a checkpoint of another identity is not gone on from."""
    teachers: tuple[FrozenTeacher, ...] = ()
    peers: tuple[nn.Module, ...] = ()
    setting: str = "phases"
    """Where the phases stand in the recipe, for messages."""
    kept: tuple[Keeper | None, ...] = ()
    """For each teacher what it would answer, or None; nothing where all are to be asked."""
    judge: Judge = field(default_factory=ClassJudge)
    """Of the student, on the validation images."""

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def load(self, found: Checkpoint) -> None:
        """Take up the weights that count of a finished epoch."""
        self.student.load_state_dict(found.final("student"))
        nn.ModuleList(self.peers).load_state_dict(found.final("peers"))

    def networks(self) -> tuple[Network, list[Network]]:
        """The student and the teachers as methods know them."""
        shape, classes = self.dataset.image_shape, len(self.dataset.labels)
        images = int(self.dataset.train.indices.max()) + 1

        def known(network: nn.Module) -> Network:
            points = feature_points(network, shape)
            layout = Layout.of(network.decoding(), points) if isinstance(network, Detector) else None
            return Network(points, classes, shape[1], images, layout)

        return known(self.student), [known(teacher.model) for teacher in self.teachers]

    def methods(self, phase: Phase) -> dict[str, Method]:
        return build_methods(phase.methods, *self.networks(), len(self.peers))


def cpu_threads(run: Run) -> int:
    """As asked, or the cores this process may use."""
    return run.threads or len(os.sched_getaffinity(0))


def make_fabric(run: Run) -> Fabric:
    strategy = parallel(run.accelerator) if run.devices > 1 else "auto"
    return Fabric(accelerator=run.accelerator, devices=run.devices, precision=run.precision, strategy=strategy)


def make_optimizer(objective: Objective, phase: Phase, run: Run) -> SGD | AdamW:
    o = phase.optimizer
    parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    if not parameters:
        raise ModelError("nothing trains", "the student is frozen, and no method has layers of its own", "freeze less")
    fused = run.precision != "16-mixed"  # gradient scaling with clipping needs the unfused step
    if o.name == "adamw":
        return AdamW(parameters, lr=o.lr, betas=(o.momentum, 0.999), weight_decay=o.weight_decay, fused=fused)
    return SGD(parameters, lr=o.lr, momentum=o.momentum, nesterov=o.nesterov, weight_decay=o.weight_decay, fused=fused)


def disk_need(job: Job) -> int:
    """Bytes of two checkpoints (weights, momentum, average, methods' layers and banks) and the logs, rounded up."""
    layers = [method for phase in job.phases for method in job.methods(phase).values()]
    states = [module.state_dict() for module in (job.student, *job.peers, *layers)]
    size: int = sum(tensor.nbytes for state in states for tensor in state.values())
    return 2 * 4 * size + 2**25
