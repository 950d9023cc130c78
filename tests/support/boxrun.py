"""A detector's run that nobody has trained: what `kdedge distill` would have left, for the commands that come next."""

from pathlib import Path

import torch
from boxed import write_voc
from detectors_alive import enliven

from kdedge.core.load import load_recipe
from kdedge.core.report import TrainingReport
from kdedge.core.rundir import write_json
from kdedge.data.build import build_data
from kdedge.models.weights import save_weights
from kdedge.pipeline.networks import build, describe
from kdedge.pipeline.project import BASELINE, TRAINING, open_project

RECIPE = """\
version: 1
task: detect
data: {{name: voc, root: {root}, image_size: 64, workers: 0}}
student: {{name: retinanet, options: {{backbone: resnet18, channels: 16, levels: p3-p5}}}}
phases: [{{epochs: 1, batch: 2, methods: {methods}}}]
baseline: {baseline}
run: {{accelerator: cpu, threads: 1}}
export: {{preset: onnxruntime_cpu, backend_options: {{threads: 1}}}}
profile: {{processes: 1, seconds: 0.02, warmup_cap: 0.2, threads: 1}}
"""
WEIGHTS = "student/weights.safetensors"


def write_run(folder: Path, twin: bool = False) -> Path:
    """boxes.yaml, its run and the set of it, whose pictures it has not seen; returns the run's folder.

    Args:
        twin: as if it had been distilled, and trained on the boxes alone as well, with the same weights in the end.
    """
    recipe = folder / "boxes.yaml"
    methods, baseline = ("[{name: mkd}]", "true") if twin else ("[]", "false")
    recipe.write_text(RECIPE.format(root=write_voc(folder / "set"), methods=methods, baseline=baseline))
    project = open_project(load_recipe(str(recipe)), folder / "runs")
    dataset = build_data(project.recipe.data, 0)
    network = build(project.recipe.student, dataset, 0).eval()
    torch.manual_seed(0)
    enliven(network, dataset.image_shape)
    with project.run.locked():
        project.save()
        weights = [WEIGHTS, *([BASELINE] if twin else [])]
        for file in weights:
            save_weights(network, project.run / file)
        report = TrainingReport(
            recipe="boxes",
            task="detect",
            seed=0,
            train_images=len(dataset.train),
            validation_images=len(dataset.validation),
            test_images=len(dataset.test),
            labels=list(dataset.labels),
            methods=[],
            student=describe(project.recipe.student, network, dataset, accuracy=0.0, source="trained"),
        )
        write_json(project.run / TRAINING, report)
        project.run.record("distill", project.key("distill"), [*weights, TRAINING])
    return project.run.path
