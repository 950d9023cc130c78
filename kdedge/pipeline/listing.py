"""What there is to choose from: recipes, presets, methods, models, layers."""

import inspect
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import yaml

from kdedge.core import console
from kdedge.core.console import many, show_table
from kdedge.core.errors import KdedgeError, nearest
from kdedge.core.lightening import Lighten
from kdedge.core.load import shipped
from kdedge.core.recipe import Recipe
from kdedge.core.training import Schedule

if TYPE_CHECKING:
    from kdedge.distill.base import Method, Preset

DETECTOR_SIZE = 320
"""Pixels a side at which detectors are priced when the images are too small for one."""


def first_comment(path: Path) -> str:
    """The first line of a YAML file's header."""
    line = path.read_text(encoding="utf-8").partition("\n")[0]
    return line.lstrip("# ").strip() if line.startswith("#") else ""


def task_of_recipe(path: Path) -> str:
    return str(yaml.safe_load(path.read_text(encoding="utf-8")).get("task", Recipe.model_fields["task"].default))


def show_shipped() -> None:
    recipes, presets = shipped("recipes"), shipped("export")
    table = [[name, task_of_recipe(path), first_comment(path)] for name, path in recipes.items()]
    show_table("recipes: kdedge run NAME", ("name", "task", "what"), table)
    table = [[name, first_comment(path)] for name, path in presets.items()]
    show_table("presets: export.preset in a recipe", ("name", "what"), table)
    console.emit({"recipes": list(recipes), "presets": list(presets)})


def copy_shipped(name: str, into: Path) -> None:
    """Raises KdedgeError when nothing of that name ships, or the file is there already."""
    known = shipped("recipes") | shipped("export")
    if name not in known:
        raise KdedgeError(f"no recipe or preset {name!r}", nearest(name, known), "kdedge ls")
    target = into / known[name].name if into.is_dir() else into
    if target.exists():
        raise KdedgeError(f"{target} exists", "it is not overwritten", f"kdedge cp {name} OTHER.yaml")
    shutil.copyfile(known[name], target)
    console.say(f"{target}")


def show_schema() -> None:
    console.show_text(json.dumps(Recipe.model_json_schema(), indent=2))
    console.emit(Recipe.model_json_schema())


def show_methods(name: str | None) -> None:
    """All methods, or one with its options."""
    from kdedge.distill.base import METHODS

    if name is None:
        known = {name: METHODS.get(name) for name in METHODS.names()}
        table = [[name, tasks_of(method), source_of(method).partition("\n")[0]] for name, method in known.items()]
        show_table("methods", ("name", "task", "what"), table, "kdedge methods NAME shows one's options and its source")
        console.emit(METHODS.names())
        return
    method = METHODS.get(name)
    console.show_text(f"{source_of(method)}\n\ntask: {tasks_of(method)}\n")
    schema = method.Config.model_json_schema()
    others = {key: f"; to detect {json.dumps(value)}" for key, value in method.detector_options.items()}
    table = [
        [key, json.dumps(option.get("default")) + others.get(key, ""), option.get("description", "")]
        for key, option in schema.get("properties", {}).items()
    ]
    if table:
        show_table(f"options of {name}", ("option", "default", "meaning"), table)
    terms = {pattern: plain_term(term.weight, term.schedule) for pattern, term in method.terms.items()}
    rows = [[pattern, f"{term.weight:g}", spelled(term.schedule)] for pattern, term in method.terms.items()]
    if rows:
        show_table(f"terms of {name}", ("term", "weight", "schedule"), rows, "a recipe changes them under terms:")
    presets = {key: preset_phase(name, preset) for key, preset in method.presets.items()}
    for key, phase in presets.items():
        console.show_text(f"# {key}: {method.presets[key].source}\n{yaml.safe_dump(phase, sort_keys=False)}")
    console.emit({"tasks": sorted(method.tasks), "options": schema, "terms": terms, "presets": presets})


def tasks_of(method: "type[Method]") -> str:
    return ", ".join(sorted(method.tasks))


def plain_term(weight: float, schedule: Schedule) -> dict[str, Any]:
    """As a recipe would say it, without what is usual."""
    changed = schedule.model_dump(exclude_defaults=True, mode="json")
    return ({"weight": weight} if weight != 1 else {}) | ({"schedule": changed} if changed else {})


