"""Text and tables as GitHub's Markdown has them."""

from collections.abc import Iterator, Sequence

ENTITIES = {"&": "&amp;", "<": "&lt;", "\\": "&#92;", "|": "\\|"}


def escaped(text: str) -> str:
    """One line that opens no tag and ends no cell."""
    return "".join(ENTITIES.get(character, character) for character in " ".join(text.splitlines()))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table."""
    yield table_row(columns)
    yield table_row(["---"] * len(columns))
    yield from map(table_row, rows)


def table_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(escaped(cell) for cell in cells)} |"
