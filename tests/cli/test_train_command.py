"""`cnnbp train`: results on standard output, progress on standard error, exit codes, resuming."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli.bars import BARS, Command

from cnnbp_cli.config.load import load_config
from cnnbp_cli.train.event_log import read_events

HEADER = """\
          train     train  validation  validation  learning
epoch      loss  accuracy        loss    accuracy      rate  images/s     time
──────────────────────────────────────────────────────────────────────────────"""


def test_table(cnnbp: Command) -> None:
    done = cnnbp("train", "bars.yaml")
    assert done.code == 0
    assert done.stdout.startswith(HEADER)
    assert [line.split()[0] for line in done.lines[3:5]] == ["1", "2"]
    assert done.lines[5] == ""
    assert done.lines[6].startswith("test: loss 0.")
    assert done.lines[6].endswith("%")
    assert done.lines[7:] == [f"run: {Path('runs/bars-1')}"]
    assert Path("runs/bars-1/config.yaml").exists()


def test_progress_in_a_log_is_a_line_for_each_epoch(cnnbp: Command) -> None:
    done = cnnbp("train", "bars.yaml")
    first, *epochs, last = done.stderr.splitlines()
    assert first == "bars: 38 parameters, 48 images, 2 epochs of 4 steps, batch 12"
    assert [line.split("  ")[0] for line in epochs] == ["epoch 1/2", "epoch 2/2"]
    assert all(" images/s  " in line and "validation loss" in line for line in epochs)
    assert last.startswith("next: ")


def test_quiet_keeps_results_only(cnnbp: Command) -> None:
    done = cnnbp("train", "bars.yaml", "--quiet")
    assert done.stderr == ""
    assert done.stdout.startswith(HEADER)


def test_json_lines(cnnbp: Command) -> None:
    done = cnnbp("train", "bars.yaml", "--format", "json")
    events = [json.loads(line) for line in done.lines]
    kinds = [event["event"] for event in events]
    assert kinds == [
        *("started", "checkpoint", "step", "watched", *["step"] * 3, "epoch", "checkpoint"),
        *(*["step"] * 4, "epoch", "checkpoint", "finished"),
    ]
    step, epoch, finished = events[2], events[7], events[-1]
    assert {"step", "epoch", "loss", "learning_rate", "grad_norm"} <= step.keys()
    assert {"train_loss", "train_accuracy", "validation_loss", "validation_accuracy"} <= epoch.keys()
    assert {"test_loss", "test_accuracy", "run"} <= finished.keys()
    assert step["step"] == step["epoch"] == 1
    assert finished["run"] == str(Path("runs/bars-1"))


def test_csv_has_the_rows_of_the_runs_metrics(cnnbp: Command) -> None:
    done = cnnbp("train", "bars.yaml", "--format", "csv")
    rows = list(csv.DictReader(done.lines))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert Path("runs/bars-1/metrics.csv").read_text(encoding="utf-8").splitlines() == done.lines


def test_options_override_the_config(cnnbp: Command) -> None:
    done = cnnbp("train", "bars.yaml", "--epochs", "9", "--max-steps", "3", "--workers", "1", "--set", "seed=7")
    assert done.code == 0
    kept = Path("runs/bars-1/config.yaml").read_text(encoding="utf-8")
    assert "seed: 7\n" in kept
    assert "epochs: 9\n" in kept
    assert "max_steps: 3\n" in kept


def test_a_table_for_40_columns_names_what_it_leaves_out(cnnbp: Command) -> None:
    done = cnnbp("train", "bars.yaml", "--quiet", columns=40)
    assert done.lines[1] == "epoch      loss  accuracy    accuracy"
    assert done.stderr == (
        "no room for validation loss, learning rate, images/s, time: widen the terminal, or use --format csv\n"
    )


def test_norms_come_first_and_epochs_after_them(cnnbp: Command) -> None:
    done = cnnbp("train", "bars.yaml", "--quiet", "--grad-norms", "--watch-every", "4")
    assert done.lines[:7] == [
        "gradient: L2 norm of the loss gradient over all parameters of the layer, before clipping",
        "                    whole",
        " step      loss  gradient     edges   dense_1",
        "─" * 45,
        *done.lines[4:7],
    ]
    assert [line.split()[0] for line in done.lines[4:9]] == ["1", "4", "8", "─" * 45, "trend"]
    assert done.lines[9] == ""
    assert done.lines[11].startswith("epoch      loss")
    assert done.lines[-1] == f"run: {Path('runs/bars-1')}"


def test_each_run_gets_a_folder_of_its_own(cnnbp: Command) -> None:
    assert cnnbp("train", "bars.yaml", "--quiet").lines[-1] == f"run: {Path('runs/bars-1')}"
    assert cnnbp("train", "bars.yaml", "--quiet").lines[-1] == f"run: {Path('runs/bars-2')}"


def test_a_folder_that_holds_a_run_is_refused(cnnbp: Command) -> None:
    assert cnnbp("train", "bars.yaml", "--out", "here").code == 0
    done = cnnbp("train", "bars.yaml", "--out", "here")
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == (
        "error: here: already contains a run; continue it with --resume, or choose another folder with --out\n"
    )


def test_resume_starts_a_run_and_goes_on_with_it(cnnbp: Command) -> None:
    assert cnnbp("train", "bars.yaml", "--out", "here", "--resume", "--epochs", "1").code == 0
    done = cnnbp("train", "bars.yaml", "--out", "here", "--resume", "--epochs", "2")
    assert done.code == 0
    assert done.stderr.splitlines()[0].endswith(", going on from step 4")
    assert [line.split()[0] for line in done.lines[3:4]] == ["2"]


def test_a_run_alone_is_resumed_with_its_own_config(cnnbp: Command) -> None:
    cnnbp("train", "bars.yaml", "--out", "mine", "--set", "seed=4", "--set", "train.optimizer.learning_rate=0.02")
    Path("bars.yaml").unlink()
    for first, second in (("mine", "--resume"), ("--resume", "mine")):
        done = cnnbp("train", first, second, "--epochs", "3", "--format", "json")
        assert done.code == 0
        records = [json.loads(line) for line in done.lines]
        assert records[-1]["step"] == 3 * records[0]["steps_per_epoch"]
        assert all(record["learning_rate"] == 0.02 for record in records if record["event"] == "step")
    assert load_config("mine/config.yaml").seed == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mine", "--resume", "--out", "other"], "names another folder than mine, which is the one resumed"),
        (["empty", "--resume"], "empty contains no run to resume"),
        (["bars.yaml", "--allow-changes"], "requires --resume"),
        (["mine", "--resume", "--weights", "w.npz"], "has no effect: mine has weights of its own already"),
    ],
)
def test_a_run_in_the_place_of_a_config(cnnbp: Command, arguments: list[str], message: str) -> None:
    cnnbp("train", "bars.yaml", "--out", "mine", "--quiet")
    Path("empty").mkdir()
    done = cnnbp("train", *arguments)
    assert done.code == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())


def test_other_settings_are_refused_unless_they_are_allowed(cnnbp: Command) -> None:
    cnnbp("train", "bars.yaml", "--out", "mine", "--quiet")
    other = ("train", "bars.yaml", "--out", "mine", "--resume", "--set", "train.batch_size=16", "--epochs", "3")
    done = cnnbp(*other)
    assert (done.code, done.stdout) == (2, "")
    old = load_config("mine/config.yaml").train.batch_size
    assert done.stderr.splitlines()[:2] == [
        "error: mine: the run so far was made with other settings:",
        f"  train.batch_size: {old} → 16",
    ]
    done = cnnbp(*other, "--allow-changes", "--quiet")
    assert done.code == 0
    assert re.fullmatch(
        rf"note: the config changed after step \d+: train.epochs: 2 → 3, train.batch_size: {old} → 16\n", done.stderr
    )
    shown = " ".join(cnnbp("compare", "mine", "mine").stdout.split())
    assert "mine (changed)" in shown
    assert "mine: the config changed after step " in shown
    assert f"train.batch_size: {old} → 16" in cnnbp("plot", "mine").stdout
    diagnosed = cnnbp("diagnose", "mine")
    assert f"train.batch_size: {old} → 16" in " ".join((diagnosed.stdout + diagnosed.stderr).split())


def test_resume_needs_a_folder(cnnbp: Command) -> None:
    done = cnnbp("train", "bars.yaml", "--resume")
    assert done.code == 2
    assert "error: --resume: names no run: give RUN instead of CONFIG, or add --out" in done.stderr


@pytest.mark.parametrize("option", [["--epochs", "0"], ["--max-steps", "0"], ["--workers", "0"]])
def test_numbers_start_at_one(cnnbp: Command, option: list[str]) -> None:
    done = cnnbp("train", "bars.yaml", *option)
    assert done.code == 2
    assert done.stderr.startswith(f"{option[0]} 0: ")


def test_values_that_are_not_finite_end_the_run_with_code_1(cnnbp: Command) -> None:
    done = cnnbp("train", "bars.yaml", "--quiet", "--set", "train.optimizer={type: sgd, learning_rate: 1e30}")
    assert done.code == 1
    message, advice = done.stderr.splitlines()
    assert message.startswith("error: the output of ")
    assert " became infinite or NaN at step 2 (loss " in message
    assert message.endswith(f"; the last good checkpoint is {Path('runs/bars-1/checkpoints/step-00000000.npz')}")
    assert advice == "Try a smaller train.optimizer.learning_rate, or train.clip_norm."


def test_early_stopping_says_so(cnnbp: Command) -> None:
    stopping = "train.early_stopping={monitor: train_loss, patience: 1, min_delta: 100}"
    done = cnnbp("train", "bars.yaml", "--epochs", "9", "--set", stopping)
    assert done.code == 0
    assert "stopped after epoch 2: train_loss has not improved on " in done.stderr
    assert done.stderr.splitlines()[-2].endswith(" for 1 epoch")


@pytest.mark.skipif(os.name == "nt", reason="signals are sent differently there")
def test_interrupt_saves_a_checkpoint_and_leaves_with_130(tmp_path: Path) -> None:
    config = tmp_path / "bars.yaml"
    config.write_text(BARS.replace("epochs: 2", "epochs: 100000"), encoding="utf-8")
    arguments = [sys.executable, "-m", "cnnbp_cli", "train", str(config), "--out", str(tmp_path / "run")]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "checkpoints" / "best.npz").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    *_, asked, stopped = [line for line in stderr.splitlines() if line and not line.startswith("epoch")]
    assert asked == "stopping after this step; press Ctrl-C again to stop at once"
    assert stopped.startswith("interrupted after step ")
    checkpoint = stopped.split("go on from ")[1].removesuffix(" with --resume")
    assert Path(checkpoint).exists()
    assert "test:" not in stdout


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_a_run_that_diverged_is_pointed_to_the_diagnosis(cnnbp: Command, quiet: list[str]) -> None:
    linear = "model.layers=[flatten, {type: dense, units: 2}]"
    settings = ("--set", linear, "--set", "model.head=none", "--set", "train.optimizer={type: sgd, learning_rate: 0.5}")
    done = cnnbp("train", "bars.yaml", "--out", "run", *settings, *quiet)
    assert done.code == 0
    warning, advice = done.stderr.splitlines()[-2:]
    assert re.fullmatch(r"warning: the training diverged: its loss is \S+, worse than at the start", warning)
    assert advice == "`cnnbp diagnose run` looks for the cause."
    assert read_events(Path("run"))[-1]["diverged"] is True
    assert "run (diverged)" in cnnbp("compare", "run", "run").stdout
    assert "warning: the training of this run diverged" in cnnbp("evaluate", "run").stderr


ONE_CYCLE = ("--set", "train.schedule={type: one_cycle, max_learning_rate: 0.1}")
VOID = (*ONE_CYCLE, "--set", "train.optimizer.learning_rate=0.5")
WARNING = (
    "warning: train.optimizer.learning_rate has no effect: the schedule one_cycle follows "
    "train.schedule.max_learning_rate alone"
)


@pytest.mark.parametrize("command", ["train", "config", "validate"])
def test_settings_without_effect_are_named(cnnbp: Command, command: str) -> None:
    done = cnnbp(command, "bars.yaml", *VOID)
    assert done.code == 0
    assert sum(line.endswith(WARNING) or line == f"bars.yaml: {WARNING}" for line in done.stderr.splitlines()) == 1


def test_a_sweep_names_a_setting_without_effect_once(cnnbp: Command) -> None:
    done = cnnbp("sweep", "bars.yaml", *ONE_CYCLE, "--set", "train.optimizer.learning_rate=0.5,0.6", "--quiet")
    assert done.stderr.splitlines() == [WARNING]
