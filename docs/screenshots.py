"""Make the pictures of the README from the real program: `make screenshots`, where Chromium is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from PIL import Image
from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

from cnnbp_cli.tracing.source import Request, trace_of, write_page

ROOT = Path(__file__).parents[1]
TOY = ROOT / "configs" / "toy.yaml"
CELL = "conv2d_1.weight[0,0,1,2]:gradient"
SIZE = {"width": 1280, "height": 800}
RESNET = ROOT / "configs" / "resnet-mini.yaml"
COLUMNS = 80
COLORS = 128


def cnnbp(*arguments: str | Path, cwd: Path) -> str:
    """Return what a command writes on a terminal with colors."""
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "cnnbp_cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, check=True, capture_output=True, text=True).stdout


def draw(folder: Path) -> None:
    """Write `summary-resnet-mini.svg`, `gradnorms-resnet-mini.svg` and `plot-lenet5.png`."""
    with TemporaryDirectory() as temporary:
        here = Path(temporary)
        graph = cnnbp("summary", RESNET, "--graph", "svg", cwd=here)
        (folder / "summary-resnet-mini.svg").write_text(graph, encoding="utf-8")
        call = ("gradnorms", "resnet-mini.yaml", "--steps", "60", "--every", "6")
        shutil.copy(RESNET, here)
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            screen = Console(record=True, width=COLUMNS, file=nowhere)
            screen.print(Text.from_ansi(cnnbp(*call, cwd=here)))
        picture = screen.export_svg(title="cnnbp " + " ".join(call), unique_id="cnnbp")
        (folder / "gradnorms-resnet-mini.svg").write_text(picture, encoding="utf-8")
        cnnbp("train", ROOT / "configs" / "lenet5.yaml", "--out", "lenet5", "--quiet", cwd=here)
        cnnbp("plot", "lenet5", "--out", (folder / "plot-lenet5.png").absolute(), cwd=here)


def take(folder: Path) -> None:
    """Write `trace-toy.png` and `trace-toy-dark.png`."""
    with TemporaryDirectory() as temporary, sync_playwright() as playwright:
        page = Path(temporary, "toy.html")
        write_page(trace_of(str(TOY), Request()), page, str(TOY))
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        for scheme, name in (("light", "trace-toy.png"), ("dark", "trace-toy-dark.png")):
            opened = browser.new_page(viewport=SIZE, color_scheme=scheme)
            opened.goto(f"{page.as_uri()}#{quote(CELL, safe=':')}")
            opened.wait_for_selector("html[data-ready=true]", state="attached")
            opened.screenshot(path=folder / name)
        browser.close()


if __name__ == "__main__":
    images = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    draw(images)
    take(images)
    for picture in images.glob("*.png"):
        Image.open(picture).convert("RGB").quantize(COLORS).save(picture, optimize=True)
