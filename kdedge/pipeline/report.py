"""everything a run has recorded -> report.html, export/README.md"""

from datetime import UTC, datetime

from kdedge.core.exits import ExitsReport
from kdedge.core.rundir import read_record, write_text
from kdedge.distill.logs import read_rows
from kdedge.pipeline.gate import read_records, read_result
from kdedge.pipeline.project import CARD, EXITS, GATE, PAGE, Project, control_folder, plain
from kdedge.pipeline.summary import COLUMNS, summary_rows
from kdedge.report.card import card
from kdedge.report.html import ReportData, render


def run(project: Project) -> list[str]:
    """Write the page and the model card."""
    data = gather(project)
    write_text(project.run / PAGE, render(data))
    write_text(project.run / CARD, card(data, project.recipe))
    return [PAGE, CARD]


def gather(project: Project) -> ReportData:
    training, export, profiles = read_records(project)
    folders = {name: name for name in ("teacher", "student", "baseline")}
    folders |= {name: control_folder(name) for name in training.controls}
    logs = {name: f"{folder}/log.csv" for name, folder in folders.items()}
    known = project.run.manifest.artifacts
    return ReportData(
        title=project.recipe.name,
        recipe=plain(project.recipe),
        training=training,
        curves={name: read_rows(project.run / log) for name, log in logs.items() if log in known},
        export=export,
        profiles=profiles,
        gate=read_result(project) if (project.run / GATE).exists() else None,
        summary=(COLUMNS, summary_rows(training, export, profiles)),
        command=f"kdedge run {project.source.name}",
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        exits=read_record(project.run / EXITS, ExitsReport) if project.exits() else None,
    )
