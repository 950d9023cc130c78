import os
import shutil
from pathlib import Path

import pytest
import torch
from boxed import LISTS, PICTURES, write_picture, write_voc, xml
from PIL import Image

from kdedge.core.errors import DataError
from kdedge.core.quality import uncounted
from kdedge.core.recipe import Augment, Data
from kdedge.data import annotations
from kdedge.data.build import IMAGENET, build_data
from kdedge.data.outline import Outline, outline
from kdedge.data.sets import BoxFolder, BoxSet, Fault

NONE = [-1, 0, 0, 0, 0]


def spec(root, **changes):
    return Data(name="voc", root=str(root), image_size=40, **changes)


def boxes_of(part):
    """Of every image its boxes as rows."""
    return [[row for row in target if row[0] >= 0] for target in part.labels.tolist()]


def test_voc_reads_its_own_lists(tmp_path):
    dataset = build_data(spec(write_voc(tmp_path)), seed=0)
    assert dataset.labels == ("cat", "dog")
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [4, 1, 1]
    assert dataset.train.indices.tolist() == [0, 1, 2, 3]
    assert dataset.image_shape == (3, 40, 40)
    assert dataset.normalize == IMAGENET
    assert dataset.faults == ()


def test_voc_boxes_are_counted_from_0_in_pixels_of_the_square(tmp_path):
    """Pictures of 16 x 20 are doubled; pixels 1 to 10 of VOC reach from 0 to 10."""
    dataset = build_data(spec(write_voc(tmp_path)), seed=0)
    assert dataset.train.labels.tolist() == [
        [[0, 0, 0, 20, 16], NONE],
        [[1, 20, 8, 40, 32], [0, 4, 4, 12, 12]],
        [NONE, NONE],
        [[0, 8, 8, 24, 24], NONE],
    ]
    assert dataset.validation.labels.tolist() == [[[1, 0, 0, 40, 32]]]


def test_voc_pictures_lie_in_the_corner_of_a_gray_square(tmp_path):
    part = build_data(spec(write_voc(tmp_path)), seed=0).test
    assert isinstance(part, BoxSet)
    assert tuple(part.images.shape) == (1, 3, 40, 40)
    assert (part.images[:, :, 32:] == 114).all()
    assert (part.images[:, :, :32] != 114).float().mean() > 0.9
    assert part.sizes.tolist() == [[16, 20]]
    picture, _ = part.load(0)
    assert tuple(picture.shape) == (3, 32, 40)


def test_voc_that_does_not_fit_in_memory_is_a_folder(tmp_path, monkeypatch):
    inside = build_data(spec(write_voc(tmp_path)), seed=0)
    monkeypatch.setattr(annotations, "IN_MEMORY", 4 * 3 * 40 * 40 - 1)
    outside = build_data(spec(tmp_path), seed=0)
    assert isinstance(outside.train, BoxFolder)
    assert isinstance(outside.test, BoxSet)
    assert outside.train.labels.equal(inside.train.labels)
    assert outside.train.sample().equal(inside.train.images[:1])
    assert outside.normalize == inside.normalize
    _, target = outside.train.load(1)
    assert target.tolist() == [[1, 10, 4, 20, 16], [0, 2, 2, 6, 6]]
    part = outside.train.subset(torch.tensor([3, 1]))
    assert [path.name for path in part.paths] == ["d.png", "b.png"]
    assert (part.indices.tolist(), part.sizes.tolist()) == ([3, 1], [[16, 20], [16, 20]])


def test_voc_without_a_val_list_carves_its_validation(tmp_path):
    root = write_voc(tmp_path, lists={"trainval": "abde", "test": "f"})
    dataset = build_data(spec(root, validation=0.25), seed=0)
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [3, 1, 1]
    assert sorted(torch.cat([dataset.train.indices, dataset.validation.indices]).tolist()) == [0, 1, 2, 3]


def test_voc_without_a_test_list_tests_on_val(tmp_path):
    root = write_voc(tmp_path, lists={"train": "abdf", "val": "e"})
    dataset = build_data(spec(root, validation=0.25), seed=0)
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [3, 1, 1]
    assert boxes_of(dataset.test) == [[[1, 0, 0, 40, 32]]]


@pytest.mark.parametrize("above", ["", "VOCdevkit"])
def test_voc_of_several_years_is_one_set(above, tmp_path):
    write_voc(tmp_path / above / "VOC2007", lists={"train": "ab", "val": "e", "trainval": "abe", "test": "f"})
    write_voc(tmp_path / above / "VOC2012", lists={"trainval": "bd"})
    dataset = build_data(spec(tmp_path), seed=0)
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [4, 1, 1]
    assert [len(boxes) for boxes in boxes_of(dataset.train)] == [1, 2, 2, 1]


def test_voc_takes_the_recipes_classes_in_their_order(tmp_path):
    dataset = build_data(spec(write_voc(tmp_path), classes=["dog"]), seed=0)
    assert dataset.labels == ("dog",)
    assert boxes_of(dataset.train) == [[], [[0, 20, 8, 40, 32]], [], []]
    assert [(fault.reason, fault.times) for fault in dataset.faults] == [("unknown class", 4)]
    assert dataset.faults[0].places[0] == f"{tmp_path}/Annotations/a.xml:3 (cat)"


