"""Reading a recipe: a file or a shipped name, --set overrides, the export preset, and every problem at once."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from kdedge.core.deployment import Export
from kdedge.core.errors import RecipeError, closest, nearest
from kdedge.core.recipe import Recipe
from kdedge.core.source import KeyPath, Problem, Source, kind_of, override, read_yaml, report_problems

S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True)
class LoadedRecipe:
    recipe: Recipe
    source: Source
    folder: Path
    """What relative paths in the recipe are relative to."""
    given: tuple[str, ...] = ()
    """The recipe as it was named, and each override."""


def shipped(kind: Literal["recipes", "export"]) -> dict[str, Path]:
    """Names and files of the recipes or presets that come with kdedge, in a wheel or in a checkout."""
    inside = Path(str(resources.files("kdedge"))) / "_shipped" / kind
    folder = inside if inside.is_dir() else Path(__file__).parents[2] / kind
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(kind: Literal["recipes", "export"], name: str) -> Path:
    """A file by path, or a shipped one by name.

    Raises:
        RecipeError: neither a file nor a shipped name.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = shipped(kind)
    short = path.name.removesuffix(".yaml") if path.parent in (Path(), Path(kind)) else name
    if short in known:
        return known[short]
    if kind == "recipes" and short in shipped("export"):
        fix = f"kdedge export --preset {short}, or export.preset in a recipe"
        raise RecipeError(f"no recipe {name!r}", "it is an export preset", fix)
    what = "recipe" if kind == "recipes" else "export preset"
    raise RecipeError(f"no {what} {name!r}", nearest(short, known), "kdedge ls")


def load_recipe(name: str, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read a recipe file or a shipped recipe.

    Args:
        overrides: `a.b=c` each, with c as YAML; list entries by their index.

    Raises:
        RecipeError: with every problem found, one a line.
    """
    path = find("recipes", name)
    source = read_yaml(path)
    if source.problems and not source.data:
        raise report_problems(path, source.problems)
    for text in overrides:
        override(source, text)
    source.data.setdefault("name", path.stem)
    merge_preset(source, path.parent)
    return LoadedRecipe(validate(Recipe, source), source, path.parent.resolve(), (name, *overrides))


def load_preset(name: str) -> Export:
    """An export preset by name or path.

    Raises:
        RecipeError: with every problem found.
    """
    return validate(Export, read_yaml(find("export", name)))


def merge_preset(source: Source, folder: Path) -> None:
    """Lay the recipe's export section over the preset that it names, a file beside the recipe first."""
    section = source.data.get("export")
    if not isinstance(section, dict) or not isinstance(section.get("preset"), str):
        return
    name = section["preset"]
    try:
        preset = read_yaml(folder / name if (folder / name).is_file() else find("export", name))
    except RecipeError as error:
        source.problems.append(source.problem(("export", "preset"), f"{error.what}; {error.why}"))
        return
    source.problems += preset.problems
    if "preset" in preset.data:
        source.problems.append(preset.problem(("preset",), "a preset cannot build on another"))
    source.data["export"] = overlay(preset.data, section)
    source.places = {("export", *path): place for path, place in preset.places.items()} | source.places


def overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        merged[key] = overlay(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def validate(kind: type[S], source: Source) -> S:
    """Raises RecipeError with the problems of the file and of its values; one a key."""
    try:
        value = kind.model_validate(source.data)
    except ValidationError as invalid:
        errors = invalid.errors()
        told, meant = {problem.path for problem in source.problems}, misspelt(errors, kind)
        found = [explain(source, error, kind) for error in errors if not follows(error, meant)]
        source.problems += [problem for problem in found if problem.path not in told]
    if source.problems:
        raise report_problems(source.name, source.problems)
    return value


def follows(error: ErrorDetails, meant: set[KeyPath]) -> bool:
    """Whether an error goes away with another that is told."""
    match error["type"]:
        case "missing":
            return error["loc"] in meant
        case "too_short":  # counted without the entries that are wrong themselves
            return bool(len(error["input"]) >= error["ctx"]["min_length"])
        case kind:
            return kind == "invalid_key"


def misspelt(errors: Sequence[ErrorDetails], root: type[BaseModel]) -> set[KeyPath]:
    """The keys that unknown ones were probably meant to be."""
    unknown = [error["loc"] for error in errors if error["type"] == "extra_forbidden"]
    return {(*path[:-1], closest(str(path[-1]), keys_at(root, path[:-1])) or "") for path in unknown}


def explain(source: Source, error: ErrorDetails, root: type[BaseModel] = Recipe, at: KeyPath = ()) -> Problem:
    """One pydantic error in a user's words; `root` is the model that was validated and `at` its place in the file."""
    path = error["loc"]
    if error["type"] == "extra_forbidden":
        return source.problem((*at, *path), f"unknown key; {nearest(str(path[-1]), keys_at(root, path[:-1]))}")
    if error["type"] == "missing" and isinstance(path[-1], int):
        return source.problem((*at, *path[:-1]), f"entry {path[-1] + 1} is missing")
    return source.problem((*at, *path), words(error))


WORDS = {
    "missing": "required, but not given",
    "value_error": "{error}",
    "int_type int_parsing int_from_float int_parsing_size": "must be a whole number, not {input}",
    "float_type float_parsing finite_number": "must be a number, not {input}",
    "bool_type bool_parsing": "must be true or false, not {input}",
    "string_type": "must be text, not {input}; put it in quotes",
    "string_pattern_mismatch": "must be {form}, not {input}",
    "model_type dict_type": "must be a section of `key: value` lines, not {input}",
    "tuple_type": "must be a list, not {input}",
    "greater_than": "must be more than {gt:g}, not {input}",
    "greater_than_equal": "must be at least {ge:g}, not {input}",
    "less_than": "must be less than {lt:g}, not {input}",
    "less_than_equal": "must be at most {le:g}, not {input}",
    "too_short": "needs {min_length} at least, but has {actual_length}",
    "too_long": "takes {max_length} at most, but has {actual_length}",
    "literal_error": "must be {expected}, not {input}",
}
FORMS = {"name": "letters, digits and . _ - with a letter or digit first", "exits": "none, all or K/N such as 3/4"}
"""Of the keys whose text must match a pattern."""
TEMPLATES = {kind: text for kinds, text in WORDS.items() for kind in kinds.split()}


def words(error: ErrorDetails) -> str:
    value = error["input"]
    context = {"form": FORMS.get(str(*error["loc"][-1:])), **error.get("ctx", {})}
    if error["type"] == "string_type" and isinstance(value, dict | list | None):
        return f"must be text, not {shown(value)}"
    text = TEMPLATES.get(error["type"], "{msg}, not {input}").format(input=shown(value), msg=error["msg"], **context)
    if error["type"] == "literal_error" and isinstance(value, str):
        close = closest(value, re.findall(r"'([^']*)'", context["expected"]))
        return f"{text}; did you mean {close!r}?" if close else text
    return text


def shown(value: Any) -> str:
    """A value as YAML would write it, where it is short."""
    if isinstance(value, dict | list | tuple) or value is None:
        return kind_of(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else str(value)


def keys_at(kind: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Valid keys of the section at a path."""
    section: type[BaseModel] = kind
    for part in path:
        if isinstance(part, str):
            section = next(sections(section.model_fields[part].annotation))
    return list(section.model_fields)


def sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The model classes within a type, such as that of the entries of a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from sections(inner)
