"""A page of an audit in a headless browser, watched for everything that it must not do."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
ORDERS = ("disagreement", "confident", "unsure", "long", "short", "index")


@contextmanager
def browser() -> Iterator[Any]:
    """Skips where there is none, unless GRADISTILL_BROWSER_REQUIRED is set: then that is a failure."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    missing = None if path else f"no browser: none of {', '.join(NAMES)} is installed"
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        missing = "no browser: playwright is not installed"
    if missing:
        (pytest.fail if os.environ.get("GRADISTILL_BROWSER_REQUIRED") else pytest.skip)(missing)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


class Visit:
    """One opened page. ``trouble`` collects errors, violated policies, dialogs and requests."""

    def __init__(self, browser: Any, html: str, folder: Path, **context: Any) -> None:
        file = folder / "audit.html"
        file.write_text(html, encoding="utf-8")
        self.trouble: list[str] = []
        self.context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | context))
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.trouble.append(f"console: {message.text}"))
        self.page.on("pageerror", lambda error: self.trouble.append(f"error: {error}"))
        self.page.on("dialog", self._dismiss)
        self.page.on("request", self._requested)
        self.url = file.as_uri()
        self.page.goto(self.url)

    def _dismiss(self, dialog: Any) -> None:
        self.trouble.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _requested(self, request: Any) -> None:
        if request.url != self.url:
            self.trouble.append(f"request: {request.url}")

    def shown(self) -> list[int]:
        """The numbers of the examples on the page, in their order."""
        heads = self.page.locator("#list h3").all_text_contents()
        return [int(head.removeprefix("Example ")) for head in heads]

    def everything(self) -> list[int]:
        """The numbers of all examples that fit, after all pages were asked for."""
        while self.page.locator("#more").is_visible():
            self.page.locator("#more").click()
        return self.shown()

    def show(self, kind: str) -> None:
        self.page.locator(f'input[name="show"][value="{kind}"]').check()

    def close(self) -> None:
        self.context.close()
