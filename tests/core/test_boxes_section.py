"""Where boxes are made, as recipes say it."""

from pathlib import Path

import pytest

from kdedge.core.errors import RecipeError
from kdedge.core.load import load_recipe

RECIPE = """\
version: 1
task: {task}
data: {{name: voc, root: ., image_size: 64}}
student: {{name: retinanet}}
phases: [{{epochs: 1}}]
export: {{{export}}}
"""


def load(folder: Path, task: str, export: str) -> str:
    path = folder / "r.yaml"
    path.write_text(RECIPE.format(task=task, export=export))
    return load_recipe(str(path), ()).recipe.export.boxes


@pytest.mark.parametrize(
    ("export", "expected"),
    [("", "heads"), ("boxes: nms", "nms"), ("preset: tensorrt_nms", "nms"), ("preset: tensorrt", "heads")],
)
def test_a_detector_has_its_boxes_made_where_the_recipe_or_its_preset_says(tmp_path, export, expected):
    assert load(tmp_path, "detect", export) == expected


@pytest.mark.parametrize("export", ["boxes: nms", "preset: onnxruntime_cpu_nms"])
def test_a_classifier_has_no_boxes_to_make(tmp_path, export):
    with pytest.raises(RecipeError, match=r"export\.boxes: nms is of detectors; under task: classify leave it out"):
        load(tmp_path, "classify", export)
