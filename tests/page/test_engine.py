"""The page's engine is a second implementation of the passes: the same numbers as NumPy's, on random networks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cnnbp_cli.tracing
from cnnbp_cli.tracing.html import page
from cnnbp_cli.tracing.payload import PAGE_LAYERS

HERE = Path(__file__).parent
PAGE = Path(cnnbp_cli.tracing.__file__).parent / "page"
NETWORKS = int(os.environ.get("PAGE_NETWORKS", "60"))


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vectors") / "vectors.json"
    subprocess.run([sys.executable, HERE / "vectors.py", str(NETWORKS), "1", path], check=True)
    return path


def test_engine_in_node(vectors: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node: the browser tests run the same vectors")
    command = [node, "--test", str(HERE / "engine.test.mjs")]
    done = subprocess.run(command, env=os.environ | {"VECTORS": str(vectors)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "skipped 0" in done.stdout


def test_the_page_runs_the_layers_that_python_says_it_runs() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node")
    script = (
        f"import({json.dumps((PAGE / 'layers.js').as_uri())}).then((m) => console.log(Object.keys(m.RULES).join()))"
    )
    done = subprocess.run([node, "--eval", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.strip().split(",")) == PAGE_LAYERS


def test_engine_in_the_browser(vectors: Path, open_page: Callable[..., Any]) -> None:
    networks = json.loads(vectors.read_text())["networks"]
    for payload in networks[:: max(1, len(networks) // 12)]:
        opened = open_page(page(payload))
        assert opened("window.trace.deviation()") <= 1e-10, payload["nodes"]
