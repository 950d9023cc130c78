"""Names and options that do not exist, each with the line it stands on."""

import re
from pathlib import Path

import pytest
from forked import Forkserver
from mini import RECIPE, write_recipe

from kdedge.core.errors import RecipeError
from kdedge.core.load import load_recipe
from kdedge.pipeline.distill import run as run_distill
from kdedge.pipeline.names import check_names, check_networks
from kdedge.pipeline.project import Project, open_project


def checked(folder: Path, old: str, new: str) -> str:
    """What is said of the recipe with one text in place of another."""
    assert RECIPE.count(old) == 1
    path = write_recipe(folder, text=RECIPE.replace(old, new))
    project = open_project(load_recipe(str(path)), folder / "runs")
    with pytest.raises(RecipeError) as caught:
        check_everything(project)
    return str(caught.value)


def check_everything(project: Project) -> None:
    check_names(project)
    check_networks(project)


def line_of(text: str) -> int:
    return RECIPE[: RECIPE.index(text)].count("\n") + 1


LOGITS, SELF = "{name: logits, weight: 0.9}", "{name: self_distill, weight: 0.5}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: digits", "name: digts", "data.name: unknown data set 'digts': did you mean 'digits'?"),
        ("name: digits", "name: voc", "data.name: data set 'voc' has boxes: task: classify is for one label an image"),
        (LOGITS, "{name: logit}", "phases.0.methods.0.name: unknown method 'logit': did you mean 'logits'?"),
        (SELF, "{name: nothing_like_it}", "phases.0.methods.1.name: unknown method 'nothing_like_it': "),
        (
            LOGITS,
            "{name: logits, options: {temprature: 4}}",
            "phases.0.methods.0.options.temprature: unknown key; did you mean 'temperature'?",
        ),
        (
            LOGITS,
            "{name: logits, options: {temperature: 0}}",
            "phases.0.methods.0.options.temperature: must be more than 0, not 0",
        ),
        (
            "preset: onnxruntime_cpu",
            "backend: ortt",
            "export.backend: unknown backend 'ortt': did you mean 'ort'?",
        ),
        (
            "  name: resnet8\n  options: {conv: depthwise}",
            "  name: resnet9\n  options: {conv: depthwise}",
            "student.name: unknown model 'resnet9'",
        ),
        (
            "  name: resnet8\n  options: {conv: depthwise}",
            "  name: fcos\n  options: {channels: 64}",
            "student.name: fcos is a detector, not a classifier: classifiers are ",
        ),
        (
            "{conv: depthwise}",
            "{conf: depthwise}",
            "student: options of model resnet8: conf: unknown; did you mean 'conv'?",
        ),
        ("{conv: depthwise}", "{conv: deep}", "student: options of model resnet8: conv: must be "),
    ],
)
def test_name_or_option_that_does_not_exist_is_told_with_its_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    said = checked(tmp_path, old, new)
    line = line_of("student:" if message.startswith("student:") else old)
    assert f"{tmp_path / 'mini.yaml'}:{line}: {message}" in said
    assert "problem" in said.partition("\n")[0]


def test_method_that_needs_a_teacher_is_told_before_training(tmp_path: Path) -> None:
    start = RECIPE.index("teachers:")
    end = RECIPE.index("phases:")
    said = checked(tmp_path, RECIPE[start:end], "")
    assert "phases.0.methods.0.name: method 'logits' needs a teacher: the recipe has none" in said
    assert "self_distill" not in said


