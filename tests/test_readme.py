"""What a reader is shown is what works: commands, links, recipes and presets, all found by walking."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from kdedge.cli import app
from kdedge.core.load import find, load_preset, load_recipe, shipped
from kdedge.pipeline.listing import first_comment
from kdedge.pipeline.names import check_names
from kdedge.pipeline.project import open_project

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md"))),
]
RUNS_AT_ONCE = {"ls", "methods", "models", "layers", "doctor", "version", "cp"}
TAKES_A_RECIPE = {"run", "distill", "check"}
HEADER = ("Reproduces:", "Measured:", "Machine:", "Versions:", "Seeds:")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def commands(text: str) -> Iterator[str]:
    """The lines to type in a page's shell blocks; where a block shows a prompt, only the lines behind one."""
    for kind, block in re.findall(r"^```(bash|sh|shell|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        lines = [line.strip() for line in block.replace("\\\n", " ").splitlines()]
        prompted = [line[2:] for line in lines if line.startswith("$ ")]
        for line in prompted if prompted or kind == "console" else lines:
            if command := " ".join(shlex.split(line, comments=True)):
                yield command


SHOWN = sorted({command for page in PAGES for command in commands((ROOT / page).read_text(encoding="utf-8"))})


def test_commands_finds_what_is_to_be_typed() -> None:
    page = "text\n```bash\nmake a   # why\n\nb \\\n  --c\n```\n```console\n$ d e\nits output\n```\n```yaml\nf: 1\n```\n"
    assert list(commands(page)) == ["make a", "b --c", "d e"]


def test_readme_shows_the_two_commands() -> None:
    assert {"make quickstart", "make test"} <= set(SHOWN)


@pytest.mark.parametrize("command", SHOWN)
def test_shown_command_is_not_stale(command: str, tmp_path: Path) -> None:
    tool, *arguments = [word for word in command.split() if not re.match(r"[A-Z_]+=", word)]
    tool = Path(tool).name if tool.startswith(".venv/") else tool
    if tool == "kdedge":
        check_kdedge(arguments, tmp_path)
    elif tool == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif tool == "docker":
        stages = re.findall(r"^FROM .* AS (\w+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
        image = next((word for word in arguments if word.startswith("kdedge:")), "kdedge:").partition(":")[2]
        assert image in stages
    elif tool in ("pip", "python", "python3"):
        check_python(arguments)
    elif tool not in ("git", "cd", "pre-commit"):
        assert (ROOT / tool).is_file()


def check_kdedge(arguments: list[str], folder: Path) -> None:
    """Parse the line as the command line does; run what is over at once."""
    group = typer.main.get_command(app)
    name, *rest = arguments
    if name == "--help":
        return
    command = group.commands[name]  # type: ignore[attr-defined]
    context = command.make_context(name, list(rest)) if "--help" not in rest else None
    if name in TAKES_A_RECIPE and context and context.params.get("recipe"):
        recipe = context.params["recipe"]
        assert (ROOT / recipe).is_file() or find("recipes", recipe), f"no recipe {recipe}"
    for word in rest:
        assert not word.startswith(("recipes/", "export/")) or (ROOT / word).is_file(), word
    (folder / "net.py").write_text(own_network())
    elsewhere = any(word.startswith("ssh://") for word in rest)
    if (name in RUNS_AT_ONCE and not elsewhere) or "--schema" in rest or "--help" in rest:
        line = [sys.executable, "-m", "kdedge.cli", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        result = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr


def own_network() -> str:
    """The Python file that the README shows."""
    shown = re.search(r"^```python\n(# net\.py\n.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert shown
    return shown[1]


def check_python(arguments: list[str]) -> None:
    for word in arguments:
        for extra in re.findall(r"\[([\w,-]+)\]", word):
            assert set(extra.split(",")) <= set(PROJECT["optional-dependencies"])
        if word.endswith((".py", ".txt")):
            assert (ROOT / word).is_file()


def slug(heading: str) -> str:
    """The anchor of a heading on the usual hosts."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    anchors = {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text):
        path, _, anchor = target.partition("#")
        if not re.match(r"\w+:", target):
            assert ((ROOT / page).parent / path).exists(), f"{page}: {target}"
            assert path or anchor in anchors, f"{page}: no heading {anchor}"


@pytest.mark.parametrize("name", ["quickstart", "resnet_dw"])
def test_named_recipe_ships(name: str) -> None:
    assert name in shipped("recipes")


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").rglob("*")), ids=lambda path: path.name)
def test_recipe_loads_and_says_what_was_measured(path: Path, tmp_path: Path) -> None:
    check_names(open_project(load_recipe(str(path)), tmp_path))
    header = re.match(r"(#.*\n)+", path.read_text(encoding="utf-8"))
    assert header
    assert [word for word in HEADER if f"# {word} " not in header.group()] == []
    assert re.search(r"# Measured: .*?\d+\.\d\d", header.group(), re.DOTALL), "no figure"
    assert first_comment(path).endswith(".")


@pytest.mark.parametrize("path", sorted((ROOT / "export").rglob("*")), ids=lambda path: path.name)
def test_preset_loads_and_says_what_it_is_for(path: Path) -> None:
    assert load_preset(str(path)).preset is None
    assert first_comment(path)
