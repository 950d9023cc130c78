"""What frozen teachers make of the training images, in every fixed view, computed once and kept in half precision.

A teacher has a folder in the user's cache folder, named by a hash of all that its answers follow from.  It holds a
file (views, images, ...) of the logits, and one of each feature that a method has wanted so far.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor, nn

from kdedge.core import console
from kdedge.core.recipe import Data
from kdedge.core.rundir import RunDir, atomic_path, cache_folder, check_disk, digest, write_json
from kdedge.data.loader import view_batches
from kdedge.data.locate import stamp
from kdedge.data.sets import Dataset
from kdedge.distill.evaluate import batch_size
from kdedge.distill.job import Job
from kdedge.distill.objective import MEAN, listens_to
from kdedge.distill.teachers import Answer, FrozenTeacher, Keeper, Live, Source
from kdedge.models.features import feature_points

LOGITS, KEY = "logits", "key.json"
GREATEST = float(torch.finfo(torch.float16).max)
PROBE, CLOSE = 16, 0.02
"""Images whose kept logits are held against the teacher's, and how far these may be off, as a share of the largest."""


@dataclass(frozen=True)
class Kept(Keeper):
    """One teacher's folder."""

    folder: Path
    views: int
    images: int

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def reading(self, names: Iterable[str]) -> "Reading":
        return Reading({name: self.file(name) for name in (LOGITS, *names)}, self.views)

    def absent(self, names: Iterable[str]) -> list[str]:
        """Those of the logits and these features that are not kept yet."""
        return [name for name in dict.fromkeys((LOGITS, *names)) if not self.file(name).exists()]


class Rows:
    """The file of an array (views, images, ...), read row by row: mapped, it would count as the process's memory."""

    def __init__(self, path: Path) -> None:
        array = np.load(path, mmap_mode="r")
        _, self.images, *self.shape = array.shape
        self.start, self.bytes = array.offset, array[0, 0].nbytes
        self.file = path.open("rb", buffering=0)

    def read(self, view: int, indices: Iterable[int]) -> Tensor:
        """(N, ...) float16."""
        places = [self.start + (view * self.images + index) * self.bytes for index in indices]
        rows = np.empty((len(places), *self.shape), np.float16)
        for row, place in zip(rows, places, strict=True):
            os.preadv(self.file.fileno(), [row], place)
        return torch.from_numpy(rows)


class Reading(Source):
    """Kept answers, looked up by image and view inside a with-block."""

    def __init__(self, files: Mapping[str, Path], views: int) -> None:
        self._files, self._views = files, views
        self._rows: dict[str, Rows] = {}

    def __enter__(self) -> Self:
        self._rows = {name: Rows(path) for name, path in self._files.items()}
        return self

    def __exit__(self, *_: object) -> None:
        for rows in self._rows.values():
            rows.file.close()

    def ask(self, images: Tensor, indices: Tensor, epoch: int) -> Answer:
        which, view = indices.tolist(), epoch % self._views
        found = {name: rows.read(view, which).to(images.device).float() for name, rows in self._rows.items()}
        return found.pop(LOGITS), found


def keep_answers(job: Job, device: torch.device) -> tuple[Keeper | None, ...]:
    """What each teacher of a training will be asked, computed unless it is kept already; nothing without fixed views.

    Raises:
        KdedgeError: too little disk, or another process is computing it.
    """
    if job.data.augment.views is None:
        return ()
    return tuple(
        None if names is None else keep(teacher, names, job.dataset, job.data, device)
        for teacher, names in zip(job.teachers, wanted_features(job), strict=True)
    )


def wanted_features(job: Job) -> list[set[str] | None]:
    """The feature points that methods want of each teacher; None where none listens to it."""
    found: list[set[str] | None] = [None] * len(job.teachers)
    for phase in job.phases:
        methods = job.methods(phase)
        for use in phase.methods:
            method = methods[use.name]
            whom = listens_to(use, method.needs_teacher, len(job.teachers))
            for index, names in enumerate(found):
                if whom in (index, MEAN):
                    found[index] = (names or set()) | set(method.teacher_features)
    return found


