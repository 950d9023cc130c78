"""everything a run has recorded -> report.html, export/README.md"""

from datetime import UTC, datetime

from kdedge.core.exits import ExitsReport
from kdedge.core.rundir import read_record, write_text
from kdedge.distill.logs import read_rows
from kdedge.pipeline import recorded
from kdedge.pipeline.again import command_of, notes_on
from kdedge.pipeline.gate import read_records, read_result
from kdedge.pipeline.project import CARD, EXITS, GATE, PAGE, RECIPE, Project, SavedRecipe, control_folder, plain
from kdedge.pipeline.summary import columns, summary_rows
from kdedge.report import ablation
from kdedge.report.card import card
from kdedge.report.html import ReportData, render


def run(project: Project) -> list[str]:
    """Write the page and the model card."""
    data = gather(project)
    write_text(project.run / PAGE, render(data))
    write_text(project.run / CARD, card(data, project.recipe))
    return [PAGE, CARD]


def gather(project: Project) -> ReportData:
    run = project.run
    training, export, profiles = read_records(project)
    folders = {name: name for name in ("teacher", "student", "baseline")}
    folders |= {name: control_folder(name) for name in training.controls}
    logs = {name: f"{folder}/log.csv" for name, folder in folders.items()}
    known = run.manifest.artifacts
    devices, earlier = recorded.devices(project, export)
    return ReportData(
        title=project.recipe.name,
        recipe=plain(project.recipe),
        training=training,
        curves={name: read_rows(run / log) for name, log in logs.items() if log in known},
        export=export,
        profiles=sorted(profiles, key=lambda profile: list(export.onnx).index(profile.name)),
        gate=read_result(project) if (run / GATE).exists() else None,
        summary=(columns(training), summary_rows(training, export, profiles)),
        command=command_of(project),
        command_notes=notes_on(project, training.environment, read_record(run / RECIPE, SavedRecipe)),
        folder=run.path.name if run.path.is_absolute() else str(run.path),
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        exits=read_record(run / EXITS, ExitsReport) if project.exits() else None,
        asked=recorded.asked(project, training, export),
        layers=recorded.layers(project, export),
        against=recorded.against(project, export),
        devices=devices,
        earlier=earlier,
        ablation=ablation.read(run.path),
    )
