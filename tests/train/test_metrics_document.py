"""The columns of `metrics.csv` are those that docs/watching.md explains."""

from __future__ import annotations

import re
from pathlib import Path

from cnnbp_cli.train.event_log import METRICS


def test_every_column_is_explained():
    text = (Path(__file__).parents[2] / "docs" / "watching.md").read_text(encoding="utf-8")
    table = text.split("## The table of epochs")[1].split("\n## ")[0]
    firsts = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    assert tuple(re.findall(r"`(\w+)`", " ".join(firsts))) == METRICS