def test_outline_of_voc_is_what_its_reader_gives(tmp_path):
    root = write_voc(tmp_path)
    assert outline(spec(root)) == Outline(2, (3, 40, 40))
    assert outline(spec(root, classes=["dog"])) == Outline(1, (3, 40, 40))
    assert outline(Data(name="voc", root=str(root))) == Outline(2, (3, 320, 320))


GOOD = ("cat", 1, 1, 10, 8)
BROKEN = {
    "box without area": ("cat", 5, 5, 5, 9),
    "box without area ": ("cat", 9, 5, 4, 9),
    "box outside the picture": ("cat", 30, 2, 40, 9),
    "box not of numbers": ("cat", "left", 2, 10, 9),
    "box not of numbers ": ("cat", "nan", 2, 10, 9),
    "unknown class": ("", 1, 1, 10, 9),
}


@pytest.mark.parametrize("case", BROKEN)
def test_voc_leaves_out_a_broken_box_and_says_where_it_was(case, tmp_path, capsys):
    pictures = {"x": [GOOD, BROKEN[case], GOOD], "f": [GOOD]}
    dataset = build_data(spec(write_voc(tmp_path, pictures, {"train": "xf", "test": "f", "val": "f"})), seed=0)
    assert boxes_of(dataset.train)[0] == [[0, 0, 0, 20, 16]] * 2
    place = f"{tmp_path}/Annotations/x.xml:7" + (" ()" if case == "unknown class" else "")
    assert dataset.faults == (Fault(case.strip(), 1, (place,)),)
    assert f"1 x {case.strip()}, {place} first" in capsys.readouterr().err.replace("\n", "")


def test_voc_has_difficult_objects_to_learn_from_but_does_not_measure_by_them(tmp_path):
    root = write_voc(tmp_path)
    for name in "af":
        path = root / "Annotations" / f"{name}.xml"
        path.write_text(path.read_text().replace("</name>", "</name><difficult>1</difficult>", 1))
    dataset = build_data(spec(root), seed=0)
    assert dataset.train.labels[0].tolist() == [[0, 0, 0, 20, 16], NONE]
    assert dataset.test.labels[0].tolist() == [[1, 16, 16, 36, 28], [uncounted(0), 2, 2, 16, 16]]
    assert (dataset.labels, dataset.faults) == (("cat", "dog"), ())


def test_voc_leaves_out_a_box_without_corners(tmp_path):
    root = write_voc(tmp_path, lists={**LISTS, "val": "d"})
    text = xml([GOOD, GOOD])
    (root / "Annotations" / "a.xml").write_text(text.replace("<xmin>1</xmin>", "", 1))
    (root / "Annotations" / "b.xml").write_text("<annotation>\n<object><name>dog</name></object></annotation>")
    dataset = build_data(spec(root, classes=["cat"]), seed=0)
    assert len(boxes_of(dataset.train)[0]) == 1
    reasons = {fault.reason: fault.places for fault in dataset.faults}
    assert reasons["box not of numbers"] == (f"{root}/Annotations/a.xml:3",)


@pytest.mark.parametrize(
    ("thing", "row", "counted"),
    [(("cat", 11, 9, 25, 30), [0, 20, 16, 40, 32], True), (("cat", 0, 0, 20, 16), [0, 0, 0, 40, 32], False)],
)
def test_voc_cuts_a_box_at_the_border_and_counts_what_is_no_rounding(thing, row, counted, tmp_path):
    root = write_voc(tmp_path, {"x": [thing]}, {"train": "xx", "test": "x", "val": "x"})
    dataset = build_data(spec(root), seed=0)
    assert boxes_of(dataset.train) == [[row], [row]]
    assert [fault.reason for fault in dataset.faults] == (["box cut at the picture's border"] if counted else [])


def test_voc_leaves_out_a_picture_that_is_missing_or_of_another_size(tmp_path):
    root = write_voc(tmp_path)
    (root / "JPEGImages" / "a.png").unlink()
    write_picture(root / "JPEGImages" / "c.png", 0, size=(20, 16))
    (root / "Annotations" / "d.xml").unlink()
    dataset = build_data(spec(root, classes=["dog"]), seed=0)
    assert boxes_of(dataset.train) == [[[0, 20, 8, 40, 32]]]
    found = {fault.reason: fault.places for fault in dataset.faults if fault.reason != "unknown class"}
    assert found == {
        "annotation missing": (f"{root}/ImageSets/Main/train.txt:4 (d)",),
        "picture missing": (f"{root}/Annotations/a.xml:1",),
        "picture of another size than its annotation": (f"{root}/Annotations/c.xml:1",),
    }


@pytest.mark.parametrize("size", ["", "<size><width>0</width><height>0</height></size>"])
def test_voc_takes_the_pictures_own_size_where_none_is_annotated(size, tmp_path):
    root = write_voc(tmp_path)
    annotation = root / "Annotations" / "a.xml"
    annotation.write_text(annotation.read_text().replace("<size><width>20</width><height>16</height></size>", size))
    assert boxes_of(build_data(spec(root), seed=0).train)[0] == [[0, 0, 0, 20, 16]]


