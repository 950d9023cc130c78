"""How weights and the learning rate move through a phase; progress is the share of the phase that is done, 0..1."""

import math

from kdedge.core.training import Optimizer, Phase, Schedule

REFERENCE_BATCH = 128


def schedule_factor(schedule: Schedule, progress: float) -> float:
    """What a term's weight is multiplied by: 0 outside its window, linear warm-up from its start, then decay."""
    if not schedule.start <= progress <= schedule.end:
        return 0.0
    warm = min(1.0, (progress - schedule.start) / schedule.warmup) if schedule.warmup else 1.0
    return warm * schedule.decay ** sum(progress >= at for at in schedule.decay_at)


def learning_rate(phase: Phase, progress: float, devices: int = 1) -> float:
    o = phase.optimizer
    base = o.lr * (phase.batch * devices / REFERENCE_BATCH if o.scale_lr else 1.0)
    return base * min(1.0, progress / o.warmup if o.warmup else 1.0) * annealing(o, progress)


def annealing(o: Optimizer, progress: float) -> float:
    if o.schedule == "cosine":
        after_warmup = max(0.0, progress - o.warmup) / max(1e-9, 1 - o.warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, after_warmup)))
    if o.schedule == "step":
        return o.gamma ** sum(progress >= at for at in o.milestones)
    return 1.0
