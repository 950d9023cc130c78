"""A recipe's key `backbone`: the file is found, checked, part of the run's identity, and what training begins with."""

from pathlib import Path
from typing import Any

import pytest
import torch
from boxed import write_voc
from torchvision import models

from kdedge.bench.contenders import contender
from kdedge.bench.grid import Grid
from kdedge.core.errors import ModelError, RecipeError
from kdedge.core.load import load_recipe
from kdedge.data.build import build_data
from kdedge.pipeline.names import check_names, check_networks
from kdedge.pipeline.networks import obtain_teacher, start, start_student
from kdedge.pipeline.project import Project, open_project

RECIPE = """\
version: 1
task: detect
data: {name: voc, root: set, image_size: 64, workers: 0}
student:
  name: retinanet
  options: {backbone: resnet18, channels: 16, levels: p3-p5}
  backbone: net.pth
phases: [{epochs: 1, batch: 2}]
run: {accelerator: cpu, threads: 1}
"""
TEACHER = """\
teachers:
  - name: retinanet
    options: {backbone: mobilenet_v3_small, channels: 16, levels: p3-p5}
    backbone: mobile.pth
    training: {epochs: 1, batch: 2}
"""
BODY = "backbone.body.layer4.1.conv2.weight"


def write_weights(path: Path, seed: int = 7, name: str = "resnet18") -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    state: dict[str, torch.Tensor] = models.get_model(name, weights=None).state_dict()
    torch.save(state, path)
    return state


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a set of boxes, and caches of its own."""
    write_voc(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDEDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def project(folder: Path, text: str = RECIPE, *changes: str) -> Project:
    (folder / "boxed.yaml").write_text(text)
    return open_project(load_recipe(str(folder / "boxed.yaml"), changes), folder / "runs")


def refused(one: Project) -> str:
    with pytest.raises(RecipeError) as caught:
        check_everything(one)
    return str(caught.value)


def check_everything(one: Project) -> None:
    check_names(one)
    check_networks(one)


def test_student_begins_with_the_weights_of_the_file(folder: Path) -> None:
    state = write_weights(folder / "net.pth")
    one = project(folder)
    dataset = build_data(one.recipe.data, one.recipe.seed)
    student = start_student(one, dataset, []).state_dict()
    assert torch.equal(student[BODY], state["layer4.1.conv2.weight"])
    alone = project(folder, RECIPE.replace("  backbone: net.pth\n", ""))
    fresh = start(alone, alone.recipe.student, dataset)[0].state_dict()
    differing = {name.rpartition(".")[0] for name in student if not torch.equal(student[name], fresh[name])}
    assert {name.split(".")[1] for name in differing} == {"body"}  # the pyramid and the heads are the seed's


def test_other_bytes_in_the_file_are_another_training_of_the_same_run(folder: Path) -> None:
    one, keys = project(folder), []
    for seed in (1, 2):
        write_weights(folder / "net.pth", seed)
        keys.append(one.key("distill"))
    assert keys[0] != keys[1]
    assert project(folder, RECIPE.replace("  backbone: net.pth\n", "")).run.path != one.run.path


def test_run_without_a_backbone_is_the_one_that_it_was_before_there_were_any(folder: Path) -> None:
    recipe = project(
        folder, RECIPE.replace("  backbone: net.pth\n", "") + TEACHER.replace("    backbone: mobile.pth\n", "")
    )
    plain = recipe.recipe.model_dump(mode="json")
    assert "backbone" not in plain["student"]
    assert "backbone" not in plain["teachers"][0]


def test_missing_file_is_refused_with_its_line_and_where_it_was_looked_for(folder: Path) -> None:
    said = refused(project(folder))
    assert "boxed.yaml:7: student.backbone: the backbone net.pth is missing" in said
    assert f"not in {folder}, set; --set student.backbone=FILE" in said


def test_file_of_another_network_is_refused_before_anything_trains(folder: Path) -> None:
    write_weights(folder / "net.pth", name="mobilenet_v3_small")
    said = refused(project(folder))
    assert "net.pth does not fit the backbone of RetinaNetDetector" in said
    assert "missing: conv1.weight" in said


def test_teachers_backbone_is_part_of_its_training_and_told(folder: Path) -> None:
    write_weights(folder / "net.pth")
    one = project(folder, RECIPE + TEACHER)
    dataset, found = build_data(one.recipe.data, one.recipe.seed), []
    for seed in (1, 2):
        write_weights(folder / "mobile.pth", seed, "mobilenet_v3_small")
        found.append(obtain_teacher(one, one.recipe.teachers[0], dataset))
    assert found[0].folder != found[1].folder
    assert found[0].source.startswith("trained from mobile.pth sha256:")
    assert found[0].source != found[1].source


def test_what_lightening_loses_of_it_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_weights(folder / "net.pth")
    one = project(folder, RECIPE, "student.lighten={conv: depthwise, layers: [backbone.body.layer4.*]}")
    check_networks(one)
    told = capsys.readouterr()
    # layer4 has four 3x3 convolutions; its 1x1 one is not lightened
    said = "retinanet: 4 lightened convolutions of its backbone do not start from net.pth"
    assert said in " ".join((told.out + told.err).split())


def test_classifier_takes_none(folder: Path) -> None:
    write_weights(folder / "net.pth")
    said = refused(project(folder, "version: 1\ndata: {name: digits}\nstudent: {name: resnet8, backbone: net.pth}\n"
                                   "phases: [{epochs: 1}]\n"))  # fmt: skip
    assert "net.pth for ResNet: only a detector made of one of torchvision's classifiers" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["teachers.0.checkpoint=t.pt", "teachers.0.training=null"], "takes a checkpoint or a backbone, not both"),
        (["student.lighten={conv: depthwise, init: teacher}"], "student.backbone and lighten.init: teacher"),
        (["peers=[{name: retinanet, backbone: net.pth}]"], "peers start from random weights"),
    ],
)
def test_two_sources_of_the_same_weights_are_refused(folder: Path, changes: list[Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        project(folder, RECIPE + TEACHER, *changes)


def test_it_is_looked_for_as_a_checkpoint_is(folder: Path) -> None:
    one = project(folder)
    with pytest.raises(ModelError, match=r"the backbone net\.pth is missing"):
        one.key("distill")
    for place in (folder / "set", folder):
        write_weights(place / "net.pth")
        found = one.backbone(one.recipe.student)
        assert found is not None
        assert found.resolve() == (place / "net.pth").resolve()


def test_comparisons_find_it_from_their_own_folder(folder: Path) -> None:
    for name in ("net.pth", "mobile.pth"):
        write_weights(folder / name)
    one = project(folder, RECIPE + TEACHER)
    grid = Grid(load_recipe(str(folder / "boxed.yaml")), [contender("pkd", one.recipe)], 1, folder / "bench")
    [teacher] = grid.whole().recipe.teachers
    cell = grid.cell(grid.contenders[0], seed=0).recipe
    assert cell.student.backbone == str(folder / "net.pth")
    assert teacher.backbone == str(folder / "mobile.pth")
    assert cell.teachers[0].backbone is None  # it has the teacher's whole weights
