"""Layers from a user's file: they work in every command, and each mistake in them is one message with its place."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import cnnbp_cli as cnnbp
from cnnbp_cli.cli.app import app
from cnnbp_cli.config.custom_layers import load_layers
from cnnbp_cli.core.layers import LAYERS
from cnnbp_cli.core.traits import Traits

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

HEAD = """\
from dataclasses import dataclass
from typing import Literal
import numpy as np
import cnnbp_cli as cnnbp
from cnnbp_cli.core.types import Layer, Merge

@cnnbp.register
@dataclass(frozen=True, slots=True)
class Mine(Layer):
    type: Literal["mine"] = "mine"

"""

GOOD = """\
    def forward(self, params, x, ctx):
        return 2 * x, None

    def backward(self, params, residuals, dy, ctx):
        return 2 * dy, {}
"""

CONFIG = """\
data: {source: synthetic, kind: bars, train: 40, test: 8}
model:
  input: [1, 6, 6]
  layers:
    - {type: conv2d, name: conv, filters: 2, kernel_size: 3}
    - {type: mine, name: own}
    - flatten
    - {type: dense, units: 2}
train: {epochs: 1, workers: 1}
"""


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch, registered):
    """Work in an empty folder that has a config with a custom layer."""
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(CONFIG, encoding="utf-8")
    Path("mine.py").write_text(HEAD + GOOD, encoding="utf-8")


def run(*arguments):
    result = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200"}, prog_name="cnnbp")
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def complaint(*arguments):
    """Return the one message of a command that refuses its input."""
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    return result.stderr.removeprefix("error: ").rstrip("\n")


# ---------------------------------------------------------------- every command


def test_a_config_alone_runs_no_code():
    result = run("gradcheck", "mine.yaml")
    assert result.exit_code == 2
    assert result.stderr.startswith("mine.yaml:6:14: unknown layer type 'mine'")


def test_every_command_takes_the_file(tmp_path):
    own = ("--layers", "mine.py")
    np.save("images.npy", np.zeros((2, 1, 6, 6)))
    assert run("validate", "mine.yaml", *own).exit_code == 0
    assert "own" in run("summary", "mine.yaml", *own).stdout
    assert run("data", "info", "mine.yaml", *own).exit_code == 0
    assert run("gradcheck", "mine.yaml", *own).exit_code == 0
    assert run("gradnorms", "mine.yaml", "--steps", 2, *own).exit_code == 0
    assert run("train", "mine.yaml", "--out", "run", "--quiet", *own).exit_code == 0
    assert run("train", "mine.yaml", "--out", "run", "--resume", "--epochs", 2, "--quiet", *own).exit_code == 0
    assert run("evaluate", "run", *own).exit_code == 0
    assert run("predict", "run", "images.npy", *own).exit_code == 0
    checkpoint = next(Path("run/checkpoints").glob("*.npz"))
    for trained in ("run", checkpoint):
        report = json.loads(run("gradcheck", trained, "--format", "json", *own).stdout)
        assert report["ok"]
        assert report["max_relative_error"] <= 1e-10


def test_editors_learn_about_it():
    documented = GOOD.replace("    def forward", '    gain: float = 2.0\n    """How much."""\n\n    def forward', 1)
    Path("mine.py").write_text(HEAD + documented, encoding="utf-8")
    schema = json.loads(run("schema", "--layers", "mine.py").stdout)
    described = schema["properties"]["model"]["properties"]["layers"]["items"]["anyOf"]
    (mine,) = [option for option in described if option.get("properties", {}).get("type", {}).get("const") == "mine"]
    assert mine["properties"]["gain"] == {"type": "number", "description": "How much.", "default": 2.0}


def test_two_workers_train_with_it():
    result = run("train", "mine.yaml", "--workers", 2, "--out", "run", "--quiet", "--layers", "mine.py")
    assert result.exit_code == 0


def test_several_files_may_be_named():
    Path("other.py").write_text((HEAD + GOOD).replace('"mine"', '"other"').replace("Mine", "Other"), encoding="utf-8")
    Path("mine.yaml").write_text(CONFIG.replace("- flatten", "- other\n    - flatten"), encoding="utf-8")
    assert run("gradcheck", "mine.yaml", "--layers", "mine.py", "--layers", "other.py").exit_code == 0


def test_from_python():
    (layer,) = cnnbp.load_layers("mine.py")
    assert layer.__name__ == "Mine"
    assert LAYERS["mine"] is layer
    model = cnnbp.load("mine.yaml")
    images, labels = np.random.default_rng(0).normal(size=(3, 1, 6, 6)), np.array([0, 1, 0])
    assert cnnbp.gradcheck(model, images, labels).ok
    Path("mine.py").write_text((HEAD + GOOD).replace("return 2 * dy", "return 3 * dy"), encoding="utf-8")
    (changed,) = load_layers(Path("mine.py"))  # again, after an edit
    assert changed is not layer
    report = cnnbp.gradcheck(cnnbp.load("mine.yaml"), images, labels)
    assert {check.name for check in report.parameters if check.status == "wrong"} == {
        *("conv.weight", "conv.bias", "input")
    }


# ---------------------------------------------------------------- files that cannot be used

BAD_FILES = {
    "syntax": ("x = 1\ndef f(self\n    return 1\n", "bad.py:2: '(' was never closed\n  2 | def f(self"),
    "exception": ("def f():\n    return 1 / 0\n\n\nf()\n", "bad.py:2: ZeroDivisionError: division by zero"),
    "missing module": ("import torchvisionary\n", "bad.py:1: ModuleNotFoundError: No module named 'torchvisionary'"),
    "exit": ("import sys\nsys.exit()\n", "bad.py:2: SystemExit"),
    "nothing": ("x = 1\n", "bad.py: registers no layer; put @cnnbp_cli.register above a layer's class"),
    "null bytes": ("x = '\0'\n", "bad.py:1: source code string cannot contain null bytes"),
    "taken": (
        (HEAD + GOOD).replace('"mine"', '"relu"'),
        "bad.py:7: a layer of type 'relu' is registered already",
    ),
    "no backward": (HEAD + GOOD[: GOOD.index("    def backward")], "bad.py:7: Mine lacks the method backward"),
    "no methods": (HEAD, "bad.py:7: Mine lacks the methods backward and forward"),
    "no dataclass": (
        (HEAD + GOOD).replace("@dataclass(frozen=True, slots=True)\n", ""),
        'bad.py:7: Mine has to be a @dataclass(frozen=True) with a field like type: Literal["mine"] = "mine"; '
        "@register goes above @dataclass",
    ),
    "no type": (
        HEAD[: HEAD.index("    type")] + GOOD,
        'bad.py:7: Mine has to be a @dataclass(frozen=True) with a field like type: Literal["mine"] = "mine"; '
        "@register goes above @dataclass",
    ),
    "a field that hides": (
        HEAD + "    is_activation: bool = True\n" + GOOD,
        "bad.py:7: Mine has a field 'is_activation', which hides what every layer has under this name: rename it, or "
        "leave out the annotation to say what the layer is",
    ),
    "no layer": (
        (HEAD + GOOD).replace("(Layer)", ""),
        "bad.py:7: Mine is not a layer: it has to derive from Layer, or from Merge for several inputs",
    ),
}


@pytest.mark.parametrize(("text", "message"), BAD_FILES.values(), ids=BAD_FILES)
@pytest.mark.parametrize("command", ["gradcheck", "summary"])
def test_files_that_cannot_be_used(text, message, command):
    Path("bad.py").write_text(text, encoding="utf-8")
    before = dict(LAYERS)
    assert complaint(command, "mine.yaml", "--layers", "bad.py") == message
    assert before == LAYERS


def test_files_that_are_none(tmp_path):
    assert complaint("summary", "mine.yaml", "--layers", "gone.py") == "gone.py: no such file; expected a Python file"
    assert complaint("summary", "mine.yaml", "--layers", ".") == ".: cannot be read: Is a directory"


# ---------------------------------------------------------------- layers that fail

BAD_LAYERS = {
    "forward raises": (
        ("return 2 * x, None", "return x[9], None"),
        "mine.py:13: Mine.forward failed in layer own: IndexError: index 9 is out of bounds for axis 0 with size 2",
    ),
    "forward gives one thing": (
        ("return 2 * x, None", "return x"),
        "mine.py:12: Mine.forward of layer own returned a value of type ndarray, expected the output and what backward "
        "needs",
    ),
    "forward gives a number": (
        ("return 2 * x, None", "return 2, None"),
        "mine.py:12: Mine.forward of layer own returned a value of type int for an output, expected an array",
    ),
    "wrong shape": (
        ("return 2 * x, None", "return x[:, 1:], None"),
        "mine.py:12: Mine.forward of layer own returned an output of shape 2×3×4×4, expected 2×4×4×4, the batch of 4 "
        "last",
    ),
    "other precision": (
        ("return 2 * x, None", "return x.astype('float32'), None"),
        "mine.py:12: Mine.forward of layer own returned an output of float32, expected float64 as in the input",
    ),
    "in place": (
        ("return 2 * x, None", "x *= 2; return x, None"),
        "mine.py:13: Mine.forward failed in layer own: ValueError: output array is read-only; inputs must not be "
        "changed in place",
    ),
    "backward raises": (
        ("return 2 * dy, {}", "return dy @ residuals, {}"),
        "mine.py:16: Mine.backward failed in layer own: ValueError: matmul: Input operand 1 does not have enough "
        "dimensions (has 0, gufunc core with signature (n?,k),(k,m?)->(n?,m?) requires 1)",
    ),
    "backward gives one thing": (
        ("return 2 * dy, {}", "return 2 * dy"),
        "mine.py:15: Mine.backward of layer own returned a value of type ndarray, expected dx and a dict of gradients",
    ),
    "backward gives nothing": (
        ("return 2 * dy, {}", "pass"),
        "mine.py:15: Mine.backward of layer own returned nothing, expected dx and a dict of gradients",
    ),
    "dx of a wrong shape": (
        ("return 2 * dy, {}", "return dy.sum(0), {}"),
        "mine.py:15: Mine.backward of layer own returned dx of shape 4×4×4, expected 2×4×4×4, the batch of 4 last",
    ),
    "no dx": (
        ("return 2 * dy, {}", "return None, {}"),
        "mine.py:15: Mine.backward of layer own returned nothing for dx, expected an array",
    ),
    "dx of other precision": (
        ("return 2 * dy, {}", "return dy.astype('f4'), {}"),
        "mine.py:15: Mine.backward of layer own returned dx of float32, expected float64 as in the input",
    ),
    "a gradient too many": (
        ("return 2 * dy, {}", "return dy, {'gain': dy}"),
        "mine.py:15: Mine.backward of layer own returned the gradients: gain; expected: none",
    ),
    "init raises": (
        ("    def forward", "    def init_params(self, rng, in_shape):\n        return 1 / 0\n\n    def forward"),
        "mine.py:13: Mine.init_params failed: ZeroDivisionError: division by zero",
    ),
    "shape raises": (
        ("    def forward", "    def out_shape(self, in_shape):\n        return in_shape[7]\n\n    def forward"),
        "mine.py:13: Mine.out_shape failed: IndexError: tuple index out of range",
    ),
}


STATEMENTS = {
    "a range of one end": ("train", "output_range(self)", "(0,)", "a tuple of 1, expected a pair (low, high)"),
    "a range of no numbers": (
        "train",
        "output_range(self)",
        '("low", 1)',
        None,  # an exception while it is looked at
    ),
    "a range upside down": ("train", "output_range(self)", "(1, 0)", "a tuple of 2, expected a pair (low, high)"),
    "no layer": ("diagnose", "without_noise(self)", "None", "nothing, expected a layer"),
    "no number": ("train", "memory(self, in_shape)", "-1", "a value of type int, expected a number from 0"),
    "no operators": (
        "export",
        "onnx(self, in_shape)",
        '["Relu"]',
        "a value of type list, expected a list of OnnxOperator",
    ),
}


@pytest.mark.parametrize(("command", "method", "result", "told"), STATEMENTS.values(), ids=STATEMENTS)
def test_what_a_layer_says_about_itself_is_checked(command, method, result, told):
    if command == "export":
        pytest.importorskip("onnx")
    said = f"    saturates = True\n\n    def {method}:\n        return {result}\n\n"
    Path("mine.py").write_text(HEAD + said + GOOD, encoding="utf-8")
    options = {"train": ("--quiet",), "diagnose": (), "export": ("--to", "onnx", "mine.onnx")}[command]
    text = complaint(command, "mine.yaml", *options, "--layers", "mine.py")
    name = method.partition("(")[0]
    assert text == (
        f"mine.py:14: Mine.{name} returned {told}"
        if told
        else f"mine.py:1: Mine.{name} failed: TypeError: '<' not supported between instances of 'str' and 'int'"
    )


@pytest.mark.parametrize(("edit", "message"), BAD_LAYERS.values(), ids=BAD_LAYERS)
def test_layers_that_fail(edit, message):
    assert edit[0] in GOOD
    Path("mine.py").write_text(HEAD + GOOD.replace(*edit), encoding="utf-8")
    assert complaint("gradcheck", "mine.yaml", "--layers", "mine.py") == message


GAIN = """\
    def init_params(self, rng, in_shape):
        return {"gain": np.ones(in_shape[0])}

    def forward(self, params, x, ctx):
        return params["gain"][:, None, None, None] * x, x

    def backward(self, params, residuals, dy, ctx):
        dgain = (dy * residuals).sum((1, 2, 3))
        return params["gain"][:, None, None, None] * dy, {"gain": dgain}
