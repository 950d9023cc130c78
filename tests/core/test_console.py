import json
from collections.abc import Iterator

import pytest
from rich.console import Console

from kdedge.core import console
from kdedge.core.console import OUT, emit, many, percent, progress_bar, say, show_table, show_text, size, warn
from kdedge.core.report import Metric

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def plain_output() -> Iterator[None]:
    OUT.configure()
    yield
    OUT.configure()


def test_json_stands_alone_on_stdout(capsys: Capture) -> None:
    OUT.configure(as_json=True)
    say("working")
    warn("careful")
    show_table("result", ["name"], [["a"]])
    show_text("text")
    emit(Metric(value=0.5, unit="ms", better="lower"))
    captured = capsys.readouterr()
    assert json.loads(captured.out)["value"] == 0.5
    assert captured.err == "working\nwarning: careful\n"


def test_person_gets_the_table_and_no_json(capsys: Capture) -> None:
    show_table("Result", ["name", "top-1"], [["student", "97.1 %"]], caption="on the test split")
    emit({"top1": 0.971})
    captured = capsys.readouterr()
    for text in ("Result", "name", "top-1", "student", "97.1 %", "on the test split"):
        assert text in captured.out
    assert "{" not in captured.out


def test_quiet_keeps_results_and_warnings(capsys: Capture) -> None:
    OUT.configure(quiet=True)
    say("working")
    warn("careful")
    show_text("report.html")
    assert capsys.readouterr() == ("report.html\n", "warning: careful\n")


def test_output_off_a_terminal_is_plain(capsys: Capture) -> None:
    say("[bold]a name[/] " + "x" * 300)
    with progress_bar("train", 2) as bar:
        bar.advance(2)
    show_table("t", ["first", "second"], [["a" * 60, "b" * 40]])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.splitlines()[0] == "[bold]a name[/] " + "x" * 300
    assert "a" * 60 in out
    assert "b" * 40 in out


def test_progress_off_a_terminal_says_a_line_now_and_then(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 4.0, 12.0, 12.0, 13.0])
    monkeypatch.setattr("kdedge.core.console.time.monotonic", lambda: next(clock))
    with progress_bar("train", 30) as bar:
        bar.note(loss=0.25)
        for _ in range(3):
            bar.advance(5)
    assert capsys.readouterr().out == "train: 10/30, about 24 s left  loss 0.25\n"


def test_progress_that_is_not_to_be_shown_stays_silent(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "PLAIN_SECONDS", -1.0)
    with progress_bar("warm-up", 1, shown=False) as bar:
        bar.advance()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 * 2**20, "3.0 MiB"), (5 * 2**30, "5.00 GiB")],
)
def test_size_reads_as_a_person_writes_it(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (999, "999"), (76_000, "76k"), (853_018, "853k"), (12_540_000, "12.54M"), (4e9, "4G")]
)
def test_many_reads_as_a_person_writes_it(count: float, text: str) -> None:
    assert many(count) == text


def test_percent_of_nothing_is_a_dash() -> None:
    assert (percent(0.93402), percent(None)) == ("93.40 %", "-")


PROFILE = ("model", "a text", "median ms", "95 % interval", "images/s")
ROW = ["original", "words that may be broken", "12.345", "12.344 .. 12.346", "81"]


def shown_at(width: int, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> list[str]:
    monkeypatch.setattr(OUT, "console", Console(width=width))
    show_table("Result", PROFILE, [ROW])
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_table_too_wide_for_the_terminal_keeps_its_numbers_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert shown_at(60, monkeypatch, capsys) == [
        "Result",
        "                          median",
        "model     a text              ms     95 % interval  images/s",
        "─" * 60,
        "original  words that may  12.345  12.344 .. 12.346        81",
        "          be broken",
    ]


def test_table_that_fits_has_lines_between_its_columns(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    header, row = shown_at(90, monkeypatch, capsys)[2:5:2]
    assert header == "┃ model    ┃ a text                   ┃ median ms ┃    95 % interval ┃ images/s ┃"
    assert row == "│ original │ words that may be broken │    12.345 │ 12.344 .. 12.346 │       81 │"