def test_method_that_needs_peers_is_told_before_training(tmp_path: Path) -> None:
    said = checked(tmp_path, LOGITS, "{name: dml}")
    assert "phases.0.methods.0.name: dml needs peers, and the recipe has none" in said


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("{name: logits, terms: {kl: {weight: 2}}}", "phases.0: method 'logits' has no term 'kl'"),
        ("{name: attention, options: {stages: [stage9]}}", "phases.0: attention: the student has no stage 'stage9'"),
    ],
)
def test_phase_that_cannot_train_is_told_before_any_image_is_read(
    tmp_path: Path, method: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("images were read")

    monkeypatch.setattr("kdedge.pipeline.distill.build_data", read)
    path = write_recipe(tmp_path, text=RECIPE.replace(LOGITS, method))
    with pytest.raises(RecipeError, match=re.escape(message)):
        run_distill(open_project(load_recipe(str(path)), tmp_path / "runs"))


def test_part_of_the_student_that_cannot_be_frozen_is_told_before_training(tmp_path: Path) -> None:
    said = checked(tmp_path, "  - epochs: 5\n", "  - epochs: 5\n    freeze: [layer9.*]\n")
    assert "phases.0: freeze: no module of the student fits 'layer9.*'" in said


def test_phase_in_which_nothing_trains_is_told_before_training(tmp_path: Path) -> None:
    text = RECIPE.replace("  - epochs: 5\n", '  - epochs: 5\n    freeze: ["*"]\n').replace(f"      - {SELF}\n", "")
    with pytest.raises(RecipeError, match=r"phases\.0: nothing trains: the student is frozen"):
        check_everything(open_project(load_recipe(str(write_recipe(tmp_path, text=text))), tmp_path / "runs"))


def test_method_that_goes_on_from_a_phase_that_is_not_there_is_told_with_its_line(tmp_path: Path) -> None:
    said = checked(tmp_path, SELF, "{name: mskd_ssr, options: {teacher_heads: frozen}}")
    assert f"mini.yaml:{line_of(SELF)}: phases.0.methods.1: mskd_ssr: the teacher's heads are frozen" in said


SEVERAL = "teachers: [{name: resnet8, training: {epochs: 1}}, {name: resnet14, training: {epochs: 1}}]\n"


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            "{name: logits}",
            "method 'logits' must say which of the 2 teachers it learns from; teacher: 0, or teacher: mean",
        ),
        ("{name: attention, teacher: mean}", "method 'attention' cannot learn from the mean"),
    ],
)
def test_method_with_several_teachers_must_choose_what_it_can_learn_from(
    tmp_path: Path, method: str, message: str
) -> None:
    start, end = RECIPE.index("teachers:"), RECIPE.index("phases:")
    text = (RECIPE[:start] + SEVERAL + RECIPE[end:]).replace(LOGITS, method)
    with pytest.raises(RecipeError, match=re.escape(message)):
        check_everything(open_project(load_recipe(str(write_recipe(tmp_path, text=text))), tmp_path / "runs"))


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    said = checked(tmp_path, LOGITS, "{name: logits, options: {a: 1, temperature: x}}\n      - {name: attentoin}")
    assert said.startswith("3 problems in ")


def test_misspelt_networks_are_told_beside_the_other_names(tmp_path: Path) -> None:
    text = RECIPE.replace("name: resnet8", "name: resnt8").replace(LOGITS, "{name: logit}")
    path = write_recipe(tmp_path, text=text)
    with pytest.raises(RecipeError) as caught:
        check_names(open_project(load_recipe(str(path)), tmp_path / "runs"))
    said = str(caught.value)
    assert said.startswith("3 problems in ")
    for place in ("student.name", "teachers.0.name"):
        assert f"{place}: unknown model 'resnt8': did you mean 'resnet8'?" in said


@pytest.mark.parametrize("command", ["run", "distill", "check"])
def test_commands_tell_the_line_of_an_unknown_data_set(forkserver: Forkserver, tmp_path: Path, command: str) -> None:
    write_recipe(tmp_path, text=RECIPE.replace("name: digits", "name: digts"))
    code, process = forkserver.run([command, "mini.yaml"], tmp_path)
    assert code == 2
    assert "mini.yaml:3: data.name: unknown data set 'digts': did you mean 'digits'?" in process.stderr
    assert not list(tmp_path.glob("runs/*/student"))


def test_student_cannot_start_from_a_teacher_that_it_was_not_made_of(tmp_path: Path) -> None:
    said = checked(
        tmp_path,
        "  name: resnet8\n  options: {conv: depthwise}",
        "  name: resnet20\n  lighten: {conv: depthwise, init: teacher}",
    )
    assert "student.lighten: ResNet cannot start from the weights of this ResNet" in said
    assert "layer1.1.bn1.bias" in said


@pytest.mark.parametrize(
    ("lighten", "message"),
    [
        ("{conv: grouped, groups: 3}", "valid for every convolution of this network: 2, 4, 8, 16"),
        ("{conv: grouped, layers: [layer4.*]}", "'layer4.*' fits no convolution that can be rewritten"),
        ("{conv: depthwise, groups: 4}", "only grouped convolutions have groups"),
    ],
)
def test_lightening_that_cannot_be_is_told_before_training(tmp_path: Path, lighten: str, message: str) -> None:
    student = "  name: resnet8\n  options: {conv: depthwise}"
    assert message in checked(tmp_path, student, f"  name: resnet8\n  lighten: {lighten}")
