"""The TensorRT names that kdedge uses, read from its code, and which versions have them.

python tests/support/trtnames.py API    writes tensorrt_names.json beside this file; API is a folder with one JSON
                                        file a version: {"version": ..., "members": {class: {member: description}}}
"""

import ast
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ENGINE = Path(__file__).parents[2] / "kdedge/engine"
LIST = Path(__file__).with_name("tensorrt_names.json")
API = os.environ.get("KDEDGE_TENSORRT_API", "")
HOW = "set KDEDGE_TENSORRT_API to a folder of TensorRT's member lists, one JSON file a version"
MODULE = "tensorrt"
"""Stands for a class whose members are the classes and functions of the package."""
OBJECTS = {  # what the variables of each file are
    "trt_build": {
        "builder": "Builder",
        "config": "IBuilderConfig",
        "network": "INetworkDefinition",
        "parser": "OnnxParser",
        "profile": "IOptimizationProfile",
        "tensor": "ITensor",
        "error": "ParserError",
    },
    "trt_cache": {"config": "IBuilderConfig", "cache": "ITimingCache"},
    "trt_config": {
        "builder": "Builder",
        "config": "IBuilderConfig",
        "network": "INetworkDefinition",
        "layer": "ILayer",
        "tensor": "ITensor",
    },
    "trt_layers": {"runtime": "Runtime", "engine": "ICudaEngine", "inspector": "EngineInspector"},
    "trt_profiler": {"_context": "IExecutionContext"},
    "trt_session": {
        "runtime": "Runtime",
        "engine": "ICudaEngine",
        "_engine": "ICudaEngine",
        "_context": "IExecutionContext",
    },
}
TABLES = {  # members that the code names in tables, all of them asked for before they are used
    "NetworkDefinitionCreationFlag": ("EXPLICIT_BATCH", "STRONGLY_TYPED"),
    "BuilderFlag": ("GPU_FALLBACK", "REFIT", "VERSION_COMPATIBLE", "FP16", "INT8"),
    "HardwareCompatibilityLevel": ("AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"),
    MODULE: ("IInt8EntropyCalibrator2", "IInt8MinMaxCalibrator"),
    "DataType": ("FLOAT",),
}
BEHIND = {  # used only where another name was found: member, the class or member that was asked for
    ("IBuilderConfig", "int8_calibrator"): (MODULE, "IInt8EntropyCalibrator2"),
    ("IBuilderConfig", "set_calibration_profile"): (MODULE, "IInt8EntropyCalibrator2"),
    ("EngineStat", "TOTAL_WEIGHTS_SIZE"): (MODULE, "EngineStat"),
    ("IBuilderConfig", "hardware_compatibility_level"): (MODULE, "HardwareCompatibilityLevel"),
}
OVERRIDDEN = {  # what classes of kdedge's that TensorRT calls define
    "IInt8EntropyCalibrator2": ("get_batch_size", "get_batch", "read_calibration_cache", "write_calibration_cache"),
    "IInt8MinMaxCalibrator": ("get_batch_size", "get_batch", "read_calibration_cache", "write_calibration_cache"),
    "ILogger": ("log",),
    "IProfiler": ("report_layer_time",),
}

Value = int | bool | None
"""An enumeration's number, True for another member, None for one that the version lacks."""
Names = dict[str, dict[str, list[Value]]]
"""Class, member and a value for each version."""


@dataclass(frozen=True)
class Use:
    kind: str
    member: str
    guarded: bool
    place: str


def uses() -> set[Use]:
    """Every TensorRT name in the code."""
    return {use for path in sorted(ENGINE.glob("trt*.py")) for use in uses_in(path.stem, path.read_text())}


def uses_in(stem: str, source: str) -> Iterator[Use]:
    tree = ast.parse(source)
    for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
        guards = {name for name, _ in asked_for(function, {})}
        inner = {id(node) for other in ast.walk(function) if nested(function, other) for node in ast.walk(other)}
        for node in ast.walk(function):
            kind = class_of(node.value, OBJECTS.get(stem, {})) if isinstance(node, ast.Attribute) else None
            if kind and id(node) not in inner and not node.attr.startswith("__"):
                yield Use(kind, node.attr, node.attr in guards, f"{stem}.py:{node.lineno}")
        for name, kind in asked_for(function, OBJECTS.get(stem, {})):
            if kind:
                yield Use(kind, name, True, f"{stem}.py, {function.name}()")


def nested(function: ast.FunctionDef, node: ast.AST) -> bool:
    return node is not function and isinstance(node, ast.FunctionDef)


def asked_for(function: ast.FunctionDef, objects: dict[str, str]) -> Iterator[tuple[str, str | None]]:
    """Member and class of each hasattr and getattr with a default."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and (ast.unparse(node.func), len(node.args)) in (("hasattr", 2), ("getattr", 3)):
            name = node.args[1]
            if isinstance(name, ast.Constant):
                yield str(name.value), class_of(node.args[0], objects)


def class_of(node: ast.expr, objects: dict[str, str]) -> str | None:
    if isinstance(node, ast.Name):
        return MODULE if node.id == "trt" else objects.get(node.id)
    if isinstance(node, ast.Attribute):
        if class_of(node.value, objects) == MODULE:
            return node.attr
        return objects.get(node.attr)
    return None


def names_used() -> set[tuple[str, str]]:
    used = {(use.kind, use.member) for use in uses()}
    for table in (TABLES, OVERRIDDEN):
        used |= {(kind, member) for kind, members in table.items() for member in members}
    return used | {(MODULE, kind) for kind, _ in used if kind != MODULE}


@cache
def carried() -> dict[str, Any]:
    """The project's own list: `versions`, oldest first, and `names`, which are those that it uses."""
    content: dict[str, Any] = json.loads(LIST.read_text())
    return content


def members(kind: str, version: str) -> dict[str, int | bool]:
    """What a class has in one version."""
    column = carried()["versions"].index(version)
    return {name: row[column] for name, row in carried()["names"].get(kind, {}).items() if row[column] is not None}


def having(kind: str, member: str) -> set[str]:
    """The versions that have a name."""
    return {version for version in carried()["versions"] if member in members(kind, version)}


def collected(folder: Path) -> dict[str, Any]:
    """The same list made from the full ones."""
    lists = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    lists.sort(key=lambda each: [int(part) for part in each["version"].split(".")])
    names: Names = {}
    for kind, member in sorted(names_used()):
        names.setdefault(kind, {})[member] = [value_of(each["members"], kind, member) for each in lists]
    return {"versions": [each["version"] for each in lists], "names": names}


def value_of(classes: dict[str, Any], kind: str, member: str) -> Value:
    if kind == MODULE:
        return True if member in classes else None
    said = classes.get(kind, {})
    if not isinstance(said, dict) or member not in said:
        return None
    word, _, number = said[member].partition(" ")
    return int(number) if word == "value" else True


def written(content: dict[str, Any]) -> str:
    """JSON with one member a line."""
    blocks = []
    for kind, rows in content["names"].items():
        lines = [f"      {json.dumps(member)}: {json.dumps(row)}" for member, row in rows.items()]
        blocks.append(f"    {json.dumps(kind)}: {{\n" + ",\n".join(lines) + "\n    }")
    names = ",\n".join(blocks)
    return f'{{\n  "versions": {json.dumps(content["versions"])},\n  "names": {{\n{names}\n  }}\n}}\n'


if __name__ == "__main__":
    LIST.write_text(written(collected(Path(sys.argv[1]))))
