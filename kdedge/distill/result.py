"""What a finished training leaves: the weights that count, its own layers' weights, and the accuracy of its exits."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from kdedge.core.errors import TrainingError
from kdedge.core.rundir import atomic_path, write_json
from kdedge.data.loader import Normalizer
from kdedge.distill.base import Method, View
from kdedge.distill.checkpoint import last_checkpoint
from kdedge.distill.evaluate import accuracy, answers
from kdedge.distill.int8 import learned_ranges
from kdedge.distill.job import Job
from kdedge.models.features import FeatureTap
from kdedge.models.weights import save_weights

RANGES = "int8.json"
"""Of a training for int8: the range of what each layer takes, by its path."""


@dataclass(frozen=True)
class Result:
    epochs: int
    seconds: float
    validation_accuracy: float
    """By the job's judge."""
    extra_params: int
    """Of the methods' own layers."""
    exits: dict[str, float] = field(default_factory=dict)
    """Test top-1 by stage."""
    ensemble: float | None = None
    """Test top-1 of all classifiers together; None without exits."""


def take_result(job: Job, device: torch.device) -> Result:
    """Give the job's student its final weights, the moving averages where the last phase kept them, and save them."""
    last = last_checkpoint(job.checkpoints)
    if last is None:
        raise TrainingError(f"{job.folder} has no finished epoch")
    job.load(last)
    save_weights(job.student, job.folder / "weights.safetensors")
    for number, peer in enumerate(job.peers):
        save_weights(peer, job.folder / f"peer{number}.safetensors")
    if ranges := learned_ranges(last.final("int8")):
        write_json(job.folder / RANGES, ranges)
    own = last.final("methods")
    with atomic_path(job.folder / "methods.safetensors") as temporary:
        save_file(own, temporary)
    methods = job.methods(job.phases[-1])
    layers = nn.ModuleDict(methods)
    layers.load_state_dict(own)
    rows = last.state["rows"]
    exits, ensemble = exit_accuracies(job, methods.values(), device)
    return Result(
        epochs=last.epoch,
        seconds=sum(row["seconds"] for row in rows),
        validation_accuracy=rows[-1][f"validation_{job.judge.measure.key}"],
        extra_params=sum(p.numel() for p in layers.parameters()),
        exits=exits,
        ensemble=ensemble,
    )


def exit_accuracies(job: Job, methods: Iterable[Method], device: torch.device) -> tuple[dict[str, float], float | None]:
    """Test top-1 of every early exit that the methods trained, by stage, and of the ensemble of all classifiers."""
    training = [method.to(device).eval() for method in methods if type(method).exits is not Method.exits]
    if not training:
        return {}, None
    student = job.student.to(device).eval()
    normalize = Normalizer(job.dataset.normalize).to(device)
    stages: list[str] = []
    points = job.networks()[0].features
    wanted = {name: points[name] for method in training for name in method.student_features}
    with FeatureTap(student, wanted) as tap:

        def forward(pixels: Tensor) -> Tensor:
            view = View(student(normalize(pixels)), tap.features)
            exits = {stage: logits for method in training for stage, logits in method.exits(view).items()}
            stages[:] = exits
            return torch.stack([*exits.values(), view.logits], dim=1)

        logits, labels = answers(forward, job.dataset.test, device, job.data.workers)
    ensemble = accuracy(logits.softmax(dim=2).mean(dim=1), labels)
    return {stage: accuracy(logits[:, index], labels) for index, stage in enumerate(stages)}, ensemble
