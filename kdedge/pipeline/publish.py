"""A gate's verdict where continuous integration shows it: GitHub Actions, whose environment says what it takes.

Elsewhere the files beside gate.json are what is taken: gate.md for a comment, gate.xml as JUnit.
"""

import os
from pathlib import Path

from kdedge.core import console
from kdedge.core.report import GateResult
from kdedge.gate.github import annotations, outputs
from kdedge.gate.render import markdown
from kdedge.pipeline.project import PAGE, Project

ANNOTATE, SUMMARY, OUTPUT = "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"


def publish(project: Project, result: GateResult, advisory: bool = False, name: str = "gate") -> None:
    """Annotations, the step's summary and its outputs: verdict, and the places of the run and of its files.

    Args:
        name: of the gate's files, without their suffixes.
    """
    if os.environ.get(ANNOTATE) == "true":
        for line in annotations(result, advisory):
            console.raw(line)
    append(SUMMARY, markdown(result))
    files = {"run": "", "json": f"{name}.json", "markdown": f"{name}.md", "junit": f"{name}.xml", "report": PAGE}
    places = {key: str(project.run / file) for key, file in files.items()}
    append(OUTPUT, outputs({"verdict": result.verdict, **places}))


def append(variable: str, text: str) -> None:
    """To the file that an environment variable names; what cannot be written there changes no verdict."""
    name = os.environ.get(variable)
    if not name:
        return
    try:
        with Path(name).open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        console.warn(f"{variable}: {error}")
