"""Early exits on the page."""

import re
import xml.etree.ElementTree as ET

import pytest
from earlyexits import early_exits

from kdedge.report.charts import exits, exits_file
from kdedge.report.exits import COLUMNS, remarks, rows, summary
from kdedge.report.html import render


def test_rows_are_each_exit_the_operating_point_and_the_plain_student() -> None:
    report = early_exits()
    table = rows(report)
    assert [row[0] for row in table] == ["1/3", "2/3", "3/3", "stop at 0.8000", "without exits"]
    assert {len(row) for row in table} == {len(COLUMNS)}
    assert table[0][1:5] == ["stage1", "20k", "3.1M", "0.110"]
    assert table[2][6] == table[4][6]  # the plain student answers as the deepest exit does
    assert table[4][2:5] == ["58k", "8.7M", "0.280"]


def test_summary_says_how_the_threshold_came_about() -> None:
    report = early_exits()
    share = 100 * report.test.macs / 9.4e6
    assert "of at least 0.8000, chosen on 5000 validation images for 89.00 % or more. On 10000 test images" in summary(
        report
    )
    assert f"{share:.2f} % of the deepest exit's 9.4M." in summary(report)
    assert "of at least 0.8000, as it was given. On" in summary(early_exits(wanted=None))


@pytest.mark.parametrize(
    ("mean_ms", "macs", "lost"),
    [
        (0.199, 8_700_000, ""),
        (0.29, 8_700_000, "time"),
        (0.199, 4_000_000, "MACs"),
        (0.5, 4_000_000, "MACs and no time"),
    ],
)
def test_remarks_say_what_stopping_early_does_not_buy(mean_ms: float, macs: int, lost: str) -> None:
    report = early_exits()
    measured = report.measured.model_copy(update={"mean_ms": mean_ms})
    without = report.without.model_copy(update={"macs": macs})
    said = [text for text in remarks(early_exits(measured=measured, without=without)) if "buys no" in text]
    assert [text.partition(" here: ")[0] for text in said] == ([f"Stopping early buys no {lost}"] if lost else [])


def test_page_shows_early_exits(run) -> None:
    page = render(run(exits=early_exits()))
    assert "<h2>Early exits</h2>" in page
    assert "stage 1: the machine was busy" in page
    for title in ("Accuracy against mean MACs", "Accuracy against mean latency"):
        assert re.search(rf"<h3>{title}</h3>\s*<svg ", page)
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_page_without_early_exits_does_not_mention_them(run) -> None:
    assert "Early exits" not in render(run())


def test_figures_name_every_exit_and_follow_the_theme() -> None:
    for cost in ("macs", "latency_ms"):
        figure = exits(early_exits(), cost)
        assert all(f">{name}</text>" in figure for name in ("1/3", "2/3", "3/3", "chosen", "without exits"))
        assert "currentColor" in figure
        assert not re.search(r"#0000[01]\d", figure)


def test_svg_file_stands_alone() -> None:
    text = exits_file(early_exits())
    assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert not re.search(r"var\(|currentColor|#0000[01]\d", text)
    assert text.count(">1/3</text>") == 2
    assert exits_file(early_exits()) == text


def test_one_threshold_for_all_images_can_be_drawn() -> None:
    report = early_exits()
    ET.fromstring(exits_file(report.model_copy(update={"curve": report.curve[:1]})))
