"""Debian's Chromium, driven by playwright."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a window; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def opened(browser: Any, url: str) -> Iterator[Any]:
    """A page, once the model is there; what its console says is an error of the test."""
    page = browser.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(url)
    page.wait_for_selector("#note:not(:empty)")
    try:
        yield page
    finally:
        page.close()
    assert not [line for line in said if "400 (Bad Request)" not in line]


def cards(page: Any, count: int) -> list[dict[str, Any]]:
    """What the page says of the photos, once it has so many of them: the latest first."""
    page.wait_for_selector(f".card:nth-child({count})")
    return [
        {
            "title": card.query_selector("h2").inner_text(),
            "file": card.query_selector(".file").inner_text(),
            "names": [row.inner_text() for row in card.query_selector_all(".names .name")],
            "shares": [float(row.get_attribute("value")) for row in card.query_selector_all(".names .share")],
        }
        for card in page.query_selector_all(".card")
    ]
