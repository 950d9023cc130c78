"""One folder per finished epoch, renamed into place whole: a run killed at any moment goes on from the last one.

Weights are safetensors; optimizer and random state are a torch file that is read with weights_only.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from kdedge.core.errors import TrainingError

STATE = "state.pt"
MODULES = {"student", "methods"}
"""Whose weights every checkpoint keeps, beside those of peers; those of moving averages are called average_..."""


@dataclass
class Checkpoint:
    """What a finished epoch leaves: `epoch` counts the finished ones over all phases."""

    epoch: int
    weights: dict[str, dict[str, Tensor]]
    """State dicts of the modules, by name."""
    state: dict[str, Any]

    def final(self, part: str) -> dict[str, Tensor]:
        """The weights that count: the moving averages where they were kept."""
        return self.weights.get(f"average_{part}") or self.weights.get(part, {})


def folder_of(root: Path, epoch: int) -> Path:
    return root / f"epoch-{epoch:04d}"


def save_checkpoint(root: Path, checkpoint: Checkpoint) -> None:
    """Write the epoch's folder, then remove the others."""
    final = folder_of(root, checkpoint.epoch)
    temporary = root / f".{final.name}.part"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, weights in checkpoint.weights.items():
        save_file(
            {key: value.detach().cpu().contiguous() for key, value in weights.items()},
            temporary / f"{name}.safetensors",
        )
    torch.save(checkpoint.state, temporary / STATE)
    if final.exists():
        shutil.rmtree(final)
    temporary.rename(final)
    for other in root.glob("epoch-*"):
        if other != final:
            shutil.rmtree(other)


def last_checkpoint(root: Path, identity: str | None = None) -> Checkpoint | None:
    """The newest finished epoch, or None when there is none, or none of this identity.

    Raises:
        TrainingError: its files are damaged.
    """
    folders = sorted(root.glob("epoch-*"))
    if not folders:
        return None
    folder = folders[-1]
    try:
        weights = {path.stem: load_file(path) for path in sorted(folder.glob("*.safetensors"))}
        state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
        if absent := sorted(MODULES - weights.keys()):
            raise FileNotFoundError(f"no {absent[0]}.safetensors in it")
        other = identity is not None and state["identity"] != identity
    except Exception as error:
        raise TrainingError(
            f"checkpoint {folder} cannot be read",
            str(error).partition("\n")[0] or type(error).__name__,
            f"rm -r {folder}   (then that training starts again)",
        ) from error
    return None if other else Checkpoint(int(folder.name.removeprefix("epoch-")), weights, state)


def random_state() -> dict[str, Any]:
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
