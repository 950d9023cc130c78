"""The GitHub Action and the examples of continuous integration: their scripts are run as a runner would run them."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from mini import Finished

from kdedge.cli import app
from kdedge.core.load import find
from kdedge.gate.render import MARKER, MARKER_AGAINST

ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS = {step.get("name", "Python"): step for step in ACTION["runs"]["steps"]}
COMMENT = STEPS["Comment"]["with"]["script"]
EXAMPLES = sorted((ROOT / "examples/ci").glob("*.yml"))
WORKFLOWS = [path for path in EXAMPLES if path.name.startswith("github-")]


def scripts(value: Any) -> list[str]:
    """Every script in a workflow or an action."""
    if isinstance(value, list):
        return [found for inner in value for found in scripts(inner)]
    if not isinstance(value, dict):
        return []
    own = [value["run"]] if isinstance(value.get("run"), str) else []
    inputs = value.get("with", {})
    own += [inputs["script"]] if "script" in inputs else []
    return own + [found for key, inner in value.items() if key != "with" for found in scripts(inner)]


def shell(path: Path) -> list[str]:
    """Every script that a shell gets, GitLab's lines included."""
    content = yaml.safe_load(path.read_text())
    lines = content.get("kdedge", {}).get("script", [])
    return [script for script in [*scripts(content), *lines] if script != COMMENT]


@pytest.mark.parametrize("path", [ROOT / "action.yml", *WORKFLOWS], ids=lambda path: path.name)
def test_no_script_has_an_expression_in_it(path: Path) -> None:
    found = scripts(yaml.safe_load(path.read_text()))
    assert [script for script in found if "${{" in script] == []


WITH_SHELL = [path for path in (ROOT / "action.yml", *EXAMPLES) if shell(path)]


def test_shell_is_found_where_there_is_some() -> None:
    assert [path.name for path in WITH_SHELL] == ["action.yml", "github-jetson.yml", "gitlab-ci.yml"]


