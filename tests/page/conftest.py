"""A browser for the tests of the page, with no network, and pages made on the way."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cnnbp_cli as cnnbp
from cnnbp_cli.model import Model
from cnnbp_cli.tracing.trace import Trace, trace

CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@dataclass
class Opened:
    """A page in the browser, and what it did on its own."""

    page: Any
    requests: list[str] = field(default_factory=list[str])
    messages: list[str] = field(default_factory=list[str])

    def __call__(self, script: str, argument: Any = None) -> Any:
        return self.page.evaluate(script, argument)

    def choose(self, address: str) -> None:
        """Go to a cell by its address, such as ``conv1.weight[0,0,1,1]:gradient``."""
        self("address => { location.hash = '#' + address; }", address)
        self.page.wait_for_function("address => decodeURIComponent(location.hash) === '#' + address", arg=address)
        self.page.wait_for_timeout(30)

    def button(self, name: str) -> Any:
        return self.page.get_by_role("button", name=name, exact=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser, gone after the module: its driver has a thread, beside which tests could not fork their workers."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the page's tests need playwright")
    executable = next((path for path in CHROMIUM if Path(path).exists()), None)
    if executable is None:
        pytest.skip("the page's tests need Chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Open HTML in the browser; at the end, it must have loaded and said nothing."""
    opened: list[Opened] = []

    def opener(html: str, **options: Any) -> Opened:
        path = tmp_path / f"page-{len(opened)}.html"
        path.write_text(html, encoding="utf-8")
        context = browser.new_context(offline=True, viewport={"width": 1280, "height": 800}, **options)
        one = Opened(context.new_page())
        one.page.on("request", lambda request: one.requests.append(request.url))
        one.page.on("console", lambda message: one.messages.append(message.text))
        one.page.on("pageerror", lambda error: one.messages.append(str(error)))
        one.page.goto(path.as_uri())
        one.page.wait_for_selector("html[data-ready=true]", state="attached")
        opened.append(one)
        return one

    yield opener
    for one in opened:
        allowed = one.requests[:1]
        one.page.context.close()
        assert one.messages == []
        assert one.requests == allowed, "a page loads nothing but itself"


def load(name: str, *overrides: str) -> tuple[Model, Any]:
    """Return a shipped config's model, and its data."""
    model = cnnbp.load(CONFIGS / f"{name}.yaml", overrides=list(overrides))
    data = cnnbp.load_data(model)
    model.normalization = data.normalization
    return model, data


def trace_of(name: str, *overrides: str, index: int = 0, images: int = 1, **options: Any) -> Trace:
    """Trace test images of a shipped config with fresh weights."""
    model, data = load(name, *overrides)
    chosen = slice(index, index + images)
    labels = np.array(data.test.labels[chosen]) if model.target == "label" else None
    return trace(model, data.test.images[chosen], labels, split="test", index=index, **options)


def html_of(name: str, *overrides: str, **options: Any) -> str:
    """Return the page of a shipped config."""
    model, data = load(name, *overrides)
    labels = data.train.labels[:40] if model.target == "label" else None
    return trace_of(name, *overrides, **options).to_html(origin=f"{name}.yaml", batch=(data.train.images[:40], labels))


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, which checks pages for people who cannot see or use a mouse."""
    default = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
    path = Path(os.environ.get("AXE_CORE", default))
    if not path.exists():
        pytest.skip("needs axe-core: npm install in tests/page, or AXE_CORE=…/axe.min.js")
    return path.read_text(encoding="utf-8")