def spelled(schedule: Schedule) -> str:
    changed = schedule.model_dump(exclude_defaults=True, mode="json")
    return ", ".join(f"{key} {value}" for key, value in changed.items()) or "-"


def preset_phase(name: str, preset: "Preset") -> dict[str, Any]:
    """The part of a phase that a preset is, to paste into a recipe; a detector's own losses are as they are."""
    use = {"name": name, **plain_term(preset.weight, preset.schedule)}
    if preset.terms:
        use["terms"] = {pattern: {"weight": weight} for pattern, weight in preset.terms.items()}
    if preset.options:
        use["options"] = dict(preset.options)
    labels = {"cross_entropy": {"weight": preset.cross_entropy}} if preset.task == "classify" else {}
    return {**labels, "methods": [use]}


def source_of(method: type) -> str:
    """What a method's module says of it: a line, then the paper."""
    return inspect.getdoc(inspect.getmodule(method)) or ""


def show_models(classes: int, size: int) -> None:
    """Classifiers and detectors; the latter at DETECTOR_SIZE where the images are too small for them."""
    from kdedge.models.detector import SMALLEST
    from kdedge.models.zoo import KINDS, model_costs

    emitted = []
    for task, kind in KINDS.items():
        side = DETECTOR_SIZE if task == "detect" and size < SMALLEST else size
        prices = model_costs(classes, (3, side, side), task)
        table = [[name, many(price.params), many(price.macs)] for name, price in prices]
        caption = "also torchvision:NAME and timm:NAME" if task == "classify" else ""
        show_table(f"{kind}s, {classes} classes, {side}x{side}", ("name", "parameters", "MACs"), table, caption)
        emitted += [
            dict(zip(("name", "params", "macs"), row, strict=True)) | {"task": task, "size": side} for row in table
        ]
    console.emit(emitted)


def show_lightened(model: str, conv: str, groups: int | None, classes: int, size: int) -> None:
    """A network's convolutions and linear layers before and after lightening.

    Raises:
        KdedgeError: a conv that there is not, or a network that cannot be lightened by it.
    """
    known = get_args(Lighten.model_fields["conv"].annotation)
    if conv not in known:
        raise KdedgeError(f"--lighten {conv}", nearest(conv, known), f"kdedge models --lighten {known[0]} {model}")
    how = Lighten(conv=conv, groups=groups)
    from kdedge.models.lighten import compare
    from kdedge.models.zoo import build_model, task_of

    shape = (3, size, size)
    changes = compare(build_model(model, {}, classes, shape, task_of(model)), shape, **how.rewriting())
    table = [
        [
            change.path,
            change.layer,
            change.became,
            both(change.params, many),
            both(change.macs, many),
            both((4 * change.params[0], 4 * change.params[1]), console.size),
        ]
        for change in changes
    ]
    whole = changes[-1]
    show_table(
        f"{model}, {how.conv}: {classes} classes, {size}x{size}",
        ("module", "layer", "becomes", "parameters", "MACs", "bytes in fp32"),
        table,
        f"{whole.params[0] / whole.params[1]:.1f} times fewer parameters, {whole.macs[0] / whole.macs[1]:.1f} times "
        "fewer MACs; kdedge run measures what that buys in time",
    )
    console.emit([asdict(change) for change in changes])


def both(counts: tuple[int, int], spell: Callable[[float], str]) -> str:
    before, after = counts
    return spell(before) if before == after else f"{spell(before)} -> {spell(after)}"


def show_layers(model: str, classes: int, size: int) -> None:
    from kdedge.models.cost import layers
    from kdedge.models.features import feature_points
    from kdedge.models.zoo import build_model, task_of

    shape = (3, size, size)
    network = build_model(model, {}, classes, shape, task_of(model))
    points = {point.module: name for name, point in feature_points(network, shape).items()}
    table = [
        [
            layer.path,
            layer.kind,
            "x".join(map(str, layer.shape)),
            many(layer.params),
            many(layer.macs),
            points.get(layer.path, ""),
        ]
        for layer in layers(network, shape)
        if layer.path
    ]
    show_table(f"{model} at {size}x{size}", ("module", "type", "output", "parameters", "MACs", "feature point"), table)
    console.emit(table)
