"""The three training loops that `loop.py` compares, each as a function that runs one epoch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms

from kdedge.core.console import progress_bar
from kdedge.core.recipe import Augment, Data, Normalize, Run
from kdedge.core.training import CrossEntropy, MethodUse, Optimizer, Phase
from kdedge.data.sets import Dataset, ImageSet
from kdedge.distill.job import Job, make_fabric
from kdedge.distill.teachers import FrozenTeacher
from kdedge.distill.trainer import PhaseRun
from kdedge.models.zoo import build_model

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
    with run.objective, run.staff() as staff, progress_bar(job.label, steps, shown=False) as bar:
        yield lambda: run.run_epoch(next(numbers), staff, bar)


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
        folder=Path(),
        identity="",
        teachers=(FrozenTeacher(teacher, NORMALIZE),),
    )
