"""Weights in files: safetensors of our own, and checkpoints of others read without running what is in them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kdedge.core.errors import ModelError
from kdedge.core.rundir import atomic_path
from kdedge.models.detector import Detector
from kdedge.models.features import bare

NESTED_UNDER = ("state_dict", "model", "net", "model_state")
PREFIXES = ("module.", "_orig_mod.")
SHOWN = 10


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a network's parameters and buffers as safetensors, whole or not at all."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in bare(model).state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary)


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a .safetensors file, or anything torch.load reads with weights_only; every tensor must fit.

    A state dict nested in a checkpoint and the name prefixes of DDP and torch.compile are seen through.

    Raises:
        ModelError: the file cannot be read, or with the tensors that are missing, unexpected or of another shape.
    """
    model = bare(model)
    state = without_prefixes(state_dict_in(read(path), path))
    if isinstance(model, Detector):
        state = model.renamed(state)
    if unlike := differences(state, model.state_dict()):
        raise ModelError(
            f"{path} does not fit {type(model).__name__}",
            f"its tensors differ from the network's{unlike}",
            "check the model's name and options (shortcut, width, conv, ...) and the number of classes",
        )
    model.load_state_dict(state, strict=False)  # only BN's step counters, which old files lack, may stay as they are


def load_backbone(detector: nn.Module, path: Path) -> None:
    """Load a trained classifier, read as `load_weights` reads, into the backbone of a detector; its head is left out.

    The detector is not lightened yet: lightening gives fresh weights to what it rewrites, and keeps the rest.

    Raises:
        ModelError: no backbone taken from a classifier, the file cannot be read, or with the tensors of the classifier
            that are missing, unexpected or of another shape.
    """
    names = detector.classifier_names if isinstance(detector, Detector) else {}
    if not names:
        why = "only a detector made of one of torchvision's classifiers has a backbone to load"
        raise ModelError(f"{path} for {type(detector).__name__}", why, "kdedge models   (lists detectors)")
    own, places = detector.state_dict(), {name: place for name, place in names.items() if place}
    wanted = {name: own[place] for name, place in places.items()}
    head = {name.partition(".")[0] for name in names} - {name.partition(".")[0] for name in places}
    state = without_prefixes(state_dict_in(read(path), path))
    state = {name: tensor for name, tensor in state.items() if name.partition(".")[0] not in head}
    if unlike := differences(state, wanted):
        raise ModelError(
            f"{path} does not fit the backbone of {type(detector).__name__}",
            f"its tensors differ from those of the classifier it was taken from{unlike}",
            "check the detector's options (backbone; of ssdlite reduced_tail: false, width: 1)",
        )
    detector.load_state_dict({places[name]: tensor for name, tensor in state.items()}, strict=False)


def differences(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> str:
    """What keeps tensors from taking the place of others, a line each; BN's step counters may be missing."""
    complaints = [
        listed("missing", [name for name in wanted if name not in state and not name.endswith(".num_batches_tracked")]),
        listed("unexpected", [name for name in state if name not in wanted]),
        listed(
            "of another shape",
            [
                f"{name} {shape(state[name])}, not {shape(wanted[name])}"
                for name in wanted
                if name in state and state[name].shape != wanted[name].shape
            ],
        ),
    ]
    return "".join(f"\n  {complaint}" for complaint in complaints if complaint)


def read(path: Path) -> Any:
    if not path.is_file():
        raise ModelError(f"no checkpoint {path}", "there is no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken pickle raises anything at all
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            raise ModelError(
                f"{path} holds more than weights",
                f"reading it would run {code[1]}, so it was not read",
                "save it again where it comes from: torch.save(model.state_dict(), FILE)",
            ) from error
        reason = str(error).rpartition("WeightsUnpickler error: ")[2].strip() or repr(error)
        raise ModelError(f"cannot read {path}", f"truncated, or not a checkpoint ({reason.splitlines()[0]})") from error


def state_dict_in(content: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        if content and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
            return dict(content)
        key = next((key for key in NESTED_UNDER if isinstance(content.get(key), Mapping)), None)
        if key is None:
            break
        content = content[key]
    found = (
        f"its keys are {', '.join(map(str, list(content)[:SHOWN])) or 'none'}"
        if isinstance(content, Mapping)
        else f"it holds a {type(content).__name__}"
    )
    raise ModelError(
        f"{path} has no state dict", f"{found}; looked for tensors by name, also under {', '.join(NESTED_UNDER)}"
    )


def without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            return without_prefixes({name.removeprefix(prefix): tensor for name, tensor in state.items()})
    return state


def listed(what: str, names: list[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{what}: {', '.join(names[:SHOWN])}{rest}" if names else ""


def shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
