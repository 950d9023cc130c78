"""kdedge detect: a detector whose answers are worked out by hand, on pictures of every kind."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from answering import LABELS, SHAPE, detector, write_onnx
from PIL import Image
from telling import RUN_AND_TELL
from tinydetector import NOTED, choosing_detector, network, score, tiny_detector

from kdedge.core.console import OUT
from kdedge.core.errors import DataError, KdedgeError, ModelError
from kdedge.engine.base import backend
from kdedge.engine.boxes_letterbox import letterbox
from kdedge.export.onnx import write_metadata
from kdedge.export.precision import to_fp16
from kdedge.pipeline.deployed import of_file
from kdedge.pipeline.detect import detect
from kdedge.pipeline.detector import describe

RED, GREEN = (255, 0, 0), (0, 255, 0)
GRAY = 114


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_detector(tmp_path / "tiny.onnx")


@pytest.fixture
def answer(capsys, monkeypatch):
    """What `kdedge detect --json` says of these pictures."""

    def ask(images, model, out=None, least=0.3):
        OUT.configure(as_json=True)
        try:
            detect(images, of_file(model), out, least)
        finally:
            OUT.configure()
        return json.loads(capsys.readouterr().out)

    return ask


def picture(path: Path, color=RED, size=(40, 40), **options) -> Path:
    Image.new("RGB", size, color).save(path, **options)
    return path


def test_other_size_of_a_file_for_one_is_refused(model, tmp_path):
    with pytest.raises(ModelError, match=r"takes squares of 20x20(.|\n)*--size 20"):
        detect([picture(tmp_path / "red.png")], of_file(model), None, 0.3, 64)


def test_boxes_are_in_the_pictures_own_pixels(answer, model, tmp_path):
    got = answer([picture(tmp_path / "red.png")], model)
    # shown at half its size: the left box (1, 1, 9, 9) is (2, 2, 18, 18) here; all is red, whose logit is 4
    assert got["pictures"] == [
        {
            "name": "red.png",
            "width": 40,
            "height": 40,
            "drawn": None,
            "boxes": [{"label": "red", "score": 0.982, "x1": 2, "y1": 2, "x2": 18, "y2": 18}],
        }
    ]
    assert (got["model"], got["score"], got["failed"]) == ("tiny.onnx", 0.3, [])


def test_box_is_clipped_to_the_picture_and_gray_fills_the_square(answer, model, tmp_path):
    got = answer([picture(tmp_path / "g.png", GREEN, (40, 14))], model)
    box = got["pictures"][0]["boxes"][0]
    assert box == {
        "label": "green",
        "score": pytest.approx(score(0.35 * 255 + 0.65 * GRAY), abs=1e-3),  # 7 of 20 rows are green
        "x1": 22,
        "y1": 2,
        "x2": 38,
        "y2": 14,
    }


def test_boxes_are_told_best_first_and_above_the_score_only(answer, model, tmp_path):
    path = picture(tmp_path / "both.png", (230, 200, 0))
    found = [(box["label"], box["score"]) for box in answer([path], model, least=0.9)["pictures"][0]["boxes"]]
    assert found == [("red", pytest.approx(score(230), abs=1e-3)), ("green", pytest.approx(score(200), abs=1e-3))]
    assert [box["label"] for box in answer([path], model, least=0.95)["pictures"][0]["boxes"]] == ["red"]


def test_model_that_normalizes_by_itself_gets_the_pixels(answer, tmp_path):
    model = tiny_detector(tmp_path / "pixels.onnx", NOTED | {"preprocess": True})
    boxes = answer([picture(tmp_path / "red.png")], model)["pictures"][0]["boxes"]
    assert boxes == [{"label": "red", "score": 0.982, "x1": 2, "y1": 2, "x2": 18, "y2": 18}]


def test_model_with_nms_in_its_graph_is_taken_at_its_word(answer, tmp_path):
    model = choosing_detector(tmp_path / "nms.onnx")
    path = picture(tmp_path / "red.png")
    assert answer([path], model)["pictures"][0]["boxes"] == [
        {"label": "green", "score": 0.75, "x1": 22, "y1": 2, "x2": 38, "y2": 18},
        {"label": "red", "score": 0.5, "x1": 2, "y1": 2, "x2": 18, "y2": 18},
    ]
    assert [box["score"] for box in answer([path], model, least=0.6)["pictures"][0]["boxes"]] == [0.75]


def test_network_gives_the_same_boxes_with_raw_heads_and_with_nms_in_its_graph(answer, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    smooth = Image.fromarray(pixels).resize((256, 192), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "smooth.png")
    square = letterbox(np.asarray(smooth), SHAPE[1])
    network = detector((square.astype(np.float32) / 255 - 0.5).transpose(2, 0, 1)[None] / 0.25)
    found = []
    for nms in (False, True):
        path = write_onnx(network, tmp_path / f"{nms}.onnx", nms)
        model = onnx.load(path)
        write_metadata(model, NOTED | {"labels": LABELS})
        onnx.save(model, path)
        found.append(answer([tmp_path / "smooth.png"], path)["pictures"][0]["boxes"])
    heads, chosen = found
    assert len(heads) > 3
    assert [box["label"] for box in chosen] == [box["label"] for box in heads]
    for side in ("score", "x1", "y1", "x2", "y2"):
        assert [box[side] for box in chosen] == pytest.approx([box[side] for box in heads], abs=0.02)


def test_fp16_file_and_engine_give_the_same_boxes(answer, model, tmp_path):
    to_fp16(model, tmp_path / "fp16.onnx")
    backend("ort").build(model, tmp_path / "tiny.engine.onnx", {})
    path = picture(tmp_path / "red.png")
    expected = answer([path], model)["pictures"]
    assert answer([path], tmp_path / "fp16.onnx")["pictures"] == expected
    assert answer([path], tmp_path / "tiny.engine.onnx")["pictures"] == expected


@pytest.mark.parametrize("place", ["", "../export", "../../../export"])
def test_engine_is_read_by_the_onnx_file_it_was_built_from(place, tmp_path):
    folder = tmp_path / "run/devices/board/engine"
    (folder / place).mkdir(parents=True, exist_ok=True)
    tiny_detector(folder / place / "other.onnx", score_threshold=0.2)
    source = tiny_detector(folder / place / "student.onnx", score_threshold=0.1)
    engine_of(source, folder)
    assert describe(folder / "student.engine").decoding.score_threshold == 0.1


def engine_of(source: Path, folder: Path) -> None:
    """An engine as far as telling what it was built from goes."""
    backend("ort").build(source, folder / "x.engine.onnx", {})
    (folder / "x.engine.onnx").unlink()
    (folder / "x.engine.onnx.json").rename(folder / "student.engine.json")
    (folder / "student.engine").touch()


def test_engine_without_its_onnx_file_says_what_is_missing(model, tmp_path):
    folder = tmp_path / "elsewhere/engine"
    folder.mkdir(parents=True)
    engine_of(model, folder)
    with pytest.raises(ModelError, match="which is not beside it"):
        describe(folder / "student.engine")


def test_out_gets_the_pictures_and_the_record(answer, model, tmp_path):
    paths = [picture(tmp_path / "a.png", size=(600, 600)), picture(tmp_path / "b.jpg", GREEN)]
    got = answer(paths, model, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a.boxes.png",
        "b.boxes.jpg",
        "detections.json",
    ]
    assert json.loads((tmp_path / "out/detections.json").read_text()) == got
    drawn = np.asarray(Image.open(tmp_path / "out/a.boxes.png"))
    assert drawn.shape == (600, 600, 3)
    assert tuple(drawn[150, 30]) != RED  # the box's left side, at 30 of 600
    assert tuple(drawn[150, 150]) == tuple(drawn[450, 450]) == RED
    assert str(tmp_path) not in (tmp_path / "out/detections.json").read_text()


def test_drawn_pictures_never_overwrite_a_picture_or_each_other(answer, model, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    paths = [picture(tmp_path / name) for name in ("one/a.png", "two/a.png", "one/a.boxes.png")]
    before = paths[2].read_bytes()
    got = answer(paths, model, tmp_path / "one")
    assert [each["drawn"] for each in got["pictures"]] == ["a.boxes-2.png", "a.boxes-3.png", "a.boxes.boxes.png"]
    assert paths[2].read_bytes() == before


def test_folder_gives_its_pictures_by_name(answer, model, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("b.png", "a.JPG"):
        picture(folder / name)
    (folder / "notes.txt").write_text("no picture")
    assert [each["name"] for each in answer([folder], model)["pictures"]] == ["a.JPG", "b.png"]


def test_folder_without_pictures_is_told_and_the_others_done(model, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="1 of 2 could not be read"):
        detect([tmp_path / "empty", picture(tmp_path / "a.png")], of_file(model), None, 0.3)
    told = capsys.readouterr()
    assert "empty has no pictures: looked for .jpg" in told.err
    assert "a.png" in told.out


def test_out_may_not_be_a_folder_that_is_looked_at(model, tmp_path):
    picture(tmp_path / "a.png")
    with pytest.raises(KdedgeError, match="its pictures are what is looked at"):
        detect([tmp_path], of_file(model), tmp_path, 0.3)


def test_out_may_not_be_a_file(model, tmp_path):
    with pytest.raises(KdedgeError, match="should be a folder"):
        detect([picture(tmp_path / "a.png")], of_file(model), tmp_path / "a.png", 0.3)


def test_pictures_that_cannot_be_read_are_told_and_the_others_done(model, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    whole = picture(tmp_path / "whole.png")
    with pytest.raises(DataError, match="2 of 3 could not be read"):
        detect([tmp_path / "none.png", tmp_path / "broken.png", whole], of_file(model), tmp_path / "out", 0.3)
    told = capsys.readouterr()
    assert len(told.err.splitlines()) == 2
    assert "none.png is not there" in told.err
    assert "broken.png is not an image that can be decoded" in told.err
    assert "whole.png" in told.out
    record = json.loads((tmp_path / "out/detections.json").read_text())
    assert [each["name"] for each in record["pictures"]] == ["whole.png"]
    assert record["failed"] == ["none.png", "broken.png"]
    assert str(tmp_path) not in json.dumps(record)


def test_picture_without_a_box_is_told_as_such(answer, model, tmp_path):
    got = answer([picture(tmp_path / "black.png", (0, 0, 0))], model, tmp_path / "out")
    assert got["pictures"][0]["boxes"] == []


def test_classifier_is_refused(tmp_path):
    onnx.save(network(pixels=False), tmp_path / "classifier.onnx")
    with pytest.raises(ModelError, match=r"is no detector: classifier.onnx does not say how its outputs become boxes"):
        describe(tmp_path / "classifier.onnx")


@pytest.mark.parametrize(
    ("noted", "changes", "said"),
    [
        ({}, {}, "does not say what it takes"),
        (NOTED | {"normalize": {"mean": [0.5]}}, {}, "does not say what it takes"),
        (NOTED | {"labels": ["red"]}, {}, "has 1 labels: its boxes have 2 classes"),
        (NOTED, {"candidates": 0}, "candidates: expected a whole number"),
    ],
)
def test_damaged_model_is_refused(noted, changes, said, tmp_path):
    with pytest.raises(ModelError, match=said) as caught:
        describe(tiny_detector(tmp_path / "m.onnx", noted, **changes))
    assert "m.onnx" in caught.value.what


def test_model_of_other_outputs_than_its_boxes_is_refused(answer, tmp_path):
    model = tiny_detector(tmp_path / "m.onnx", candidates=5, scores="softmax")
    with pytest.raises(ModelError, match=r"outputs of shape \(1, 2, 6\): the detector's are \(N, 2, 7\)"):
        answer([picture(tmp_path / "a.png")], model)


def test_command_needs_neither_torch_nor_torchvision(model, tmp_path):
    picture(tmp_path / "red.png")
    line = ["detect", "red.png", "none.png", "--model", model.name, "--out", "out", "--score", "0.5"]
    done = subprocess.run([sys.executable, "-c", RUN_AND_TELL, *line], cwd=tmp_path, capture_output=True, text=True)
    said, _, modules = done.stderr.rpartition("\n")
    assert done.returncode == 2, said
    assert "none.png is not there" in said
    assert "1 of 2 could not be read" in said
    assert "Traceback" not in said
    assert "red 1" in done.stdout
    assert (tmp_path / "out/red.boxes.png").is_file()
    assert {"torch", "torchvision", "matplotlib"} & set(json.loads(modules)) == set()
