"""What a phase does before its first step: take over what the last one trained, look at some data."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import cast

import torch
from torch import Tensor, nn

from kdedge.core import console
from kdedge.data.loader import Batch, Batches, Normalizer
from kdedge.distill.base import Method, View
from kdedge.distill.objective import Objective
from kdedge.distill.teachers import Staff


def hand_on(methods: nn.ModuleDict, trained: dict[str, Tensor], label: str) -> set[str]:
    """Give methods the layers that the phase before trained under their names; returns whose fitted."""
    handed = set()
    for name, method in methods.items():
        theirs = {key.partition(".")[2]: value for key, value in trained.items() if key.partition(".")[0] == name}
        shapes, own = ({key: value.shape for key, value in state.items()} for state in (theirs, method.state_dict()))
        if shapes == own:
            method.load_state_dict(theirs)
            handed.add(name)
        elif theirs:
            console.say(f"{label}: {name} starts afresh, since its layers are not those of the phase before")
    return handed


def calibrate(objective: Objective, normalize: Normalizer, loader: Batches, epoch: int) -> None:
    """Give a student that is to train for int8 its first ranges, from the epoch's first batches."""
    if objective.int8 and objective.phase.quantize:
        some = islice(loader.epoch(epoch), objective.phase.quantize.calibration_batches)
        objective.int8.calibrate(normalize(batch.images) for batch in some)


def prepare(
    objective: Objective, names: Iterable[str], staff: Staff, normalize: Normalizer, loader: Batches, epoch: int
) -> None:
    """Show the methods that ask for it what student and teachers make of the epoch's first batches."""
    for name in names:
        method = cast(Method, objective.methods[name])
        if method.calibration_batches:
            objective.student.eval()
            some = islice(loader.epoch(epoch), method.calibration_batches)
            with torch.no_grad(), objective, staff:
                method.prepare(observed(objective, name, staff, normalize, some, epoch))


def observed(
    objective: Objective, name: str, staff: Staff, normalize: Normalizer, batches: Iterable[Batch], epoch: int
) -> Iterator[tuple[View, View | None]]:
    for batch in batches:
        answers = staff.ask(batch.images, batch.indices, epoch)
        yield objective.observe(normalize(batch.images)), objective.heard(name, answers)
