"""What comes of a recipe whose terms are taken apart: the lines, their phases, the trainings, the table."""

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from forked import Forkserver
from typer.testing import CliRunner

from kdedge.bench.ablation import Asked, ablate, opened, plan
from kdedge.bench.terms import Part, find_parts, without
from kdedge.cli import app
from kdedge.core.errors import KdedgeError
from kdedge.core.load import load_recipe
from kdedge.core.recipe import Recipe
from kdedge.pipeline.project import Project, open_project
from kdedge.report import ablation as report
from kdedge.report.ablation import Ablation, AblationTeacher, Trained
from kdedge.report.svg import standalone

BASE = """\
version: 1
data: {name: digits, train_limit: 160, validation: 0.25, augment: {crop_padding: 1, views: 2}}
student: {name: resnet8, options: {conv: depthwise}}
teachers:
  - {name: resnet8, training: {epochs: 2, batch: 32, optimizer: {lr: 0.1}}}
phases:
  - {epochs: 2, batch: 32, optimizer: {lr: 0.1}, methods: METHODS}
run: {accelerator: cpu, threads: 1}
"""


def project(folder: Path, methods: str, *changes: str) -> Project:
    (folder / "base.yaml").write_text(BASE.replace("METHODS", methods))
    return open_project(load_recipe(str(folder / "base.yaml"), changes), folder / "runs")


def labels_of(folder: Path, methods: str, by: Any = "term") -> list[str]:
    return [part.label for part in find_parts(project(folder, methods), by)]


def test_terms_of_a_composite_method_are_found_by_its_kinds(tmp_path: Path) -> None:
    assert labels_of(tmp_path, "[{name: mkd}]") == [
        "mkd/soft", "mkd/relation/*", "mkd/attention/*", "mkd/guide/*", "mkd/explore/*",
    ]  # fmt: skip


def test_method_of_one_kind_of_terms_is_one_part(tmp_path: Path) -> None:
    """The exits of self_distill learn from labels and from the deepest classifier."""
    assert labels_of(tmp_path, "[{name: attention}, {name: self_distill}]") == [
        "attention", "self_distill/*/labels", "self_distill/*/logits",
    ]  # fmt: skip


def test_parts_by_method_are_the_entries_of_the_list(tmp_path: Path) -> None:
    assert labels_of(tmp_path, "[{name: logits}, {name: self_distill}]", "method") == ["logits", "self_distill"]


def test_term_of_weight_zero_and_term_that_does_not_reach_the_student_are_no_parts(tmp_path: Path) -> None:
    """The labels of the teacher's heads train these heads alone."""
    methods = "[{name: mskd_ssr}, {name: mkd, terms: {'[sr]*': {weight: 0}, guide/*: {weight: 0}}}, "
    assert labels_of(tmp_path, methods + "{name: logits, weight: 0}]") == [
        "mskd_ssr/*/labels", "mskd_ssr/*/response", "mskd_ssr/*/feature", "mskd_ssr/*/review",
        "mkd/attention/*", "mkd/explore/*",
    ]  # fmt: skip


def part(label: str, *names: str) -> Part:
    """Of a method in a recipe's only phase."""
    return Part(label.partition("/")[0], "", (frozenset(names),), label)


A, B, C = part("two/a", "two/a/stage1", "two/a/stage2"), part("two/b", "two/b"), part("one", "one/kd")


def told(parts: list[Part], mode: Any) -> list[tuple[str, str, str, list[str]]]:
    return [(row.label, row.term, row.beside, [each.label for each in row.dropped]) for row in plan(parts, mode)]


def test_lines_of_three_terms() -> None:
    added = [
        ("labels", "", "", ["two/a", "two/b", "one"]),
        ("+ two/a", "two/a", "labels", ["two/b", "one"]),
        ("+ two/b", "two/b", "+ two/a", ["one"]),
        ("whole", "one", "+ two/b", []),
    ]
    left_out = [
        ("- two/a", "two/a", "whole", ["two/a"]),
        ("- two/b", "two/b", "whole", ["two/b"]),
        ("- one", "one", "whole", ["one"]),
    ]
    assert told([A, B, C], "both") == added + left_out
    assert told([A, B, C], "add") == added
    assert told([A, B, C], "drop") == [added[0], ("whole", "", "", []), *left_out]


