"""What can go wrong, and the exit code each kind ends the command with.

    KdedgeError          2   a user's mistake; printed without a traceback
    +- RecipeError       2   every problem of one recipe at once
    +- DataError         2   a data set that is missing or broken
    +- ModelError        2   a model, checkpoint or ONNX file that does not fit
    +- TrainingError     2   a run that cannot go on (loss not finite, out of memory, disk full)
    +- GateFailed        1
    +- Incomparable      3   no baseline, or one from another environment
    +- Unstable          4   a measurement that cannot be trusted
    +- MissingTool       5   a package, program or device that is not there

Anything else that reaches the command line is a bug and keeps its traceback.
Part of the device closure: Python 3.8 syntax, standard library only.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class KdedgeError(Exception):
    """What was given, why it fails, and the line to type next."""

    exit_code = 2

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        self.what, self.why, self.fix = what, why, fix
        super().__init__(what, why, fix)

    def __str__(self) -> str:
        text = f"{self.what}: {self.why}" if self.why else self.what
        return f"{text}\n  {self.fix}" if self.fix else text


class RecipeError(KdedgeError):
    pass


class DataError(KdedgeError):
    pass


class ModelError(KdedgeError):
    pass


class TrainingError(KdedgeError):
    pass


class GateFailed(KdedgeError):
    exit_code = 1


class Incomparable(KdedgeError):
    exit_code = 3


class Unstable(KdedgeError):
    exit_code = 4


class MissingTool(KdedgeError):
    exit_code = 5


def require(package: str, extra: str, why: str) -> ModuleType:
    """Import a package of an optional extra; a missing one names the extra to install."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != package.split(".")[0]:
            raise
        name = package.split(".")[0]
        install = f'pip install "kdedge[{extra}]"' if extra else f"pip install {name}"
        raise MissingTool(f"{name} is not installed", f"{why} needs it", install) from None


def closest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name that a misspelt one was probably meant to be."""
    return next(iter(difflib.get_close_matches(name, sorted(valid), n=1, cutoff=0.5)), None)


def nearest(name: str, valid: Iterable[str]) -> str:
    """The sentence that helps with a misspelt name."""
    known = sorted(valid)
    close = closest(name, known)
    return f"did you mean {close!r}?" if close else "known: " + (", ".join(known) or "none")
