"""Recipes: what a good one gives, and what the author of a bad one is told."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdedge.core.errors import RecipeError
from kdedge.core.load import load_preset, load_recipe, shipped
from kdedge.core.recipe import Recipe

GOOD = """\
version: 1
data: {name: digits}
student: {name: resnet8}
phases:
  - epochs: 2
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(GOOD)
    return tmp_path


def told(text: str | bytes | None = None, *overrides: str) -> list[str]:
    """The problems of a recipe, one an entry."""
    if text is not None:
        Path("r.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RecipeError) as caught:
        load_recipe("r.yaml", overrides)
    count, *problems = str(caught.value).split("\n  ")
    assert count == f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in r.yaml"
    return problems


BAD_YAML = {
    "empty": ("", "r.yaml:1: the file is empty"),
    "only a comment": ("# later\n", "r.yaml:1: the file is empty"),
    "a list": ("- version: 1\n", "r.yaml:1: should hold `key: value` lines, not a list"),
    "a word": ("quickstart\n", "r.yaml:1: should hold `key: value` lines, not text"),
    "tab": (
        "version: 1\n\tseed: 3\n",
        "r.yaml:2: not valid YAML: while scanning for the next token, "
        "found character '\\t' that cannot start any token",
    ),
    "open bracket": (
        "version: 1\nphases: [{epochs: 1}\nseed: 3\n",
        "r.yaml:3: not valid YAML: while parsing a flow sequence, expected ',' or ']', but got '<scalar>'",
    ),
    "two documents": (
        "version: 1\n---\nversion: 1\n",
        "r.yaml:2: not valid YAML: expected a single document in the stream, but found another document",
    ),
    "unknown anchor": ("version: 1\ndata: *d\n", "r.yaml:2: not valid YAML: found undefined alias 'd'"),
    "loop": ("version: 1\ndata: &d\n  options: *d\n", "r.yaml:2: not valid YAML: this refers to itself"),
    "not UTF-8": (b"version: 1\nname: caf\xe9\n", "r.yaml:2: byte 0xe9 is not UTF-8 text"),
    "control character": ("version: 1\nname: a\x07b\n", "r.yaml:2: character '\\x07' does not belong in text"),
}


@pytest.mark.parametrize(("text", "problem"), BAD_YAML.values(), ids=BAD_YAML)
def test_load_recipe_names_the_line_when_the_yaml_is_broken(text: str | bytes, problem: str) -> None:
    assert told(text) == [problem]


BAD_VALUES = {
    "typo in a section": ("studnet: {name: a}\n", ["studnet: unknown key; did you mean 'student'?"]),
    "typo, nothing near": (
        "gate: {zzz: 1}\n",
        ["gate.zzz: unknown key; known: baseline, budgets, look_back"],
    ),
    "typo in a list entry": (
        "gate: {budgets: [{metric: fp32/top1, mim: 0.9}]}\n",
        ["gate.budgets.0.mim: unknown key; did you mean 'min'?"],
    ),
    "typo of a required key, told once": (
        "teachers: [{nmae: resnet20, checkpoint: a.pt}]\n",
        ["teachers.0.nmae: unknown key; did you mean 'name'?"],
    ),
    "text for a whole number": ("seed: many\n", ['seed: must be a whole number, not "many"']),
    "fraction for a whole number": ("seed: 2.5\n", ["seed: must be a whole number, not 2.5"]),
    "true for a number": ("seed: true\n", ["seed: must be a number, not true or false"]),
    "nothing for a number": ("seed:\n", ["seed: must be a whole number, not nothing"]),
    "text for a number": ("profile: {seconds: 1 s}\n", ['profile.seconds: must be a number, not "1 s"']),
    "not a number": ("profile: {seconds: .nan}\n", ["profile.seconds: must be a number, not nan"]),
    "infinity": ("profile: {seconds: .inf}\n", ["profile.seconds: must be a number, not inf"]),
    "number for true or false": ("baseline: 3\n", ["baseline: must be true or false, not 3"]),
    "number for text": ("gate: {baseline: 3}\n", ["gate.baseline: must be text, not 3; put it in quotes"]),
    "list for text": ("gate: {baseline: [a]}\n", ["gate.baseline: must be text, not a list"]),
    "text for a section": ("gate: strict\n", ['gate: must be a section of `key: value` lines, not "strict"']),
    "nothing for a section": ("gate:\n", ["gate: must be a section of `key: value` lines, not nothing"]),
    "number for a list": ("teachers: 1\n", ["teachers: must be a list, not 1"]),
    "text for options": (
        "teachers: [{name: a, checkpoint: a.pt, options: b}]\n",
        ['teachers.0.options: must be a section of `key: value` lines, not "b"'],
    ),
    "below the range": ("seed: -1\n", ["seed: must be at least 0, not -1"]),
    "at an open end": ("profile: {seconds: 0}\n", ["profile.seconds: must be more than 0, not 0"]),
    "above the range": ("export: {opset: 99}\n", ["export.opset: must be at most 23, not 99"]),
    "empty list": ("export: {precisions: []}\n", ["export.precisions: needs 1 at least, but has 0"]),
    "wrong entry, told once": (
        "export: {precisions: [fp61]}\n",
        ["export.precisions.0: must be 'fp32', 'fp16' or 'int8', not \"fp61\"; did you mean 'fp16'?"],
    ),
    "teacher that is no number": (
        "    methods: [{name: logits, teacher: first}]\n",
        ["phases.0.methods.0.teacher: must be a whole number from 0, or mean, not 'first'"],
    ),
    "teachers for nothing": (
        "teachers: [{name: a, training: {epochs: 1}, teachers: [{name: b, checkpoint: b.pt}]}]\n",
        ["teachers.0: a teacher has teachers, and no training.methods to learn from them by"],
    ),
    "choice": (
        "run: {precision: 16-mxed}\n",
        [
            "run.precision: must be '32-true', '16-mixed' or 'bf16-mixed', not \"16-mxed\"; did you mean '16-mixed'?",
        ],
    ),
    "choice of another kind": (
        "run: {precision: 32}\n",
        ["run.precision: must be '32-true', '16-mixed' or 'bf16-mixed', not 32"],
    ),
    "fp32 left out": (
        "export: {precisions: [int8]}\n",
        ["export.precisions: fp32 must be among them: the others are made from it"],
    ),
    "name of a file": (
        "name: ../x\n",
        ['name: must be letters, digits and . _ - with a letter or digit first, not "../x"'],
    ),
    "form of an exit": (
        "export: {exits: half}\n",
        ['export.exits: must be none, all or K/N such as 3/4, not "half"'],
    ),
    "budget without a limit": (
        "gate: {budgets: [{metric: fp32/top1}]}\n",
        ["gate.budgets.0: give min, max, max_change or advisory: true"],
    ),
    "teacher of nothing": (
        "teachers: [{name: a}]\n",
        ["teachers.0: needs a checkpoint, or a training section of its own"],
    ),
    "teacher of two sources": (
        "teachers: [{name: a, checkpoint: a.pt, training: {epochs: 1}}]\n",
        ["teachers.0: takes a checkpoint or a training section, not both"],
    ),
    "teacher with a teacher": (
        "teachers: [{name: a, training: {epochs: 1, methods: [{name: logits}]}}]\n",
        ["teachers.0: a teacher's own training takes distillation methods only with teachers of its own"],
    ),
    "key that is a number": ("3: x\n", ["3: a key must be text; put it in quotes"]),
    "python tag": (
        "run: !!python/object/apply:os.mkdir [ran]\n",
        ["run: !!python/object/apply:os.mkdir has no place in a recipe; only plain values are read"],
    ),
    "python name": (
        "name: !!python/name:os.system\n",
        ["name: !!python/name:os.system has no place in a recipe; only plain values are read"],
    ),
    "tag that lies": ("seed: !!int x\n", ["seed: !!int has no place in a recipe; only plain values are read"]),
}


@pytest.mark.parametrize(("line", "problems"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_load_recipe_explains_a_bad_value(line: str, problems: list[str]) -> None:
    assert told(GOOD + line) == [f"r.yaml:6: {problem}" for problem in problems]
    assert not Path("ran").exists()


def test_load_recipe_explains_what_is_wrong_with_the_whole() -> None:
    methods = "    methods: [{name: logits, teacher: 1}]\n"
    assert told(GOOD + methods) == ["r.yaml:1: method logits: teacher 1 of 0, counted from 0"]


BAD_PLACES = {
    "key twice": (GOOD + "version: 2\n", ["r.yaml:6: version: given twice, first at r.yaml:1"]),
    "key twice in a list": (
        GOOD + "    epochs: 3\n",
        ["r.yaml:6: phases.0.epochs: given twice, first at r.yaml:5"],
    ),
    "version": (GOOD.replace("1", "2", 1), ["r.yaml:1: version: must be 1, not 2"]),
    "missing": (
        "version: 1\ndata:\n  root: a\n",
        [
            "r.yaml:1: student: required, but not given",
            "r.yaml:1: phases: required, but not given",
            "r.yaml:2: data.name: required, but not given",
        ],
    ),
    "half of a range": (
        GOOD.replace("name: digits", "name: digits, augment: {crop_scale: [0.5]}"),
        ["r.yaml:2: data.augment.crop_scale: entry 2 is missing"],
    ),
    "normalize of two lengths": (
        GOOD.replace("name: digits", "name: digits, normalize: {mean: [0.5, 0.5], std: [0.2]}"),
        ["r.yaml:2: data.normalize: mean and std differ in length: 2 and 1"],
    ),
    "phase that is wrong within, told once": (
        GOOD.replace("epochs: 2", "epochs: 0"),
        ["r.yaml:5: phases.0.epochs: must be at least 1, not 0"],
    ),
    "schedule backwards": (
        GOOD + "    methods:\n      - name: logits\n        schedule: {start: 0.5, end: 0.5}\n",
        ["r.yaml:8: phases.0.methods.0.schedule: start 0.5 is not before end 0.5"],
    ),
    "method twice": (
        GOOD + "    methods: [{name: logits}, {name: attention}, {name: logits}]\n",
        ["r.yaml:6: phases.0.methods: listed twice: logits"],
    ),
    "through an anchor": (
        GOOD.replace("- epochs: 2", "- &first {epochs: 0}\n  - {<<: *first, batch: 8}"),
        [
            "r.yaml:5: phases.0.epochs: must be at least 1, not 0",
            "r.yaml:6: phases.1.epochs: must be at least 1, not 0",
        ],
    ),
    "everything at once": (
        "version: 1\nversion: 1\ndata: {nam: digits}\nstudent: resnet8\n"
        "phases:\n  - epochs: 0\n    epocs: 3\nsead: 1\n",
        [
            "r.yaml:2: version: given twice, first at r.yaml:1",
            "r.yaml:3: data.nam: unknown key; did you mean 'name'?",
            'r.yaml:4: student: must be a section of `key: value` lines, not "resnet8"',
            "r.yaml:6: phases.0.epochs: must be at least 1, not 0",
            "r.yaml:7: phases.0.epocs: unknown key; did you mean 'epochs'?",
            "r.yaml:8: sead: unknown key; did you mean 'seed'?",
        ],
    ),
}


@pytest.mark.parametrize(("text", "problems"), BAD_PLACES.values(), ids=BAD_PLACES)
def test_load_recipe_names_the_line_of_each_problem(text: str, problems: list[str]) -> None:
    assert told(text) == problems


BAD_OVERRIDES = {
    "no value": ("seed", "--set seed: should read --set section.key=value"),
    "no key": ("=3", "--set =3: should read --set section.key=value"),
    "empty part": ("a..b=3", "--set a..b=3: should read --set section.key=value"),
    "typo": ("student.nme=a", "--set student.nme=a: student.nme: unknown key; did you mean 'name'?"),
    "wrong type": (
        "phases.0.epochs=ten",
        '--set phases.0.epochs=ten: phases.0.epochs: must be a whole number, not "ten"',
    ),
    "broken YAML": ("seed=[1", "--set seed=[1: seed: '[1' is not valid YAML"),
    "python tag": (
        "seed=!!python/name:os.system",
        "--set seed=!!python/name:os.system: seed: '!!python/name:os.system' is not valid YAML",
    ),
    "past the end": (
        "phases.1.epochs=3",
        "--set phases.1.epochs=3: phases.1.epochs: phases is a list of 1 entry, counted from 0; 1 is none of them",
    ),
    "name in a list": (
        "phases.first.epochs=3",
        "--set phases.first.epochs=3: phases.first.epochs: "
        "phases is a list of 1 entry, counted from 0; first is none of them",
    ),
    "inside a number": (
        "version.x=3",
        "--set version.x=3: version.x: version is a number, so nothing can be set in it",
    ),
}


@pytest.mark.parametrize(("text", "problem"), BAD_OVERRIDES.values(), ids=BAD_OVERRIDES)
def test_load_recipe_explains_a_bad_override(text: str, problem: str) -> None:
    assert told(None, text) == [problem]


def test_override_changes_what_was_written_and_adds_what_was_not() -> None:
    given = load_recipe(
        "r.yaml", ["phases.0.epochs=7", "run.threads=2", "phases.0.optimizer.lr=1e-3", "seed=0x10"]
    ).recipe
    assert (given.phases[0].epochs, given.run.threads, given.phases[0].optimizer.lr, given.seed) == (7, 2, 0.001, 16)


def test_override_mends_a_recipe_that_is_wrong() -> None:
    Path("r.yaml").write_text(GOOD + "seed: -4\n")
    assert load_recipe("r.yaml", ["seed=4"]).recipe.seed == 4


def test_plain_values_mean_what_they_look_like() -> None:
    options = "{rate: 1e-4, whole: 010, day: 2026-01-31, answer: no, ratio: 1:30, on: true}"
    Path("r.yaml").write_text(GOOD.replace("name: resnet8", f"name: resnet8, options: {options}"))
    assert load_recipe("r.yaml").recipe.student.options == {
        "rate": 0.0001,
        "whole": 10,
        "day": "2026-01-31",
        "answer": "no",
        "ratio": "1:30",
        "on": True,
    }


def test_anchors_and_merges_are_read() -> None:
    Path("r.yaml").write_text(
        GOOD.replace("- epochs: 2", "- &first {epochs: 2, batch: 8}\n  - {<<: *first, batch: 16}")
    )
    assert [(phase.epochs, phase.batch) for phase in load_recipe("r.yaml").recipe.phases] == [(2, 8), (2, 16)]


def test_recipe_takes_its_name_from_the_file_and_paths_from_its_folder(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "small.v2.yaml").write_text(GOOD)
    loaded = load_recipe("sub/small.v2.yaml")
    assert (loaded.recipe.name, loaded.folder) == ("small.v2", folder / "sub")


def test_preset_lies_below_the_recipes_own_export_section() -> None:
    Path("board.yaml").write_text("opset: 20\ncalibration: {images: 64, method: entropy}\n")
    Path("r.yaml").write_text(GOOD + "export: {preset: board.yaml, calibration: {images: 32}}\n")
    export = load_recipe("r.yaml").recipe.export
    assert (export.opset, export.calibration.images, export.calibration.method) == (20, 32, "entropy")
    assert load_recipe("r.yaml", ["export.opset=19"]).recipe.export.opset == 19


BAD_PRESETS = {
    "value": (
        "opset: 20\ncalibration:\n  images: 0\n",
        "board.yaml:3: export.calibration.images: must be at least 1, not 0",
    ),
    "key": ("opste: 20\n", "board.yaml:1: export.opste: unknown key; did you mean 'opset'?"),
    "key twice": ("opset: 20\nopset: 21\n", "board.yaml:2: opset: given twice, first at board.yaml:1"),
    "YAML": (
        "opset: ]\n",
        "board.yaml:1: not valid YAML: while parsing a block node, expected the node content, but found ']'",
    ),
    "empty": ("", "board.yaml:1: the file is empty"),
    "preset of a preset": ("preset: other\n", "board.yaml:1: preset: a preset cannot build on another"),
}


@pytest.mark.parametrize(("text", "problem"), BAD_PRESETS.values(), ids=BAD_PRESETS)
def test_broken_preset_is_told_at_its_own_line(text: str, problem: str) -> None:
    Path("board.yaml").write_text(text)
    assert told(GOOD + "export: {preset: board.yaml}\n") == [problem]


def test_missing_preset_is_told_at_the_recipes_line_beside_other_problems() -> None:
    first, second = told(GOOD + "export:\n  preset: nowhere\n  opset: 3\n")
    assert first.startswith("r.yaml:7: export.preset: no export preset 'nowhere'; ")
    assert second == "r.yaml:8: export.opset: must be at least 17, not 3"


def test_load_preset_reports_every_problem() -> None:
    Path("board.yaml").write_text("opset: 3\nbackned: trt\n")
    with pytest.raises(RecipeError) as caught:
        load_preset("board.yaml")
    assert str(caught.value) == (
        "2 problems in board.yaml\n"
        "  board.yaml:1: opset: must be at least 17, not 3\n"
        "  board.yaml:2: backned: unknown key; did you mean 'backend'?"
    )


def test_find_suggests_a_shipped_recipe_for_a_typo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdedge.core.load.shipped", lambda kind: {"quickstart": Path("x"), "resnet_dw": Path("y")})
    with pytest.raises(RecipeError) as caught:
        load_recipe("recipes/quikstart.yaml")
    assert str(caught.value) == "no recipe 'recipes/quikstart.yaml': did you mean 'quickstart'?\n  kdedge ls"


def test_unreadable_file_is_an_error(folder: Path) -> None:
    (folder / "r.yaml").unlink()
    with pytest.raises(RecipeError, match=r"no recipe 'r\.yaml'"):
        load_recipe("r.yaml")


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in shipped("export").values()])
def test_shipped_preset_loads(path: Path) -> None:
    assert load_preset(str(path)).preset is None


def schema_errors(schema: dict[str, Any], value: Any, definitions: dict[str, Any], path: str = "") -> list[str]:
    """What an editor would underline: unknown keys and missing ones."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    for choice in schema.get("anyOf", ()):
        if not schema_errors(choice, value, definitions, path):
            return []
    if isinstance(value, dict) and schema.get("properties"):
        wrong = [f"{path}.{key}" for key in value if key not in schema["properties"]]
        wrong += [f"{path}.{key}" for key in schema.get("required", ()) if key not in value]
        return wrong + [
            error
            for key, inner in value.items()
            if key in schema["properties"]
            for error in schema_errors(schema["properties"][key], inner, definitions, f"{path}.{key}")
        ]
    if isinstance(value, list):
        items = schema.get("items", {})
        return [error for inner in value for error in schema_errors(items, inner, definitions, f"{path}[]")]
    return []


def test_schema_describes_what_a_recipe_may_hold() -> None:
    schema = json.loads(json.dumps(Recipe.model_json_schema()))
    check = yaml.safe_load(GOOD + "gate: {budgets: [{metric: fp32/top1, min: 0.9}]}\n")
    assert schema_errors(schema, check, schema["$defs"]) == []
    check["phases"][0]["epocs"] = 3
    del check["student"]
    assert schema_errors(schema, check, schema["$defs"]) == [".student", ".phases[].epocs"]
    assert schema["$defs"]["Phase"]["properties"]["batch"]["description"] == "Images per device and step."
    assert schema["additionalProperties"] is False
