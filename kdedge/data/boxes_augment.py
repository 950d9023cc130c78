"""Augmentation of pictures with boxes: what is drawn is which window of the picture is shown, and its colors.

A picture is cut and resampled once, however many of these are asked for.  The crop is that of W. Liu et al.: SSD, ECCV
2016, by torchvision's RandomIoUCrop; gray around a smaller picture is its expansion.
"""

import math

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes

from kdedge.core.quality import NO_BOX
from kdedge.core.recipe import Augment
from kdedge.data.boxes import Window, mirror, pack, show_boxes, show_image, unpack, whole

CROP = v2.RandomIoUCrop()


class BoxView:
    """A picture and its boxes as a detector sees them: the whole of it, or as `augment` draws.

    It draws from torch's global generator.
    """

    def __init__(self, side: int, augment: Augment) -> None:
        self.side, self.augment = side, augment
        change = augment.color
        self.recolor = v2.ColorJitter(brightness=change, contrast=change, saturation=change) if change else None

    def __call__(self, picture: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """(3, H, W) uint8 and (M, 5) in its pixels -> (3, S, S) and (M, 5) in pixels of the square."""
        boxes = target[target[:, 0] != NO_BOX]
        if self.augment.flip and torch.rand(()) < 0.5:
            picture, boxes = picture.flip(2), mirror(boxes, picture.shape[2])
        window = zoom(whole(picture), self.augment.zoom)
        if self.augment.iou_crop and len(objects := unpack(boxes)):
            window = iou_crop(window, objects)
        if self.recolor:
            picture = self.recolor(picture)
        shown = show_boxes(boxes, window, self.side)
        return show_image(picture, window, self.side), pack([shown], len(target))[0]


def zoom(window: Window, sizes: tuple[float, float]) -> Window:
    """The window that shows the picture at a size drawn evenly on a log scale: larger crops, smaller adds gray."""
    low, high = sizes
    if low == high == 1:
        return window
    size = math.exp(math.log(low) + float(torch.rand(())) * math.log(high / low))
    across, down = torch.rand(2).tolist()
    width, height = max(1, round(window.width / size)), max(1, round(window.height / size))
    return Window(round(across * (window.width - width)), round(down * (window.height - height)), width, height)


def iou_crop(window: Window, boxes: Tensor) -> Window:
    """A part of the window, or all of it; boxes (n, 5) are in the pixels that the window is."""
    inside = boxes[:, 1:] - torch.tensor([window.left, window.top] * 2)
    found = CROP.make_params([BoundingBoxes(inside, format="XYXY", canvas_size=(window.height, window.width))])
    if not found:
        return window
    return Window(window.left + found["left"], window.top + found["top"], found["width"], found["height"])
