"""Images with their labels, in memory or in folders, and a data set as training takes it."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from torch import Tensor

from kdedge.core.quality import Task
from kdedge.core.recipe import Normalize
from kdedge.data.boxes import fitted, scale_to_fit, show_image, whole
from kdedge.data.decode import decode, eval_view, pixels


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images in memory."""

    images: Tensor
    """(N, C, H, W) uint8."""
    labels: Tensor
    """(N,) int64."""
    indices: Tensor
    """(N,) int64, positions in the full training set or test set."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        _, channels, height, width = self.images.shape
        return channels, height, width

    def subset(self, positions: Tensor) -> Self:
        return replace(self, **{each.name: getattr(self, each.name)[positions] for each in fields(self)})

    def sample(self) -> Tensor:
        """The first image, (1, C, H, W) uint8."""
        return self.images[:1]


@dataclass(frozen=True, eq=False)
class BoxSet(ImageSet):
    """Pictures with boxes, in memory, each in the top left of its gray square.

    `labels` are targets (N, M, 5) float32 as data/boxes.py has them, in pixels of the square.
    """

    sizes: Tensor
    """(N, 2) int64, height and width of the pictures before they were scaled."""

    def load(self, position: int) -> tuple[Tensor, Tensor]:
        """The picture without what is gray around it, (3, H, W) uint8, and its target (M, 5) in its pixels."""
        before_height, before_width = self.sizes[position].tolist()
        height, width = fitted(before_height, before_width, self.images.shape[2])
        return self.images[position, :, :height, :width], self.labels[position]


@dataclass(frozen=True, eq=False)
class FolderSet:
    """Image files, decoded when a batch asks for them and cropped to image_size x image_size."""

    paths: tuple[Path, ...]
    labels: Tensor
    """(N,) int64."""
    indices: Tensor
    """(N,) int64, positions in the full training set or test set."""
    image_size: int

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return 3, self.image_size, self.image_size

    def subset(self, positions: Tensor) -> Self:
        columns = {each.name: getattr(self, each.name) for each in fields(self)}
        chosen: dict[str, Any] = {
            name: column[positions] for name, column in columns.items() if isinstance(column, Tensor)
        }
        return replace(self, paths=tuple(self.paths[position] for position in positions.tolist()), **chosen)

    def load(self, position: int) -> tuple[Any, Tensor]:
        """The image as its file has it, and its label.

        Raises:
            DataError: it cannot be decoded; the message names the file.
        """
        return decode(self.paths[position]), self.labels[position]

    def sample(self) -> Tensor:
        """The first image, (1, 3, H, W) uint8."""
        return eval_view(self.image_size)(decode(self.paths[0]))[None]


@dataclass(frozen=True, eq=False)
class BoxFolder(FolderSet):
    """Files of pictures with boxes, decoded when a batch asks for them and put into the top left of a gray square.

    `labels` are targets (N, M, 5) float32 as data/boxes.py has them, in pixels of the square.
    """

    sizes: Tensor
    """(N, 2) int64, height and width of the pictures in their files."""

    def load(self, position: int) -> tuple[Tensor, Tensor]:
        """The picture (3, H, W) uint8, and its target (M, 5) in its pixels."""
        picture, target = pixels(decode(self.paths[position])), self.labels[position].clone()
        target[:, 1:] /= scale_to_fit(picture.shape[1], picture.shape[2], self.image_size)
        return picture, target

    def sample(self) -> Tensor:
        picture, _ = self.load(0)
        return show_image(picture, whole(picture), self.image_size)[None]


Part = ImageSet | FolderSet


class Fault(NamedTuple):
    """What was found wrong with a set's files, and left out."""

    reason: str
    times: int
    places: tuple[str, ...]
    """The first few."""


@dataclass(frozen=True, eq=False)
class Splits:
    """A set as it was published."""

    train: Part
    test: Part
    labels: tuple[str, ...]
    validation: Part | None = None
    """Where the set says what to validate on."""
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, eq=False)
class Dataset:
    """`validation` comes out of the published training images, unless the set has its own; every choice is made on it,
    never on `test`."""

    name: str
    train: Part
    validation: Part
    test: Part
    labels: tuple[str, ...]
    """Class names, by label."""
    normalize: Normalize
    image_shape: tuple[int, int, int]
    """(C, H, W)."""
    faults: tuple[Fault, ...] = ()

    @property
    def task(self) -> Task:
        return "detect" if isinstance(self.train, BoxSet | BoxFolder) else "classify"
