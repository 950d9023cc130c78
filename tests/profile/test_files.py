import json

import onnx
import pytest

from kdedge.core.errors import ModelError
from kdedge.engine.cascade import Link, cascade_record
from kdedge.profile.files import external_data, files_of


@pytest.fixture
def apart(linear, tmp_path):
    """A model with its weights in model.data."""
    path = tmp_path / "apart/model.onnx"
    path.parent.mkdir()
    onnx.save(onnx.load(linear()), path, save_as_external_data=True, location="model.data", size_threshold=0)
    return path


def names(paths):
    return sorted(path.name for path in paths)


def test_model_is_itself_and_the_files_that_hold_its_weights(linear, apart):
    assert names(files_of(linear())) == ["linear.onnx"]
    assert names(files_of(apart)) == ["model.data", "model.onnx"]


def test_engine_is_itself_and_its_sidecar(tmp_path):
    for name in ("m.engine", "m.engine.json", "other.engine.json"):
        (tmp_path / name).touch()
    assert names(files_of(tmp_path / "m.engine")) == ["m.engine", "m.engine.json"]


def test_cascade_is_itself_and_its_engines(tmp_path):
    (tmp_path / "stages").mkdir()
    links = [Link(f"stages/{n}.engine", "x", None, "y") for n in (1, 2)]
    (tmp_path / "cascade.json").write_text(json.dumps(cascade_record("fp32", "trt", {}, links)))
    for name in ("1.engine", "1.engine.json", "2.engine"):
        (tmp_path / "stages" / name).touch()
    assert names(files_of(tmp_path / "cascade.json")) == ["1.engine", "1.engine.json", "2.engine", "cascade.json"]


def test_missing_file_is_named(apart):
    (apart.parent / "model.data").unlink()
    with pytest.raises(ModelError, match=r"model.data: there is no such file"):
        files_of(apart)


def test_weights_outside_of_the_models_folder_are_refused(apart):
    model = onnx.load(apart, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../secret"
    apart.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"it keeps weights in ../secret, outside of its folder"):
        files_of(apart)


def test_broken_model_is_left_to_who_opens_it(tmp_path):
    (tmp_path / "broken.onnx").write_text("no model")
    assert external_data(tmp_path / "broken.onnx") == set()
    assert names(files_of(tmp_path / "broken.onnx")) == ["broken.onnx"]
