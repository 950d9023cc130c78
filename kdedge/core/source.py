"""YAML with the place of every key, so that each problem can be told as `file:line: path: message`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from kdedge.core.errors import RecipeError

KeyPath = tuple[str | int, ...]
TAG = "tag:yaml.org,2002:"


class Place(NamedTuple):
    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class Problem(NamedTuple):
    where: Place
    path: KeyPath
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.where), dotted(self.path), self.message) if part)


@dataclass
class Source:
    """What a file says, where it says it, and what is wrong with it as YAML."""

    name: str
    data: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, path: KeyPath, message: str) -> Problem:
        """At the key itself or at the nearest key above it that was written down."""
        noted = (self.places[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self.places)
        return Problem(next(noted, Place(self.name)), path, message)


def dotted(path: KeyPath) -> str:
    return ".".join(str(part) for part in path)


def report_problems(path: Path | str, problems: Iterable[Problem]) -> RecipeError:
    """All problems in the order of their lines, one a line."""
    lines = [str(problem) for problem in sorted(problems, key=lambda problem: problem.where)]
    return RecipeError(f"{len(lines)} problem{'s' if len(lines) > 1 else ''} in {path}", "", "\n  ".join(lines))


class Loader(yaml.SafeLoader):
    """Plain values as YAML 1.2 reads them: 1e-4 is a number, while no, 1:30 and 2026-01-31 are text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML's own name and kind)


for kind, pattern, first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
    ("merge", "<<", ["<"]),
):
    Loader.add_implicit_resolver(TAG + kind, re.compile(f"^(?:{pattern})$"), first)
Loader.add_constructor(TAG + "int", lambda _, node: int(node.value, 16 if node.value.startswith("0x") else 10))


def parse_value(text: str) -> Any:
    """One YAML value, as after `--set key=`."""
    return yaml.load(text, Loader=Loader)  # noqa: S506  (a SafeLoader)


def read_yaml(path: Path) -> Source:
    """A file that should hold a mapping.  What is wrong with it is in `problems`; `data` is then what could be read.

    Raises:
        RecipeError: it cannot be read at all.
    """
    source = Source(str(path))
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RecipeError(f"cannot read {path}", error.strerror or str(error)) from None
    try:
        _fill(source, raw.decode())
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        source.problems.append(
            Problem(Place(source.name, line), (), f"byte 0x{raw[error.start]:02x} is not UTF-8 text")
        )
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = ", ".join(part for part in (error.context, error.problem) if part)
        place = Place(source.name, mark.line + 1 if mark else 1)
        source.problems.append(Problem(place, (), f"not valid YAML: {message}"))
    except yaml.reader.ReaderError as error:
        line = raw.decode()[: error.position].count("\n") + 1
        source.problems.append(
            Problem(Place(source.name, line), (), f"character {chr(error.character)!r} does not belong in text")
        )
    return source


def _fill(source: Source, text: str) -> None:
    loader = Loader(text)
    node = loader.get_single_node()
    if node is None:
        source.problems.append(Problem(Place(source.name, 1), (), "the file is empty"))
        return
    _note(source, loader, node)
    data = loader.construct_document(node)
    if isinstance(data, dict):
        source.data = data
    else:
        source.problems.append(source.problem((), f"should hold `key: value` lines, not {kind_of(data)}"))


def _note(
    source: Source, loader: Loader, node: yaml.Node, path: KeyPath = (), above: tuple[yaml.Node, ...] = ()
) -> None:
    """Note the place of each key; find what YAML would swallow or Python would run."""
    if any(node is outer for outer in above):
        raise yaml.composer.ComposerError(problem="this refers to itself", problem_mark=node.start_mark)
    source.places.setdefault(path, _place(source, node))
    _refuse_tag(source, loader, node, path)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, key.value if isinstance(key, yaml.ScalarNode) else "?")
            if key.tag not in (TAG + "str", TAG + "merge"):
                source.problems.append(Problem(_place(source, key), inner, "a key must be text; put it in quotes"))
            elif inner in source.places:
                source.problems.append(
                    Problem(_place(source, key), inner, f"given twice, first at {source.places[inner]}")
                )
            else:
                source.places[inner] = _place(source, key)
            _note(source, loader, value, inner, (*above, node))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _note(source, loader, value, (*path, index), (*above, node))


def _refuse_tag(source: Source, loader: Loader, node: yaml.Node, path: KeyPath) -> None:
    """Only plain values are built; any other tag becomes a problem and is read as if it were not there."""
    plain = loader.resolve(type(node), node.value, (True, False))  # type: ignore[no-untyped-call]
    if node.tag not in (plain, TAG + "str") or (node.tag == TAG + "str" and not isinstance(node, yaml.ScalarNode)):
        name = node.tag.replace(TAG, "!!")
        source.problems.append(source.problem(path, f"{name} has no place in a recipe; only plain values are read"))
        node.tag = TAG + "str" if isinstance(node, yaml.ScalarNode) else plain


def _place(source: Source, node: yaml.Node) -> Place:
    return Place(source.name, node.start_mark.line + 1)


def override(source: Source, text: str) -> None:
    """Apply one `a.b=c` in place: c as YAML, list entries by their index."""
    key, equals, value = text.partition("=")
    path: KeyPath = tuple(int(part) if part.isdigit() else part for part in key.split("."))
    place = Place(f"--set {text}")
    if not equals or "" in path:
        source.problems.append(Problem(place, (), "should read --set section.key=value"))
        return
    try:
        parsed = parse_value(value)
        _put(source.data, path, parsed)
    except yaml.YAMLError:
        source.problems.append(Problem(place, path, f"{value!r} is not valid YAML"))
    except LookupError as error:
        source.problems.append(Problem(place, path, error.args[0]))
    else:
        source.places = {known: at for known, at in source.places.items() if known[: len(path)] != path} | {path: place}


def _put(data: dict[str, Any], path: KeyPath, value: Any) -> None:
    """Raises LookupError where the path leads nowhere; a section that is not there yet is made."""
    target: Any = data
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(target, dict):
            part = str(part)
            if last or target.get(part) is None:
                target[part] = value if last else {}
        elif not isinstance(target, list):
            raise LookupError(f"{dotted(path[:depth])} is {kind_of(target)}, so nothing can be set in it")
        elif not isinstance(part, int) or part >= len(target):
            entries = f"{len(target)} entr{'y' if len(target) == 1 else 'ies'}"
            raise LookupError(f"{dotted(path[:depth])} is a list of {entries}, counted from 0; {part} is none of them")
        elif last:
            target[part] = value
        target = target[part]


def kind_of(value: Any) -> str:
    """A value's kind in a user's words."""
    names = {dict: "a mapping", list: "a list", str: "text", int: "a number", float: "a number", bool: "true or false"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)
