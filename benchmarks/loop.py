"""Images a second of one distillation step: kdedge's, a bare PyTorch loop's and a naive one's, measured in turns.

    python benchmarks/loop.py [--device cuda] [--channels-last] [--student resnet20 --teacher resnet56]

All three train the same student from the same frozen teacher by SGD on the sum of cross-entropy and KD, with random
crops and mirroring, in one process.  They differ in how the step is written and where its images come from:

    bare    the math by hand, with nothing around it; images augmented as tensors, a batch at a time
    kdedge  what `kdedge distill` runs: recipe objects, Fabric, feature taps, metrics, loss checks
    naive   the bare step fed by PIL transforms in DataLoader workers

A round is one short epoch of each, forwards in one round and backwards in the next, so that whatever else the machine
does falls on all of them; what counts is the median over rounds of the ratio within a round.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms

from kdedge.core.console import progress_bar, show_table
from kdedge.core.recipe import Augment, CrossEntropy, Data, MethodUse, Normalize, Optimizer, Phase, Run
from kdedge.core.rundir import write_json, write_text
from kdedge.data.build import Dataset, ImageSet
from kdedge.distill.job import Job, make_fabric
from kdedge.distill.teachers import FrozenTeacher
from kdedge.distill.trainer import PhaseRun
from kdedge.models.zoo import build_model
from kdedge.pipeline.environment import environment

RESULTS = Path(__file__).parent / "results"
SHAPE, CLASSES, PADDING = (3, 32, 32), 10, 4
NORMALIZE = Normalize(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
LR, MOMENTUM, DECAY, LABELS, KD, TEMPERATURE = 0.01, 0.9, 5e-4, 0.1, 0.9, 4.0
WORKERS = 2
Epoch = Callable[[], object]


@dataclass(frozen=True)
class Pair:
    student: str
    conv: str
    teacher: str

    def __str__(self) -> str:
        return f"{self.student} ({self.conv}) from {self.teacher}"


@dataclass(frozen=True)
class Setting:
    device: torch.device
    threads: int
    batch: int
    channels_last: bool
    rounds: int
    seconds: float
    """Of each contender in each round, about."""


PAIRS = (Pair("resnet8", "depthwise", "resnet20"), Pair("resnet20", "dense", "resnet56"))
"""A light pair, in which what surrounds the networks shows most, and the usual one."""


@dataclass(frozen=True)
class Result:
    pair: Pair
    steps: int
    """Of one contender in one round."""
    images_per_second: dict[str, list[float]]
    """By contender, a figure a round."""

    def median(self, name: str) -> float:
        return statistics.median(self.images_per_second[name])

    def ratios(self, name: str) -> list[float]:
        """kdedge's speed over the contender's, a figure a round."""
        rounds = self.images_per_second
        return [ours / other for ours, other in zip(rounds["kdedge"], rounds[name], strict=True)]


def networks(pair: Pair) -> tuple[nn.Module, nn.Module]:
    """Fresh ones with the same weights each time; speed does not depend on training."""
    torch.manual_seed(0)
    student = build_model(pair.student, {"conv": pair.conv}, CLASSES, SHAPE)
    return student, build_model(pair.teacher, {}, CLASSES, SHAPE)


def images(count: int) -> ImageSet:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, *SHAPE), dtype=torch.uint8, generator=draw)
    return ImageSet(pixels, torch.randint(CLASSES, (count,), generator=draw), torch.arange(count))


class Bare:
    """What one writes by hand: nothing but the math."""

    def __init__(self, pair: Pair, setting: Setting) -> None:
        self.layout = torch.channels_last if setting.channels_last else torch.contiguous_format
        self.device = setting.device
        self.student, self.teacher = (n.to(self.device).to(memory_format=self.layout) for n in networks(pair))
        self.teacher.eval().requires_grad_(False)
        parameters = self.student.parameters()
        self.optimizer = torch.optim.SGD(parameters, lr=LR, momentum=MOMENTUM, weight_decay=DECAY, fused=True)
        std, mean = (torch.tensor(v, device=self.device).view(1, -1, 1, 1) for v in (NORMALIZE.std, NORMALIZE.mean))
        self.scale, self.shift = 1 / (255 * std), -mean / std

    def step(self, images: Tensor, labels: Tensor) -> None:
        """`images`: normalized."""
        images = images.contiguous(memory_format=self.layout)
        with torch.no_grad():
            target = F.log_softmax(self.teacher(images) / TEMPERATURE, dim=1)
        logits = self.student(images)
        soft = F.log_softmax(logits / TEMPERATURE, dim=1)
        kd = TEMPERATURE**2 * F.kl_div(soft, target, reduction="batchmean", log_target=True)
        loss = LABELS * F.cross_entropy(logits, labels) + KD * kd
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def epoch(self, images: Tensor, labels: Tensor, batch: int) -> None:
        """`images`: uint8, on the device like the labels."""
        for rows in torch.split(torch.randperm(len(images), device=self.device), batch):
            pixels = crop_and_mirror(images[rows])
            self.step(pixels.float().mul_(self.scale).add_(self.shift), labels[rows])


def crop_and_mirror(images: Tensor) -> Tensor:
    count, _, height, width = images.shape
    windows = F.pad(images, [PADDING] * 4).unfold(2, height, 1).unfold(3, width, 1)
    top, left = torch.randint(2 * PADDING + 1, (2, count), device=images.device)
    cropped = windows[torch.arange(count, device=images.device), :, top, left]
    return torch.where(torch.rand(count, 1, 1, 1, device=images.device) < 0.5, cropped.flip(3), cropped)


class Pictures(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """One image at a time through PIL."""

    def __init__(self, part: ImageSet) -> None:
        self.pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in part.images]
        self.labels = part.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=PADDING),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(NORMALIZE.mean, NORMALIZE.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.pictures[index]), self.labels[index]


def bare_epoch(pair: Pair, setting: Setting, part: ImageSet) -> Epoch:
    bare = Bare(pair, setting)
    pixels, labels = part.images.to(setting.device), part.labels.to(setting.device)
    return lambda: bare.epoch(pixels, labels, setting.batch)


def naive_epoch(pair: Pair, setting: Setting, part: ImageSet) -> Epoch:
    bare = Bare(pair, setting)
    pinned = setting.device.type == "cuda"
    loader = DataLoader(
        Pictures(part), setting.batch, shuffle=True, num_workers=WORKERS, pin_memory=pinned, persistent_workers=True
    )

    def epoch() -> None:
        for batch in loader:
            bare.step(*(tensor.to(setting.device, non_blocking=True) for tensor in batch))

    return epoch


@contextmanager
def kdedge_epoch(pair: Pair, setting: Setting, part: ImageSet) -> Iterator[Epoch]:
    """Epochs of a phase as the trainer runs them; the work between epochs (validation, checkpoint) is not among it."""
    job = make_job(pair, setting, part)
    run = PhaseRun(make_fabric(job.run), job, 0, 0, None, None)
    steps = len(run.loader)
    numbers = iter(range(job.phases[0].epochs))
    with run.objective, run.teacher_tap() as tap, progress_bar(job.label, steps, shown=False) as bar:
        yield lambda: run.run_epoch(next(numbers), tap, bar)


def make_job(pair: Pair, setting: Setting, part: ImageSet) -> Job:
    student, teacher = networks(pair)
    phase = Phase(
        epochs=setting.rounds + 1,
        batch=setting.batch,
        optimizer=Optimizer(lr=LR, momentum=MOMENTUM, weight_decay=DECAY),
        cross_entropy=CrossEntropy(weight=LABELS),
        methods=(MethodUse(name="logits", weight=KD, options={"temperature": TEMPERATURE}),),
    )
    names = tuple(map(str, range(CLASSES)))
    return Job(
        label="benchmark",
        student=student,
        dataset=Dataset("random", part, part, part, names, NORMALIZE, SHAPE),
        data=Data(name="random", augment=Augment(crop_padding=PADDING, flip=True)),
        phases=(phase,),
        run=Run(
            accelerator="cuda" if setting.device.type == "cuda" else "cpu",
            threads=setting.threads,
            channels_last=setting.channels_last,
        ),
        seed=0,
        folder=RESULTS,
        identity="",
        teacher=FrozenTeacher(teacher, NORMALIZE),
    )


def seconds_of(epoch: Epoch, device: torch.device) -> float:
    wait(device)
    began = time.perf_counter()
    epoch()
    wait(device)
    return time.perf_counter() - began


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def steps_a_round(pair: Pair, setting: Setting) -> int:
    """How many steps of the bare loop take about as long as asked."""
    trial = 3
    epoch = bare_epoch(pair, setting, images(trial * setting.batch))
    seconds_of(epoch, setting.device)
    return max(2, round(setting.seconds * trial / seconds_of(epoch, setting.device)))


def compare(pair: Pair, setting: Setting) -> Result:
    """Run the three in turns."""
    steps = steps_a_round(pair, setting)
    part = images(steps * setting.batch)
    with kdedge_epoch(pair, setting, part) as ours:
        epochs = {
            "bare": bare_epoch(pair, setting, part),
            "kdedge": ours,
            "naive": naive_epoch(pair, setting, part),
        }
        speeds: dict[str, list[float]] = {name: [] for name in epochs}
        for number in range(setting.rounds + 1):
            for name in list(epochs) if number % 2 else reversed(epochs):
                taken = seconds_of(epochs[name], setting.device)
                if number:  # the first round warms up: memory, algorithms, workers
                    speeds[name].append(len(part) / taken)
    return Result(pair, steps, speeds)


def rows(results: Sequence[Result]) -> list[list[str]]:
    return [
        [
            str(result.pair),
            *(f"{result.median(name):.0f}" for name in ("bare", "kdedge", "naive")),
            *(spread(result.ratios(name)) for name in ("bare", "naive")),
        ]
        for result in results
    ]


def spread(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f}..{max(ratios):.3f})"


COLUMNS = ["student and teacher", "bare", "kdedge", "naive", "kdedge / bare", "kdedge / naive"]


def machine(setting: Setting) -> dict[str, Any]:
    found: dict[str, Any] = {**environment(), "cpus": os.cpu_count(), "threads": setting.threads}
    if setting.device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(setting.device)
    return found


def markdown(results: Sequence[Result], setting: Setting, record: dict[str, Any]) -> str:
    lines = [
        f"# Training step on {setting.device.type}: images a second",
        "",
        f"Written by `python benchmarks/loop.py`. Batches of {setting.batch}, images 3x32x32, fp32, "
        f"channels_last {'on' if setting.channels_last else 'off'}. "
        f"Medians of {setting.rounds} rounds; ratios within a round: median (least..greatest).",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|---" + "|---:" * (len(COLUMNS) - 1) + "|",
        *("| " + " | ".join(row) + " |" for row in rows(results)),
        "",
        *(f"- {line}" for line in described(record)),
    ]
    return "\n".join(lines) + "\n"


def described(record: dict[str, Any]) -> list[str]:
    return [f"{name}: {value}" for name, value in record.items()]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--student", help="one pair instead of the usual two; with --teacher")
    parser.add_argument("--teacher")
    parser.add_argument("--conv", default="dense", help="of the student: dense, grouped, depthwise")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each contender in each round, about")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--json", type=Path, help="results here (and .md beside); else results/loop-DEVICE")
    given = parser.parse_args(arguments)
    if (given.student is None) != (given.teacher is None):
        parser.error("--student and --teacher go together")
    return given


def main(arguments: Sequence[str] | None = None) -> None:
    given = parse(arguments)
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if given.device == "auto" else given.device
    setting = Setting(torch.device(kind), given.threads, given.batch, given.channels_last, given.rounds, given.seconds)
    torch.set_num_threads(setting.threads)
    pairs = [Pair(given.student, given.conv, given.teacher)] if given.student else PAIRS
    before = os.getloadavg()[0]
    results = [compare(pair, setting) for pair in pairs]
    record = machine(setting) | {"load average before": round(before, 2), "after": round(os.getloadavg()[0], 2)}
    show_table(f"images a second on {kind}", COLUMNS, rows(results), "\n".join(described(record)))
    out = given.json or RESULTS / f"loop-{kind}{'-channels_last' if setting.channels_last else ''}.json"
    kept = {"batch": setting.batch, "channels_last": setting.channels_last, "rounds": setting.rounds}
    write_json(out, {"machine": record, "setting": kept, "results": [asdict(result) for result in results]})
    write_text(out.with_suffix(".md"), markdown(results, setting, record))


if __name__ == "__main__":
    main()
