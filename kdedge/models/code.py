"""Networks from a user's own Python file, which runs only where the user has said so on the command line.

A recipe names one as file.py:function; the function is called as function(classes, image_shape, **options).
"""

import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdedge.core.errors import KdedgeError, ModelError, nearest


@dataclass
class Consent:
    """Whether files may run, where they are looked for, and which have run, by module name."""

    given: bool = False
    folders: list[Path] = field(default_factory=list)
    modules: dict[str, Path] = field(default_factory=dict)


CONSENT = Consent()
"""One for the process: what a user allows on the command line holds for the command."""


def allow_code() -> None:
    CONSENT.given = True


def look_in(folder: Path) -> None:
    """Look for files there too, such as beside the recipe."""
    if folder not in CONSENT.folders:
        CONSENT.folders.append(folder)


def is_code(name: str) -> bool:
    """Whether a model's name is file.py:function."""
    return name.rpartition(":")[0].endswith(".py")


def code_file(name: str) -> Path:
    """The file of a model's name.

    Raises:
        KdedgeError: Python files may not run, or there is no such file.
    """
    if not CONSENT.given:
        why = "it is a Python file, and what a recipe names does not run by itself"
        raise KdedgeError(f"model {name}", why, "read that file, then give --allow-code")
    path = Path(name.rpartition(":")[0]).expanduser()
    places = list(dict.fromkeys([*CONSENT.folders, Path.cwd()]))
    found = next((place / path for place in places if (place / path).is_file()), None)
    if found is None:
        raise ModelError(f"model {name}: there is no {path}", f"looked in {', '.join(map(str, places))}")
    return found.resolve()


def load_builder(name: str) -> Callable[..., Any]:
    """The function of a model's name.

    Raises:
        ModelError: the file has no such function.
    """
    function, module = name.rpartition(":")[2], load_file(code_file(name))
    builder = getattr(module, function, None)
    if not callable(builder):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ModelError(f"model {name}: the file has no function {function!r}", nearest(function, known))
    found: Callable[..., Any] = builder
    return found


def load_file(path: Path) -> Any:
    """Run a Python file as a module, once, under a name that other processes give it too."""
    name = f"kdedge_code_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ModelError(f"{path} is not a Python file")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        CONSENT.modules[name] = path
    return sys.modules[name]


def load_again(files: Iterable[Path]) -> None:
    """In another process of the same command: run what has run in the first, so that its networks can be unpickled."""
    for path in files:
        load_file(path)
