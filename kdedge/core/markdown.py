"""Text and tables as GitHub's Markdown has them."""

import re
from collections.abc import Iterator, Sequence

ENTITIES = {
    "&": "&amp;",
    "<": "&lt;",
    "\\": "&#92;",
    "|": "\\|",
    "[": "&#91;",
    "`": "&#96;",
    "*": "&#42;",
}
MENTION = re.compile(r"(?<!\w)@")
"""Not that of an address such as ssh://user@board."""


def escaped(text: str) -> str:
    """One line that opens no tag, link or emphasis, calls nobody and ends no cell."""
    line = "".join(ENTITIES.get(character, character) for character in " ".join(text.splitlines()))
    return MENTION.sub("@&#8203;", line)  # a space without width: an entity alone would still call a user of that name


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table."""
    yield table_row(columns)
    yield table_row(["---"] * len(columns))
    yield from map(table_row, rows)


def table_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(escaped(cell) for cell in cells)} |"
