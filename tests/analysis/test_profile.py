"""The profile: its parts are the step, its rates are those of the layers' products."""

from __future__ import annotations

import json

import numpy as np
import pytest

import cnnbp_cli.analysis.profile as module
from cnnbp_cli.analysis.profile import ProfileError, Stopwatch, peak_gflops, profile
from cnnbp_cli.analysis.summary import summary
from cnnbp_cli.build import build
from cnnbp_cli.config.load import parse_config
from cnnbp_cli.loading import load_data

CONFIG = """
name: bars
data: {source: synthetic, kind: bars, train: 50, test: 10, validation: 10}
model:
  input: [1, 6, 6]
  layers:
    - {type: conv2d, name: conv, filters: 4, kernel_size: 3, padding: same}
    - {type: batch_norm, name: norm}
    - {type: relu, name: stem}
    - {type: conv2d, name: branch, filters: 4, kernel_size: 1}
    - {type: add, name: sum, inputs: [stem, branch]}
    - flatten
    - {type: dense, name: last, units: 2}
train: {batch_size: 12, workers: 1, early_stopping: {patience: 1}}
"""


def measured(*overrides, **options):
    model = build(parse_config(CONFIG, overrides))
    return model, profile(model, load_data(model), **options)


@pytest.fixture(autouse=True)
def small_peak(monkeypatch):
    monkeypatch.setattr(module, "PEAK_SIZE", 64)


def test_rows_add_up_to_the_step():
    model, report = measured(steps=9)
    assert (report.name, report.dtype, report.batch_size, report.images) == ("bars", "float32", 12, 12)
    assert (report.workers, report.steps) == (1, 5)
    assert [layer.name for layer in report.layers] == ["conv", "norm", "stem", "branch", "sum", "flatten_1", "last"]
    assert [layer.type for layer in report.layers][:5] == ["conv2d", "batch_norm", "relu", "conv2d", "add"]
    assert [part.name for part in report.parts] == ["batch", "loss", "sums", "update", "other"]
    assert all(layer.forward_ms > 0 and layer.backward_ms > 0 for layer in report.layers)
    assert all(part.ms >= 0 for part in report.parts)
    layers = sum(layer.forward_ms + layer.backward_ms for layer in report.layers)
    assert layers + sum(part.ms for part in report.parts) == pytest.approx(report.step_ms)
    assert sum(row.share for row in (*report.layers, *report.parts)) == pytest.approx(1)
    assert report.images_per_second == pytest.approx(12_000 / report.step_ms)
    assert model.config.train.max_steps is None


def test_rates_count_two_operations_for_each_multiply_accumulate():
    """Backward takes as many for the weights and for the input, but nobody wants the image's gradient."""
    model, report = measured(steps=4)
    macs = {layer.name: layer.macs for layer in summary(model).layers}
    total = 0
    for layer in report.layers:
        products = 0 if layer.name == "conv" else 1
        forward = 2 * 12 * macs[layer.name]
        backward = forward * (1 + products)
        if layer.name in ("conv", "branch", "last"):
            assert layer.forward_gflops == pytest.approx(forward / layer.forward_ms / 1e6)
            assert layer.backward_gflops == pytest.approx(backward / layer.backward_ms / 1e6)
            total += forward + backward
        else:
            assert (layer.forward_gflops, layer.backward_gflops) == (None, None)
    assert report.gflops == pytest.approx(total / report.step_ms / 1e6)


def test_the_first_worker_takes_the_time_of_its_slice():
    _, report = measured("train.workers=3", "train.batch_size=14", steps=4)
    assert (report.workers, report.images, report.batch_size) == (3, 4, 14)
    assert report.images_per_second == pytest.approx(14_000 / report.step_ms)


@pytest.mark.parametrize("size", [40, 41, 300])
def test_every_step_is_a_whole_batch(size):
    _, report = measured(f"train.batch_size={size}", steps=3)
    assert report.images == size
    assert report.steps == 2


def test_steps_that_go_wrong():
    with pytest.raises(ProfileError) as caught:
        measured("train.optimizer={type: sgd, learning_rate: 1e300}", "dtype=float64", steps=3)
    assert str(caught.value).endswith("became infinite or NaN at step 2")


def test_the_stopwatch_sorts_times_by_what_they_were_for(monkeypatch):
    ticks = iter([0.0, 1.0, 3.0, 6.0, 10.0, 10.5, 15.5, 21.5, 28.5, 36.5])
    monkeypatch.setattr(module, "perf_counter", lambda: next(ticks))
    watch = Stopwatch()
    for mark in (
        *(("begin", ""), ("batch", ""), ("forward", "a"), ("forward", "b"), ("loss", "")),
        *(("backward", "b"), ("backward", "a"), ("gradients", ""), ("sums", ""), ("update", "")),
    ):
        watch(*mark)
    assert watch.taken(40.0) == {
        ("batch", ""): 1.0,
        ("forward", "a"): 2.0,
        ("forward", "b"): 3.0,
        ("loss", ""): 4.0,
        ("backward", "b"): 5.5,
        ("backward", "a"): 6.0,
        ("sums", ""): 7.0,
        ("update", ""): 8.0,
        ("other", ""): 3.5,
    }
    assert watch.taken(2.0) == {("other", ""): 2.0}


def test_the_report_is_plain_data():
    _, report = measured(steps=2)
    document = report.to_dict()
    assert json.loads(json.dumps(document)) == document
    assert list(document["layers"][0]) == [
        *("name", "type", "forward_ms", "backward_ms", "share", "forward_gflops", "backward_gflops")
    ]


def test_the_peak_is_a_rate():
    assert 0.01 < peak_gflops(np.dtype(np.float64)) < 1e5