def keep(teacher: FrozenTeacher, names: Iterable[str], dataset: Dataset, data: Data, device: torch.device) -> Kept:
    """A teacher's folder, with its logits and these features in it."""
    key = key_of(teacher, dataset, data)
    folder = cache_folder() / "teachers" / f"{type(teacher.model).__name__.lower()}-answers-{digest(key)[:12]}"
    assert data.augment.views
    kept, teacher = Kept(folder, data.augment.views, key["images"]), teacher.to(device)
    names = sorted(names)
    if not kept.absent([]) and not agrees(kept, teacher, dataset, data, device):
        shutil.rmtree(folder)
    if kept.absent(names):
        with RunDir(folder).locked():
            write_json(folder / KEY, key)
            compute(kept, kept.absent(names), teacher, dataset, data, device)
    return kept


def key_of(teacher: FrozenTeacher, dataset: Dataset, data: Data) -> dict[str, Any]:
    """All that its answers follow from; not which of the images are for validation."""
    plain = data.model_dump(mode="json", exclude={"root", "workers", "validation", "normalize"})
    parts = (dataset.train, dataset.validation)
    return {
        "data": plain,
        "stamp": stamp(data),
        "images": max(int(part.indices.max()) for part in parts) + 1,
        "normalize": [teacher.normalize.scale.flatten().tolist(), teacher.normalize.shift.flatten().tolist()],
        "teacher": fingerprint(teacher.model),
    }


def fingerprint(network: nn.Module) -> str:
    """A hash of its modules and its weights."""
    found = hashlib.sha256(str(network).encode())
    for name, tensor in network.state_dict().items():
        found.update(name.encode())
        found.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def agrees(kept: Kept, teacher: FrozenTeacher, dataset: Dataset, data: Data, device: torch.device) -> bool:
    """Whether the teacher still says of some images what is kept; code of its own may have changed unseen."""
    batch = next(iter(view_batches(dataset.train, data.augment, PROBE, device).epoch(0)))
    with kept.reading([]) as reading:
        found, _ = reading.ask(batch.images, batch.indices, 0)
    said = teacher(batch.images).float()
    return bool((found - said).abs().max() <= CLOSE * said.abs().max())


def compute(
    kept: Kept, names: list[str], teacher: FrozenTeacher, dataset: Dataset, data: Data, device: torch.device
) -> None:
    """Ask the teacher about every image in every view, and write what is named."""
    points = feature_points(teacher.model, dataset.image_shape)
    parts = (dataset.validation, dataset.train)
    loaders = [view_batches(part, data.augment, batch_size(part), device, data.workers) for part in parts]
    label, steps = f"answers of {type(teacher.model).__name__}", kept.views * sum(map(len, loaders))
    with ExitStack() as open_, Live(teacher, {name: points[name] for name in names if name != LOGITS}) as live:
        sample = dataset.train.sample().to(device)
        one = named(live.ask(sample, sample, 0))
        shapes = {name: (kept.views, kept.images, *one[name].shape[1:]) for name in names}
        check_disk(kept.folder, sum(2 * int(np.prod(shape)) for shape in shapes.values()) + 2**20)
        arrays = {name: open_.enter_context(writing(kept.file(name), shape)) for name, shape in shapes.items()}
        bar = open_.enter_context(console.progress_bar(label, steps))
        for view in range(kept.views):
            for batch in (batch for loader in loaders for batch in loader.epoch(view)):
                found, rows = named(live.ask(batch.images, batch.indices, view)), batch.indices.cpu().numpy()
                for name, array in arrays.items():
                    array[view, rows] = found[name].float().clamp(-GREATEST, GREATEST).half().cpu().numpy()
                bar.advance()


def named(answer: Answer) -> dict[str, Tensor]:
    logits, features = answer
    return {LOGITS: logits, **features}


@contextmanager
def writing(path: Path, shape: tuple[int, ...]) -> Iterator[NDArray[np.float16]]:
    """A new array on disk, which has its name only when the block ends well."""
    with atomic_path(path) as temporary:
        array = open_memmap(temporary, mode="w+", dtype=np.float16, shape=shape)
        yield array
        array.flush()
