"""everything a run has recorded -> report.html"""

from datetime import UTC, datetime

from kdedge.core.rundir import write_text
from kdedge.distill.logs import read_rows
from kdedge.pipeline.gate import read_records, read_result
from kdedge.pipeline.project import GATE, PAGE, Project, plain
from kdedge.pipeline.summary import COLUMNS, summary_rows
from kdedge.report.html import ReportData, render


def run(project: Project) -> list[str]:
    """Write the page and say where it is."""
    training, export, profiles = read_records(project)
    logs = {name: f"{name}/log.csv" for name in ("teacher", "student", "baseline")}
    known = project.run.manifest.artifacts
    data = ReportData(
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
    )
    write_text(project.run / PAGE, render(data))
    return [PAGE]
