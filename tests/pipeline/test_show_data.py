"""A look at a data set: what is counted, what is drawn, and what a person is told."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from boxed import write_voc
from forked import Forkserver
from mini import write_recipe
from PIL import Image

from kdedge.core.errors import KdedgeError
from kdedge.data.boxes import pack
from kdedge.data.loader import Batch
from kdedge.pipeline.show_data import STRIP, color, contact_sheet, count, section, without_boxes


def test_count_of_boxes_by_size() -> None:
    """32 x 32 pixels are medium already, and 96 x 96 large."""
    boxes = [[0, 0, 0, 32, 31.9], [0, 0, 0, 32, 32], [2, 0, 0, 96, 96], [2, 0, 0, 95, 96]]
    targets = pack([torch.tensor(boxes[:2]), torch.zeros(0, 5), torch.tensor(boxes[2:]), torch.tensor(boxes[:1])])
    assert count(targets, ("a", "b", "c", "d")) == {
        "a": {"images": 2, "boxes": 3, "small": 2, "medium": 1, "large": 0},
        "b": {"images": 0, "boxes": 0, "small": 0, "medium": 0, "large": 0},
        "c": {"images": 1, "boxes": 2, "small": 0, "medium": 1, "large": 1},
        "d": {"images": 0, "boxes": 0, "small": 0, "medium": 0, "large": 0},
    }
    assert without_boxes(targets) == 1


def test_count_of_labels() -> None:
    labels = torch.tensor([1, 0, 1])
    assert count(labels, ("a", "b", "c")) == {"a": {"images": 1}, "b": {"images": 2}, "c": {"images": 0}}
    assert without_boxes(labels) == 0


def test_contact_sheet_draws_boxes_where_they_are_in_their_classes_color() -> None:
    """A 64-pixel image is enlarged four times; its box has a line of two pixels around (16, 32) to (48, 60)."""
    target = pack([torch.tensor([[1.0, 16, 32, 48, 60]])])
    batch = Batch(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), target, torch.tensor([7]))
    sheet = contact_sheet(batch, ("cat", "dog"))
    drawn = sheet[:, STRIP:]
    assert tuple(sheet.shape) == (3, 256 + STRIP, 256)
    inside = drawn[:, 160:230, 100:180]
    assert (inside == 0).all()
    for y, x in ((4 * 32, 120), (4 * 60, 120), (200, 4 * 16), (200, 4 * 48)):
        assert tuple(drawn[:, y, x].tolist()) == color(1)
    assert (sheet[:, :STRIP] == 255).any()


def test_contact_sheet_of_labels_has_every_image_under_a_line() -> None:
    batch = Batch(torch.full((3, 1, 256, 256), 9, dtype=torch.uint8), torch.tensor([0, 1, 0]), torch.arange(3))
    sheet = contact_sheet(batch, ("cat", "dog"))
    assert tuple(sheet.shape) == (3, 2 * (256 + STRIP + 4) + 4, 2 * (256 + 4) + 4)
    assert (sheet == 9).sum() >= 3 * 3 * 256 * 256


def test_section_of_a_name_takes_changes() -> None:
    looked = section("voc", ["data.image_size=64", "seed=3"])
    assert (looked.data.name, looked.data.image_size, looked.seed) == ("voc", 64, 3)


def test_section_of_a_recipe_is_its_data(tmp_path: Path) -> None:
    looked = section(str(write_recipe(tmp_path)), ["data.validation=0.3"])
    assert (looked.data.name, looked.data.validation) == ("digits", 0.3)


def test_section_of_neither_names_the_nearest() -> None:
    with pytest.raises(KdedgeError, match="no data set or recipe 'cifra10': did you mean 'cifar10'"):
        section("cifra10", [])


def test_data_show_draws_and_counts(forkserver: Forkserver, tmp_path: Path) -> None:
    root = write_voc(tmp_path / "set")
    (root / "Annotations" / "a.xml").write_text((root / "Annotations" / "a.xml").read_text().replace("10<", "1<"))
    line = ["data", "show", "voc", "--root", str(root), "--set", "data.image_size=40"]
    code, process = forkserver.run(line, tmp_path)
    assert code == 0, process.stderr
    assert "4 images, 2 without boxes; sizes as COCO has them, in pixels of 40x40" in process.stdout
    assert "box without area" in process.stdout
    assert "a.xml:3" in process.stdout
    with Image.open(tmp_path / "voc_train.png") as drawn:
        plain = np.asarray(drawn)
    (root / "Annotations" / "f.xml").write_text(
        (root / "Annotations" / "f.xml").read_text().replace("</name>", "</name><difficult>1</difficult>", 1)
    )
    code, process = forkserver.run([*line, "--split", "test"], tmp_path)
    assert "1 images, 0 without boxes, 1 area where finds do not count;" in process.stdout
    moved = ["--augmented", "--out", "moved.png", "--set", "data.augment.iou_crop=true", "--json"]
    code, process = forkserver.run([*line, *moved], tmp_path)
    assert code == 0, process.stderr
    told = json.loads(process.stdout)
    assert told["classes"]["dog"] == {"images": 1, "boxes": 1, "small": 1, "medium": 0, "large": 0}
    assert (told["images"], told["without_boxes"], told["left_out"][0]["times"]) == (4, 2, 1)
    with Image.open(tmp_path / "moved.png") as drawn:
        assert np.asarray(drawn).shape == plain.shape
        assert (np.asarray(drawn) != plain).any()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--split", "trian"], "--split trian: did you mean 'train'?"),
        (["--out", "a.jpg"], "--out a.jpg: a PNG file is written\n  --out a.png"),
        (["--root", "nowhere"], "no voc in nowhere: looked for nowhere/Annotations"),
    ],
)
def test_data_show_refuses_what_cannot_be(
    arguments: list[str], said: str, forkserver: Forkserver, tmp_path: Path
) -> None:
    code, process = forkserver.run(["data", "show", "voc", *arguments], tmp_path)
    assert code == 2
    assert said in process.stderr
