"""The training loop: phases in turn, a checkpoint after every epoch, the same weights interrupted or not."""

import time
from contextlib import nullcontext
from typing import NoReturn, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from kdedge.core import console
from kdedge.core.rundir import check_disk
from kdedge.data.loader import Batch, Normalizer, train_batches
from kdedge.distill.average import moving_average
from kdedge.distill.begin import calibrate, hand_on, prepare
from kdedge.distill.cached import keep_answers
from kdedge.distill.checkpoint import (
    Checkpoint,
    last_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
)
from kdedge.distill.evaluate import predict
from kdedge.distill.freeze import Frozen
from kdedge.distill.int8 import FakeInt8
from kdedge.distill.job import Job, cpu_threads, disk_need, make_fabric, make_optimizer
from kdedge.distill.logs import Row, TrainingLog
from kdedge.distill.memory import is_out_of_memory, largest_fit, memory_error
from kdedge.distill.meter import TermMeter
from kdedge.distill.objective import Objective
from kdedge.distill.phases import learning_rate
from kdedge.distill.processes import launch
from kdedge.distill.result import Result, take_result
from kdedge.distill.teachers import Staff

CHECK_EVERY = 50
"""Steps between looks at the loss, each of which waits for the device."""


def train(job: Job) -> Result:
    """Train the job's student, or go on from its last finished epoch; the student ends with the trained weights.

    Raises:
        TrainingError: a loss that is not finite, memory that does not suffice, a damaged checkpoint.
        KdedgeError: too little disk.
    """
    check_disk(job.folder, disk_need(job))
    fabric = make_fabric(job.run)
    job.kept = keep_answers(job, fabric.device)
    if job.run.devices > 1:
        launch(fabric, train_process, job)
    else:
        train_process(fabric, job)
    return take_result(job, fabric.device)