def test_lines_of_a_single_term_are_two() -> None:
    lines = [("labels", "", "", ["one"]), ("whole", "one", "labels", [])]
    assert told([C], "both") == told([C], "add") == told([C], "drop") == lines


def recipe(*phases: dict[str, Any]) -> Recipe:
    given = {"version": 1, "name": "r", "data": {"name": "digits"}, "student": {"name": "resnet8"}}
    return Recipe.model_validate({**given, "phases": [{"batch": 8, **phase} for phase in phases]})


TWO = {"name": "two", "terms": {"b": {"weight": 3}, "a/*": {"weight": 2}}}


def test_term_left_out_has_weight_zero_and_a_method_without_terms_goes() -> None:
    whole = recipe({"epochs": 3, "methods": [TWO, {"name": "one"}], "cross_entropy": {"weight": 0.5}})
    [phase] = without(whole, [A, C], [A, B, C])
    [use] = phase.methods
    assert {pattern: term.weight for pattern, term in use.terms.items()} == {
        "a/stage1": 0, "a/stage2": 0, "b": 3, "a/*": 2,
    }  # fmt: skip
    assert next(iter(use.terms)) == "a/stage1"  # the first pattern that fits counts
    assert phase.cross_entropy.weight == 0.5
    [alone] = without(whole, [A, B], [A, B, C])
    assert [use.name for use in alone.methods] == ["one"]


def test_without_any_term_the_labels_have_their_whole_weight() -> None:
    whole = recipe({"epochs": 3, "methods": [TWO], "cross_entropy": {"weight": 0.5, "label_smoothing": 0.1}})
    [phase] = without(whole, [A, B], [A, B])
    assert (phase.methods, phase.epochs) == ((), 3)
    assert (phase.cross_entropy.weight, phase.cross_entropy.label_smoothing) == (1, 0.1)


def phased(label: str, *names: set[str]) -> Part:
    return Part(label, "", tuple(map(frozenset, names)), label)


def test_phase_left_with_nothing_to_learn_from_learns_from_the_labels() -> None:
    first = {"epochs": 2, "methods": [{"name": "hint"}], "freeze": ["linear"], "cross_entropy": {"weight": 0}}
    whole = recipe(first, {"epochs": 5, "methods": [{"name": "one"}]})
    hint, one = phased("hint", {"hint/a"}, set()), phased("one", set(), {"one/kd"})
    phases = without(whole, [hint], [hint, one])
    assert [(phase.epochs, phase.cross_entropy.weight, phase.freeze) for phase in phases] == [(2, 1, ()), (5, 1, ())]
    assert without(whole, [], [hint, one]) == whole.phases


def test_preparing_phase_stays_as_long_as_its_method_does() -> None:
    frozen = {"epochs": 4, "freeze": ["*"], "cross_entropy": {"weight": 0}, "methods": [{"name": "two"}]}
    whole = recipe(frozen, {"epochs": 6, "methods": [{"name": "two"}, {"name": "one"}]})
    two, one = phased("two", set(), {"two/a"}), phased("one", set(), {"one/kd"})
    assert [phase.epochs for phase in without(whole, [one], [two, one])] == [4, 6]
    assert [phase.epochs for phase in without(whole, [two], [two, one])] == [6]
    assert [phase.epochs for phase in without(whole, [two, one], [two, one])] == [6]


