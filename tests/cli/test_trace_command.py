"""`cnnbp trace`: what it writes, whole; what it refuses, and how."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from cli.bars import Command

import cnnbp_cli as cnnbp
from cnnbp_cli.report.terminal import console

ROOT = Path(__file__).parents[2]
TOY = str(ROOT / "configs" / "toy.yaml")

WEIGHT = """\
toy: image 0 of the test split, label 0, evaluation mode
loss 0.01526, prediction 0.01515

d conv2d_1.weight[0,0,1,2] = −0.036886
  = Σ dy[0,p,q] · x[0,p+1,q+2]
  −0.00927 = −0.003496·2.651      d conv2d_1[0,1,1] · input[0,2,3]
  −0.00124 = 0.002111·(−0.5854)   d conv2d_1[0,1,3] · input[0,2,5]
  −0.02701 = −0.01019·2.651       d conv2d_1[0,2,1] · input[0,3,3]
   0.00063 = −0.001128·(−0.5562)  d conv2d_1[0,3,3] · input[0,4,5]
         0   12 more terms that are 0
  ────────
  −0.03689
  Beware of a sentence that circulates: "output_grad * filter updates the weights, output_grad *
      input goes back" has the two swapped. The weights need the input, as here; the input needs the
      weights.
"""

LOSER = """\
toy: image 0 of the test split, label 0, evaluation mode
loss 0.01526, prediction 0.01515

d relu_1[0,0,1] = 0
  = Σ dy of the windows in which x[0,0,1] is the first maximum
  It is 0: not the winner of its window.
  max_pool2d_1[0,0,0] took relu_1[0,1,1], so d max_pool2d_1[0,0,0] goes there.
goes into d conv2d_1[0,0,1]
"""

LOSS = """\
toy: image 0 of the test split, label 0, evaluation mode
loss 0.01526, prediction 0.01515

loss = 0.015261
  = −(y · log(p) + (1 − y) · log(1 − p))
  = −(0 · log(0.015145) + (1 − 0) · log(1 − 0.015145))
