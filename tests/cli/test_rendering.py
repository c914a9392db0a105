"""What renderers write, apart from the commands that call them."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from cnnbp_cli.report import evaluate, progress, text
from cnnbp_cli.report.table import Column, Table, folded
from cnnbp_cli.text import show_bytes
from cnnbp_cli.train.evaluate import Evaluation, PerClass
from cnnbp_cli.train.events import Interrupted, NonFinite, RunStarted, StepDone


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0.0, "0.0000"),
        (0.03125, "0.0312"),
        (2.302585, "2.3026"),
        (1234.5678, "1,234.6"),
        (0.00012345, "1.23e-04"),
        (1e30, "1.00e+30"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (None, "-"),
    ],
)
def test_figures(number: float | None, words: str) -> None:
    assert text.figure(number) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1024, "1.0 KiB"),
        (18_816, "18.4 KiB"),
        (5 * 2**30, "5.0 GiB"),
        (2**70, "1,024.0 EiB"),
    ],
)
def test_bytes(number: int, words: str) -> None:
    assert show_bytes(number) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.0171, "17 ms"), (4.24, "4.2 s"), (185, "3:05"), (3723, "1:02:03"), (59.97, "60.0 s")]
)
def test_durations(seconds: float, words: str) -> None:
    assert text.duration(seconds) == words


def test_counts_and_shares() -> None:
    assert text.count(1_199_882) == "1,199,882"
    assert (text.count(1, "epoch"), text.count(2, "epoch")) == ("1 epoch", "2 epochs")
    assert (text.percent(0.98971), text.percent(None)) == ("98.97%", "-")
    assert (text.power(1.234e-14), text.power(0.0)) == ("1.2e-14", "0")


def test_texts_fold_at_their_joints_and_lose_nothing() -> None:
    assert list(folded("conv_transpose2d_1", 10)) == ["conv_", "transpose2", "d_1"]
    assert list(folded("a sentence of words", 10)) == ["a sentence", "of words"]
    assert list(folded("all its 1,199,882 parameters", 16)) == ["all its", "1,199,882", "parameters"]
    assert list(folded("epochs=1, max_steps=20", 14)) == ["epochs=1,", "max_steps=20"]
    assert "".join(folded("x" * 25, 10)) == "x" * 25


def test_wide_characters_take_two_columns(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [["層", "1"], ["ab", "2"]]
    table = Table([Column("layer", text=True), Column("n")], rows)
    for row in rows:
        table.row(row)
    assert capsys.readouterr().out == "層     1\nab     2\n"


def test_many_classes_show_their_worst_confusions(capsys: pytest.CaptureFixture[str]) -> None:
    classes = 40
    confusion = [[10 if true == called else 0 for called in range(classes)] for true in range(classes)]
    confusion[3][5], confusion[7][9] = 4, 6
    per_class = [PerClass(k, 1.0, 1.0, 10, str(k)) for k in range(classes)]
    evaluate.render(Evaluation(0.5, 0.975, 410, per_class, confusion), "table")
    *_, title, header, _, first, second = capsys.readouterr().out.splitlines()
    assert title == "the most frequent confusions"
    assert header.split() == ["true", "predicted", "images"]
    assert (first.split(), second.split()) == (["7", "9", "6"], ["3", "5", "4"])


STARTED = RunStarted(
    name="x",
    step=0,
    total_steps=100,
    epochs=10,
    steps_per_epoch=10,
    batch_size=64,
    samples=640,
    parameters=10,
    workers=2,
    run=None,
)


def step(number: int, **more: Any) -> StepDone:
    values: dict[str, Any] = {"loss": 0.5, "accuracy": 0.75, "learning_rate": 0.1, "grad_norm": 1.0}
    values |= {"epoch": (number - 1) // 10 + 1, "seconds": 0.01, "samples": 64}
    return StepDone(step=number, **(values | more))


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_the_bar_is_drawn_now_and_then_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for name, value in {"COLUMNS": "100", "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    bar = progress.progress(quiet=False, results_are_table=True)
    assert isinstance(bar, progress.Live)
    now = [0.0]
    monkeypatch.setattr(progress, "perf_counter", lambda: now[0])
    bar = progress.progress(quiet=False, results_are_table=True)
    bar(STARTED)
    bar(step(1))
    assert "epoch" not in terminal.getvalue().splitlines()[-1].replace("10 epochs", "")  # nothing in the first moment
    for number in range(2, 11):
        now[0] += 0.1
        bar(step(number))
    bar.close()
    written = terminal.getvalue()
    assert written.startswith("x: 10 parameters, 640 images, 10 epochs of 10 steps, batch 64, 2 processes\n")
    assert "epoch 1/10  step 6/100  loss 0.5000  accuracy 75.00%  6,400 images/s  " in written
    assert 2 <= written.count("epoch 1/10") <= 4
    assert written.endswith("\r\x1b[K\x1b[J")  # the line is erased


def test_a_line_after_ten_seconds_without_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress, "perf_counter", lambda: now[0])
    log = progress.Log()
    log(STARTED)
    for number in range(1, 5):
        now[0] += 4.0
        log(step(number))
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:] == ["epoch 1/10  step 3/100  loss 0.5000  accuracy 75.00%  6,400 images/s  6:28 left"]


@pytest.mark.parametrize(
    ("width", "words"),
    [
        (100, "epoch 1/10  step 1/100  loss 0.5000  accuracy 75.00%  6,400 images/s  "),
        (70, "epoch 1/10  loss 0.5000  accuracy 75.00%  6,400 images/s  "),
        (30, "loss 0.5000  "),
    ],
)
def test_what_does_not_fit_beside_the_bar_is_left_out(width: int, words: str) -> None:
    so_far = progress.SoFar()
    so_far(STARTED)
    so_far(step(1))
    shown = so_far.fitting(width)
    assert shown.startswith(words)
    assert shown.endswith(" left")
    assert len(shown) <= width


def test_quiet_still_says_why_a_run_ended(capsys: pytest.CaptureFixture[str]) -> None:
    quiet = progress.progress(quiet=True, results_are_table=True)
    for event in (STARTED, step(1), Interrupted(step=7, checkpoint="here.npz")):
        quiet(event)
    quiet(NonFinite(step=8, layer="conv1", where="parameters", loss=float("nan"), checkpoint=None))
    assert capsys.readouterr().err == (
        "interrupted after step 7; go on from here.npz with --resume\n"
        "error: a parameter of conv1 became infinite or NaN at step 8 (loss nan)\n"
        "Try a smaller train.optimizer.learning_rate, or train.clip_norm.\n"
    )


@pytest.mark.parametrize(
    ("layer", "where", "words"),
    [
        ("loss", "loss", "the loss"),
        ("conv1", "output", "the output of conv1"),
        ("conv1", "gradient", "the gradient of conv1"),
    ],
)
def test_the_first_bad_layer_is_named(layer: str, where: str, words: str) -> None:
    event = NonFinite(step=8, layer=layer, where=where, loss=1e30, checkpoint=None)
    assert progress.message(event) == (
        f"error: {words} became infinite or NaN at step 8 (loss 1.00e+30)\n"
        "Try a smaller train.optimizer.learning_rate, or train.clip_norm."
    )
