"""Take the pictures of the README from the real page: `make screenshots`, where Chromium is installed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from playwright.sync_api import sync_playwright

from cnnbp_cli.tracing.source import Request, trace_of, write_page

ROOT = Path(__file__).parents[1]
TOY = ROOT / "configs" / "toy.yaml"
CELL = "conv2d_1.weight[0,0,1,2]:gradient"
SIZE = {"width": 1280, "height": 800}


def take(folder: Path) -> None:
    """Write `trace-toy.png` and `trace-toy-dark.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as temporary, sync_playwright() as playwright:
        page = Path(temporary, "toy.html")
        write_page(trace_of(str(TOY), Request()), page, str(TOY))
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        for scheme, name in (("light", "trace-toy.png"), ("dark", "trace-toy-dark.png")):
            opened = browser.new_page(viewport=SIZE, color_scheme=scheme)
            opened.goto(f"{page.as_uri()}#{quote(CELL, safe=':')}")
            opened.wait_for_function("document.documentElement.dataset.ready === 'true'")
            opened.screenshot(path=folder / name)
        browser.close()


if __name__ == "__main__":
    take(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images")
