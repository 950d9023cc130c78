"""The commands of the pipeline in their order; one whose inputs are unchanged is skipped."""

import importlib

from kdedge.core import console
from kdedge.pipeline.project import Project

COMMANDS = ("distill", "export", "profile", "gate", "report")


def perform(project: Project, command: str, *, again: bool = False) -> bool:
    """Run one command unless its result stands; says which.  Returns whether it ran.

    Args:
        again: run it even if nothing changed, as measuring commands do when typed alone.
    """
    key = project.key(command)
    if not again and project.run.fresh(command, key):
        console.say(f"{command}: unchanged")
        return False
    artifacts = importlib.import_module(f"kdedge.pipeline.{command}").run(project)
    project.run.record(command, key, artifacts)
    return True


def perform_all(project: Project) -> None:
    """Everything from the recipe to the report; holds the run's lock."""
    with project.run.locked():
        project.save()
        for command in COMMANDS:
            perform(project, command)


def perform_one(project: Project, command: str, *, again: bool = False) -> bool:
    """One command by itself; holds the run's lock."""
    with project.run.locked():
        if command == COMMANDS[0]:
            project.save()
        return perform(project, command, again=again)
