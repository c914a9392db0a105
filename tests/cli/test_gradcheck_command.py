"""`cnnbp gradcheck`: its two methods, its tables, and what a wrong gradient's footer says."""

from __future__ import annotations

import csv
import json
import re
from io import StringIO
from pathlib import Path

import pytest
from cli.bars import Command

from cnnbp_cli.core.layers.dense import Dense

FORMULA = "relative error = |analytic − numeric| / max(|analytic|, |numeric|)"

BEFORE_NORM = """\
data: {source: synthetic, kind: bars, train: 8, test: 2}
model:
  input: [1, 6, 6]
  layers: [{type: conv2d, name: conv, filters: 2, kernel_size: 3}, batch_norm, tanh, flatten, {type: dense, units: 2}]
"""


@pytest.fixture
def wrong_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let dense layers forget to divide by the batch size."""
    right = Dense.backward

    def wrong(self, params, residuals, dy, ctx):  # type: ignore[no-untyped-def]
        dx, grads = right(self, params, residuals, dy, ctx)
        return dx, {**grads, "weight": dy.shape[-1] * grads["weight"]}

    monkeypatch.setattr(Dense, "backward", wrong)


def test_central_differences_show_their_step_and_their_error(cnnbp: Command) -> None:
    done = cnnbp("gradcheck", "bars.yaml", "--method", "central", "--step", "1e-6")
    assert (done.code, done.stderr) == (0, "")
    assert f"central differences in float64, step 1e-06; {FORMULA}" in " ".join(done.stdout.split())
    assert re.fullmatch(
        r"ok: 5 gradients confirmed by central differences, 3 directions each, "
        r"largest relative error \d\.\de-\d\d, tolerance 1\.0e-05",
        " ".join(done.lines[-2:]),
    )


def test_noise_is_counted_and_explained(cnnbp: Command) -> None:
    Path("norm.yaml").write_text(BEFORE_NORM, encoding="utf-8")
    arguments = ("gradcheck", "norm.yaml", "--method", "central", "--parameter", "conv.bias", "--elements", "all")
    done = cnnbp(*arguments, columns=200)
    assert done.code == 0
    report = json.loads(cnnbp(*arguments, "--format", "json").stdout)
    noise = report["noise"]
    assert noise in (3, 4, 5)  # of 5 in training; two derivatives that are zero by rounding may also be equal
    assert (report["kinks"], report["coverage"]) == (0, 100.0 - 10 * noise)
    assert report["modes"] == ["training", "evaluation"]
    assert done.lines[1].split()[4:7] == ["elements", "noise", "coverage"]
    assert done.lines[3].split()[:2] == ["conv.bias", "noise"]
    assert done.lines[5:9] == [
        "noise: the two differ by less than the rounding of the loss divided by the step",
        f"central differences in float64, step 1e-05; {FORMULA}",
        f"coverage {100 - 10 * noise}.0%: of 10 comparisons, {noise} × noise are inconclusive",
        done.lines[8],
    ]
    assert done.lines[8].startswith(
        "ok: 1 gradient confirmed by central differences, 3 directions each, in training and in evaluation mode, "
    )


def test_what_says_nothing_at_all_is_not_called_confirmed(cnnbp: Command) -> None:
    Path("norm.yaml").write_text(BEFORE_NORM, encoding="utf-8")
    settings = ("--method", "central", "--step", "1e-13", "--parameter", "conv.weight")
    done = cnnbp("gradcheck", "norm.yaml", *settings, columns=200)
    assert done.code == 0
    assert done.lines[-1] == "nothing confirmed: all comparisons of 1 gradient are kinks or noise"


def test_single_precision_says_why_it_is_not_enough(cnnbp: Command) -> None:
    done = cnnbp("gradcheck", "bars.yaml", "--method", "central", "--dtype", "float32", columns=200)
    assert done.code == 0
    assert f"central differences in float32, step 0.01; {FORMULA}" in done.lines
    assert (
        "float32 has about 7 digits, and the difference of two losses loses most of them; float64 has 16" in done.lines
    )


@pytest.mark.usefixtures("wrong_dense")
@pytest.mark.parametrize("method", ["complex", "central"])
@pytest.mark.parametrize("columns", [80, 120])
def test_a_wrong_gradient_is_explained_in_the_footer(cnnbp: Command, method: str, columns: int) -> None:
    done = cnnbp("gradcheck", "bars.yaml", "--method", method, columns=columns)
    assert done.code == 1
    assert max(map(len, done.lines)) <= columns
    explanation = (
        "analytic is 4 × numeric: the batch size, missing 1/N?; look at Dense.backward, dW = dy @ xᵀ "
        "wrong: the gradient is not the derivative of the loss"
    )
    assert f"dense_1.weight: {explanation}" in " ".join(done.stdout.split())
    first = done.lines[1].split()
    assert first[-2:] == ["analytic", "numeric"]  # side by side, whatever leaves


@pytest.mark.usefixtures("wrong_dense")
def test_explanations_are_in_json_and_csv(cnnbp: Command) -> None:
    text = "analytic is 4 × numeric: the batch size, missing 1/N?; look at Dense.backward, dW = dy @ xᵀ"
    done = cnnbp("gradcheck", "bars.yaml", "--format", "json")
    assert done.code == 1
    found = {check["name"]: check["explanation"] for check in json.loads(done.stdout)["parameters"]}
    expected = dict.fromkeys(["edges.weight", "edges.bias", "dense_1.bias", "input"]) | {"dense_1.weight": text}
    assert found == expected
    rows = csv.DictReader(StringIO(cnnbp("gradcheck", "bars.yaml", "--format", "csv").stdout))
    assert {row["name"]: row["explanation"] or None for row in rows} == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--step", "1e-3"), "error: --step: only applies to --method central"),
        (("--dtype", "float32"), "error: --dtype: only applies to --method central: complex steps always"),
        (("--method", "sideways"), "'sideways' is not one of 'complex', 'central'"),
    ],
)
def test_options_that_do_not_go_together(cnnbp: Command, arguments: tuple[str, ...], message: str) -> None:
    done = cnnbp("gradcheck", "bars.yaml", *arguments)
    assert done.code == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())


def test_a_step_of_nothing_is_refused(cnnbp: Command) -> None:
    done = cnnbp("gradcheck", "bars.yaml", "--method", "central", "--step", "0")
    assert (done.code, done.stderr) == (2, "error: expected a step above 0, got 0\n")


def test_a_trained_network_is_checked_too(cnnbp: Command, bars_run: Path) -> None:
    checkpoint = next((bars_run / "checkpoints").glob("*.npz"))
    for source in (bars_run, checkpoint):
        for method in ("complex", "central"):
            report = json.loads(cnnbp("gradcheck", source, "--method", method, "--format", "json").stdout)
            assert report["ok"]
            assert report["method"] == method
