"""Parts of a student that a phase leaves as they are."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import nn

from kdedge.core.errors import ModelError, nearest


def frozen_modules(student: nn.Module, patterns: Iterable[str]) -> list[nn.Module]:
    """The modules whose paths fit a pattern; all that is inside them is frozen with them.

    Raises:
        ModelError: a pattern that no module's path fits.
    """
    paths = {path: module for path, module in student.named_modules() if path}
    found = []
    for pattern in patterns:
        fitting = [module for path, module in paths.items() if fnmatchcase(path, pattern)]
        if not fitting:
            raise ModelError(f"freeze: no module of the student fits {pattern!r}", nearest(pattern, paths))
        found += fitting
    return found


class Frozen:
    """What does not train: no gradients, and batch norms that keep their statistics."""

    def __init__(self, student: nn.Module, patterns: Iterable[str]) -> None:
        self._student, self._modules = student, frozen_modules(student, patterns)

    def apply(self) -> None:
        """After every call of train(), which would wake the batch norms."""
        for module in self._modules:
            module.eval().requires_grad_(False)

    def release(self) -> None:
        if self._modules:
            self._student.requires_grad_(True)
