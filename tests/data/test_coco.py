import json
import shutil

import pytest
from boxed import write_coco, write_voc

from kdedge.core.errors import DataError
from kdedge.core.quality import uncounted
from kdedge.core.recipe import Data
from kdedge.data.build import build_data
from kdedge.data.outline import Outline, outline
from kdedge.data.sets import Fault


def spec(root, **changes):
    return Data(name="coco", root=str(root), image_size=40, **changes)


def change(root, part="train", **changes):
    """Replace lists of a file, or give it functions that change them."""
    path = root / "annotations" / f"instances_{part}2017.json"
    table = json.loads(path.read_text())
    for name, edit in changes.items():
        table[name] = edit(table[name])
    path.write_text(json.dumps(table))
    return path


def test_coco_is_the_set_that_voc_is(tmp_path):
    """The classes stand in the order of their ids; both sets have the same pictures."""
    found = build_data(spec(write_coco(tmp_path / "coco")), seed=0)
    same = build_data(Data(name="voc", root=str(write_voc(tmp_path / "voc")), image_size=40), seed=0)
    assert found.labels == same.labels == ("cat", "dog")
    for one, other in ((found.train, same.train), (found.validation, same.validation), (found.test, same.test)):
        assert one.labels.equal(other.labels)
        assert one.images.equal(other.images)
        assert one.sizes.equal(other.sizes)
    assert outline(spec(tmp_path / "coco")) == Outline(2, (3, 40, 40))


def test_coco_takes_ids_that_are_text(tmp_path):
    root = write_coco(tmp_path)
    before = build_data(spec(root), seed=0).train.labels
    change(root, images=lambda known: [as_text(entry, "id") for entry in known])
    change(root, annotations=lambda known: [as_text(entry, "image_id") for entry in known])
    dataset = build_data(spec(root), seed=0)
    assert dataset.train.labels.equal(before)
    assert dataset.faults == ()


def as_text(entry, key):
    return entry | {key: str(entry[key])}


def test_coco_tests_on_val_where_there_is_no_test_file(tmp_path):
    root = write_coco(tmp_path)
    (root / "annotations" / "instances_test2017.json").unlink()
    dataset = build_data(spec(root, validation=0.25), seed=1)
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [3, 1, 1]
    assert dataset.test.labels.tolist() == [[[1, 0, 0, 40, 32]]]


@pytest.mark.parametrize("place", ["images/train2017", "images", "."])
def test_coco_finds_its_images_beside_the_annotations(place, tmp_path):
    root = write_coco(tmp_path)
    (root / place).mkdir(parents=True, exist_ok=True)
    for path in list((root / "train2017").iterdir()):
        shutil.move(path, root / place / path.name)
    assert len(build_data(spec(root), seed=0).train) == 4


FIRST = {"id": 50, "image_id": 100, "category_id": 3, "bbox": [0, 0, 5, 5]}
BROKEN = {
    "annotation of a picture that is not listed": {"image_id": 9},
    "unknown class": {"category_id": 12},
    "box not of numbers": {"bbox": [0, 0, 5]},
    "box not of numbers ": {"bbox": None},
    "box without area": {"bbox": [3, 3, -2, 4]},
    "box outside the picture": {"bbox": [-9, -9, 5, 5]},
}


@pytest.mark.parametrize("case", BROKEN)
def test_coco_leaves_out_what_is_wrong_and_names_the_annotation(case, tmp_path):
    root = write_coco(tmp_path)
    path = change(root, annotations=lambda known: [{**FIRST, **BROKEN[case]}, *known])
    dataset = build_data(spec(root), seed=0)
    assert dataset.train.labels[0].tolist() == [[0, 0, 0, 20, 16], [-1, 0, 0, 0, 0]]
    place = f"{path}: annotation 50" + (" (id 12)" if case == "unknown class" else "")
    assert dataset.faults == (Fault(case.strip(), 1, (place,)),)


def test_coco_has_crowds_after_the_objects_as_areas_that_do_not_count(tmp_path):
    root = write_coco(tmp_path)
    crowd = {**FIRST, "iscrowd": 1, "segmentation": {"counts": [25, 295], "size": [16, 20]}}
    change(root, annotations=lambda known: [crowd, *known])
    dataset = build_data(spec(root), seed=0)
    assert dataset.train.labels[0].tolist() == [[0, 0, 0, 20, 16], [uncounted(0), 0, 0, 10, 10]]
    assert dataset.faults == ()


def test_coco_leaves_out_images_that_are_missing_or_of_another_size(tmp_path):
    root = write_coco(tmp_path)
    (root / "train2017" / "a.png").unlink()
    path = change(root, images=lambda known: [*known[:2], {**known[2], "width": 16, "height": 20}, known[3], {"id": 1}])
    dataset = build_data(spec(root), seed=0)
    assert len(dataset.train) == 2
    assert {fault.reason: fault.places for fault in dataset.faults} == {
        "picture missing": (f"{path}: entry 4 of images", f"{path}: image 100"),
        "picture of another size than its annotation": (f"{path}: image 102",),
    }


def cut(root):
    path = root / "annotations" / "instances_train2017.json"
    path.write_text(path.read_text()[:-30])


def captions(root):
    (root / "annotations" / "instances_train2017.json").write_text('{"images": [], "annotations": []}')


def twice(root):
    path = root / "annotations" / "instances_train2017.json"
    shutil.copy(path, path.with_name("instances_train2014.json"))


BAD = {
    "half JSON": (cut, r"instances_train2017\.json:1 is not whole JSON"),
    "other JSON": (captions, r"instances_train2017\.json has no list 'categories'"),
    "entries": (lambda root: change(root, images=lambda _: [3]), "has no list 'images' of entries"),
    "two files": (twice, "has 2 files of train: instances_train2014.json, instances_train2017.json"),
    "no objects": (
        lambda root: [change(root, part, annotations=lambda _: []) for part in ("train", "val", "test")],
        "has no objects",
    ),
    "no images": (lambda root: change(root, images=lambda _: []), "has no train pictures"),
    "no train": (lambda root: (root / "annotations" / "instances_train2017.json").unlink(), "has no train annotations"),
}


@pytest.mark.parametrize("case", BAD)
def test_coco_refuses_what_is_wrong_as_a_whole(case, tmp_path):
    spoil, message = BAD[case]
    spoil(write_coco(tmp_path))
    with pytest.raises(DataError, match=message) as caught:
        build_data(spec(tmp_path), seed=0)
    assert caught.value.fix
