import json

import numpy as np
import pytest
from tinydetector import DECODING, LEFT, SIZE, tiny_detector

from kdedge.core.errors import ModelError
from kdedge.engine.cascade import Link, cascade_record
from kdedge.profile.predict import predict
from kdedge.profile.targets import LocalTarget

X = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 1]], dtype=np.float32)
Y = [[1, 2], [3, 4], [9, 12]]
ONE = {"threads": 1}


def test_model_answers_for_every_row(linear, tmp_path):
    np.savez(tmp_path / "in.npz", x=X, labels=[0, 1, 1])
    outputs = predict(LocalTarget(), "ort", linear(), tmp_path / "in.npz", ONE, batch=2)
    assert {name: values.tolist() for name, values in outputs.items()} == {"y": Y}


def test_cascade_answers_with_every_exit(linear, tmp_path):
    links = [Link(linear().name, "x", None, "y")]
    (tmp_path / "cascade.json").write_text(json.dumps(cascade_record("fp32", "ort", ONE, links)))
    np.savez(tmp_path / "in.npz", images=X)
    outputs = predict(LocalTarget(), "ort", tmp_path / "cascade.json", tmp_path / "in.npz", ONE)
    assert {name: values.tolist() for name, values in outputs.items()} == {"y": Y}


def test_arrays_that_do_not_fit_are_said_so(linear, tmp_path):
    np.savez(tmp_path / "in.npz", image=X)
    with pytest.raises(ModelError, match="it has no"):
        predict(LocalTarget(), "ort", linear(), tmp_path / "in.npz", ONE)


def test_detectors_boxes_come_back_instead_of_its_outputs(tmp_path):
    """Red of 0.25 gives a logit of 0.5; green that is no number none at all."""
    model = tiny_detector(tmp_path / "tiny.onnx")
    images = np.full((2, 3, SIZE, SIZE), -10, np.float32)
    images[0, 0] = 0.25
    images[1, 1] = np.nan
    np.savez(tmp_path / "in.npz", images=images)
    answer = predict(LocalTarget(), "ort", model, tmp_path / "in.npz", ONE, decoding=DECODING)
    assert {name: values.shape for name, values in answer.items()} == {"boxes": (2, 10, 6)}
    np.testing.assert_allclose(answer["boxes"][0, 0], [0, 1 / (1 + np.exp(-0.5)), *LEFT], atol=1e-5)
    assert answer["boxes"][0, 1:, 0].tolist() == [-1] * 9
    assert answer["boxes"][1, :, 0].tolist() == [-1] * 10
    assert np.isnan(answer["boxes"][1, :, 1:]).all()