"""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--cell", "conv2d_1.weight[0,0,1,2]"], WEIGHT),
        (["--cell", "relu_1[0,0,1]"], LOSER),
        (["--cell", "loss", "--of", "value"], LOSS),
    ],
)
def test_a_cell_is_explained(cnnbp: Command, arguments, expected) -> None:
    done = cnnbp("trace", TOY, *arguments)
    assert (done.code, done.stderr) == (0, "")
    assert re.sub(r"  +(?=(d|input))", "  ", done.stdout) == re.sub(r"  +(?=(d|input))", "  ", expected)


def numbers(text: str) -> list[Decimal]:
    return [Decimal(word) for word in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?", text.replace("−", "-"))]


@pytest.mark.parametrize("arguments", [[], ["--exact"], ["--image", "5", "--label", "1"], ["--digits", "6"]])
def test_every_sum_of_the_toy_adds_up(cnnbp: Command, arguments) -> None:
    """Read the sums as a person with a pencil does: ``= a − b + c = total``."""
    seen = 0
    for line in cnnbp("trace", TOY, *arguments, columns=300).lines:
        found = re.fullmatch(r" +(?:= |w ← )(−?[\d.]+(?: [+−] [\d.]+)+) = (−?[\d.]+)", line)
        if found:
            terms = re.sub(r"([+−]) ", r"\1", found[1])
            assert sum(Decimal(term.replace("−", "-")) for term in terms.split()) == numbers(found[2])[0], line
            seen += 1
    assert seen >= 5


def test_the_toy_in_eighths_has_finite_decimals_up_to_the_sigmoid(cnnbp: Command) -> None:
    text = cnnbp("trace", TOY, "--exact").stdout
    forward = text[text.index("\nForward") : text.index("\nloss\n")]
    for number in numbers(forward):
        assert (number * 8**4) % 1 == 0, number
    assert "dense_1[0] = bias[0] + Σ weight[0,m] · x[m]" in forward


def test_every_number_of_the_toy_is_there(cnnbp: Command) -> None:
    text = cnnbp("trace", TOY, "--digits", "4").stdout
    shown = set(numbers(text))
    document = json.loads(cnnbp("trace", TOY, "--format", "json").stdout)
    arrays = []
    for node in document["nodes"]:
        arrays += [node["output"], node["gradient"]]
        arrays += [one[key] for one in node["parameters"].values() for key in ("value", "gradient")]
    for array in map(np.asarray, arrays):
        for value in array.ravel():
            places = range(12)
            assert any(Decimal(float(value)).quantize(Decimal(1).scaleb(-k)) in shown for k in places), value


def test_every_step_of_an_update_has_its_number(cnnbp: Command) -> None:
    lines = cnnbp("trace", TOY, "--layer", "dense_1").lines
    assert "    = −0.02 · 0.076922 = −0.0015384" in lines
    assert "    = −0.02 · (0.9 · 0 + 0.1 · 0.076922) / 0.0076922 = −0.02" in lines
    assert lines[-1] == "  w ← −0.23084 − 0.02000 = −0.25084"


def test_a_step_says_its_rule_once_and_its_number_once(cnnbp: Command) -> None:
    lines = cnnbp("trace", TOY).lines
    assert not [line for line, after in itertools.pairwise(lines) if line == after and line.strip()[:1] == "="]
    text = "\n".join(lines)
    assert "+ (−" not in text
    for part in (
        "9 + 1 (conv2d_1) + 4 + 1 (dense_1) = 15 parameters",
        "winners, [row,column]: [1,1] [1,3] [2,1] [3,3]",
        "open: 8 of 16",
        "12 of 16 are 0: not the winner of its window",
        "plain gradient descent: change = −rate · gradient",
        "adam, update 1: change = −rate · (0.9 · mean + 0.1 · gradient) / root",
        "or scattered: each dy[f,p,q] stamps",
    ):
        assert part in text


def test_a_tie_goes_to_the_first(cnnbp: Command) -> None:
    np.save("flat.npy", np.zeros((1, 6, 6), np.uint8))
    done = cnnbp("trace", TOY, "--file", "flat.npy", "--label", "1", "--layer", "max_pool2d_1")
    assert "ties, in which the first in row-major order wins" in done.stdout
    assert "the first of 4 that are equal" in done.stdout


def test_gathered_and_scattered_are_the_same_sum(cnnbp: Command) -> None:
    text = cnnbp("trace", TOY, "--layer", "input", columns=200).stdout
    (total,) = re.findall(r"\n    = [^·\n]* = (\S+)\n", text[text.index("d input[") :])
    leaves = re.findall(r"leaves \S+ = (\S+)", text)
    assert len(leaves) == 3
    assert sum(Decimal(one.replace("−", "-")) for one in leaves) == Decimal(total.replace("−", "-"))


def test_a_large_network_gets_a_row_for_each_layer(cnnbp: Command) -> None:
    done = cnnbp("trace", ROOT / "configs" / "lenet5.yaml", "--top", "2")
    assert done.code == 0
    names = [node["name"] for node in cnnbp_nodes("lenet5")]
    for name in names:
        assert re.search(rf"^{name} +[\d×]+ ", done.stdout, re.MULTILINE)
        assert f"d {name}[" in done.stdout
    assert len(re.findall("^  Beware", done.stdout, re.MULTILINE)) == 1
    assert re.search(r"^ +\S+   \d+ others$", done.stdout, re.MULTILINE)


def cnnbp_nodes(name: str) -> list[dict]:
    return [{"name": node.name} for node in cnnbp.load(ROOT / "configs" / f"{name}.yaml").graph.nodes]


def test_a_batch_names_its_images(cnnbp: Command) -> None:
    done = cnnbp("trace", TOY, "--mode", "training", "--batch", "4", "--cell", "dense_1.weight[0,0]")
    assert "the mean over a batch of 4, of which this is the first" in done.stdout
    assert {int(k) for k in re.findall(r"\(image (\d)\)", done.stdout)} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "arguments",
    [[], ["--cell", "conv2d_1[0,1,1]", "--of", "value"], ["--cell", "input[0,2,3]"], ["--layer", "relu_1"]],
)
def test_the_widths_of_terminals(cnnbp: Command, arguments) -> None:
    for columns in (40, 60, 80, 120):
        done = cnnbp("trace", TOY, *arguments, columns=columns)
        assert max(map(len, done.lines)) <= columns


@pytest.mark.parametrize("name", ["vgg-bn", "resnet-mini", "depthwise", "autoencoder", "allconv"])
def test_the_shipped_networks_fit_40_columns_but_for_names(cnnbp: Command, name: str) -> None:
    done = cnnbp("trace", ROOT / "configs" / f"{name}.yaml", columns=40)
    assert done.code == 0
    assert max(map(len, done.lines)) <= 40


def test_a_dumb_terminal_has_its_own_width(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TERM", "dumb"), ("FORCE_COLOR", "1"), ("COLUMNS", "40")):
        monkeypatch.setenv(name, value)
    assert console().is_dumb_terminal
    assert console().width == 40


REFUSED = [
    (
        "--cell conv2d_1[0,9,9]",
        "'conv2d_1[0,9,9]': is no cell; those of conv2d_1 are conv2d_1[c,h,w] "
        "with c from 0 to 0, h from 0 to 3, w from 0 to 3",
    ),
    ("--cell cnv2d_1[0,1,1]", "'cnv2d_1[0,1,1]': there is no 'cnv2d_1', did you mean 'conv2d_1'?"),
    ("--cell prediction[0]", "prediction: has no gradient of its own; see the gradient of dense_1"),
    ("--cell conv2d_1[0,0,0] --of update", "conv2d_1[0,0,0]: has no update: only parameters are learned"),
    ("--layer relu_2", "there is no layer 'relu_2', did you mean 'relu_1'?"),
    ("--image 200", "--image: expected a number from 0 to 199, the images of the test split, got 200"),
    ("--image 199 --mode training --batch 4", "--batch: from image 199 on the test split has only 1"),
    ("--label 2", "--label: expected a class from 0 to 1, got 2"),
    ("--file gone.png", "gone.png: does not exist"),
    ("--file nan.npy", "nan.npy: has pixels that are not finite; remove or replace them"),
    (
        "--file one.npy --mode training",
        "--file: is a single image; a batch in training mode comes from the data, by --image",
    ),
    ("--html gone/page.html", "gone/page.html: cannot be written: No such file or directory"),
    (
        "--weights nan.npz",
        "nan.npz: parameter dense_1.bias has values that are not finite; export it before it diverges",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_what_is_refused(cnnbp: Command, arguments: str, message: str) -> None:
    np.save("nan.npy", np.full((1, 6, 6), np.nan, np.float32))
    np.save("one.npy", np.zeros((1, 6, 6), np.uint8))
    weights = load_toy().parameters()
    np.savez("nan.npz", **{**weights, "dense_1.bias": np.array([np.nan])})
    before = sorted(Path().iterdir())
    done = cnnbp("trace", TOY, *arguments.split(" "))
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.replace("\n", "") == f"error: {message}"
    assert sorted(Path().iterdir()) == before


def load_toy():  # type: ignore[no-untyped-def]
    return cnnbp.load(TOY)


USAGE = [
    ("--light", "error: --light: requires --html FILE"),
    ("--html page.html --cell loss", "error: --html: writes the whole page"),
    ("--cell loss --layer relu_1", "error: --layer: limits the whole pass; leave it out with --cell"),
    ("--batch 4", "error: --batch: applies only to --mode training; evaluation shows one image"),
    ("--top -1", "error: --top: expected a number or all, got '-1'"),
]


@pytest.mark.parametrize(("arguments", "message"), USAGE)
def test_options_that_do_not_go_together(cnnbp: Command, arguments: str, message: str) -> None:
    done = cnnbp("trace", TOY, *arguments.split(" "))
    assert (done.code, done.stdout) == (2, "")
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert not Path("page.html").exists()


def test_a_damaged_checkpoint_and_a_run_without_one(cnnbp: Command, bars_run: Path) -> None:
    whole = sorted((bars_run / "checkpoints").glob("*.npz"))[-1].read_bytes()
    Path("broken.npz").write_bytes(whole[:300])
    done = cnnbp("trace", "broken.npz")
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == "error: broken.npz: is not an npz archive, or a damaged one\n"
    Path("empty").mkdir()
    done = cnnbp("trace", "empty")
    assert (done.code, done.stdout, done.stderr) == (2, "", "error: empty: contains no checkpoint; train it first\n")


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs a device that is always full")
def test_a_full_disk(cnnbp: Command) -> None:
    done = cnnbp("trace", TOY, "--html", "/dev/full")
    assert (done.code, done.stderr) == (2, "error: /dev/full: cannot be written: No space left on device\n")
    assert Path("/dev/full").is_char_device()


def test_a_run_and_its_page(cnnbp: Command, bars_run: Path) -> None:
    assert "d edges.weight" in cnnbp("trace", bars_run).stdout
    done = cnnbp("trace", bars_run, "--html", "page.html", "--light")
    assert (done.code, done.stdout) == (0, "page: page.html\n")
    assert "<script" in Path("page.html").read_text(encoding="utf-8")


def test_the_terminal_loads_neither_the_page_nor_what_runs_need() -> None:
    unneeded = {f"cnnbp_cli.tracing.{name}" for name in ("payload", "html", "miniatures")}
    unneeded |= {"cnnbp_cli.weights", "cnnbp_cli.data.pictures", "cnnbp_cli.train.run_directory", "playwright"}
    program = f"""
import sys
from cnnbp_cli.cli.main import main
sys.argv = ["cnnbp", "trace", {TOY!r}]
try:
    main()
finally:
    print(sorted({unneeded} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "d conv2d_1.weight" in done.stdout
    assert done.stderr == "[]\n"


def test_json_of_a_cell_lists_every_term(cnnbp: Command) -> None:
    done = cnnbp("trace", TOY, "--cell", "conv2d_1.weight[0,0,1,2]", "--format", "json", "--top", "all")
    document = json.loads(done.stdout)
    assert len(document["terms"]) == 16
    assert document["others"]["count"] == 0
    page = (ROOT / "docs" / "shell.md").read_text(encoding="utf-8")
    (keys,) = re.findall(r"^\| `trace`, `cell` \| (.*) \|$", page, re.MULTILINE)
    assert set(document) == set(re.findall(r"`(\w+)`", keys))
