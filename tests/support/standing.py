"""Whether what was made of tegrastats lines stands in them: no more than words and pieces of words are compared."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from mutants import mutants

from kdedge.profile.tegrastats import Core, Reading, parse_line


def stands(reading: Reading, line: str) -> None:
    """Whether each number of the reading is in the line, by its name and with its unit; looks at words alone."""
    words = line.split()
    said: dict[str, list[tuple[str, list[int | None]]]] = {}
    for name, word in pairwise(words):
        said.setdefault(name, []).extend(says(word))

    def beside(part: Any, *allowed: Any) -> None:
        assert any(value in allowed for value in said.get(part.name.split()[-1], [])), part

    for part in reading.memory:
        beside(part, (part.unit, [part.used, part.total]))
    for part in reading.cores:
        assert any(core_in(word, part) for word in words), part
    for part in reading.loads:
        beside(part, ("%@", [part.percent, *(mhz or 0 for mhz in part.mhz)]))
    for part in reading.engines:
        beside(part, ("off", []) if part.mhz is None else ("", [part.mhz]))
    for part in reading.temperatures:
        sought = [-256.0 if part.celsius is None else part.celsius, *([] if part.peak is None else [part.peak])]
        assert any(celsius(word, part.name)[: len(sought)] == sought for word in words), part
    for part in reading.rails:
        numbers = [value for value in (part.milliwatts, part.average, part.peak) if value is not None]
        beside(part, ("mW", numbers), ("", numbers))


def says(word: str) -> Iterator[tuple[str, list[Any]]]:
    """The unit and numbers that a word can be read as."""
    if word == "off":
        yield "off", []
    for unit in ("mW", "MB", "kB", ""):
        pieces = word.split("(")[0].split("/")
        bare = [piece[: len(piece) - len(unit)] for piece in pieces if piece.endswith(unit)]
        if unit.endswith("B"):
            bare = [*pieces[:-1], *bare]
        if len(bare) == len(pieces):
            yield from ((unit, numbers) for numbers in integers(bare))
    percent, sign, clocks = word.rpartition("%")
    clocks = clocks.replace("@", "").strip("[]")
    for numbers in integers(([percent] if sign else []) + (clocks.split(",") if clocks else [])):
        yield "%@", numbers if sign else [None, *numbers]


def integers(texts: list[str]) -> Iterator[list[int]]:
    try:
        yield [int(text) for text in texts]
    except ValueError:
        return


def core_in(word: str, core: Core | None) -> bool:
    """A clock behind the bracket is that of all cores."""
    listed, _, shared = word.replace("[", "").partition("]")
    if core is None:
        return "off" in listed.split(",")
    pieces = (piece.split("%") for piece in listed.split(",") if piece.count("%") == 1)
    found = [numbers for share, mhz in pieces for numbers in integers([share, (mhz or shared).lstrip("@") or "0"])]
    return [core.percent, core.mhz or 0] in found


def celsius(word: str, name: str) -> list[float]:
    head, _, rest = word.partition("@")
    try:
        return [float(text[:-1]) for text in rest.split("/") if text.endswith("C")] if head == name else []
    except ValueError:
        return []


def check(texts: Sequence[str], count: int) -> int:
    """Mutate lines, check what is made of them; how many fields that were."""
    numbers = 0
    for text in mutants(texts, count):
        for line in text.splitlines():
            reading = parse_line(line)
            stands(reading, line)
            numbers += len(reading.rails) + len(reading.temperatures) + len(reading.loads)
    return numbers
