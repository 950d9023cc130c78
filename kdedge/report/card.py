"""The model card: Markdown beside the ONNX files, with the front matter of Hugging Face's model cards.

The same for the same records: without dates, and without folders of the machine that made it.
Front matter: https://huggingface.co/docs/hub/model-cards
"""

import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import yaml

from kdedge.core.console import many, percent, size
from kdedge.core.energy import Spread
from kdedge.core.markdown import escaped, table
from kdedge.core.profiling import ProfileReport
from kdedge.core.quality import BoxQuality, Task
from kdedge.core.recipe import Recipe
from kdedge.core.report import ExportReport, TrainedModel
from kdedge.core.training import Phase
from kdedge.report import parity, view
from kdedge.report.html import ReportData

NOT_GIVEN = "not given"
HUBS: dict[Task, tuple[str, str]] = {
    "classify": ("image-classification", "accuracy"),
    "detect": ("object-detection", "mean_average_precision"),
}
"""As hubs call a task and its metric."""
OUTPUTS = {
    "heads": "They give raw heads; the ONNX metadata says how those become boxes, as kdedge detect makes them.",
    "nms": "They give boxes, after non-maximum suppression.",
}
"""What a detector's files compute, by `export.boxes`."""
LICENSE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")
PHASES = ("phase", "epochs", "batch", "learns from", "remarks")
MEASURED = ("file", "median", "its 95 % interval", "p95", "peak memory", "energy above idle", "provider")
FILES = ("file", "bytes", "SHA-256")


def card(data: ReportData, recipe: Recipe) -> str:
    """The whole card; every line of it is about the run as it was recorded."""
    parts = [
        front_matter(data, recipe),
        f"# {recipe.name}",
        summary(data),
        *section("Intended use", [escaped(recipe.card.intended_use or NOT_GIVEN)]),
        *section("Distilled from", [*network_lines(data), "", *phase_lines(recipe)]),
        *section("Data", data_lines(data, recipe)),
        *section("Accuracy", accuracy_lines(data)),
        *section("Latency and memory", latency_lines(data.profiles)),
        *section("Known limits", limit_lines(data)),
        *section("Files", file_lines(data, recipe)),
        *section("Licenses", license_lines(recipe)),
        *section("Reproduce", reproduce_lines(data, recipe)),
    ]
    return "\n\n".join(parts) + "\n"


def section(title: str, lines: list[str]) -> Iterator[str]:
    if lines:
        yield f"## {title}"
        yield "\n".join(lines)


def front_matter(data: ReportData, recipe: Recipe) -> str:
    """What hubs index a model by."""
    task, metric = HUBS[recipe.task]
    known: dict[str, Any] = {
        **license_entry(recipe.card.licenses.model),
        "pipeline_tag": task,
        "tags": ["kdedge", "knowledge-distillation", "onnx"],
        "metrics": [metric],
    }
    if found := list(scores(data)):
        dataset = {"type": recipe.data.name, "name": recipe.data.name, "split": "test"}
        values = [{"type": metric, "name": name, "value": round(value, 4)} for name, value in found]
        result = {"task": {"type": task}, "dataset": dataset, "metrics": values}
        known["model-index"] = [{"name": recipe.name, "results": [result]}]
    return f"---\n{yaml.safe_dump(known, sort_keys=False, allow_unicode=True)}---"


def license_entry(name: str | None) -> dict[str, str]:
    """A hub takes its own identifiers alone; any other license is `other` and has a name."""
    if name is None:
        return {}
    if LICENSE_ID.fullmatch(name):
        return {"license": name.lower()}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")}


def scores(data: ReportData) -> Iterator[tuple[str, float]]:
    """Of each precision of the student, on the test split."""
    for name in data.export.onnx if data.export else ():
        quality = data.export.quality(name) if data.export else None
        if isinstance(quality, BoxQuality):
            yield f"mAP@[0.50:0.95], {name}", quality.mean_ap
            yield f"mAP@0.50, {name}", quality.ap50
        elif quality:
            yield f"top-1, {name}", quality.top1


