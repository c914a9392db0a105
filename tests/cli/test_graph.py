"""`cnnbp summary --graph`: every layer and every edge is drawn, and in the picture no box or label meets another."""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest
from cli.bars import Command

from cnnbp_cli.config.load import load_config

CONFIGS = Path(__file__).parents[2] / "configs"

UNET = """\
data: {source: synthetic, kind: bars, image: [1, 16, 16], classes: 2, train: 8, test: 2}
model:
  input: [1, 16, 16]
  layers:
    - {type: conv2d, name: 'enc"1"<&>', filters: 4, kernel_size: 3, padding: same}
    - {type: max_pool2d, name: down, pool_size: 2}
    - {type: conv2d, name: bottom, filters: 8, kernel_size: 3, padding: same}
    - {type: conv_transpose2d, name: up, filters: 4, kernel_size: 2, stride: 2}
    - {type: concat, name: skip, inputs: [up, 'enc"1"<&>', input]}
    - {type: conv2d, name: left, filters: 3, kernel_size: 1}
    - {type: conv2d, name: right, filters: 3, kernel_size: 3, padding: same, inputs: [skip]}
    - {type: add, name: both, inputs: [right, left]}
    - global_avg_pool2d
    - {type: dense, units: 2}
"""
NAMES = ["lenet5", "resnet-mini", "autoencoder", "unet"]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def config(cnnbp: Command, request: pytest.FixtureRequest) -> Path:
    if request.param != "unet":
        return CONFIGS / f"{request.param}.yaml"
    Path("unet.yaml").write_text(UNET, encoding="utf-8")
    return Path("unet.yaml")


def edges(config: Path) -> int:
    layers = load_config(config).model.layers
    return sum(len(layer.inputs or ["above"]) for layer in layers)


@pytest.mark.parametrize("config", NAMES, indirect=True)
def test_boxes_do_not_meet_and_labels_stay_in_them(cnnbp: Command, config: Path) -> None:
    done = cnnbp("summary", config, "--graph", "svg")
    assert (done.code, done.stderr) == (0, "")
    root = ElementTree.fromstring(done.stdout)
    boxes = [
        tuple(float(rect.get(key, "nan")) for key in ("x", "y", "width", "height"))
        for rect in root.findall(f"{SVG}rect")
        if rect.get("x")
    ]
    assert len(boxes) == 1 + len(load_config(config).model.layers)
    for (x, y, w, h), (u, v, width, height) in combinations(boxes, 2):
        assert x + w <= u or u + width <= x or y + h <= v or v + height <= y
    for text in root.findall(f"{SVG}text"):
        x, y, half = float(text.get("x", "")), float(text.get("y", "")), len(text.text or "") * 7.23 / 2
        assert any(u <= x - half and x + half <= u + w and v + 9 <= y <= v + h - 2 for u, v, w, h in boxes)
    curves = root.findall(f"{SVG}g/{SVG}path")
    assert len(curves) == edges(config)
    for curve in curves:  # where an edge runs straight down through a row, it keeps clear of the boxes there
        stops = re.findall(r"(-?[\d.]+) (-?[\d.]+)V(-?[\d.]+)", curve.get("d", ""))
        for x, top, bottom in (map(float, stop) for stop in stops[1:]):
            assert not any(u < x < u + w and v < bottom and top < v + h for u, v, w, h in boxes)


@pytest.mark.parametrize("config", NAMES, indirect=True)
def test_dot_and_mermaid_have_every_edge(cnnbp: Command, config: Path) -> None:
    assert len(re.findall(r"^  n\d+ -> n\d+;$", cnnbp("summary", config, "--graph", "dot").stdout, re.M)) == edges(
        config
    )
    drawn = cnnbp("summary", config, "--graph", "mermaid").stdout
    assert drawn.startswith("flowchart TD\n")
    assert len(re.findall(r"^  n\d+ --> n\d+$", drawn, re.M)) == edges(config)
    assert "enc#34;1#34;#60;#38;#62;" in drawn or config.name != "unet.yaml"


@pytest.mark.skipif(not shutil.which("dot"), reason="needs Graphviz")
@pytest.mark.parametrize("config", NAMES, indirect=True)
def test_graphviz_reads_it(cnnbp: Command, config: Path) -> None:
    drawn = cnnbp("summary", config, "--graph", "dot").stdout
    done = subprocess.run(["dot", "-Tplain"], input=drawn, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert sum(line.startswith("edge ") for line in done.stdout.splitlines()) == edges(config)
