"""Networks by name: kdedge's own, torchvision's and timm's (by prefix)."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from kdedge.core.errors import ModelError, nearest, require
from kdedge.models.blocks import MODELS
from kdedge.models.code import is_code, load_builder
from kdedge.models.cost import Cost, Shape, cost


def model_names() -> list[str]:
    return MODELS.names()


def model_costs(classes: int, image_shape: Shape) -> list[tuple[str, Cost]]:
    """What each of kdedge's own networks costs with its default options; no memory is taken for weights."""
    with torch.device("meta"):
        return [(name, cost(MODELS.get(name)(classes, image_shape), image_shape)) for name in model_names()]


def build_model(name: str, options: Mapping[str, Any], classes: int, image_shape: Shape) -> nn.Module:
    """A network with fresh weights that turns images (N, C, H, W) into logits (N, classes).

    Args:
        name: one of kdedge's own, torchvision:NAME, timm:NAME, or FILE.py:FUNCTION.
        options: of the network; those of other libraries are handed to them as they are.

    Raises:
        ModelError: an unknown name, or options that do not fit it.
        MissingTool: timm is not installed.
    """
    source, separator, rest = name.rpartition(":")
    if not separator:
        return build_own(name, options, classes, image_shape)
    if is_code(name):
        return build_from_file(name, options, classes, image_shape)
    builders = {"torchvision": build_torchvision, "timm": build_timm}
    if source not in builders:
        raise ModelError(f"unknown model source {source!r} in {name!r}", nearest(source, builders), "kdedge models")
    return builders[source](rest, options, classes, image_shape)


def build_own(name: str, options: Mapping[str, Any], classes: int, image_shape: Shape) -> nn.Module:
    if name not in MODELS.names():
        raise ModelError(f"unknown model {name!r}", nearest(name, MODELS.names()), "kdedge models")
    builder = MODELS.get(name)
    check_options(name, builder, options)
    return builder(classes, image_shape, **options)


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


def build_from_file(name: str, options: Mapping[str, Any], classes: int, image_shape: Shape) -> nn.Module:
    """What a user's own function makes; its errors keep their tracebacks."""
    model = load_builder(name)(classes, image_shape, **options)
    if not isinstance(model, nn.Module):
        raise ModelError(f"model {name} is a {type(model).__name__}", "", "return a torch.nn.Module")
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
