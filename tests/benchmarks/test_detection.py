"""The lines of the benchmark of detectors, as its recipe and the line in its README make them."""

import re
import shlex
from pathlib import Path

import pytest
from boxed import write_voc
from typer.testing import CliRunner

from kdedge.bench.ablation import beside, plan
from kdedge.bench.terms import find_parts
from kdedge.cli import app
from kdedge.core.load import load_recipe
from kdedge.pipeline.project import open_project

ROOT = Path(__file__).parents[2]
BENCHMARK = ROOT / "benchmarks/detection"


@pytest.fixture
def asked(monkeypatch):
    """What each ablation in the README asks for."""
    found = []
    monkeypatch.setattr("kdedge.bench.ablation.ablate", found.append)
    text = (BENCHMARK / "README.md").read_text(encoding="utf-8")
    for line in re.findall("^kdedge (bench ablation .*)$", text, re.MULTILINE):
        result = CliRunner().invoke(app, shlex.split(line))
        assert result.exit_code == 0, result.output
    return found


def test_two_budgets_ask_for_the_same_lines_of_three_seeds(asked):
    assert [each.recipe for each in asked] == ["benchmarks/detection/cpu.yaml", "mkd_retinanet"]
    assert {(each.mode, each.by, each.seeds, tuple(each.beside)) for each in asked} == {
        ("add", "term", 3, ("pkd", "cwd"))
    }


def test_lines_are_the_student_alone_every_term_in_turn_the_whole_and_two_others(asked, tmp_path):
    sizes = [f"data.root={write_voc(tmp_path / 'voc')}", "data.image_size=64"]
    project = open_project(load_recipe(str(ROOT / asked[0].recipe), sizes), tmp_path)
    parts = find_parts(project, "term")
    lines = [*plan(parts, asked[0].mode), *beside(asked[0], project.recipe)]
    assert [(line.label, line.term) for line in lines] == [
        ("labels", ""),
        ("+ mkd/soft", "mkd/soft"),
        ("+ mkd/relation/*", "mkd/relation/*"),
        ("+ mkd/attention/*", "mkd/attention/*"),
        ("+ mkd/guide/*", "mkd/guide/*"),
        ("whole", "mkd/explore/*"),
        ("pkd", ""),
        ("cwd", ""),
    ]
    assert all(line.contender(project.recipe, parts).phases for line in lines)


def test_teacher_and_student_have_the_same_anchors_and_other_backbones():
    recipe = load_recipe(str(BENCHMARK / "cpu.yaml")).recipe
    [teacher] = recipe.teachers
    assert (teacher.options["backbone"], recipe.student.options["backbone"]) == ("resnet34", "resnet18")
    assert recipe.student.lighten.conv == "depthwise"
    assert {key: value for key, value in teacher.options.items() if key != "backbone"} == {
        key: value for key, value in recipe.student.options.items() if key != "backbone"
    }
