"""Pages as Chromium shows them without any network, and what is wrong with them."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = os.environ.get("KDEDGE_CHROMIUM") or shutil.which("chromium")
NONE = "none"
"""As KDEDGE_CHROMIUM: do without, even where nothing else may be missing."""
HOW = "set KDEDGE_CHROMIUM to the full path of Chromium, or install it: sudo apt-get install chromium"
PHONE, TABLET, DESKTOP, PAPER = 360, 768, 1280, 718
"""CSS pixels; the last is A4 within Chromium's margins."""
LOOKS = [("screen", scheme, width) for scheme in ("light", "dark") for width in (PHONE, TABLET, DESKTOP)]
LAYOUT = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
GRIDS = re.findall(r"--grid: (#\w+)", (files("kdedge.report") / "page.css").read_text(encoding="utf-8"))


@contextmanager
def chromium() -> Iterator[Browser]:
    """pytest's own timeout is the only one: a busy machine is no defect of a page."""
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, timeout=0) as browser,
    ):
        yield browser


def problems(browser: Browser, path: Path) -> list[str]:
    """What a reader of an HTML or SVG file would stumble over, a sentence each, behind where that was seen."""
    with browser.new_context(offline=True) as context:
        context.set_default_timeout(0)
        page = context.new_page()
        found: list[str] = []
        listen(page, path.as_uri(), found)
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
        for media, scheme, width in (*LOOKS, ("print", "dark", PAPER)):
            page.emulate_media(media=media, color_scheme=scheme)  # type: ignore[arg-type]
            page.set_viewport_size({"width": width, "height": 800})
            seen = page.evaluate(LAYOUT, GRIDS)
            if path.suffix == ".html" and width == DESKTOP:
                seen += list(inaccessible(page))
            found += [f"{media}, {scheme}, {width} px: {text}" for text in seen]
        return found


def listen(page: Page, address: str, found: list[str]) -> None:
    """Note what the page complains of and asks for."""
    page.on("pageerror", lambda error: found.append(f"script: {error}"))
    page.on("console", lambda said: found.append(f"console: {said.text}") if said.type != "log" else None)
    page.on("request", lambda asked: found.append(f"asks for {asked.url}") if asked.url != address else None)


def inaccessible(page: Page) -> Iterator[str]:
    """By axe-core's rules: contrast, order of headings, names of figures and more."""
    for rule in Axe().run(page).response["violations"]:
        yield from (f"{rule['id']}: {rule['help']}: {node['html'][:120]}" for node in rule["nodes"])
