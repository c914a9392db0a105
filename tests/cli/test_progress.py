"""The line that says how far something is: on a terminal only, late, in time, and gone at the end."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from cli.bars import BARS, Command

import cnnbp_cli
from cnnbp_cli.cli.boundary import boundary
from cnnbp_cli.data.download import Receiving, Retrying
from cnnbp_cli.data.progress import Reading, listening, tell
from cnnbp_cli.diagnosis import diagnose
from cnnbp_cli.errors import UserError
from cnnbp_cli.report import data, live, progress, reading, sweep
from cnnbp_cli.sweep.engine import PointDone, PointProgress, PointStarted, SweepStarted
from cnnbp_cli.sweep.outcome import Outcome
from cnnbp_cli.sweep.points import read_space
from cnnbp_cli.train.evaluate import evaluate
from cnnbp_cli.train.events import NonFinite, RunFinished, RunStarted, StepDone

ROOT = Path(__file__).parents[2]


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Put a terminal in the place of standard error, from within a test: pytest puts its own there before."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    for name, value in {"COLUMNS": "80", "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    return stream


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [100.0]
    monkeypatch.setattr(live, "perf_counter", lambda: clock[0])
    return clock


def test_what_is_quick_says_nothing(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    with live.working("counting") as tick:
        for done in range(5):
            now[0] += 0.05
            tick(done, 5)
    with live.waiting("waiting"):
        pass
    assert terminal.getvalue() == ""


def test_time_left(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    with live.working("counting") as tick:
        now[0] += 10
        tick(1000, 4000)
        shown = terminal.getvalue()
        words = "━" * 10 + "─" * 30 + "  counting  1,000/4,000  30.0 s left"
        assert shown == f"\r\x1b[K\x1b[J\x1b[?7l{words}\x1b[?7h\r"
        now[0] += 0.01
        tick(1001, 4000)  # too soon
        assert terminal.getvalue() == shown
    assert terminal.getvalue() == shown + "\r\x1b[K\x1b[J"


def test_the_line_never_fills_nor_folds_and_goes_from_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    line = live.Line()
    line.draw("x" * 200, 0.5)
    before, words, after = re.split(r"(x+)", terminal.getvalue())
    assert len(words) == 78
    assert (before, after) == (
        "\r\x1b[K\x1b[J\x1b[?7l",
        "\x1b[?7h\r",
    )  # cut, not folded; the cursor rests at the beginning
    line.erase()
    assert terminal.getvalue().endswith("\x1b[?7h\r\r\x1b[K\x1b[J")


def test_waiting_says_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    monkeypatch.setattr(live, "PATIENCE", 0.01)
    with live.waiting("reading"):
        time.sleep(0.2)
    assert "reading  " in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K\x1b[J")


def test_waiting_says_how_much_time_is_left_of_what_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    monkeypatch.setattr(live, "PATIENCE", 0.01)
    monkeypatch.setattr(live, "EVERY", 0.01)
    with live.waiting("diagnosing"):
        for done in range(1, 9):
            tell(Reading("training", done, 8, "steps"))
            time.sleep(0.05)
        tell(Reading("trials", 1, 1000, "steps"))
        time.sleep(0.1)
    assert re.search(r"diagnosing  [4-7]/8  0\.\d s left|diagnosing  [4-7]/8  \d+ ms left", terminal.getvalue())
    assert "diagnosing  1/1,000" in terminal.getvalue()


def test_a_diagnosis_tells_how_far_its_trainings_are() -> None:
    heard: list[Reading] = []
    with listening(heard.append):
        diagnose(str(ROOT / "configs" / "toy.yaml"), steps=6)
    steps = [reading.done for reading in heard if reading.total == 6]
    assert steps[:6] == [1, 2, 3, 4, 5, 6]


def test_nothing_in_a_pipe_or_a_dumb_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for stream, term in ((sys.stderr, "xterm"), (Terminal(), "dumb")):
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("TERM", term)
        with live.working("counting") as tick:
            tick(1, 2)
    assert capsys.readouterr().err == ""


def test_long_work_counts_to_its_end() -> None:
    model = cnnbp_cli.load(ROOT / "configs" / "toy.yaml", overrides=["train.workers=1"])
    data = cnnbp_cli.load_data(model)
    ticks: list[tuple[int, int]] = []
    images, labels = data.test.images[:4] / 255, data.test.labels[:4]
    cnnbp_cli.gradcheck(model, images, labels, elements="all", progress=lambda *tick: ticks.append(tick))
    assert ticks == [(k, len(ticks)) for k in range(1, len(ticks) + 1)]
    ticks.clear()
    evaluate(model, data.test, data.normalization, batch_size=7, progress=lambda *tick: ticks.append(tick))
    assert [done for done, _ in ticks] == list(range(0, len(data.test), 7))


def finished(**figures: Any) -> RunFinished:
    values: dict[str, Any] = {"step": 9, "epochs": 1, "seconds": 1.0, "run": "runs/my run"} | {
        f"{part}_{name}": None for part in ("train", "validation", "test") for name in ("loss", "accuracy")
    }
    return RunFinished(**(values | figures))


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (finished(train_accuracy=0.97, test_accuracy=0.96), "`cnnbp evaluate 'runs/my run'` shows each class"),
        (finished(train_accuracy=0.99, test_accuracy=0.7), "70.00% on images not trained on, 99.00% on the others"),
        (finished(train_accuracy=0.12, test_accuracy=0.11), "11.00% is hardly better than always saying"),
        (finished(train_loss=0.1), "`cnnbp trace 'runs/my run'`"),
        (NonFinite(step=1, layer="a", where="output", loss=1.0, checkpoint=None), "`cnnbp diagnose 'runs/my run'`"),
        (finished(train_loss=50.0, diverged=True), None),
    ],
)
def test_what_to_do_next(event: RunFinished | NonFinite, words: str | None) -> None:
    text = progress.next_step(event, "runs/my run", 0.1)
    assert (words in text and "\n" not in text) if text and words else text is words
    assert progress.next_step(event, None, 0.1) is None


def test_the_end_of_train_says_what_to_do_next(cnnbp: Command) -> None:
    done = cnnbp("train", "bars.yaml", "--out", "mine", "--epochs", "6")
    assert done.code == 0
    *_, last = done.stderr.splitlines()
    assert last.startswith("next: ")
    command = last.split("`")[1].split()
    assert cnnbp(*command[1:]).code in (0, 1)
    assert cnnbp("train", "bars.yaml", "--quiet").stderr == ""


def run_in_shell(command: str, folder: Path) -> None:
    (folder / "bars.yaml").write_text(BARS, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    subprocess.run(["bash", "-c", command], cwd=folder, env=environment, check=True, timeout=60)


@pytest.mark.skipif(os.name == "nt", reason="needs bash")
def test_a_log_has_every_epoch_once_and_no_carriage_return(tmp_path: Path) -> None:
    python = f"{sys.executable} -m cnnbp_cli train bars.yaml --epochs 3"
    run_in_shell(f"{python} &> both; {python} 2>&1 | cat > piped; {python} > out 2> err", tmp_path)
    for name in ("both", "piped"):
        text = (tmp_path / name).read_bytes().decode()
        assert "\r" not in text
        assert "\x1b" not in text
        for epoch in "123":
            rows = [line for line in text.splitlines() if line.split()[:1] == [epoch]]
            assert len(rows) == 1
        assert "epoch 1/3" not in text
    err = (tmp_path / "err").read_text(encoding="utf-8")
    assert [err.count(f"epoch {k}/3") for k in (1, 2, 3)] == [1, 1, 1]
    assert "\r" not in err


def test_the_line_of_a_sweep(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "perf_counter", lambda: now[0])
    terminal = on_terminal(monkeypatch)
    started = RunStarted(
        **{"name": "bars", "step": 0, "total_steps": 10, "epochs": 2, "steps_per_epoch": 5, "batch_size": 12},
        **{"samples": 60, "parameters": 38, "workers": 1, "run": "s/01"},
    )
    step = StepDone(step=5, epoch=1, loss=0.5, accuracy=0.5, learning_rate=0.1, grad_norm=1.0, samples=12, seconds=0.1)

    def outcome(run: str, status: str, accuracy: float | None) -> PointDone:
        return PointDone(Outcome(run, {"seed": 0}, status, None, {"validation_accuracy": accuracy}))  # type: ignore[arg-type]

    with sweep.rendering("table", read_space(["seed=0,1,2,3"], sampling=False), quiet=False) as draw:
        draw(SweepStarted(Path("s"), 4, 0, 2, "validation_accuracy"))
        draw(PointStarted("01", {"seed": 0}))
        draw(PointStarted("02", {"seed": 1}))
        draw(PointProgress("01", started))
        assert "━" not in terminal.getvalue()  # too soon
        now[0] += 10
        draw(PointProgress("01", step))
        *_, words = terminal.getvalue().rpartition("\x1b[?7l")
        assert words.startswith("━" * 5 + "─" * 35 + "  0/4 runs  2 running  1:10 left")  # half a run in 10 s
        now[0] += 10
        draw(outcome("01", "finished", 0.9))
        *_, words = terminal.getvalue().rpartition("\x1b[?7l")
        assert "  1/4 runs  1 running  best 90.00% (01)  1:00 left" in words
        now[0] += 0.01
        shown = terminal.getvalue()
        draw(outcome("02", "failed", None))
        assert terminal.getvalue().startswith(f"{shown}{live.ERASURE}02  seed=0  failed")  # a line of its own
    assert terminal.getvalue().count("\n") == 2
    assert "━" not in terminal.getvalue().rpartition("\n")[2]


def test_what_ends_a_read_leaves_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    monkeypatch.setattr(reading, "PATIENCE", 0.0)

    def read() -> None:
        tell(Reading("animals", 1, 100))
        assert "pictures  1/100" in terminal.getvalue()
        raise UserError("animals/3.png: is no picture")

    with pytest.raises(typer.Exit), boundary():
        read()
    assert terminal.getvalue().endswith(f"{live.ERASURE}error: animals/3.png: is no picture\n")


def test_the_line_of_a_download(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "perf_counter", lambda: now[0])
    terminal = on_terminal(monkeypatch)
    with data.FetchProgress() as progress:
        progress(Receiving("train.gz", 1 << 20, 5 << 20))  # the first part is here already
        now[0] += 10
        progress(Receiving("train.gz", 3 << 20, 5 << 20))
        *_, words = terminal.getvalue().rpartition("\x1b[?7l")
        assert words.startswith("━" * 22 + "─" * 14 + "  train.gz  3.0 MiB of 5.0 MiB  10.0 s left")
        progress(Retrying("it hung up"))
        assert terminal.getvalue().endswith(f"{live.ERASURE}it hung up; trying again\n")
        progress(Receiving("labels.gz", 0, None))
        now[0] += 10
        progress(Receiving("labels.gz", 2 << 20, None))
        assert "labels.gz  2.0 MiB  10.0 s" in terminal.getvalue()
    assert terminal.getvalue().endswith(live.ERASURE)


SCREENS = {
    "train": (["train", "bars.yaml", "--epochs", "8"], "run: runs"),
    "sweep": (["sweep", "bars.yaml", "--seeds", "0,1,2,3", "--lr", "0.01,1e30"], "run: sweeps"),
}


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("tmux"), reason="needs tmux")
@pytest.mark.parametrize("screen", SCREENS)
def test_a_terminal_that_is_resized_keeps_whole_lines(tmp_path: Path, screen: str) -> None:
    (tmp_path / "bars.yaml").write_text(BARS.replace("train: 60", "train: 6000"), encoding="utf-8")
    name = f"cnnbp-{os.getpid()}"
    arguments, end = SCREENS[screen]
    call = f"{sys.executable} -m cnnbp_cli {' '.join(arguments)}"
    command = f"cd {tmp_path}; echo '$'; PYTHONPATH={ROOT} {call}; sleep 60"

    def tmux(*arguments: str) -> str:
        done = subprocess.run(["tmux", "-L", name, *arguments], capture_output=True, text=True, check=True)
        return done.stdout

    tmux("-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "60", "bash", "-c", command)
    try:
        for columns in (70, 100, 60, 120):
            time.sleep(1.2)
            tmux("resize-window", "-x", str(columns), "-y", "60")
        for _ in range(100):
            shown = tmux("capture-pane", "-p", "-S", "-200")
            if end in shown:
                break
            time.sleep(0.3)
    finally:
        tmux("kill-server")
    assert "━" not in shown
    assert "left" not in shown
    assert all(line == line.rstrip() for line in shown.splitlines())
    if screen == "sweep":
        failures = [line for line in shown.splitlines() if "1e+30  failed: " in line]
        assert [line.split()[0] for line in failures] == ["02", "04", "06", "08"]
        return
    epochs = [int(line.split()[0]) for line in shown.splitlines() if line.split()[:1] and line.split()[0].isdigit()]
    assert epochs == list(range(1, 9))
    assert "images/s" in [line for line in shown.splitlines() if "epoch" in line][-1]  # it is wide again
