"""A browser for pages: Chromium without a head, driven by Playwright; tests are skipped where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
              "--disable-component-update", "--disable-sync"]  # fmt: skip


@dataclass
class Opened:
    """A page in the browser, and what went wrong or over the network since it was opened."""

    page: Any
    faults: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def browser_path() -> str | None:
    """The browser named by $GENREC_BROWSER, or the first one installed."""
    return os.environ.get("GENREC_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = browser_path()
    if path is None:
        pytest.skip("no browser: install Chromium, or name one in GENREC_BROWSER")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def browser_page(browser: Any) -> Iterator[Callable[..., Opened]]:
    """Opens a file from disk: ``browser_page(path, width=375, color_scheme="dark")``."""
    contexts = []

    def open_file(path: Path, *, width: int = 1280, height: int = 900, **settings: Any) -> Opened:
        context = browser.new_context(viewport={"width": width, "height": height}, **settings)
        context.set_default_timeout(8000)
        contexts.append(context)
        opened = Opened(context.new_page())
        watch(opened)
        opened.page.goto(Path(path).resolve().as_uri())
        return opened

    yield open_file
    for context in contexts:
        context.close()


def watch(opened: Opened) -> None:
    opened.page.on("console", lambda message: opened.faults.append(message.text) if message.type == "error" else None)
    opened.page.on("pageerror", lambda error: opened.faults.append(str(error)))
    opened.page.on("request", lambda request: opened.requests.append(request.url))