def summary(data: ReportData) -> str:
    training, student = data.training, view.deployed(data.training, data.export)
    image = " x ".join(map(str, student.input_shape))
    teacher = f", distilled from {model_name(training.teacher)}" if training.teacher else ""
    methods = f" by {', '.join(training.methods)}" if training.methods else ""
    return (
        f"{escaped(model_name(student) + teacher + methods)}: {many(student.params)} parameters,"
        f" {many(student.macs)} multiply-accumulates for an image of {image}, {len(training.labels)} classes."
    )


def model_name(network: TrainedModel) -> str:
    options = ", ".join(f"{key}={value}" for key, value in network.options.items())
    return f"{network.model} ({options})" if options else network.model


def network_lines(data: ReportData) -> list[str]:
    rows = [
        [
            role,
            model_name(net),
            percent(net.accuracy),
            many(net.params),
            many(net.macs),
            net.source or (f"trained, {net.epochs} epochs" if net.epochs else "-"),
        ]
        for role, net in view.networks(data.training)
    ]
    columns = ("network", "model", f"test {data.training.measure.label}", "parameters", "MACs", "weights from")
    return list(table(columns, rows))


def phase_lines(recipe: Recipe) -> list[str]:
    rows = [
        [
            str(number),
            str(phase.epochs),
            str(phase.batch),
            ", ".join(lessons(recipe.task, phase)),
            "; ".join(remarks(phase)) or "-",
        ]
        for number, phase in enumerate(recipe.phases, 1)
    ]
    return list(table(PHASES, rows))


def lessons(task: Task, phase: Phase) -> Iterator[str]:
    """What a phase's loss is made of, each with its weight."""
    if task == "detect":
        own = phase.detection.model_dump(exclude={"schedule"})
        changed = ", ".join(f"{name} {weight:g}" for name, weight in own.items() if weight != 1)
        yield f"labeled boxes ({changed or 1})"
    elif phase.cross_entropy.weight:
        yield f"labels ({phase.cross_entropy.weight:g})"
    for method in phase.methods:
        yield f"{method.name} ({method.weight:g})"


def remarks(phase: Phase) -> Iterator[str]:
    if phase.freeze:
        yield f"frozen: {', '.join(phase.freeze)}"
    if phase.quantize:
        yield "trained for int8"
    if phase.ema:
        yield f"moving average of the weights ({phase.ema:g})"


def data_lines(data: ReportData, recipe: Recipe) -> list[str]:
    training = data.training
    counts = {"training": training.train_images, "validation": training.validation_images, "test": training.test_images}
    share = f"{100 * recipe.data.validation:g} % of those for training, drawn with seed {training.seed}"
    return [
        f"{escaped(recipe.data.name)}, {len(training.labels)} classes: "
        + ", ".join(f"{count} {part} images" for part, count in counts.items())
        + (f". Validation images are {share}" if recipe.task == "classify" else box_lines(data, share))
        + "; every choice was made on them, and the test images were used for what is reported alone."
    ]


def box_lines(data: ReportData, share: str) -> str:
    """What else there is to say of data with boxes, which may come with validation images."""
    side = data.training.student.input_shape[-1]
    classes = escaped(", ".join(data.training.labels))
    return (
        f". Classes: {classes}. Pictures are scaled until their longer side has {side} pixels, and filled up with gray "
        f"to a square. Validation images are the set's own, or where it has none {share}"
    )


def accuracy_lines(data: ReportData) -> list[str]:
    if not data.export or not data.export.hops:
        return []
    judged = data.export.hops[0].quality
    hops = table(parity.columns(data.export), parity.rows(data.export))
    if isinstance(judged, BoxQuality):
        return [parity.explained(data.export), "", *hops, *size_lines(data.export, judged)]
    return [f"On {judged.images} test images, at every hop to the engine:", "", *hops]


