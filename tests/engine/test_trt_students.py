"""TensorRT's own builder takes the student of every shipped recipe, whatever the precision and the batch."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import realtrt

from kdedge.core.load import load_preset, load_recipe, shipped
from kdedge.core.recipe import Data, Recipe
from kdedge.data.locate import LAYOUTS
from kdedge.data.outline import Outline, stand_in
from kdedge.export.int8 import to_int8
from kdedge.export.onnx import export_onnx
from kdedge.export.precision import to_fp16
from kdedge.pipeline.networks import build

EXPORT = load_preset("tensorrt")
COCO_CLASSES = 80
LEAST = {"int8": 0.98}
"""Of the convolutions; the builder leaves a depthwise one in float where quantizing its output would cost time."""


def students() -> dict[str, Recipe]:
    """One recipe for each student that differs in network, options, lightening or data."""
    found: dict[str, tuple[str, Recipe]] = {}
    for name, path in shipped("recipes").items():
        recipe = load_recipe(str(path)).recipe
        found.setdefault(repr((recipe.student, published(recipe.data))), (name, recipe))
    return dict(found.values())


def published(data: Data) -> Outline:
    """What is known of the set without its files: all of it, or the recipe says the rest, or the set is COCO."""
    layout = LAYOUTS[data.name]
    if layout.classes:
        return Outline(layout.classes, layout.shape)
    assert data.image_size
    return Outline(len(data.classes or ()) or COCO_CLASSES, (3, data.image_size, data.image_size))


STUDENTS = students()


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The fp32 ONNX file of a recipe's student, with fresh weights and an open batch."""

    @cache
    def made(name: str) -> Path:
        recipe = STUDENTS[name]
        dataset = stand_in(recipe.data, published(recipe.data), 1)
        network = build(recipe.student, dataset, seed=0).eval()
        path = tmp_path_factory.mktemp(name) / "fp32.onnx"
        export_onnx(network, path, dataset.image_shape, EXPORT, dataset.normalize, dataset.labels)
        return path

    return made


def one_image(source: Path, out: Path) -> None:
    """The same network for a batch of one."""
    model = onnx.load(source)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, out)


def converted(source: Path, form: str, folder: Path) -> Path:
    if form == "fp32":
        return source
    path = folder / f"{form}.onnx"
    if form == "fp16":
        to_fp16(source, path)
    elif form == "int8":
        shape = [dim.dim_value for dim in onnx.load(source).graph.input[0].type.tensor_type.shape.dim[1:]]
        to_int8(source, path, np.random.default_rng(0).standard_normal((2, *shape), np.float32), EXPORT)
    else:
        one_image(source, path)
    return path


@pytest.mark.parametrize("form", ["fp32", "fp16", "int8", "one image"])
@pytest.mark.parametrize("name", STUDENTS)
def test_student_of_a_recipe_becomes_an_engine(
    needs: Callable[[object, str], None],
    exported: Callable[[str], Path],
    tmp_path: Path,
    name: str,
    form: str,
) -> None:
    needs(realtrt.FOLDER, realtrt.HOW)
    source = converted(exported(name), form, tmp_path)
    sidecar: dict[str, Any] = realtrt.build(needs, source, tmp_path / "student.engine", opt_batch=2, max_batch=4)
    convolutions = sum(node.op_type == "Conv" for node in onnx.load(source).graph.node)
    precision = {"one image": "fp32"}.get(form, form)
    assert sidecar["precision"][precision] >= LEAST.get(precision, 1) * convolutions
    assert any(layer["nodes"] for layer in sidecar["layers"])
