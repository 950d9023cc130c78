"""The only place that prints: tables and progress for a person, plain lines elsewhere, JSON alone for a machine."""

import json
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

PLAIN_SECONDS = 10.0
PLAIN_WIDTH = 160


class Output:
    """What this process shows; the command line sets it once."""

    def __init__(self) -> None:
        self.configure()

    def configure(self, quiet: bool = False, as_json: bool = False) -> None:
        """Under JSON everything meant for a person goes to stderr."""
        self.quiet, self.as_json = quiet, as_json
        plain = not sys.stdout.isatty()
        self.console = Console(stderr=as_json, highlight=False, soft_wrap=plain, width=PLAIN_WIDTH if plain else None)
        self.errors = Console(stderr=True, highlight=False, soft_wrap=True)

    @property
    def live(self) -> bool:
        return self.console.is_terminal and not self.quiet


OUT = Output()


def say(text: str) -> None:
    """A line of progress; not shown under --quiet."""
    if not OUT.quiet:
        OUT.console.print(escape(text))


def warn(text: str) -> None:
    OUT.errors.print(f"[yellow]warning:[/] {escape(text)}")


def fail(text: str) -> None:
    OUT.errors.print(f"[red]error:[/] {escape(text)}")


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str | None = None) -> None:
    """A command's result.  Columns of numbers are aligned on the right."""
    if OUT.as_json:
        return
    table = make_table(title, columns, rows, caption)
    whole = OUT.console.measure(table, options=OUT.console.options.update(max_width=sys.maxsize)).maximum
    OUT.console.print(table if whole <= OUT.console.width else make_table(title, columns, rows, caption, narrow=True))


def make_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str | None, narrow: bool = False
) -> Table:
    """A narrow one has no lines between its columns, and breaks headers and texts, but no number."""
    style: dict[str, Any] = {"title_style": "bold", "title_justify": "left", "caption_justify": "left"}
    if narrow:
        style |= {"box": box.SIMPLE_HEAD, "show_edge": False, "pad_edge": False, "padding": (0, 1, 0, 0)}
    table = Table(title=title, caption=caption, **style)
    for index, column in enumerate(columns):
        cells = [row[index] for row in rows]
        numbers = index > 0 and all(map(looks_numeric, cells))
        whole = narrow and numbers
        header = textwrap.fill(column, max(map(len, [*cells, *column.split()]), default=1)) if whole else column
        table.add_column(header, justify="right" if numbers else "left", overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def looks_numeric(cell: str) -> bool:
    return not cell or cell[0].isdigit() or cell[0] in "-+<>"


def show_text(text: str) -> None:
    """A command's result as text, as it is."""
    if not OUT.as_json:
        OUT.console.print(text, markup=False, soft_wrap=True)


def raw(line: str) -> None:
    """A line for a program that reads along, such as a CI's runner: never wrapped, colored or left out."""
    OUT.console.out(line, highlight=False)


def emit(value: Any) -> None:
    """A command's result for a machine: JSON on stdout under --json, nothing otherwise."""
    if OUT.as_json:
        plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        sys.stdout.write(json.dumps(plain, sort_keys=True, default=str) + "\n")


class Bar:
    """Progress of one piece of work."""

    def __init__(self, label: str, total: int, progress: Progress | None, shown: bool = True) -> None:
        self.label, self.total, self.done, self.metrics = label, total, 0, ""
        self._progress = progress
        self._task = progress.add_task(label, total=total, metrics="") if progress else None
        self._said = self._started = time.monotonic()
        self._shown = shown

    def note(self, **metrics: float) -> None:
        """Show these numbers beside the bar from now on."""
        self.metrics = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())

    def advance(self, steps: int = 1) -> None:
        self.done += steps
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=steps, metrics=self.metrics)
        elif self._shown and time.monotonic() - self._said > PLAIN_SECONDS:
            self._said = time.monotonic()
            left = (self._said - self._started) / self.done * (self.total - self.done)
            say(f"{self.label}: {self.done}/{self.total}, about {left:.0f} s left  {self.metrics}")


@contextmanager
def progress_bar(label: str, total: int, shown: bool = True) -> Iterator[Bar]:
    """A bar with the time left; off a terminal a plain line every ten seconds; nothing when it is not to be shown."""
    if not OUT.live or not shown:
        yield Bar(label, total, None, shown)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("<"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[metrics]}"),
    )
    with Progress(*columns, console=OUT.console, transient=True) as progress:
        yield Bar(label, total, progress)


def size(count: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def many(count: float) -> str:
    """A count with k, M or G."""
    for unit in ("", "k", "M"):
        if abs(count) < 1000:
            return f"{count:.4g}{unit}"
        count /= 1000
    return f"{count:.4g}G"


def percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.2f} %"


UNITS: dict[str, Callable[[float], str]] = {
    "fraction": percent,
    "bytes": size,
    "count": many,
    "ms": lambda value: f"{value:.3f} ms",
}


def quantity(value: float, unit: str) -> str:
    """A value in its unit, as a person reads it."""
    shown = UNITS.get(unit)
    return shown(value) if shown else f"{value:g} {unit}".rstrip()