def no_pictures(root):
    shutil.rmtree(root / "JPEGImages")


def broken_picture(root):
    (root / "JPEGImages" / "a.png").write_bytes(b"no picture")


def half_xml(root):
    path = root / "Annotations" / "a.xml"
    path.write_text(path.read_text()[:100])


def no_objects(root):
    for name in PICTURES:
        (root / "Annotations" / f"{name}.xml").write_text(xml([]))


def no_dog_to_train(root):
    (root / "ImageSets" / "Main" / "train.txt").write_text("a\nd\n")


def bomb(root):
    lines = ["<!DOCTYPE a [", '<!ENTITY b "ha">', '<!ENTITY c "&b;&b;">', "]>", "<annotation>&c;</annotation>"]
    (root / "Annotations" / "a.xml").write_text("\n".join(lines))


BAD = {
    "no lists": (lambda root: shutil.rmtree(root / "ImageSets"), "has no train pictures: looked for train.txt"),
    "no pictures": (no_pictures, "has no train pictures: picture missing: 6, .*a.xml:1 first"),
    "broken picture": (broken_picture, r"a\.png is not an image that can be decoded"),
    "half XML": (half_xml, r"a\.xml:5 is not whole XML: no element found"),
    "empty XML": (lambda root: (root / "Annotations" / "a.xml").write_text(""), r"a\.xml:1 is not whole XML: no elem"),
    "unknown encoding": (
        lambda root: (root / "Annotations" / "a.xml").write_text('<?xml version="1.0" encoding="x-none"?><a/>'),
        r"a\.xml:1 is not whole XML",
    ),
    "entities": (bomb, r"a\.xml:2 is no annotation: entity 'b' is declared"),
    "no objects": (no_objects, "has no objects"),
    "class without boxes": (no_dog_to_train, "class 'dog' has no training boxes"),
}


@pytest.mark.parametrize("case", BAD)
def test_voc_refuses_what_is_wrong_as_a_whole(case, tmp_path):
    spoil, message = BAD[case]
    spoil(write_voc(tmp_path))
    with pytest.raises(DataError, match=message) as caught:
        build_data(spec(tmp_path), seed=0)
    assert caught.value.fix


def test_voc_reads_nothing_that_an_annotation_points_to(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("cat")
    root = write_voc(tmp_path / "set")
    path = root / "Annotations" / "a.xml"
    path.write_text(f'<!DOCTYPE a SYSTEM "{secret.as_uri()}">\n' + path.read_text().replace("cat", "&secret;"))
    dataset = build_data(spec(root, classes=["cat", "dog"]), seed=0)
    assert boxes_of(dataset.train)[0] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augment": Augment(crop_padding=4)}, r"data\.augment\.crop_padding is for sets without boxes"),
        ({"augment": Augment(crop_scale=(0.5, 1))}, r"data\.augment\.crop_scale is for sets without boxes"),
        ({"augment": Augment(zoom=(2, 1))}, r"data\.augment\.zoom is empty: 2\.0 is above 1\.0"),
    ],
)
def test_voc_refuses_options_that_do_not_fit(changes, message, tmp_path):
    with pytest.raises(DataError, match=message):
        build_data(spec(write_voc(tmp_path), **changes), seed=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augment": Augment(iou_crop=True)}, r"data\.augment\.iou_crop is for sets with boxes"),
        ({"classes": ["1", "2"]}, r"data\.classes is for sets with boxes"),
    ],
)
def test_a_set_without_boxes_refuses_what_is_for_boxes(changes, message):
    with pytest.raises(DataError, match=message):
        build_data(Data(name="digits", **changes), seed=0)


def test_voc_real_set_is_read_whole(needs):
    """BCCD, blood cells: 4,888 objects, of which two are points."""
    root = Path(os.environ.get("KDEDGE_DATA", "")) / "BCCD"
    needs((root / "Annotations").is_dir(), "unpack BCCD_Dataset's folder BCCD into the folder that KDEDGE_DATA names")
    dataset = build_data(Data(name="voc", root=str(root), image_size=64), seed=0)
    parts = (dataset.train, dataset.validation, dataset.test)
    assert dataset.labels == ("Platelets", "RBC", "WBC")
    assert [len(part) for part in parts] == [205, 87, 72]
    assert sum(int((part.labels[..., 0] >= 0).sum()) for part in parts) == 4886
    assert [(fault.reason, fault.times) for fault in dataset.faults] == [("box without area", 2)]


def test_voc_pictures_are_not_turned_as_exif_says(tmp_path):
    """A turned picture's boxes are of the pixels in its file, as its size is."""
    root = write_voc(tmp_path)
    with Image.open(root / "JPEGImages" / "a.png") as image:
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(root / "JPEGImages" / "a.png", exif=exif)
    dataset = build_data(spec(root), seed=0)
    assert dataset.train.sizes[0].tolist() == [16, 20]
    assert dataset.faults == ()