def train_process(fabric: Fabric, job: Job) -> None:
    """The whole training, as each process runs it."""
    torch.set_num_threads(max(1, cpu_threads(job.run) // fabric.world_size))
    found = last_checkpoint(job.checkpoints, job.identity)
    if found:
        job.load(found)
    rows = found.state["rows"] if found else []
    with TrainingLog(job.folder, rows) if fabric.is_global_zero else nullcontext() as log:
        first = 0
        for index, phase in enumerate(job.phases):
            last = first + phase.epochs
            if not found or found.epoch < last:
                torch.manual_seed(job.seed + 1 + first)
                resume = found if found and found.epoch > first else None
                PhaseRun(fabric, job, index, first, resume, log).train()
            first = last


class PhaseRun:
    """One phase on one process; `first` counts the epochs of the phases before it."""

    def __init__(
        self, fabric: Fabric, job: Job, index: int, first: int, resume: Checkpoint | None, log: TrainingLog | None
    ) -> None:
        self.fabric, self.job, self.first, self.log = fabric, job, first, log
        self.phase, self.setting = job.phases[index], f"{job.setting}.{index}"
        if job.run.channels_last:
            for network in (job.student, *job.peers, *job.teachers):
                network.to(memory_format=torch.channels_last)
        student, self.teachers = job.networks()[0], [teacher.to(fabric.device) for teacher in job.teachers]
        methods = job.methods(self.phase)
        peers = job.peers if any(method.needs_peers for method in methods.values()) else ()
        int8 = FakeInt8(job.student, self.phase.quantize) if self.phase.quantize else None
        self.objective = Objective(job.student, methods, self.phase, student, len(job.teachers), peers, int8)
        self.parts: dict[str, nn.Module] = {"student": job.student, "methods": self.objective.methods}
        if int8:
            self.parts["int8"] = int8
        if job.peers:
            self.parts["peers"] = nn.ModuleList(job.peers)
        fabric.to_device(self.objective)
        self.frozen = Frozen(job.student, self.phase.freeze)
        self.frozen.apply()
        self.optimizer = make_optimizer(self.objective, self.phase, job.run)
        self.average = self.make_average()
        self.normalize = Normalizer(job.dataset.normalize).to(fabric.device)
        self.loader = train_batches(
            job.dataset.train,
            job.data.augment,
            self.phase.batch,
            job.seed,
            fabric.device,
            workers=job.data.workers,
            rank=fabric.global_rank,
            world=fabric.world_size,
            repeat_threshold=job.data.repeat_threshold,
        )
        self.start = self.restore(resume) if resume else self.begin()
        if job.run.compile:
            job.student.compile()
        self.module, self.stepper = fabric.setup(self.objective, self.optimizer)

    def begin(self) -> int:
        """Start the phase; returns its first epoch."""
        before = last_checkpoint(self.job.checkpoints, self.job.identity) if self.first else None
        trained = before.final("methods") if before else {}
        handed = hand_on(self.objective.methods, trained, self.job.label)
        fresh = [name for name in self.objective.methods if name not in handed]
        calibrate(self.objective, self.normalize, self.loader, self.first)
        prepare(self.objective, fresh, self.staff(), self.normalize, self.loader, self.first)
        return 0

    def make_average(self) -> AveragedModel | None:
        if self.phase.ema is None:
            return None
        return AveragedModel(self.objective, multi_avg_fn=moving_average(self.phase.ema), use_buffers=True)

    def staff(self) -> Staff:
        """The teachers, tapped where methods of the phase listen."""
        wanted = []
        for index, network in enumerate(self.job.networks()[1]):
            names = self.objective.teacher_features(index)
            wanted.append(None if names is None else {name: network.features[name] for name in names})
        return Staff(self.teachers, wanted, self.job.kept)

    def train(self) -> None:
        chief = self.fabric.is_global_zero
        if chief and self.start:
            console.say(f"{self.job.label}: going on after epoch {self.first + self.start}")
        steps = (self.phase.epochs - self.start) * len(self.loader)
        with self.objective, self.staff() as staff, console.progress_bar(self.job.label, steps, chief) as bar:
            for epoch in range(self.start, self.phase.epochs):
                began = time.perf_counter()
                row = self.run_epoch(epoch, staff, bar)
                if chief:
                    validation = f"validation_{self.job.judge.measure.key}"
                    row[validation] = self.validate()
                    bar.note(**{name: row[name] for name in ("loss", "train_top1", validation) if name in row})
                    self.finish_epoch(row | {"seconds": time.perf_counter() - began})
                self.fabric.barrier()
        if self.average:
            for name in self.parts:
                mean = self.average.module.get_submodule(name).state_dict()
                self.objective.get_submodule(name).load_state_dict(mean)
        self.frozen.release()

    def run_epoch(self, epoch: int, staff: Staff, bar: console.Bar) -> Row:
        """Train one epoch; returns the means of the loss and of its terms."""
        self.module.train()
        self.frozen.apply()
        meter, steps, number = TermMeter(self.reduce), len(self.loader), self.first + epoch + 1
        for index, batch in enumerate(self.loader.epoch(self.first + epoch)):
            self.step(batch, staff, epoch, (epoch + index / steps) / self.phase.epochs, meter)
            if index % CHECK_EVERY == 0:
                meter.check(self.job.label, number)
            bar.advance()
        meter.check(self.job.label, number)
        return {"epoch": number, "lr": self.optimizer.param_groups[0]["lr"], **meter.means()}

    def reduce(self, tensor: Tensor, how: str) -> Tensor:
        """Over the processes of this training."""
        return cast(Tensor, self.fabric.all_reduce(tensor, reduce_op=how))

    def step(self, batch: Batch, staff: Staff, epoch: int, progress: float, meter: TermMeter) -> None:
        """Forward, backward and one update."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.phase, progress, self.fabric.world_size)
        result = None
        try:
            result = self.forward_backward(batch, staff, epoch, progress)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        if result is None:  # and the error is gone, with every tensor of the failed step that it held
            self.explain_memory(batch, staff)
        if clip := self.phase.optimizer.clip_norm:
            self.fabric.clip_gradients(self.module, self.stepper, max_norm=clip, error_if_nonfinite=False)
        self.stepper.step()
        if self.average:
            self.average.update_parameters(self.objective)
        meter.add(*result, len(batch.labels))

    def forward_backward(
        self, batch: Batch, staff: Staff, epoch: int, progress: float
    ) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
        self.stepper.zero_grad()
        images = self.normalize(batch.images)
        if self.job.run.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with self.fabric.autocast():
            answers = staff.ask(batch.images, batch.indices, self.first + epoch)
        loss, terms, right = self.module(images, batch.labels, batch.indices, answers, epoch, progress)
        self.fabric.backward(loss)
        return loss, terms, right

    def explain_memory(self, batch: Batch, staff: Staff) -> NoReturn:
        """Raises TrainingError with a batch that fits."""

        def attempt(count: int) -> None:
            self.forward_backward(Batch(*(part[:count] for part in batch)), staff, 0, 0.0)

        raise memory_error(self.job.label, self.phase.batch, largest_fit(attempt, len(batch.labels)), self.setting)

    def validate(self) -> float:
        model = self.average.module.get_submodule("student") if self.average else self.objective.trained
        data, judge = self.job.dataset, self.job.judge
        workers = self.job.data.workers
        kept = predict(model, data.validation, data.normalize, self.fabric.device, workers, judge)
        return judge.quality(*kept).accuracy

    def finish_epoch(self, row: Row) -> None:
        """Log the epoch, then keep all that the next one starts from."""
        assert self.log is not None
        self.log.add(row)
        weights = {name: part.state_dict() for name, part in self.parts.items()}
        if self.average:
            weights |= {f"average_{name}": self.average.module.get_submodule(name).state_dict() for name in self.parts}
        state = {
            "identity": self.job.identity,
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "averaged": int(self.average.n_averaged) if self.average else 0,
            "random": random_state(),
            "rows": self.log.rows,
        }
        save_checkpoint(self.job.checkpoints, Checkpoint(int(row["epoch"]), weights, state))

    def restore(self, found: Checkpoint) -> int:
        """Take up everything the last finished epoch left; returns the phase's next epoch."""
        for name, part in self.parts.items():
            part.load_state_dict(found.weights[name])
        self.optimizer.load_state_dict(found.state["optimizer"])
        if self.average:
            for name in self.parts:
                self.average.module.get_submodule(name).load_state_dict(found.weights[f"average_{name}"])
            self.average.n_averaged.fill_(found.state["averaged"])
        self.fabric.strategy.precision.load_state_dict(found.state["precision"])
        restore_random_state(found.state["random"])
        return found.epoch - self.first
