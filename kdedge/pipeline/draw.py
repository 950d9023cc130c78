"""Boxes drawn into a picture: a color for each class, a label that can be read, the best box on top"""

import colorsys
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from kdedge.core.boxes import Box

Color = tuple[int, int, int]
GOLDEN = (math.sqrt(5) - 1) / 2
"""Of the color circle from each class to the next: any number of classes stay apart."""
SMALL = 480
"""Pixels below which a picture is drawn larger, by a whole factor, so that labels have room."""
BRIGHT = 150
"""Luminance of a color, 0 to 255, from which on black is read better on it than white."""


def draw_boxes(picture: Image.Image, boxes: Sequence[Box], labels: Sequence[str]) -> Image.Image:
    """A copy with the boxes on it, larger than the picture where that is small.

    Args:
        boxes: best first.
        labels: of every class, whose order gives the colors.
    """
    factor = max(1, math.ceil(SMALL / max(picture.size)))
    canvas = picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(max(12, round(max(canvas.size) / 50)))
    line = max(2, round(max(canvas.size) / 300))
    colors = {label: color_of(number) for number, label in enumerate(labels)}
    for box in reversed(boxes):
        sides = tuple(factor * side for side in (box.x1, box.y1, box.x2, box.y2))
        pen.rectangle(sides, outline=colors[box.label], width=line)
    for box in reversed(boxes):
        corner = factor * box.x1, factor * box.y1
        write_label(pen, f"{box.label} {box.score:.2f}", corner, colors[box.label], font, canvas.size)
    return canvas


def write_label(
    pen: ImageDraw.ImageDraw,
    text: str,
    corner: tuple[float, float],
    color: Color,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    canvas: tuple[int, int],
) -> None:
    """On a plate above the box's upper left corner, or below it at the picture's upper border."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    pad = 2
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    x = max(0, min(corner[0], canvas[0] - width))
    y = corner[1] - height if corner[1] >= height else corner[1]
    pen.rectangle((x, y, x + width, y + height), fill=color)
    pen.text((x + pad - left, y + pad - top), text, fill="black" if luminance(color) >= BRIGHT else "white", font=font)


def color_of(number: int) -> Color:
    red, green, blue = colorsys.hsv_to_rgb((0.02 + number * GOLDEN) % 1, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def luminance(color: Color) -> float:
    return 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
