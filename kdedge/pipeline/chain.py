"""The commands of the pipeline in their order; one whose inputs are unchanged is skipped."""

import importlib
import json
from typing import Any

from kdedge.core import console
from kdedge.core.errors import KdedgeError, MissingTool, require
from kdedge.pipeline.project import EXPORT, GATE, PAGE, TRAINING, Project

COMMANDS = ("distill", "export", "profile", "gate", "report")
WITH_TORCH = ("distill", "export")


def perform(project: Project, command: str, *, again: bool = False) -> bool:
    """Run one command unless its result stands; says which.  Returns whether it ran.

    Args:
        again: run it even if nothing changed, as measuring commands do when typed alone.
    """
    key = key_of(project, command)
    if not again and project.run.fresh(command, key):
        console.say(f"{command}: unchanged")
        return False
    if command in WITH_TORCH:
        require("torch", "train", f"kdedge {command}")
    artifacts = importlib.import_module(f"kdedge.pipeline.{command}").run(project)
    project.run.record(command, key, artifacts)
    return True


def key_of(project: Project, command: str) -> str:
    """Raises RecipeError for a wrong name rather than what comes of it, such as no data set of that name."""
    try:
        return project.key(command)
    except KdedgeError as error:
        if command == COMMANDS[0] and not isinstance(error, MissingTool):
            require("torch", "train", f"kdedge {command}")
            importlib.import_module("kdedge.pipeline.names").check_names(project)
        raise


def perform_all(project: Project) -> None:
    """Everything from the recipe to the report; holds the run's lock."""
    with project.run.locked():
        project.save()
        for command in COMMANDS:
            perform(project, command)


def perform_one(project: Project, command: str, *, again: bool = False) -> bool:
    """One command by itself, its result as JSON where that is asked for; holds the run's lock."""
    with project.run.locked():
        if command == COMMANDS[0]:
            project.save()
        ran = perform(project, command, again=again)
        console.emit(result_of(project, command))
        return ran


def result_of(project: Project, command: str) -> Any:
    """What a command that has run found, as plain data."""
    if command == "report":
        return {"report": str(project.run / PAGE)}
    if command == "profile":
        return [json.loads((project.run / name).read_text(encoding="utf-8")) for name in project.profiles()]
    record = {"distill": TRAINING, "export": EXPORT, "gate": GATE}[command]
    return json.loads((project.run / record).read_text(encoding="utf-8"))
