"""`cnnbp compare` and `cnnbp plot`: formats, widths, exit codes, and what is no run."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from cli.bars import Command

from cnnbp_cli.report.compare import aligned
from cnnbp_cli.train.statistics import DEFINITIONS


@pytest.fixture
def runs(cnnbp: Command) -> None:
    """The runs `one` and `two`, which differ in three keys, in the current folder."""
    assert cnnbp("train", "bars.yaml", "--quiet", "--out", "one").code == 0
    more = ["--set", "model.layers.edges.filters=3", "--set", "train.optimizer.learning_rate=0.1", "--epochs", "3"]
    assert cnnbp("train", "bars.yaml", "--quiet", "--out", "two", *more).code == 0


@pytest.mark.usefixtures("runs")
class TestCompare:
    def test_table(self, cnnbp: Command) -> None:
        done = cnnbp("compare", "one", "two", columns=120)
        assert (done.code, done.stderr) == (0, "")
        at = done.lines.index("config                         1     2")
        assert [line.split() for line in done.lines[at + 2 : at + 5]] == [
            ["model.layers.edges.filters", "2", "3"],
            ["train.epochs", "2", "3"],
            ["train.optimizer.learning_rate", "0.02", "0.1"],
        ]
        assert done.lines[3].split()[:3] == ["1", "one", "8"]
        assert done.lines[4].split()[:3] == ["2", "two", "12"]
        assert "loss of the training batches" in done.lines
        assert any(line.split() == ["layer", "1", "2", "2", "/", "1"] for line in done.lines)
        assert done.lines[-1].startswith("the gradient flow changed most in ")
        assert DEFINITIONS["gradient"] in " ".join(done.lines)

    @pytest.mark.parametrize("columns", [40, 80, 120])
    def test_widths(self, cnnbp: Command, columns: int) -> None:
        done = cnnbp("compare", "one", "two", columns=columns)
        assert max(map(len, done.lines)) <= columns
        for figures in ("one", "two", "0.02", "0.1"):
            assert figures in done.stdout

    def test_json(self, cnnbp: Command) -> None:
        found = json.loads(cnnbp("compare", "one", "two", "one", "--format", "json").stdout)
        assert [run["run"] for run in found["runs"]] == ["one", "two", "one"]
        assert found["differences"][0] == {"key": "model.layers.edges.filters", "values": [2, 3, 2]}
        assert found["most_changed"] in ("edges", "dense_1")
        assert len(found["losses"][1]["loss"]) == 12

    def test_csv(self, cnnbp: Command) -> None:
        found = list(csv.DictReader(cnnbp("compare", "one", "two", "--format", "csv").lines))
        assert list(found[0]) == ["part", "name", "one", "two"]
        assert found[0] == {"part": "config", "name": "model.layers.edges.filters", "one": "2", "two": "3"}
        assert {row["part"] for row in found} == {"config", "figure", "gradient", "loss"}
        losses = [row for row in found if row["part"] == "loss"]
        assert [row["name"] for row in losses] == [str(step) for step in range(1, 13)]
        assert (losses[-1]["one"], losses[-1]["two"] != "") == ("", True)

    def test_the_same_run_twice(self, cnnbp: Command) -> None:
        done = cnnbp("compare", "one", "one")
        assert done.code == 0
        assert "the configs are the same" in done.lines
        assert done.lines[-1] == "no layer's gradient norm differs by more than 1%"

    def test_one_run_is_not_enough(self, cnnbp: Command) -> None:
        done = cnnbp("compare", "one")
        assert done.code == 2
        assert "error: RUN: expected two runs or more" in done.stderr

    @pytest.mark.parametrize("other", ["elsewhere", "bars.yaml"])
    def test_what_is_no_run(self, cnnbp: Command, other: str) -> None:
        done = cnnbp("compare", "one", other)
        assert (done.code, done.stdout) == (2, "")
        assert done.stderr == f"error: {other}: is not a run directory; `cnnbp train` makes one from a config\n"


@pytest.mark.usefixtures("runs")
class TestPlot:
    def test_on_the_terminal(self, cnnbp: Command) -> None:
        done = cnnbp("plot", "one", columns=60)
        assert (done.code, done.stderr) == (0, "")
        assert max(map(len, done.lines)) <= 60
        assert "learning rate" in done.lines
        assert done.lines[-4].startswith("edges   ")

    @pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
    def test_into_a_file(self, cnnbp: Command, suffix: str) -> None:
        pytest.importorskip("matplotlib")
        done = cnnbp("plot", "one", "--out", f"one.{suffix}")
        assert (done.code, done.stdout, done.stderr) == (0, f"plot: one.{suffix}\n", "")
        assert Path(f"one.{suffix}").stat().st_size > 10_000

    def test_an_unknown_suffix(self, cnnbp: Command) -> None:
        done = cnnbp("plot", "one", "--out", "one.gif")
        assert (done.code, done.stdout) == (2, "")
        assert done.stderr == "error: one.gif: expected a file name that ends in .png, .svg or .pdf\n"

    def test_a_folder_that_is_not_there(self, cnnbp: Command) -> None:
        pytest.importorskip("matplotlib")
        done = cnnbp("plot", "one", "--out", "nowhere/one.png")
        assert (done.code, done.stdout) == (2, "")
        assert done.stderr == f"error: {Path('nowhere/one.png')}: No such file or directory\n"

    def test_what_is_no_run(self, cnnbp: Command) -> None:
        done = cnnbp("plot", "elsewhere")
        assert (done.code, done.stdout) == (2, "")
        assert done.stderr == "error: elsewhere: is not a run directory; `cnnbp train` makes one from a config\n"

    def test_damaged_events(self, cnnbp: Command) -> None:
        shutil.copytree("one", "damaged")
        events = Path("damaged/events.jsonl")
        events.write_text("no json\n" + events.read_text(encoding="utf-8"), encoding="utf-8")
        for command in (["plot", "damaged"], ["compare", "one", "damaged"], ["gradnorms", "damaged"]):
            done = cnnbp(*command)
            assert (done.code, done.stdout) == (2, "")
            assert done.stderr == f"error: {events}:1: is not an event of a run\n"


def test_the_document_has_every_definition() -> None:
    page = (Path(__file__).parents[2] / "docs" / "watching.md").read_text(encoding="utf-8")
    for name, definition in DEFINITIONS.items():
        assert f"| `{name}` | {definition} |\n" in page


class TestCompareNetworks:
    @pytest.fixture
    def different(self, cnnbp: Command) -> Command:
        assert cnnbp("train", "toy", "--out", "small", "--epochs", "1", "--quiet").code == 0
        deeper = ["--set", "model.layers.conv2d_1.filters=2", "--set", "model.layers.relu_1.type=tanh"]
        assert cnnbp("train", "toy", "--out", "large", "--epochs", "1", "--quiet", *deeper).code == 0
        return cnnbp

    def test_each_network_folds_into_a_line(self, different: Command) -> None:
        lines = different("compare", "small", "large", columns=120).lines
        at = lines.index("the networks differ; --layers shows their layers beside each other")
        assert lines[at + 3].split() == ["1", "5", "15", *["conv2d,", "relu,", "max_pool2d,", "flatten,", "dense"]]
        assert lines[at + 4].split() == ["2", "5", "29", *["conv2d,", "tanh,", "max_pool2d,", "flatten,", "dense"]]
        assert not [line for line in lines if "model.layers" in line]

    def test_layers_stand_beside_each_other(self, different: Command) -> None:
        lines = different("compare", "small", "large", "--layers", columns=120).lines
        at = lines.index("layers")
        rows = [line.split("  ") for line in lines[at + 3 : at + 8]]
        assert rows[0][0] == "conv2d_1: conv2d 3×3 → 1×4×4, 10"
        assert rows[0][-1].strip() == "conv2d_1: conv2d 3×3 → 2×4×4, 20"
        assert [row[0].split(":")[0] for row in rows] == ["conv2d_1", "relu_1", "max_pool2d_1", "flatten_1", "dense_1"]


def test_alignment_keeps_equal_entries_in_a_row() -> None:
    assert aligned(["abcd", "bxd", "ab"]) == [["a", "", "a"], ["b", "b", "b"], ["c", "x", ""], ["d", "d", ""]]
    assert aligned(["a", "ba"]) == [["", "b"], ["a", "a"]]
    assert aligned(["abc"]) == [["a"], ["b"], ["c"]]
