"""The model card: what it tells, and what it never tells."""

from typing import Any

import pytest
import yaml

from kdedge.core.energy import Energy, Spread
from kdedge.core.recipe import Recipe
from kdedge.report.card import card

PLAIN = {
    "version": 1,
    "name": "resnet_dw",
    "data": {"name": "cifar10", "root": "/home/someone/data"},
    "student": {"name": "resnet20"},
    "teachers": [{"name": "resnet56", "checkpoint": "/home/someone/cifar10_resnet56.safetensors"}],
    "phases": [{"epochs": 40, "methods": [{"name": "logits", "weight": 0.5}], "freeze": ["conv1"], "ema": 0.99}],
}


def recipe(**more: Any) -> Recipe:
    return Recipe.model_validate(PLAIN | more)


def matter(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.split("---\n")[1])


def part(text: str, title: str) -> str:
    return text.split(f"## {title}\n\n")[1].split("\n\n## ")[0]


def test_card_says_what_was_not_given(run):
    text = card(run(), recipe())
    assert part(text, "Intended use") == "not given"
    assert part(text, "Licenses") == "- model: not given\n- teacher: not given\n- data: not given"
    assert "license" not in matter(text)


def test_card_gives_what_the_recipe_says(run):
    licenses = {"model": "Apache-2.0", "teacher": "BSD <3>", "data": "research only"}
    text = card(run(), recipe(card={"intended_use": "sorting\nparcels", "licenses": licenses}))
    assert part(text, "Intended use") == "sorting parcels"
    assert part(text, "Licenses") == "- model: Apache-2.0\n- teacher: BSD &lt;3>\n- data: research only"
    assert matter(text)["license"] == "apache-2.0"


def test_license_of_no_known_form_is_other_with_a_name(run):
    text = card(run(), recipe(card={"licenses": {"model": "Our House License, v2"}}))
    assert {key: value for key, value in matter(text).items() if "license" in key} == {
        "license": "other",
        "license_name": "our-house-license-v2",
    }


def test_front_matter_has_the_accuracy_of_each_precision(run):
    known = matter(card(run(), recipe()))
    assert known["pipeline_tag"] == "image-classification"
    (result,) = known["model-index"][0]["results"]
    assert result["dataset"] == {"type": "cifar10", "name": "cifar10", "split": "test"}
    assert [(metric["name"], metric["value"]) for metric in result["metrics"]] == [
        ("top-1, fp32", 0.9012),
        ("top-1, fp16", 0.9011),
        ("top-1, int8", 0.8923),  # of the engine; 0.8921 is the ONNX file's
    ]


def test_card_names_teacher_phases_data_and_files(run):
    text = card(run(), recipe())
    assert "| teacher | resnet56 | 93.38 % | 855.8k | 128.4M | cifar10_resnet56.safetensors |" in text
    assert "| 1 | 40 | 128 | labels (1), logits (0.5) | frozen: conv1; moving average of the weights (0.99) |" in text
    assert "45000 training images, 5000 validation images, 10000 test images" in part(text, "Data")
    assert f"| student-int8.onnx | 98500 | {'c' * 64} |" in part(text, "Files")
    assert "| onnx-int8 | onnx-fp32 | 1.4e-01 |" in part(text, "Accuracy")
    assert "- onnx-int8: top-1 lost 0.91 points, 0.50 allowed" in part(text, "Known limits")


def test_card_gives_energy_where_it_was_measured(run, make_profile):
    spread = Spread(mean=1.25, std=0.05, lowest=1.2, highest=1.3)
    energy = Energy(
        net_mj=spread,
        gross_mj=spread,
        power_mw=spread,
        idle_mw=1,
        repeats=3,
        inferences=9,
        samples=9,
        rate_hz=1,
        source="",
    )
    profiles = [make_profile("fp32", 0.38).model_copy(update={"energy": energy}), make_profile("int8", 0.2)]
    lines = part(card(run(profiles=profiles), recipe()), "Latency and memory").splitlines()
    assert [line.split(" | ")[5] for line in lines if line.startswith(("| fp32", "| int8"))] == [
        "1.25 +- 0.05 mJ",
        "not measured",
    ]
    assert "cpu: Example CPU @" in lines[0]


def test_card_names_no_folder_and_no_date(run):
    text = card(run(created="2031-05-06"), recipe(gate={"baseline": "~/base.json"}))
    assert "someone" not in text
    assert "~" not in text
    assert "2031" not in text
    assert "checkpoint: cifar10_resnet56.safetensors" in text
    assert text == card(run(created="2032-01-01"), recipe(gate={"baseline": "~/base.json"}))


@pytest.mark.parametrize(("parts", "gone"), [({"export": None}, "Accuracy"), ({"profiles": []}, "Latency and memory")])
def test_card_leaves_out_what_was_not_recorded(run, parts, gone):
    text = card(run(**parts), recipe())
    assert f"## {gone}" not in text
    assert "## Licenses" in text


def of_boxes(**more: Any) -> Recipe:
    return recipe(name="mkd_retinanet", task="detect", data={"name": "bccd"}, student={"name": "retinanet"}, **more)


def test_card_of_a_detector_is_found_under_its_task_and_metric(detector):
    known = matter(card(detector(), of_boxes()))
    assert (known["pipeline_tag"], known["metrics"]) == ("object-detection", ["mean_average_precision"])
    (result,) = known["model-index"][0]["results"]
    assert result["task"] == {"type": "object-detection"}
    assert [(metric["type"], metric["name"], metric["value"]) for metric in result["metrics"]] == [
        ("mean_average_precision", "mAP@[0.50:0.95], fp32", 0.4812),
        ("mean_average_precision", "mAP@0.50, fp32", 0.6812),
        ("mean_average_precision", "mAP@[0.50:0.95], int8", 0.4702),
        ("mean_average_precision", "mAP@0.50, int8", 0.6702),
    ]


def test_card_of_a_detector_tells_its_data_losses_and_sizes(detector):
    phases = [{"epochs": 60, "detection": {"boxes": 2}, "methods": [{"name": "mkd"}]}, {"epochs": 1}]
    text = card(detector(), of_boxes(phases=phases))
    assert "| 1 | 60 | 128 | labeled boxes (boxes 2), mkd (1) | - |" in text
    assert "| 2 | 1 | 128 | labeled boxes (1) | - |" in text
    assert "Classes: RBC, WBC, Platelets. Pictures are scaled until their longer side has 160 pixels" in text
    assert "Validation images are the set's own, or where it has none 10 %" in part(text, "Data")
    assert "| network | model | test mAP |" in text
    assert "| onnx-int8 | onnx-fp32 | 96.80 % | 0.7200 | 7.0e-03 | 47.02 % |" in part(text, "Accuracy")
    assert "| medium objects | 48.12 % | 48.12 % | 47.02 % |" in part(text, "Accuracy")


@pytest.mark.parametrize(("boxes", "given"), [("heads", "They give raw heads"), ("nms", "They give boxes, after")])
def test_card_of_a_detector_says_what_its_files_give(detector, boxes, given):
    text = card(detector(), of_boxes(export={"boxes": boxes}))
    assert given in part(text, "Files")