"""


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (('{"gain": dgain}', "{}"), "returned the gradients: none; expected: gain"),
        (('{"gain": dgain}', '{"gain": dgain[0]}'), "returned a value of type float64 for the gradient to gain, "
         "expected an array"),
        (('{"gain": dgain}', '{"gain": dgain[:1]}'), "returned the gradient to gain of shape 1, expected 2"),
    ],
)  # fmt: skip
def test_gradients_to_parameters_that_do_not_fit(edit, message):
    Path("mine.py").write_text(HEAD + GAIN, encoding="utf-8")
    assert run("gradcheck", "mine.yaml", "--layers", "mine.py").exit_code == 0
    Path("mine.py").write_text(HEAD + GAIN.replace(*edit), encoding="utf-8")
    expected = f"mine.py:18: Mine.backward of layer own {message}"
    assert complaint("gradcheck", "mine.yaml", "--layers", "mine.py") == expected


MERGE = """\
    def out_shape(self, in_shapes):
        return in_shapes[0]

    def forward(self, xs, ctx):
        return xs[0] - xs[1], None

    def backward(self, residuals, dy, ctx):
        return dy, -dy
"""


def test_merges_are_guarded_too():
    config = CONFIG.replace("{type: mine, name: own}", "{type: mine, name: own, inputs: [conv, conv]}")
    Path("mine.yaml").write_text(config, encoding="utf-8")
    head = HEAD.replace("(Layer)", "(Merge)")
    Path("mine.py").write_text(head + MERGE, encoding="utf-8")
    assert run("gradcheck", "mine.yaml", "--layers", "mine.py").exit_code == 0
    Path("mine.py").write_text(head + MERGE.replace("return dy, -dy", "return (dy,)"), encoding="utf-8")
    assert complaint("gradcheck", "mine.yaml", "--layers", "mine.py") == (
        "mine.py:18: Mine.backward of layer own returned a tuple of 1, expected 2 gradients, one to each input"
    )
    Path("mine.py").write_text(head + MERGE.replace("xs[0] - xs[1]", "xs[0] - xs[2]"), encoding="utf-8")
    assert complaint("gradcheck", "mine.yaml", "--layers", "mine.py") == (
        "mine.py:16: Mine.forward failed in layer own: IndexError: list index out of range"
    )


@pytest.mark.parametrize("method", ["complex", "central"])
def test_a_layer_that_loses_imaginary_parts_is_checked_by_differences(method):
    text = GOOD.replace("2 * x, None", "np.abs(x), x").replace("2 * dy, {}", "dy * np.sign(residuals), {}")
    Path("mine.py").write_text(HEAD + text, encoding="utf-8")
    arguments = ("gradcheck", "mine.yaml", "--layers", "mine.py", "--method", method)
    report = json.loads(run(*arguments, "--format", "json").stdout)
    assert (report["ok"], report["method"]) == (True, method)
    if method == "complex":
        assert report["by_differences"] == ["own"]
        assert report["max_relative_error"] <= 1e-8
        shown = " ".join(run(*arguments).stdout.split())
        assert (
            "own: forward loses complex numbers (as np.abs does) or decides ties by them (as np.maximum does), so "
            "differences were used there, with tolerance 1.0e-06" in shown
        )
        assert "gradients confirmed by complex steps, and by differences in own, 3 directions each, largest" in shown
        assert "proven" not in shown


# ---------------------------------------------------------------- examples and the page about them


def test_the_example_is_right():
    config, layers = EXAMPLES / "custom_layer.yaml", EXAMPLES / "custom_layer.py"
    for method, tolerance in (("complex", 1e-12), ("central", 1e-5)):
        result = run("gradcheck", config, "--layers", layers, "--method", method, "--format", "json")
        assert result.exit_code == 0
        report = json.loads(result.stdout)
        assert report["max_relative_error"] <= tolerance
        assert "my_prelu_1.slope" in [check["name"] for check in report["parameters"]]


def test_the_example_runs_as_a_program():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(EXAMPLES / "custom_layer.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    names = ["conv2d_1.weight", "conv2d_1.bias", "my_prelu_1.slope", "dense_1.weight", "dense_1.bias", "input"]
    assert [(name, status) for name, status, _ in rows] == [(name, "ok") for name in names]


WRONG_IN = {
    "none": set(),
    "flipped": {"conv.weight"},
    "last_row": {"conv.weight", "first.weight", "first.bias", "input"},
    "mean": {"conv.bias"},
    "sign": {"first.weight", "first.bias", "input"},
}


@pytest.mark.parametrize("method", ["complex", "central"])
@pytest.mark.parametrize("mistake", WRONG_IN)
def test_the_homework_and_its_mistakes(mistake, method):
    config, layers = EXAMPLES / "homework_conv.yaml", EXAMPLES / "homework_conv.py"
    setting = f"model.layers.conv.mistake={mistake}"
    arguments = ("gradcheck", config, "--layers", layers, "--set", setting, "--method", method, "--format", "json")
    result = run(*arguments)
    report = json.loads(result.stdout)
    assert {check["name"] for check in report["parameters"] if check["status"] == "wrong"} == WRONG_IN[mistake]
    assert result.exit_code == (mistake != "none")


def test_the_homeworks_missing_row_is_named():
    config, layers = EXAMPLES / "homework_conv.yaml", EXAMPLES / "homework_conv.py"
    lines = layers.read_text(encoding="utf-8").splitlines()
    line = next(k for k, text in enumerate(lines, 1) if "def backward" in text)
    result = run("gradcheck", config, "--layers", layers, "--set", "model.layers.conv.mistake=last_row")
    own = (
        "conv.weight: output row 2 (the last) is left out of the sum; look at HomeworkConv.backward "
        f"(homework_conv.py:{line}), dweight[f, c, i, j] = Σ_{{p, q}} dy[f, p, q] · x[c, p + i, q + j]"
    )
    arriving = (
        "first.weight, first.bias, input: the incoming gradient is already wrong: dx of conv: output row 2 (the last) "
        f"is left out of the sum; look at HomeworkConv.backward (homework_conv.py:{line}), dx[c, p + i, q + j] += "
        "Σ_f weight[f, c, i, j] · dy[f, p, q]"
    )
    shown, page = " ".join(result.stdout.split()), (ROOT / "docs" / "custom-layer.md").read_text(encoding="utf-8")
    assert own in shown
    assert arriving in shown
    assert own in " ".join(page.split())


def test_the_pages_snippets_run():
    page = (ROOT / "docs" / "custom-layer.md").read_text(encoding="utf-8")
    for language, text in re.findall(r"```(python|yaml)\n(.*?)```", page, re.DOTALL):
        name = text.partition("\n")[0].removeprefix("# ")
        assert Path(name).suffix == {"python": ".py", "yaml": ".yaml"}[language]
        Path(name).write_text(text, encoding="utf-8")
    for name in ("homework_conv.py", "homework_conv.yaml"):
        Path(name).write_text((EXAMPLES / name).read_text(encoding="utf-8"), encoding="utf-8")
    commands = re.findall(r"^\$ cnnbp (.*?)(?:  # exits with (\d))?$", page, re.MULTILINE)
    assert len(commands) == 9
    for command, code in commands:
        assert run(*command.split()).exit_code == int(code or 0), command


def test_the_pages_layer_goes_to_onnx(tmp_path):
    onnx_tests = pytest.importorskip("exports.test_onnx")
    page = (ROOT / "docs" / "custom-layer.md").read_text(encoding="utf-8")
    for text in re.findall(r"```(?:python|yaml)\n(.*?)```", page, re.DOTALL):
        Path(text.partition("\n")[0].removeprefix("# ")).write_text(text, encoding="utf-8")
    cnnbp.load_layers("scale.py")
    model = cnnbp.load("scale.yaml")
    images = np.random.default_rng(0).normal(size=(3, 1, 6, 6))
    onnx_tests.assert_same(onnx_tests.exported(model, tmp_path), model, images, model.predict(images))


def test_the_page_tells_every_fact():
    page = (ROOT / "docs" / "custom-layer.md").read_text(encoding="utf-8")
    for name in [*Traits.__annotations__, *(name for name in vars(Traits) if not name.startswith("_"))]:
        assert f"`{name}`" in page or f"`{name}(self" in page, name
