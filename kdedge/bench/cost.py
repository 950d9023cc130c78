"""What a contender's training takes beside images and epochs: time and memory of a step, parameters of its own."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from pydantic import AliasChoices, Field

from kdedge.bench.memory import PeakMemory
from kdedge.core.record import Record
from kdedge.distill.base import METHODS
from kdedge.distill.cached import keep_answers
from kdedge.distill.job import Job, make_fabric
from kdedge.distill.meter import TermMeter
from kdedge.distill.trainer import PhaseRun
from kdedge.pipeline.distill import labels_only

ROUNDS, BLOCK = 7, 3
"""Of a comparison of two trainings; steps that one of them takes before the other's turn."""
MIDDLE = 0.5
"""Of a phase, where every schedule has begun."""


class Cost(Record):
    times: float = Field(validation_alias=AliasChoices("times", "times_kd"))
    """A step's time over that of the reference: the median of the rounds; phases counted by their epochs."""
    times_range: tuple[float, float] = Field(validation_alias=AliasChoices("times_range", "times_kd_range"))
    memory_bytes: int
    """The most of a few steps, in a process that did nothing else."""
    memory_how: str
    extra_params: int
    """That only the training has: methods' own layers, and peers; the most of any phase."""
    reason: str = ""
    """Why its steps are dear, if its methods say so."""


def cost_of(make: Callable[[], Job], make_reference: Callable[[], Job]) -> Cost:
    """From a few steps of a training, and of a reference in turn with them; the jobs are made anew at each call.

    Memory is right only in a process that has not trained before.
    """
    job, warm = make(), make()
    device = make_fabric(job.run).device
    job.kept = keep_answers(job, device)
    warm.phases = (labels_only(job.phases[0]),)
    few_steps(warm, 0)  # what the libraries set up once for all is not the method's
    peak = PeakMemory(device)
    extra = max(few_steps(job, index) for index in range(len(job.phases)))
    memory = peak.read()
    times = times_of(make(), make_reference())
    return Cost(
        times=statistics.median(times),
        times_range=(min(times), max(times)),
        memory_bytes=memory.bytes,
        memory_how=memory.how,
        extra_params=extra,
        reason="; ".join(dict.fromkeys(filter(None, (METHODS.get(name).dear for name in methods_of(job))))),
    )


def methods_of(job: Job) -> Iterator[str]:
    return (use.name for phase in job.phases for use in phase.methods)


def few_steps(job: Job, index: int) -> int:
    """Takes them; returns how many parameters only the training has in this phase."""
    phase = phase_of(job, index)
    with steps_of(phase) as take:
        take()
    return sum(p.numel() for part in (phase.objective.methods, phase.objective.peers) for p in part.parameters())


def times_of(job: Job, reference: Job) -> list[float]:
    """A step's time over that of the reference's only phase, by round."""
    for one in (job, reference):
        one.kept = keep_answers(one, make_fabric(one.run).device)
    epochs = [phase.epochs for phase in job.phases]
    found = [race(phase_of(job, index), phase_of(reference, 0)) for index in range(len(epochs))]
    return [weighted_mean(ratios, epochs) for ratios in zip(*found, strict=True)]


def race(phase: PhaseRun, reference: PhaseRun) -> list[float]:
    """Ratios of times, one a round of four blocks of steps: mine, the reference's twice, mine."""
    with steps_of(phase) as mine, steps_of(reference) as others:
        mine(), others()
        ratios = []
        for _ in range(ROUNDS):
            first, between, last = mine(), others() + others(), mine()
            ratios.append((first + last) / between)
    return ratios


@contextmanager
def steps_of(phase: PhaseRun) -> Iterator[Callable[[], float]]:
    """What takes a block of steps, waits for the device, and returns the seconds it took."""
    batches = list(islice(phase.loader.epoch(0), BLOCK))

    def take() -> float:
        began, meter = time.perf_counter(), TermMeter()
        for batch in batches:
            phase.step(batch, staff, 0, MIDDLE, meter)
        meter.check(phase.job.label, 1)
        return time.perf_counter() - began

    with phase.objective, phase.staff() as staff:
        phase.module.train()
        phase.frozen.apply()
        yield take


def phase_of(job: Job, index: int) -> PhaseRun:
    return PhaseRun(make_fabric(job.run), job, index, 0, None, None)


def weighted_mean(values: Sequence[float], weights: Sequence[int]) -> float:
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)
