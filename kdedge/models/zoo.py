"""Networks by name: kdedge's own, torchvision's and timm's (by prefix); detectors have names of their own."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from kdedge.core.errors import ModelError, nearest, require
from kdedge.core.quality import Task
from kdedge.core.registry import Registry
from kdedge.models.blocks import MODELS
from kdedge.models.code import is_code, load_builder
from kdedge.models.cost import Cost, Shape, cost
from kdedge.models.detector import DETECTORS, Detector

OWN: dict[Task, Registry[Any]] = {"classify": MODELS, "detect": DETECTORS}
KINDS: dict[Task, str] = {"classify": "classifier", "detect": "detector"}


def model_names(task: Task = "classify") -> list[str]:
    return OWN[task].names()


def task_of(name: str) -> Task:
    """What a network is for: detection if it is the name of a detector."""
    own = ":" not in name and name not in MODELS.names()  # the others' names are slow to load
    return "detect" if own and name in DETECTORS.names() else "classify"


def model_costs(classes: int, image_shape: Shape, task: Task = "classify") -> list[tuple[str, Cost]]:
    """What each of kdedge's own networks costs with its default options; no memory is taken for weights."""
    with torch.device("meta"):
        return [(name, cost(OWN[task].get(name)(classes, image_shape), image_shape)) for name in model_names(task)]


def build_model(
    name: str, options: Mapping[str, Any], classes: int, image_shape: Shape, task: Task = "classify"
) -> nn.Module:
    """A network with fresh weights that turns images (N, C, H, W) into logits (N, classes), or a Detector.

    Args:
        name: one of kdedge's own, FILE.py:FUNCTION, or, of classifiers, torchvision:NAME or timm:NAME.
        options: of the network; those of other libraries are handed to them as they are.

    Raises:
        ModelError: an unknown name, or options that do not fit it.
        MissingTool: timm is not installed.
    """
    source, separator, rest = name.rpartition(":")
    if not separator:
        return build_own(name, options, classes, image_shape, task)
    if is_code(name):
        return build_from_file(name, options, classes, image_shape, task)
    if task == "detect":
        raise ModelError(f"{name} for detection", f"detectors are {', '.join(DETECTORS.names())}", "kdedge models")
    builders = {"torchvision": build_torchvision, "timm": build_timm}
    if source not in builders:
        raise ModelError(f"unknown model source {source!r} in {name!r}", nearest(source, builders), "kdedge models")
    return builders[source](rest, options, classes, image_shape)


def build_own(
    name: str, options: Mapping[str, Any], classes: int, image_shape: Shape, task: Task = "classify"
) -> nn.Module:
    builder = own_builder(name, task)
    check_options(name, builder, options)
    return builder(classes, image_shape, **options)


def own_builder(name: str, task: Task = "classify") -> Callable[..., nn.Module]:
    """Raises ModelError for a name that there is not, or that is not for this task."""
    own, kind = OWN[task], KINDS[task]
    if name not in own.names():
        what = next((KINDS[other] for other in OWN if name in model_names(other)), None)
        if what:
            some = ", ".join(own.names()[:3])
            raise ModelError(f"{name} is a {what}, not a {kind}", f"{kind}s are {some}, ...", "kdedge models")
        raise ModelError(f"unknown {own.kind} {name!r}", nearest(name, own.names()), "kdedge models")
    builder: Callable[..., nn.Module] = own.get(name)
    return builder


def model_options(builder: Callable[..., nn.Module]) -> dict[str, inspect.Parameter]:
    return {
        key: parameter
        for key, parameter in inspect.signature(builder).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def check_options(name: str, builder: Callable[..., nn.Module], options: Mapping[str, Any]) -> None:
    """Raises ModelError with every option that the builder does not know or whose value it cannot take."""
    known = model_options(builder)
    problems = []
    for key, value in options.items():
        if key not in known:
            problems.append(f"{key}: unknown; {nearest(key, known)}")
            continue
        try:
            TypeAdapter(known[key].annotation).validate_python(value, strict=True)
        except ValidationError as error:
            reasons = [detail["msg"].replace("Input should be ", "") for detail in error.errors()]
            problems.append(f"{key}: must be {' or '.join(dict.fromkeys(reasons))}, not {value!r}")
    if problems:
        valid = ", ".join(f"{key}={parameter.default!r}" for key, parameter in known.items())
        raise ModelError(f"options of model {name}", "; ".join(problems), f"valid, with their defaults: {valid}")


def build_from_file(
    name: str, options: Mapping[str, Any], classes: int, image_shape: Shape, task: Task = "classify"
) -> nn.Module:
    """What a user's own function makes; its errors keep their tracebacks."""
    model = load_builder(name)(classes, image_shape, **options)
    wanted, spelled = (
        (Detector, "kdedge.models.detector.Detector") if task == "detect" else (nn.Module, "torch.nn.Module")
    )
    if not isinstance(model, wanted):
        raise ModelError(f"model {name} is a {type(model).__name__}", "", f"return a {spelled}")
    return model


def build_torchvision(name: str, options: Mapping[str, Any], classes: int, image_shape: Shape) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ModelError(
            f"unknown model 'torchvision:{name}'",
            nearest(name, known),
            'python -c "from torchvision import models; print(models.list_models(models))"',
        )
    if image_shape[0] != 3:
        raise ModelError(
            f"torchvision:{name} for images of {image_shape[0]} channel(s)",
            "torchvision's networks take 3",
            "kdedge models   (its own, and timm's, take any number)",
        )
    model = build_foreign(f"torchvision:{name}", models.get_model, name, options, weights=None, num_classes=classes)
    if getattr(model, "aux_logits", False):
        raise ModelError(
            f"torchvision:{name} has auxiliary classifiers",
            "in training it gives more than logits",
            "set options: {aux_logits: false, init_weights: true}",
        )
    return model


def build_timm(name: str, options: Mapping[str, Any], classes: int, image_shape: Shape) -> nn.Module:
    timm = require("timm", "", f"timm:{name}")
    if not timm.is_model(name):
        raise ModelError(
            f"unknown model 'timm:{name}'",
            nearest(name, timm.list_models()),
            'python -c "import timm; print(timm.list_models())"',
        )
    return build_foreign(
        f"timm:{name}", timm.create_model, name, options, pretrained=False, num_classes=classes, in_chans=image_shape[0]
    )


def build_foreign(
    label: str, create: Callable[..., nn.Module], name: str, options: Mapping[str, Any], **ours: Any
) -> nn.Module:
    if taken := sorted(set(options) & set(ours)):
        raise ModelError(
            f"options of model {label}",
            f"{', '.join(taken)}: set by kdedge from the recipe",
            "leave them out; weights come from the checkpoint key",
        )
    try:
        return create(name, **ours, **options)
    except (TypeError, ValueError) as error:
        raise ModelError(f"options of model {label}", str(error)) from error
