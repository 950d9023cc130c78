"""Names that stand for code: found by walking a package, never kept in a second list."""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Generic, TypeVar

from kdedge.core.errors import KdedgeError, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """Entries registered by the modules of one package, imported on the first look-up; `command` lists them."""

    def __init__(self, kind: str, package: str, command: str = "") -> None:
        self.kind, self.package, self.command = kind, package, command
        self._entries: dict[str, T] = {}
        self._scanned = False

    def register(self, name: str) -> Callable[[T], T]:
        def add(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"two {self.kind}s are called {name!r}")
            self._entries[name] = entry
            return entry

        return add

    def names(self) -> list[str]:
        self._scan()
        return sorted(self._entries)

    def get(self, name: str) -> T:
        self._scan()
        if name not in self._entries:
            raise KdedgeError(f"unknown {self.kind} {name!r}", nearest(name, self._entries), self.command)
        return self._entries[name]

    def _scan(self) -> None:
        if self._scanned:
            return
        self._scanned = True  # at once, since a module may look names up while it is imported
        try:
            for module in pkgutil.iter_modules(importlib.import_module(self.package).__path__):
                importlib.import_module(f"{self.package}.{module.name}")
        except BaseException:
            self._scanned = False
            raise
