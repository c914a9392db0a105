"""`cnnbp validate`: shapes of any network, and with --data all that training would refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli.bars import Command

GENERATOR = """\
data: {source: synthetic, kind: bars}
model:
  input: [100, 1, 1]
  layers: [{type: conv_transpose2d, filters: 3, kernel_size: 4}]
  head: none
"""
SEGMENTATION = """\
data: {source: synthetic, kind: bars, image: [3, 8, 8]}
model:
  input: [3, 8, 8]
  layers: [{type: conv2d, filters: 1, kernel_size: 3, padding: same}]
  head: none
"""
TURNED = """\
data: {source: synthetic, kind: bars, image: [1, 8, 4], train: 32, test: 8}
model:
  input: [1, 8, 4]
  layers:
    - {type: conv2d, filters: 8, kernel_size: [5, 1]}
    - {type: conv_transpose2d, name: up, filters: 1, kernel_size: [1, 5]}
  head: none
"""


@pytest.mark.parametrize("target", ["auto", "label", "image"])
@pytest.mark.parametrize(
    ("text", "parameters", "output"),
    [(GENERATOR, 4803, [3, 4, 4]), (SEGMENTATION, 28, [1, 8, 8]), (TURNED, 89, [1, 4, 8])],
)
def test_networks_of_any_output(text: str, parameters: int, output: list[int], target: str, cnnbp: Command) -> None:
    Path("net.yaml").write_text(text)
    setting = ["--set", f"data.target={target}"]
    layers = text.count("{type")
    assert cnnbp("validate", "net.yaml", *setting).stdout == (
        f"net.yaml: ok, {layers} layer{'s' * (layers > 1)}, {parameters:,} parameters\n"
    )
    found = json.loads(cnnbp("summary", "net.yaml", *setting, "--format", "json").stdout)
    assert (found["total_parameters"], found["layers"][-1]["output_shape"]) == (parameters, output)


def test_an_image_target_has_the_shape_of_the_image(cnnbp: Command) -> None:
    Path("net.yaml").write_text(TURNED)
    message = (
        "net.yaml:6:7: the last layer up gives 1×4×8, but the target is the image, 1×8×4\n"
        "  6 |     - {type: conv_transpose2d, name: up, filters: 1, kernel_size: [1, 5]}\n"
        "    |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n"
    )
    for command in (["train", "--out", "run"], ["validate", "--data"], ["gradcheck"]):
        done = cnnbp(command[0], "net.yaml", *command[1:])
        assert (done.code, done.stderr) == (2, message)


def test_a_flat_output_may_reproduce_the_image(cnnbp: Command) -> None:
    layers = "model.layers=[flatten, {type: dense, units: 36}]"
    settings = ["--set", layers, "--set", "model.head=none", "--set", "data.target=image"]
    assert cnnbp("validate", "bars.yaml", "--data", *settings).code == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data={source: npz, path: none.npz}"], "error: {}/none.npz: does not exist; check the path (a relative one "
         "starts at the config's folder)\n"),
        (
            ["data={source: synthetic, kind: bars, image: [1, 7, 7]}"],
            "error: data.image: images are [1, 7, 7], but the config says [1, 6, 6]; write `model.input: [1, 7, 7]`, "
            "or `data.image_size: [7, 7]` to see a part of each\n",
        ),
        (
            ["data={source: synthetic, kind: bars, image_size: [8, 9]}"],
            "error: data.image: images are [1, 6, 6], but the config says [1, 8, 9]; write `data.image_size: [6, 6]`\n",
        ),
        (
            ["data={source: synthetic, kind: bars, image: [3, 5, 7], image_size: 8}"],
            "error: data.image: images are [3, 5, 7], but the config says [1, 8, 8]; write `model.input: [3, 5, 6]` "
            "and `data.image_size: [5, 7]`\n",
        ),
        (
            ["data={source: synthetic, kind: bars, classes: 3}"],
            "error: synthetic bars: label 2 of sample 0 in the train split is outside the model's 2 classes (0 to 1); "
            "give the last layer 3 units or more\n",
        ),
    ],
)  # fmt: skip
def test_data_that_cannot_be_used(settings: list[str], message: str, cnnbp: Command) -> None:
    overrides = [word for setting in settings for word in ("--set", setting)]
    assert cnnbp("validate", "bars.yaml", *overrides).code == 0
    done = cnnbp("validate", "bars.yaml", "--data", *overrides)
    assert (done.code, done.stdout, done.stderr) == (2, "", message.format(Path.cwd()))
    document = json.loads(cnnbp("validate", "bars.yaml", "--data", *overrides, "--format", "json").stdout)
    expected = message.format(Path.cwd()).removeprefix("error: ").rstrip()
    assert [problem["message"] for problem in document["configs"][0]["problems"]] == [expected]


def test_classes_that_are_never_drawn_are_wrong_without_data(cnnbp: Command) -> None:
    done = cnnbp("validate", "bars.yaml", "--set", "data.classes=9")
    assert done.stderr == (
        "--set data.classes=9:14: classes: bars have 2 to 4 classes, got 9\n"
        "  --set data.classes=9\n"
        "                     ^\n"
    )


def test_what_looks_like_a_mistake_in_the_data_is_said(cnnbp: Command) -> None:
    np.savez("same.npz", x_train=np.zeros((24, 6, 6), np.uint8), y_train=np.ones(24, int))
    setting = ["--set", "data={source: npz, path: same.npz}"]
    remark = f"npz {Path.cwd()}/same.npz: all 24 training labels are 1, so that there is nothing to learn\n"
    done = cnnbp("validate", "bars.yaml", "--data", *setting)
    assert (done.code, done.stderr) == (0, f"bars.yaml: {remark}")
    assert cnnbp("data", "info", "bars.yaml", *setting).stderr == remark
    assert cnnbp("train", "bars.yaml", *setting, "--out", "run", "--quiet").stderr.startswith(remark)


def test_labels_that_are_floats_or_one_hot(cnnbp: Command) -> None:
    images, labels = np.zeros((24, 6, 6), np.uint8), np.arange(24) % 2
    for name, values in {"floats": labels.astype(float), "rows": np.eye(2)[labels], "parts": labels / 2}.items():
        np.savez(f"{name}.npz", x_train=images, y_train=values, x_test=images, y_test=values)
    for name in ("floats", "rows"):
        data = f"data={{source: npz, path: {name}.npz}}"
        done = cnnbp("train", "bars.yaml", "--set", data, "--out", name, "--quiet")
        assert (done.code, done.stderr) == (0, "")
        assert cnnbp("evaluate", name, "--min-accuracy", "0.5").code == 0
    done = cnnbp("train", "bars.yaml", "--set", "data={source: npz, path: parts.npz}", "--out", "c", "--quiet")
    assert (done.code, done.stderr) == (
        2,
        "error: the labels are floats, but the model's classes are whole numbers from 0 to 1; convert them, as with "
        "y.astype(int)\n",
    )


def test_a_percentage_is_no_share(cnnbp: Command, bars_run: Path) -> None:
    meant = {"99": ", did you mean 0.99?", "97.5": ", did you mean 0.975?", "101": "", "-1": "", "nan": ""}
    for given, hint in meant.items():
        done = cnnbp("evaluate", bars_run, "--min-accuracy", given)
        assert (done.code, done.stderr) == (2, f"error: --min-accuracy: {given} is not between 0 and 1{hint}\n")


def test_names_of_files_do_not_steer_the_terminal(cnnbp: Command) -> None:
    name = "\x1b[31mred\x1b]0;title\x07.yaml"
    Path(name).write_text(Path("bars.yaml").read_text())
    broken = "broken\x1b[2J.yaml"
    Path(broken).write_text("data: [")
    for command in (
        ["validate", name, broken, "no\x1b[1m.yaml"],
        ["validate", "--data", name],
        ["init", "toy", "made\x1b[5m.yaml"],
        ["init", "toy", "made\x1b[5m.yaml"],
        ["sweep", name, "--set", "seed=1,2", "--set", "train.max_steps=1", "--out", "swept\x1b[7m"],
        ["sweep", broken, "--set", "seed=1,2"],
        ["train", name, "--out", "run\x1b[8m", "--quiet"],
        ["data", "info", name, "--set", 'data={source: csv, path: "a\\x1b[3m.csv"}'],
        ["evaluate", "run\x1b[8m"],
        ["summary", broken],
    ):
        done = cnnbp(*command)
        assert "\x1b" not in done.stdout + done.stderr, command
        assert "\x07" not in done.stdout + done.stderr, command


def test_messages_end(cnnbp: Command) -> None:
    for arguments in (
        ["train", "x" * 3000 + ".yaml"],
        ["evaluate", "y" * 200_000],
        ["predict", "z" * 200_000, "a.png"],
    ):
        done = cnnbp(*arguments)
        assert done.code == 2
        assert max(map(len, done.stderr.splitlines())) <= 2000


@pytest.mark.skipif(sys.platform == "win32", reason="no limits to the size of files")
def test_init_on_a_full_disk_leaves_no_file(tmp_path: Path) -> None:
    def full() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    done = subprocess.run(
        [sys.executable, "-m", "cnnbp_cli", "init", "toy", "my.yaml"],
        cwd=tmp_path,
        preexec_fn=full,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: my.yaml: cannot be written: File too large\n"
    assert not list(tmp_path.iterdir())
