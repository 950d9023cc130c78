"""Why trtexec failed, from its text: the cause, its own words for it, and what to do.

Spellings of TensorRT 5 to 11.  Part of the device closure: Python 3.8, standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

REBUILD = "kdedge export --trt   (builds it again, on this machine)"
EXPORT = "kdedge export --preset tensorrt   (operators, types and layouts that TensorRT takes)"
LONGEST = 300  # characters of what is quoted


class Failure(NamedTuple):
    kind: str
    cause: str
    said: tuple[str, ...]
    """trtexec's own words, line by line."""
    fix: str
    fatal: bool = True
    """False for what also happens in a run that goes well, such as a tactic that finds no memory."""

    def __str__(self) -> str:
        return "{}: {}".format(self.cause, "; ".join(self.said))


class Sign(NamedTuple):
    kind: str
    patterns: tuple[str, ...]
    """What is quoted is the first group."""
    cause: str
    fix: str
    fatal: bool = True


SIGNS = [
    Sign(
        "other_gpu",
        (r"incompatible device, (expecting compute \S+ got compute [^\s,]+)",),
        "the engine was built for another GPU",
        REBUILD,
    ),
    Sign(
        "other_version",
        (r"(expecting library version \S+ got [^\s,]+)", r"(Version tag does not match[^)\n]*)"),
        "the engine was built by another TensorRT",
        REBUILD,
    ),
    Sign(
        "not_an_engine",
        (r"(Magic tag does not match)", r"(magicTag == \S+ failed)"),
        "not an engine of this TensorRT (but of another version or operating system, of the safety runtime, cut short, "
        "or with a header in front of it, as ultralytics writes)",
        REBUILD,
    ),
    Sign(
        "damaged",
        (r"readExternal: [0-9] (\(Type mismatch\))",),
        "the engine was built by another TensorRT, or is damaged",
        REBUILD,
    ),
    Sign(
        "deserialize",
        ("(Engine deserialization failed)", "(engine deserialization failed)", "(Got invalid engine)"),
        "the engine cannot be loaded",
        REBUILD,
    ),
    Sign("save", (r"(Saving engine to file failed)",), "the engine cannot be written", "df -h .   (is there room?)"),
    Sign(
        "file",
        (r"(Could not open file[^\n]*)", r"(Error opening engine file[^\n]*)"),
        "a file cannot be read",
        "ls -l   (is it there?)",
    ),
    Sign(
        "memory",
        (r"(OutOfMemory)", r"(Out of memory)", r"(out of memory)", r"(Cuda failure: 2\b)"),
        "not enough memory on the device",
        "a smaller workspace_mib in the preset, and no other program on the GPU",
        fatal=False,
    ),
]
UNKNOWN = re.compile(r"\[E\] Unknown option: (-\S+)")
REPLACED = {
    "--workspace": "--memPoolSize=workspace:MIB",
    "--buildOnly": "--skipInference",
    "--streams": "--infStreams",
    "--plugins": "--staticPlugins",
    "--maxBatch": "--maxShapes",
    "--batch": "--shapes",
    "--fp16": "an ONNX file in fp16",
    "--int8": "an ONNX file with Q/DQ nodes",
    "--best": "an ONNX file in the types wanted",
}
NODE = re.compile(r"While parsing node number [0-9]+ \[[^\n]*\]")
REASON = re.compile(r"In function \w+:[ \r]*\n((?:(?!\[(?:[0-9]{2}/|[IWEVFX]\])|&&&&)[^\n]+\n?){1,4})")
UNPARSED = ("Failed to parse onnx file", "Parsing model failed")
UNBUILT = ("Engine could not be created from network", "Building engine failed", "Failed to create engine from model")
ERROR_CODE = re.compile(r"Error Code [0-9]+: ([^\n]+)")
ERROR = re.compile(r"\[E\] (?:\[TRT\] )?([^\n]+)")
OF_ENGINES = re.compile("(?i)engine|deserializ")
OF_TACTICS = "Skipping tactic"  # the builder tries another one


def find_failures(text: str) -> tuple[Failure, ...]:
    """The causes that the text names, each once, the most telling first."""
    return (*_options(text), *_parser(text), *_signs(text), *_unbuilt(text)) or tuple(_any_engine_error(text))


def _signs(text: str) -> Iterator[Failure]:
    for sign in SIGNS:
        found = next(filter(None, (re.search(pattern, text) for pattern in sign.patterns)), None)
        if found is not None:
            yield Failure(sign.kind, sign.cause, (found[1].strip()[:LONGEST],), sign.fix, sign.fatal)


def _options(text: str) -> Iterator[Failure]:
    names = tuple(dict.fromkeys(UNKNOWN.findall(text)))
    if names:
        known = ", ".join(f"{name}: {REPLACED[name]}" for name in names if name in REPLACED)
        fix = known or "trtexec --help   (the options of this version)"
        yield Failure("option", "options that this trtexec does not have", names, fix)


def _parser(text: str) -> Iterator[Failure]:
    node, reason = NODE.search(text), REASON.search(text)
    said = [node[0]] if node else []
    said += [line.strip() for line in reason[1].split("\n") if line.strip()] if reason else []
    said = said or [phrase for phrase in UNPARSED if phrase in text][:1]
    if said:
        yield Failure("parser", "TensorRT does not take the ONNX file", tuple(line[:LONGEST] for line in said), EXPORT)


def _unbuilt(text: str) -> Iterator[Failure]:
    phrases = [phrase for phrase in UNBUILT if phrase in text]
    if phrases:
        said = [reason.strip()[:LONGEST] for reason in ERROR_CODE.findall(text)[:3]] or phrases[:1]
        yield Failure("build", "TensorRT builds no engine from the model", tuple(dict.fromkeys(said)), EXPORT)


def _any_engine_error(text: str) -> Iterator[Failure]:
    said = [
        line.strip()[:LONGEST] for line in ERROR.findall(text) if OF_ENGINES.search(line) and OF_TACTICS not in line
    ]
    if said:
        yield Failure("engine", "an error about the engine", tuple(said[:1]), REBUILD)
