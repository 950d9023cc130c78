"""What `kdedge run` and `kdedge gate` add around the commands: the summary at the end, and the exit code."""

from collections.abc import Sequence

from kdedge.core import console
from kdedge.core.errors import KdedgeError
from kdedge.core.load import load_recipe
from kdedge.gate.baseline import ACCEPT
from kdedge.gate.rules import exit_code
from kdedge.pipeline.chain import perform_all, perform_one
from kdedge.pipeline.gate import read_records, read_result, update_baseline
from kdedge.pipeline.project import PAGE, Project, open_project
from kdedge.pipeline.publish import publish
from kdedge.pipeline.show import show_gate
from kdedge.pipeline.summary import columns, summary_rows


def run_recipe(recipe: str, changes: Sequence[str], advisory: bool = False) -> int:
    """Run the whole chain; returns the gate's exit code."""
    project = open_project(load_recipe(recipe, changes))
    console.say(f"{recipe} -> {project.run.path}")
    perform_all(project)
    records, result = read_records(project), read_result(project)
    titles, table = columns(records[0]), summary_rows(*records)
    console.show_table(project.recipe.name, titles, table)
    if result.verdict != "pass":
        show_gate(result)
    page = (project.run / PAGE).absolute()
    console.show_text(f"gate: {result.verdict}\nreport: {page}")
    rows = [dict(zip(titles, row, strict=True)) for row in table]
    console.emit({"run": str(project.run.path), "summary": rows, "gate": result.verdict, "report": str(page)})
    publish(project, result, advisory)
    return exit_code(result, advisory)


def decide_gate(project: Project, update: bool, reason: str, advisory: bool = False) -> int:
    """Decide on a run, or take it as the new baseline; returns the exit code."""
    if update:
        path = project.baseline()
        if path is None or not reason:
            missing = "--reason is not given" if path else "no baseline file is named"
            raise KdedgeError("--update", missing, ACCEPT)
        update_baseline(project, path, reason)
        return 0
    perform_one(project, "gate", again=True)
    result = read_result(project)
    publish(project, result, advisory)
    return exit_code(result, advisory)
