"""`cnnbp profile` as a table, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json

import pytest

import cnnbp_cli.analysis.profile as module

FEW = ("profile", "bars.yaml", "--steps", "2")
LAYERS = ["edges", "relu_1", "max_pool2d_1", "flatten_1", "dense_1"]
PARTS = ["(batch preparation)", "(loss)", "(sums over workers)", "(update)", "(other)"]


@pytest.fixture(autouse=True)
def small_peak(monkeypatch):
    monkeypatch.setattr(module, "PEAK_SIZE", 64)


def test_table(cnnbp):
    outcome = cnnbp(*FEW)
    assert (outcome.code, outcome.stderr) == (0, "")
    lines = outcome.lines
    assert lines[0] == "bars: one step of 12 images, float32"
    assert lines[1].split() == ["forward", "backward", "forward", "backward"]
    assert lines[2].split() == ["layer", "type", "ms", "ms", "share", "GFLOP/s", "GFLOP/s"]
    assert [line.split("  ")[0] for line in lines[4:14]] == LAYERS + PARTS
    assert lines[15].split()[0] == "step"
    assert lines[15].split()[2] == "100.0%"
    assert lines[16].endswith(" images/s; mean of the faster half of the steps, 1")
    assert lines[17].startswith("the step reaches ")
    assert lines[17].endswith(" of a large matrix product on one core")


def test_narrow_table_keeps_times(cnnbp):
    outcome = cnnbp(*FEW, columns=40)
    assert all(len(line) <= 40 for line in outcome.lines)
    assert [line.split("  ")[0] for line in outcome.lines if line.startswith("(")][:5] == PARTS


def test_json(cnnbp):
    document = json.loads(cnnbp(*FEW, "--format", "json").stdout)
    assert list(document) == [
        *("name", "dtype", "batch_size", "workers", "images", "steps", "layers", "parts"),
        *("step_ms", "images_per_second", "gflops", "peak_gflops"),
    ]
    assert [layer["name"] for layer in document["layers"]] == LAYERS
    assert document["layers"][1]["forward_gflops"] is None


def test_csv(cnnbp):
    rows = list(csv.DictReader(io.StringIO(cnnbp(*FEW, "--format", "csv").stdout)))
    assert list(rows[0]) == [
        *("name", "type", "forward_ms", "backward_ms", "total_ms", "share", "forward_gflops", "backward_gflops")
    ]
    assert [row["name"] for row in rows] == LAYERS + PARTS
    assert float(rows[0]["total_ms"]) == pytest.approx(float(rows[0]["forward_ms"]) + float(rows[0]["backward_ms"]))
    assert rows[1]["forward_gflops"] == rows[-1]["forward_ms"] == ""
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1)


def test_batch_and_workers(cnnbp):
    outcome = cnnbp(*FEW, "--batch", "9", "--workers", "2", "--set", "dtype=float64")
    assert outcome.lines[0] == "bars: one step of 4 images, a batch of 9 shared by 2 workers, float64"