def size_lines(export: ExportReport, judged: BoxQuality) -> list[str]:
    columns = ("mAP of", *(hop.name for hop in parity.class_columns(export)))
    rows = [[f"{row.label} objects", *map(percent, row.accuracies)] for row in parity.size_rows(export)]
    return ["", parity.sizes_explained(judged), "", *table(columns, rows)]


def latency_lines(profiles: list[ProfileReport]) -> list[str]:
    """One table: a run's profiles are of one machine."""
    if not profiles:
        return []
    first = profiles[0]
    how = f"Batch {first.batch}, {first.threads} threads, {first.latency.processes} fresh processes; median end to end."
    machine = "; ".join(f"{name}: {value}" for name, value in view.facts(first.device.get("match", {})))
    rows = [measured_row(profile) for profile in profiles]
    return [f"{how} Machine: {escaped(machine)}.", "", *table(MEASURED, rows)]


def measured_row(profile: ProfileReport) -> list[str]:
    latency = profile.latency
    between = "{:.3f} to {:.3f} ms".format(*latency.median_interval) if latency.median_interval else "-"
    p95 = latency.percentiles.get("p95")
    return [
        profile.name,
        view.milliseconds(latency.median),
        between,
        "-" if p95 is None else view.milliseconds(p95),
        size(profile.peak_memory_bytes),
        energy(profile.energy.net_mj) if profile.energy else "not measured",
        profile.provider,
    ]


def energy(spread: Spread) -> str:
    return f"{spread} mJ"


def limit_lines(data: ReportData) -> list[str]:
    said = [
        *view.warnings(data.training, data.export, data.profiles, data.gate),
        *view.notes(data.export, data.profiles),
    ]
    return [f"- {escaped(sentence)}" for sentence in dict.fromkeys(said)]


def file_lines(data: ReportData, recipe: Recipe) -> list[str]:
    if not data.export:
        return []
    told = "Places are relative to the run's folder."
    told += f" {OUTPUTS[recipe.export.boxes]}" if recipe.task == "detect" else ""
    files = [*data.export.onnx.values(), *data.export.engines.values()]
    rows = [[file.path, str(file.bytes), file.sha256] for file in files]
    return [told, "", *table(FILES, rows)]


def license_lines(recipe: Recipe) -> list[str]:
    given = recipe.card.licenses
    named = {"model": given.model, "teacher": given.teacher, "data": given.data}
    return [f"- {part}: {escaped(name or NOT_GIVEN)}" for part, name in named.items()]


def reproduce_lines(data: ReportData, recipe: Recipe) -> list[str]:
    """The recipe as it was run, --set and presets included; what is not there is as this version of kdedge has it."""
    made = data.training.environment | (data.export.environment if data.export else {})
    versions = ", ".join(f"{name} {version}" for name, version in sorted(made.items()))
    return [
        f"With {escaped(versions)}:",
        "",
        "```sh",
        f"kdedge run {recipe.name}.yaml",
        "```",
        "",
        f"{recipe.name}.yaml is what follows; the data set and checkpoints are looked for in the folder KDEDGE_DATA.",
        "",
        "```yaml",
        view.as_yaml(portable_recipe(recipe)).rstrip(),
        "```",
    ]


def portable_recipe(recipe: Recipe) -> dict[str, Any]:
    """What a recipe says other than the defaults, its export preset written out, and no folder named."""
    said = recipe.model_dump(mode="json", exclude_defaults=True)
    said.get("export", {}).pop("preset", None)
    said["data"].pop("root", None)
    portable: dict[str, Any] = without_folders({"version": recipe.version, **said})
    return portable


def without_folders(value: Any) -> Any:
    """Of an absolute path its name alone."""
    if isinstance(value, dict):
        return {key: without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_folders(inner) for inner in value]
    if isinstance(value, str) and value.startswith(("/", "~")):
        return PurePath(value).name
    return value