def test_recipe_without_terms_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    project(tmp_path, "[]")
    with pytest.raises(KdedgeError, match="base has nothing to leave out: its loss has no terms beside the labels"):
        ablate(Asked(str(tmp_path / "base.yaml"), out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_wrong_option_is_told_by_its_line(tmp_path: Path) -> None:
    project(tmp_path, "[{name: logits, options: {heat: 4}}]")
    with pytest.raises(KdedgeError, match=r"base.yaml:7"):
        ablate(Asked(str(tmp_path / "base.yaml"), out=tmp_path / "out"))


def test_epochs_are_shared_out_to_the_phases(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE.replace("METHODS", "[{name: logits}]") + "name: base\n")
    phase = '{"epochs": 6, "batch": 32, "methods": [{"name": "logits"}]}'
    asked = Asked(str(tmp_path / "base.yaml"), epochs=4, changes=(f"phases=[{phase.replace('6', '18')}, {phase}]",))
    assert [phase.epochs for phase in opened(asked).recipe.phases] == [3, 1]


@dataclass(frozen=True)
class Taken:
    """A run whose terms were taken apart, twice."""

    run: Path
    made: Ablation
    trained: dict[str, int]
    """Modification times of the weights, by path."""
    again: dict[str, int]
    """The same after the second time."""


@pytest.fixture(scope="module")
def taken(forkserver: Forkserver, tmp_path_factory: pytest.TempPathFactory) -> Taken:
    folder = tmp_path_factory.mktemp("ablation")
    forkserver.run(["version"], folder)  # so that the processes start from what is imported there
    one = project(folder, "[{name: logits}, {name: attention}]")
    one.save()
    asked, times = Asked(str(one.run.path), seeds=1, epochs=1, jobs=2), []
    for _ in range(2):
        ablate(asked)
        times.append({str(path): path.stat().st_mtime_ns for path in one.run.path.rglob("weights.safetensors")})
    made = report.read(one.run.path)
    assert made
    return Taken(one.run.path, made, *times)


def test_every_line_is_trained_and_recorded(taken: Taken) -> None:
    labels = ["labels", "+ logits", "whole", "- logits", "- attention"]
    assert [row.label for row in taken.made.trained] == labels
    assert [sorted(row.accuracy) for row in taken.made.trained] == [[0]] * 5
    assert (taken.made.epochs, taken.made.train_images, taken.made.test_images) == (1, 120, 360)
    assert (taken.made.failed, [each.name for each in taken.made.teachers]) == ([], ["resnet8"])


def test_the_same_training_is_done_once_and_never_again(taken: Taken) -> None:
    """Attention left out is logits added: four students, and the teacher's copy."""
    assert len(taken.trained) == 4 + 1
    assert taken.again == taken.trained
    assert taken.made.trained[1].accuracy == taken.made.trained[4].accuracy


def test_run_keeps_the_result(taken: Taken) -> None:
    names = {path.name for path in (taken.run / "ablation").iterdir()}
    assert {"ablation.json", "ablation.md", "ablation.svg"} <= names
    assert '"ablation/ablation.json"' in (taken.run / "manifest.json").read_text()
    assert str(taken.run) not in (taken.run / "ablation/ablation.json").read_text()


def test_recipe_of_a_run_is_not_changed(taken: Taken) -> None:
    with pytest.raises(KdedgeError, match="--set with a run"):
        opened(Asked(str(taken.run), changes=("seed=3",)))


def test_command_line_is_what_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Asked] = []
    monkeypatch.setattr("kdedge.bench.ablation.ablate", found.append)
    line = "bench ablation mkd --mode drop --by method --seeds 2 --epochs 5 --set seed=3 --jobs 2 --out here"
    result = CliRunner().invoke(app, [*line.split(), "--beside", "pkd, cwd"])
    assert result.exit_code == 0, result.output
    assert found == [Asked("mkd", "drop", "method", 2, 5, ("seed=3",), 2, Path("here"), ("pkd", "cwd"))]


def trained(label: str, role: Any, top1: tuple[float, ...], **more: Any) -> Trained:
    return Trained(label=label, role=role, accuracy=dict(enumerate(top1)), seconds=1.25, **{"extra_params": 0, **more})


@pytest.fixture
def made() -> Ablation:
    return Ablation(
        recipe="quick",
        student="resnet8",
        data="digits",
        teachers=[AblationTeacher(name="resnet20", accuracy=0.98, source="a.th")],
        seeds=[0, 1],
        epochs=7,
        train_images=120,
        test_images=360,
        trained=[
            trained("labels", "labels", (0.50, 0.60)),
            trained("+ soft", "added", (0.62, 0.64), term="soft", beside="labels"),
            trained("whole", "whole", (0.61, 0.61), term="guide", beside="+ soft", extra_params=1500),
            trained("- soft", "left out", (0.51, 0.59), term="soft", beside="whole", extra_params=1500),
            trained("- guide", "left out", (0.65,), term="guide", beside="whole"),
        ],
        failed=["- guide, seed 1: the loss is not finite"],
        settings={},
        environment={"python": "3.11"},
    )


def test_rows_by_hand(made: Ablation) -> None:
    """Deviations of two values are their distance over the root of 2."""
    rows = {row[0]: dict(zip(report.columns(made)[1:], row[1:], strict=True)) for row in report.rows(made)}
    assert [row["top-1"] for row in rows.values()] == [
        "55.00 ± 7.07", "63.00 ± 1.41", "61.00 ± 0.00", "55.00 ± 5.66", "65.00",
    ]  # fmt: skip
    assert [row["over the labels alone"] for row in rows.values()] == ["-", "+8.00", "+6.00", "+0.00", "+10.00"]
    assert [row["the term's part"] for row in rows.values()] == [
        "-",
        "+8.00 ± 5.66",  # 12 and 4
        "-2.00 ± 1.41",  # -1 and -3
        "+6.00 ± 5.66",  # 10 and 2
        "-4.00",  # of seed 0 alone
    ]
    assert [row["seeds"] for row in rows.values()] == ["2", "2", "2", "2", "1"]
    assert rows["whole"]["extra parameters"] == "1.5k"
    assert rows["whole"]["notes"] == (
        "above the labels alone, within the spread of the seeds; guide makes it worse"  # 11 and 1; -1 and -3
    )
    assert rows["- guide"]["notes"] == "guide makes it worse, by one seed"
    assert rows["+ soft"]["notes"] == "-"


def test_term_that_makes_it_worse_is_warned_of(made: Ablation) -> None:
    assert report.warnings(made) == [
        "with guide added it ends 2.00 points lower than by + soft",
        "without guide the student ends 4.00 points higher than the whole, by one seed",
        "- guide, seed 1: the loss is not finite",
    ]


def test_loss_within_the_spread_of_the_seeds_is_said_to_be_that(made: Ablation) -> None:
    shaky = trained("- soft", "left out", (0.70, 0.56), term="soft", beside="whole")  # 16 and 2 points more
    rows = [*made.trained[:2], trained("whole", "whole", (0.54, 0.54)), shaky]
    made = made.model_copy(update={"trained": rows, "failed": []})
    assert report.warnings(made) == [
        "whole ends 1.00 points below the student on the labels alone",
        "without soft the student ends 9.00 points higher than the whole, within the spread of the seeds",
    ]


def test_method_that_stands_beside_is_held_against_the_labels_alone(made: Ablation) -> None:
    rows = [
        *made.trained,
        trained("pkd", "beside", (0.59, 0.69)),
        trained("cwd", "beside", (0.52, 0.56)),
        trained("mgd", "beside", (0.57,)),
    ]
    made = made.model_copy(update={"trained": rows, "failed": []})
    found = {row[0]: dict(zip(report.columns(made)[1:], row[1:], strict=True)) for row in report.rows(made)}
    assert (found["pkd"]["over the labels alone"], found["pkd"]["the term's part"], found["pkd"]["notes"]) == (
        "+9.00", "-", "-",
    )  # fmt: skip
    assert found["cwd"]["notes"] == "below the student that was not distilled, within the spread of the seeds"
    assert found["mgd"]["notes"] == "above the labels alone, by one seed"
    assert report.warnings(made)[-1] == "cwd ends 1.00 points below the student on the labels alone"


def test_record_of_before_there_were_detectors_is_read(made: Ablation) -> None:
    old = made.model_dump(mode="json", exclude={"task"})
    for row in (*old["trained"], *old["teachers"]):
        row["top1"] = row.pop("accuracy")
    assert Ablation.model_validate(old) == made


def test_markdown_holds_table_warnings_and_how_it_was_trained(made: Ablation) -> None:
    text = report.markdown(made)
    assert text.count("\n| ") == 2 + 5
    for said in ("120 training images, 7 epochs, seeds 0, 1", "Teacher: resnet20, 98.00 % top-1 (a.th)", "![top-1]"):
        assert said in text
    assert text.index("Teacher:") < text.index("| trained by |") < text.index("- with guide added")


def test_figure_names_every_line(made: Ablation) -> None:
    shown = "".join(ET.fromstring(standalone(report.figure(made))).itertext())
    assert all(row.label in shown for row in made.trained)


def test_run_whose_terms_were_not_taken_apart_has_no_record(tmp_path: Path) -> None:
    assert report.read(tmp_path) is None
