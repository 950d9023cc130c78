"""Every page and picture that kdedge makes, as Chromium shows it; and that what is looked for would be found."""

from collections.abc import Callable, Iterator
from pathlib import Path

import browser
import matplotlib as mpl
import pytest
from browser import problems
from earlyexits import early_exits
from entries import HERE, entry
from mini import Finished
from playwright.sync_api import Browser

from kdedge.report.charts import exits_file
from kdedge.report.fronts import fronts
from kdedge.report.html import ReportData, render
from kdedge.report.pareto import fronts_file
from kdedge.report.svg import STYLE, canvas, inline, legend

PLAIN = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>a page</title></head>
<body style="--grid: #dfe3e8; --series-1: #0b66b0"><main><h1>A page</h1><p>of a few words</p>{body}</main></body></html>
"""


@pytest.fixture(scope="module")
def chromium(needs: Callable[[object, str], None]) -> Iterator[Browser]:
    if browser.CHROMIUM == browser.NONE:
        pytest.skip(browser.HOW)
    needs(browser.CHROMIUM and Path(browser.CHROMIUM).is_file(), browser.HOW)
    with browser.chromium() as running:
        yield running


def page(folder: Path, text: str, name: str = "page.html") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_report_of_a_real_run_is_sound(chromium: Browser, finished: Finished) -> None:
    assert problems(chromium, finished.run / "report.html") == []


def test_report_with_everything_is_sound(chromium: Browser, run: Callable[..., ReportData], tmp_path: Path) -> None:
    assert problems(chromium, page(tmp_path, render(run(exits=early_exits())))) == []


def test_report_of_a_detector_is_sound(chromium: Browser, detector: Callable[..., ReportData], tmp_path: Path) -> None:
    assert problems(chromium, page(tmp_path, render(detector()))) == []


def test_report_of_a_run_that_was_only_trained_is_sound(
    chromium: Browser, run: Callable[..., ReportData], tmp_path: Path
) -> None:
    text = render(run(export=None, profiles=[], gate=None))
    assert problems(chromium, page(tmp_path, text)) == []


def test_figure_of_early_exits_is_sound(chromium: Browser, tmp_path: Path) -> None:
    assert problems(chromium, page(tmp_path, exits_file(early_exits()), "exits.svg")) == []


def test_figure_of_many_runs_is_sound(chromium: Browser, tmp_path: Path) -> None:
    entries = [
        entry(
            f"a run with a long name {k:02}",
            HERE,
            fp32=(0.8 + k / 200, 4000 * k, k),
            int8=(0.79 + k / 200, 900 * k, k / 2),
        )
        for k in range(1, 21)
    ]
    text = fronts_file(entries, list(fronts(entries)))
    assert problems(chromium, page(tmp_path, text, "compare.svg")) == []


def test_nothing_is_found_wrong_with_a_plain_page(chromium: Browser, tmp_path: Path) -> None:
    body = f"<h2>Losses</h2>{drawn('losses', [1, 3, 2])}"
    assert problems(chromium, page(tmp_path, PLAIN.format(body=body))) == []


@mpl.rc_context(STYLE)
def drawn(name: str, *lines: list[float]) -> str:
    """A figure of a plot for each line, and a legend."""
    figure, _ = canvas(3.0, columns=len(lines))
    for axes, line in zip(figure.axes, lines, strict=True):
        axes.plot(line, label=name)
        axes.set_xlim(0, 2)
    legend(figure)
    return f"<div style='width: {300 * len(lines)}px; max-width: 100%'>{inline(figure, name, name)}</div>"


SVG = 'role="img" viewBox="0 0 100 100" width="200" height="200"'
LINE = '<path d="M 1 1 H 90" stroke="blue"/>'
DEFECTS = {
    "<script>nothing.there()</script>": "script: nothing is not defined",
    "<script>console.warn('slow')</script>": "console: slow",
    '<img src="http://example.com/a.png" alt="a">': "asks for http://example.com/a.png",
    "<style>@font-face { font-family: f; src: url(https://example.com/f.woff) }</style><p style='font-family: f'>f</p>":
    "asks for https://example.com/f.woff",
    '<div style="width: 900px">wide</div>': "screen, light, 360 px: the page is 908 px wide where 360 px",
    f'<div style="overflow: hidden; width: 300px"><p style="white-space: nowrap">{"cut " * 90}</p></div>':
    'screen, dark, 1280 px: "cut cut cut cut cut cut cut cut cut cut " is cut off',
    f'<div tabindex="0" style="overflow: auto"><p style="white-space: nowrap">{"box " * 90}</p></div>':
    'print, dark, 718 px: "box box box box box box box box box box " is cut off',
    '<div style="color: #fff; background: #111">dark</div>': "print, dark, 718 px: div is dark on paper",
    '<p style="color: #bbb">faint</p>': 'color-contrast: Elements must meet minimum color contrast',
    "<h4>too deep</h4>": "heading-order: ",
    f"<svg {SVG}>{LINE}</svg>": "a figure has no name for a screen reader",
    drawn("empty", []): 'figure "empty" has an empty plot',
    drawn("half", [1, 2, 3], []): 'figure "half" has an empty plot',
    f'<svg {SVG} aria-label="a">{LINE}<text x="90" y="50">beyond</text></svg>': 'figure "a" cuts off "beyond"',
    f'<svg {SVG} aria-label="b">{LINE}<text x="9" y="50">one</text><text x="12" y="51">two</text></svg>':
    'figure "b" writes "two" over "one"',
    f'<svg {SVG} aria-label="c">{LINE}<text x="9" y="50" fill="#ccc">one</text></svg>':
    'figure "c" has "one" with a contrast of 1.6',
}  # fmt: skip


def test_every_defect_is_found(chromium: Browser, tmp_path: Path) -> None:
    found = problems(chromium, page(tmp_path, PLAIN.format(body="".join(DEFECTS))))
    missed = [text for text in DEFECTS.values() if not any(text in each for each in found)]
    assert missed == [], found
