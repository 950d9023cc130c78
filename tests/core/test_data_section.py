"""The data section of a recipe: what it is as data, which is what a run is known by."""

import pytest
from pydantic import ValidationError

from kdedge.core.recipe import Augment, Data

AS_EVER = {
    "name": "digits",
    "root": None,
    "validation": 0.1,
    "train_limit": None,
    "image_size": None,
    "normalize": None,
    "augment": {"crop_padding": 0, "flip": False, "crop_scale": [0.08, 1.0], "views": None},
    "workers": 2,
}


def test_data_without_what_is_for_boxes_is_as_ever() -> None:
    assert Data(name="digits").model_dump(mode="json") == AS_EVER
    given = Data(name="digits", classes=None, augment=Augment(zoom=(1, 1), iou_crop=False, color=0))
    assert given.model_dump(mode="json") == AS_EVER


def test_data_for_boxes_comes_back_as_it_was() -> None:
    augment = Augment(zoom=(0.5, 2), iou_crop=True, color=0.2)
    data = Data(name="voc", classes=("cat", "dog"), repeat_threshold=0.1, augment=augment)
    plain = data.model_dump(mode="json")
    assert (plain["classes"], plain["repeat_threshold"]) == (["cat", "dog"], 0.1)
    assert (plain["augment"]["zoom"], plain["augment"]["iou_crop"], plain["augment"]["color"]) == ([0.5, 2], True, 0.2)
    assert Data.model_validate(plain) == data


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": ["cat", "dog", "cat"]},
        {"classes": []},
        {"repeat_threshold": 0},
        {"augment": {"zoom": [0, 1]}},
        {"augment": {"color": 1.1}},
    ],
)
def test_data_refuses_options_without_meaning(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Data.model_validate({"name": "voc", **changes})
