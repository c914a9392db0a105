"""`cnnbp export`, and `--weights` in the commands that take it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli.bars import Command, Outcome

import cnnbp_cli as cnnbp_api


@pytest.mark.parametrize("form", ["onnx", "safetensors", "npz", "tensorboard"])
def test_without_its_package_one_message_says_what_to_install(
    form: str, cnnbp: Command, bars_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnx", "safetensors", "tensorboard.summary"):
        monkeypatch.setitem(sys.modules, name, None)
    done = cnnbp("export", bars_run, "exported", "--to", form)
    if form == "npz":
        assert done.code == 0
        return
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: exported: ")
    assert done.stderr.endswith(f"pip install 'cnnbp[{form}]'\n")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "exported").exists()


@pytest.mark.parametrize("form", ["onnx", "safetensors", "npz"])
def test_the_files_name_says_the_form(form: str, cnnbp: Command, bars_run: Path) -> None:
    if form != "npz":
        pytest.importorskip(form)
    for arguments in ([f"one.{form}"], ["two", "--to", form]):
        done = cnnbp("export", bars_run, *arguments)
        used = f"checkpoint: {bars_run / 'checkpoints' / 'best.npz'} (the best; step 8, epoch 2)\n"
        assert (done.code, done.stdout, done.stderr) == (0, f"export: {arguments[0]}\n", used)
    assert abs(Path("two").stat().st_size - Path(f"one.{form}").stat().st_size) < 8  # time stamps


def test_an_unknown_form(cnnbp: Command, bars_run: Path) -> None:
    done = cnnbp("export", bars_run, "model.pt")
    assert done.code == 2
    assert done.stderr == (
        "error: model.pt: expected a file name that ends in .onnx, .safetensors, .npz, or one of these as --to\n"
    )


def test_a_config_a_checkpoint_and_a_run_can_be_exported(cnnbp: Command, bars_run: Path) -> None:
    checkpoint = bars_run / "checkpoints" / "best.npz"
    for name, source in (("initial", "bars.yaml"), ("run", bars_run), ("checkpoint", checkpoint)):
        assert cnnbp("export", source, f"{name}.npz").code == 0
    initial, run, best = (dict(np.load(f"{name}.npz")) for name in ("initial", "run", "checkpoint"))
    assert all((run[name] == best[name]).all() for name in run)
    assert not (run["edges.weight"] == initial["edges.weight"]).all()


def test_overrides_count(cnnbp: Command, bars_run: Path) -> None:
    assert cnnbp("export", bars_run, "wide.npz", "--set", "dtype=float64").code == 0
    assert np.load("wide.npz")["edges.weight"].dtype == np.float64


def test_curves_have_no_weights(cnnbp: Command, bars_run: Path) -> None:
    done = cnnbp("export", bars_run, "board", "--to", "tensorboard", "--set", "dtype=float64")
    assert done.code == 2
    assert "go with a network, not with the curves of a run" in done.stderr


def test_curves_come_from_a_run(cnnbp: Command) -> None:
    pytest.importorskip("tensorboard")
    done = cnnbp("export", "bars.yaml", "board", "--to", "tensorboard")
    assert done.code == 2
    assert done.stderr == "error: bars.yaml: is not a run directory; `cnnbp train` makes one from a config\n"


def without_checkpoint(done: Outcome) -> dict[str, Any]:
    return json.loads(done.stdout) | {"checkpoint": None}


def test_exported_weights_evaluate_predict_and_export_as_the_run(cnnbp: Command, bars_run: Path) -> None:
    assert cnnbp("export", bars_run, "weights.npz").code == 0
    given = ("bars.yaml", "--weights", "weights.npz")
    expected = cnnbp("evaluate", bars_run, "--format", "json")
    assert expected.code == 0
    assert without_checkpoint(cnnbp("evaluate", *given, "--format", "json")) == without_checkpoint(expected)
    np.save("image.npy", np.arange(36, dtype=np.uint8).reshape(6, 6))
    expected = cnnbp("predict", bars_run, "image.npy", "--format", "json")
    assert expected.code == 0
    found = cnnbp("predict", "bars.yaml", "image.npy", *given[1:], "--format", "json")
    assert without_checkpoint(found) == without_checkpoint(expected)
    assert cnnbp("export", given[0], "again.npz", *given[1:]).code == 0
    first, again = np.load("weights.npz"), np.load("again.npz")
    assert all((first[name] == again[name]).all() for name in first)


def test_weights_that_do_not_know_their_normalization_take_that_of_the_data(cnnbp: Command, bars_run: Path) -> None:
    expected = cnnbp("evaluate", bars_run, "--format", "json")
    np.savez("bare.npz", **cnnbp_api.load(bars_run).parameters())
    found = cnnbp("evaluate", "bars.yaml", "--weights", "bare.npz", "--format", "json")
    assert without_checkpoint(found) == without_checkpoint(expected)


def test_training_starts_from_given_weights(cnnbp: Command, bars_run: Path) -> None:
    assert cnnbp("export", bars_run, "weights.npz").code == 0
    frozen = ("--set", "train.optimizer.learning_rate=1e-30", "--epochs", "1", "--quiet", "--format", "json")
    done = cnnbp("train", "bars.yaml", "--weights", "weights.npz", "--out", "run", *frozen)
    assert done.code == 0
    wanted = cnnbp("evaluate", bars_run, "--format", "json")
    assert json.loads(done.lines[-1])["test_loss"] == pytest.approx(json.loads(wanted.stdout)["loss"])


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "export"])
def test_weights_that_do_not_fit_are_one_message(command: str, cnnbp: Command) -> None:
    np.savez("weights.npz", **{"edges.weight": np.zeros((2, 1, 5, 5), np.float32)})
    np.save("image.npy", np.zeros((6, 6), np.uint8))
    rest = {"predict": ["image.npy"], "export": ["out.npz"]}.get(command, [])
    done = cnnbp(command, "bars.yaml", *rest, "--weights", "weights.npz")
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == (
        "error: weights.npz: does not fit the model: parameter edges.weight: "
        "expected shape (2, 1, 3, 3), got (2, 1, 5, 5)\n"
    )
    assert {path.name for path in Path().iterdir()} == {"bars.yaml", "weights.npz", "image.npy"}


def test_without_weights_a_config_is_no_trained_model(cnnbp: Command) -> None:
    done = cnnbp("evaluate", "bars.yaml")
    assert done.code == 2
    assert done.stderr == (
        "error: bars.yaml: is not a run directory or a checkpoint; `cnnbp train` makes them from a config, "
        "or give its weights with --weights\n"
    )