@pytest.mark.parametrize("path", WITH_SHELL, ids=lambda path: path.name)
def test_shell_parses(path: Path) -> None:
    for script in shell(path):
        done = subprocess.run(["bash", "-n", "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_action_gives_what_the_gate_writes() -> None:
    given = {re.search(r"outputs\.(\w+)", output["value"])[1] for output in ACTION["outputs"].values()}  # type: ignore[index]
    assert given == set(ACTION["outputs"]) == {"verdict", "run", "json", "markdown", "junit", "report"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_example_gives_the_action_inputs_that_it_has(path: Path) -> None:
    jobs = yaml.safe_load(path.read_text())["jobs"].values()
    given = [step["with"] for job in jobs for step in job["steps"] if "/kdedge@" in step.get("uses", "")]
    assert given
    assert {name for inputs in given for name in inputs} <= set(ACTION["inputs"])


@pytest.mark.parametrize("path", WITH_SHELL, ids=lambda path: path.name)
def test_commands_are_there(path: Path) -> None:
    """Each line is parsed as the command line does it, with a shell's variables as they stand."""
    group = typer.main.get_command(app)
    lines = [line for script in shell(path) for line in re.findall(r'(?:^|[\s/])kdedge"? (.*)', script)]
    assert lines
    for line in lines:
        name, *words = shlex.split(line.replace('"${options[@]}"', ""))
        group.commands[name].make_context(name, words)  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_recipes_and_presets_are_there(path: Path) -> None:
    text = path.read_text()
    for recipe in re.findall(r"recipes/\w+\.yaml", text):
        assert find("recipes", recipe)
    for preset in re.findall(r"--preset (\w+)", text):
        assert find("export", preset)


GITHUB = {
    "github.event_name", "github.event.pull_request.base.sha", "github.event.pull_request.head.repo.full_name",
    "github.job", "github.ref", "github.repository", "github.sha", "github.token", "github.workflow",
}  # fmt: skip


def expressions(value: Any) -> list[str]:
    """Every name in an expression or a condition, such as steps.gate.outputs.run."""
    if isinstance(value, list):
        return [found for inner in value for found in expressions(inner)]
    if isinstance(value, dict):
        conditions = names_in(value["if"]) if "if" in value else []
        return [*conditions, *(found for inner in value.values() for found in expressions(inner))]
    return [name for inner in re.findall(r"\$\{\{(.*?)\}\}", str(value)) for name in names_in(inner)]


def names_in(expression: str) -> list[str]:
    return re.findall(r"\b[a-z]+(?:\.[\w-]+)+", re.sub(r"'[^']*'", "", expression))


def test_expressions_of_the_action_name_what_there_is() -> None:
    written = {f"steps.gate.outputs.{name}" for name in ACTION["outputs"]}
    inputs = {f"inputs.{name}" for name in ACTION["inputs"]}
    found = set(expressions(ACTION))
    assert found <= written | inputs | GITHUB
    assert inputs <= found, "an input that nothing reads"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_expressions_of_an_example_name_what_there_is(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    steps = [step for job in content["jobs"].values() for step in job["steps"]]
    ours = [step["id"] for step in steps if "id" in step and "/kdedge@" in step.get("uses", "")]
    written = {f"steps.{name}.outputs.{output}" for name in ours for output in ACTION["outputs"]}
    written |= {f"env.{name}" for name in re.findall(r'echo "(\w+)=.*GITHUB_ENV', path.read_text())}
    found = set(expressions(content))
    assert {name for name in found if not name.startswith("vars.")} <= written | GITHUB


@pytest.mark.parametrize("path", [ROOT / "action.yml", *WORKFLOWS], ids=lambda path: path.name)
def test_actions_of_others_are_pinned_to_a_commit(path: Path) -> None:
    used = re.findall(r"uses: (\S+)@(\S+)(.*)", path.read_text())
    assert used
    for name, revision, comment in used:
        if name == "OWNER/kdedge":
            assert revision == f"v{version('kdedge')}"
        else:
            assert re.fullmatch(r"[0-9a-f]{40}", revision), name
            assert re.search(r" # v\d+\.\d+\.\d+$", comment), name


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_example_asks_for_the_least_permissions(path: Path) -> None:
    assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read", "pull-requests": "write"}


@pytest.fixture
def gate_step(copied: Finished, tmp_path: Path) -> Callable[..., tuple[int, str, Path]]:
    """`gate_step(RUN=...)` -> exit code, what was said, the runner's folder."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "kdedge").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kdedge.cli "$@"\n')
    (tools / "kdedge").chmod(0o755)

    def step(**inputs: str) -> tuple[int, str, Path]:
        named = dict.fromkeys(STEPS["Gate"]["env"], "")
        runner = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "GITHUB_ACTIONS": "true",
            "GITHUB_OUTPUT": str(tmp_path / "output"),
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        }
        result = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", STEPS["Gate"]["run"]],
            cwd=copied.folder,
            env={**os.environ, **runner, **named, **inputs},
            capture_output=True,
            text=True,
            check=False,
        )
        return result.returncode, result.stdout + result.stderr, tmp_path

    return step


def given(folder: Path) -> dict[str, str]:
    """The outputs of a step."""
    return dict(re.findall(r"^(\w+)<<kdedge-\w+\n(.*)\n", (folder / "output").read_text(), re.MULTILINE))


def set_budgets(finished: Finished, *budgets: dict[str, Any]) -> str:
    saved = finished.json("recipe.json")
    saved["recipe"]["gate"]["budgets"] = budgets
    (finished.run / "recipe.json").write_text(json.dumps(saved))
    return f"runs/{finished.run.name}"


def test_gate_step_passes_and_tells_where_its_files_are(gate_step, copied: Finished) -> None:
    run = f"runs/{copied.run.name}"
    code, said, folder = gate_step(RUN=run)
    assert code == 0
    assert "::error" not in said
    outputs = given(folder)
    assert outputs["verdict"] == "pass"
    assert outputs["markdown"] == f"{run}/gate.md"
    assert all((copied.folder / path).exists() for name, path in outputs.items() if name != "verdict")
    assert (folder / "summary").read_text() == (copied.run / "gate.md").read_text()


@pytest.mark.parametrize(("advisory", "code", "level"), [("false", 1, "error"), ("true", 0, "warning")])
def test_gate_step_fails_unless_it_only_advises(
    gate_step, copied: Finished, advisory: str, code: int, level: str
) -> None:
    run = set_budgets(copied, {"metric": "student/params", "max": 10})
    ended, said, folder = gate_step(RUN=run, ADVISORY=advisory)
    assert ended == code
    assert f"\n::{level} title=kdedge student/params::regression: 14.15k, missed by " in said
    assert given(folder)["verdict"] == copied.json("gate.json")["verdict"] == "regression"


def test_gate_step_runs_a_recipe_with_its_changes(gate_step, copied: Finished) -> None:
    code, said, folder = gate_step(RECIPE="mini.yaml", CHANGES="gate.budgets=[]\ncard.intended_use=a test, no more\n")
    assert code == 0, said
    assert copied.json("recipe.json")["recipe"]["card"]["intended_use"] == "a test, no more"
    assert "## Intended use\n\na test, no more\n" in (copied.run / "export/README.md").read_text()
    assert given(folder)["report"] == f"runs/{copied.run.name}/report.html"


def test_gate_step_measures_against_another_model(gate_step, copied: Finished) -> None:
    code, said, _ = gate_step(RUN=f"runs/{copied.run.name}", AGAINST="missing.onnx", TARGET="local")
    assert code == 2
    assert "missing.onnx" in said


def test_keep_step_keeps_the_run_under_the_commit(gate_step, copied: Finished, tmp_path: Path) -> None:
    person = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    for line in (["init", "--quiet"], ["add", "mini.yaml"], [*person, "commit", "--quiet", "-m", "first"]):
        subprocess.run(["git", *line], cwd=copied.folder, check=True)
    named = {"PATH": f"{tmp_path}/tools:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    named |= {"RUN": f"runs/{copied.run.name}", "KDEDGE_CACHE": str(tmp_path / "cache")}
    script = ["bash", "-eo", "pipefail", "-c", STEPS["Keep"]["run"]]
    subprocess.run(script, cwd=copied.folder, env={**os.environ, **named}, check=True)
    assert len(list((tmp_path / "cache/kept/mini").glob("*.zip"))) == 1


def test_gate_step_takes_odd_names_as_names(gate_step, copied: Finished) -> None:
    code, said, _ = gate_step(RUN='"; touch hacked; $(touch hacked)')
    assert code == 2
    assert "is not a run" in said
    assert not (copied.folder / "hacked").exists()


def test_gate_step_without_recipe_and_run_says_what_it_needs(gate_step) -> None:
    assert gate_step()[:2] == (2, "::error title=kdedge::give the action a recipe, or the folder of a run\n")


POST = """
const [folder, script, comments, status] = process.argv.slice(1)
const done = []
const record = (what) => async (given) => {
  if (Number(status)) throw Object.assign(new Error('Resource not accessible'), { status: Number(status) })
  done.push([what, given])
}
const issues = { listComments: 'list', createComment: record('create'), updateComment: record('update') }
const github = { rest: { issues }, paginate: async () => JSON.parse(comments) }
const context = { repo: { owner: 'o', repo: 'r' }, payload: { pull_request: { number: 7 } } }
const core = { warning: (text) => done.push(['warning', text]) }
const run = Object.getPrototypeOf(async () => {}).constructor('github', 'context', 'core', 'require', script)
run(github, context, core, require).then(() => console.log(JSON.stringify(done)))
"""


@pytest.fixture
def post(tmp_path: Path) -> Callable[..., Any]:
    """`post(comments)` -> what the action's script did on a pull request that has these."""
    node = shutil.which("node")
    if not node:
        pytest.skip("install node to run the action's script")

    def do(
        comments: list[dict[str, Any]], key: str = "ci/gate", status: int = 0, text: str = f"{MARKER}\nnew\n"
    ) -> Any:
        (tmp_path / "gate.md").write_text(text)
        arguments = ["-e", POST, str(tmp_path), COMMENT, json.dumps(comments), str(status)]
        named = {"FILE": str(tmp_path / "gate.md"), "KEY": key}
        result = subprocess.run(
            [node, *arguments], env={**os.environ, **named}, capture_output=True, text=True, check=True
        )
        return json.loads(result.stdout)

    return do


OTHERS = [
    {"id": 1, "user": {"type": "User"}, "body": "<!-- kdedge gate ci/gate -->\nof a person"},
    {"id": 2, "user": {"type": "Bot"}, "body": "<!-- kdedge gate ci/board -->\nof another job"},
    {"id": 3, "user": None, "body": None},
]


def test_comment_is_made_once_and_then_updated(post) -> None:
    (first,) = post(OTHERS)
    body = "<!-- kdedge gate ci/gate -->\nnew\n"
    assert first == ["create", {"owner": "o", "repo": "r", "issue_number": 7, "body": body}]
    before = {"id": 4, "user": {"type": "Bot"}, "body": "<!-- kdedge gate ci/gate -->\nold"}
    assert post([*OTHERS, before]) == [["update", {"owner": "o", "repo": "r", "comment_id": 4, "body": body}]]


def test_comment_of_another_model_and_that_of_the_budgets_leave_each_other_alone(post) -> None:
    budgets = {"id": 4, "user": {"type": "Bot"}, "body": "<!-- kdedge gate ci/gate -->\nof the budgets"}
    against = {"id": 5, "user": {"type": "Bot"}, "body": "<!-- kdedge against ci/gate -->\nof the base branch"}
    assert post([budgets], text=f"{MARKER_AGAINST}\nnew\n")[0][0] == "create"
    ((done, made),) = post([budgets, against], text=f"{MARKER_AGAINST}\nnew\n")
    assert (done, made["comment_id"], made["body"]) == ("update", 5, "<!-- kdedge against ci/gate -->\nnew\n")
    assert post([against, budgets])[0][1]["comment_id"] == 4


def test_comment_has_a_marker_whatever_the_key_and_a_length_that_is_taken(post) -> None:
    ((_, made),) = post([], key="a --> <b>&", text=f"{MARKER}\n{'x' * 70000}")
    assert made["body"].startswith("<!-- kdedge gate a - b -->\nxxx")
    assert len(made["body"]) == 65000


def test_comment_that_may_not_be_written_is_a_warning(post) -> None:
    assert post([], status=403) == [["warning", "kdedge: no comment on the pull request: Resource not accessible"]]
