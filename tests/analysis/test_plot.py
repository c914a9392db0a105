"""Pictures of a run: the characters of a terminal, and the files of matplotlib."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbp_cli.analysis.history import read_history
from cnnbp_cli.build import build
from cnnbp_cli.config.load import parse_config
from cnnbp_cli.loading import load_data
from cnnbp_cli.report import plot
from cnnbp_cli.report.chart import (
    Series,
    binned,
    chart,
    limits,
    log_ticks,
    logarithms,
    round_ticks,
    sparkline,
    tick_labels,
)
from cnnbp_cli.report.figure import FigureError, check_suffix, save_figure
from cnnbp_cli.train.fit import fit

CONFIG = """
name: plotted
data: {source: synthetic, kind: bars, train: 50, test: 10, validation: 10}
model:
  input: [1, 6, 6]
  layers:
    - {type: conv2d, name: conv, filters: 3, kernel_size: 3}
    - relu
    - flatten
    - {type: dense, name: "last$of^all", units: 2}
train: {batch_size: 10, epochs: 2, workers: 1, schedule: cosine}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    model, path = build(parse_config(CONFIG)), tmp_path_factory.mktemp("runs") / "run"
    list(fit(model, load_data(model), run=path, watch_every=2))
    return path


@pytest.fixture
def history(run):
    return read_history(run)


class TestCharacters:
    def test_bars_go_from_low_to_high(self):
        assert sparkline(np.arange(8.0), 0, 7) == "▁▂▃▄▅▆▇█"
        assert sparkline(np.array([-5.0, 50.0]), 0, 7) == "▁█"

    def test_what_has_no_height(self):
        assert sparkline(np.array([np.nan, -np.inf, np.inf, 1.0]), 0, 1) == "×.×█"
        assert sparkline(np.array([3.0, 3.0]), 3, 3) == "▅▅"

    def test_means_over_equal_parts(self):
        assert binned([1, 3, 5, 7], 2).tolist() == [2, 6]
        assert binned([1, 3], 8).tolist() == [1, 3]
        assert len(binned(range(1000), 8)) == 8

    def test_powers_of_ten(self):
        assert logarithms(np.array([100.0, -0.1, 0.0])).tolist() == [2, -1, -np.inf]
        assert limits(np.array([2, -1, -np.inf, np.nan])) == (-1, 2)
        assert limits(np.array([np.nan])) == (0, 0)

    def test_a_line(self):
        lines = [text.plain for text in chart([Series(range(1, 21), range(1, 21), "•")], 30, 5)]
        assert lines == [
            "      20 ┤                 •••",
            "         │            •••••",
            "      10 ┤       •••••",
            "         │  •••••",
            "       0 ┤••",
            "         └─────────┬──────────",
            "                  10      step",
        ]

    def test_the_values_beside_an_axis_are_round(self):
        assert round_ticks(0.0137, 2.9, 5) == [0, 1, 2, 3]
        assert round_ticks(0.0, 0.005, 2) == [0, 0.005]
        assert round_ticks(0.52, 0.98, 5) == [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
        assert round_ticks(3.0, 3.0, 5) == [3]
        assert round_ticks(1, 3, 8, whole=True) == [1, 2, 3]
        assert log_ticks(0.02, 0.9) == [0.01, 0.03, 0.1, 0.3, 1]
        assert log_ticks(1.2, 45) == [1, 2, 5, 10, 20, 50] or log_ticks(1.2, 45) == [1, 3, 10, 30, 100]
        assert tick_labels([0, 0.002, 0.004]) == ["0.000", "0.002", "0.004"]
        assert tick_labels([1e-7, 1e-4, 0.1]) == ["1e-07", "1e-04", "1e-01"]
        assert tick_labels([0.01, 1, 100]) == ["0.01", "1", "100"]

    @given(low=st.floats(1e-12, 1e12), ratio=st.floats(1.1, 1e9), wanted=st.integers(2, 8))
    def test_ticks_cover_the_range(self, low, ratio, wanted):
        high = low * ratio
        for ticks in (round_ticks(low, high, wanted), *([log_ticks(low, high)] if ratio > 30 else [])):
            assert ticks == sorted(set(ticks))
            assert ticks[0] <= low * 1.01
            assert ticks[-1] >= high * 0.99
            assert len(ticks) <= 2 * wanted + 3
            assert len(set(tick_labels(ticks))) == len(ticks)

    def test_the_title_says_which_axis_is_logarithmic(self):
        wide = Series([1, 2, 3], [0.01, 1, 100], "*")
        title, *lines = [text.plain for text in chart([wide], 60, 5, title="loss")]
        assert title == "loss, logarithmic scale"
        assert lines[-1].split() == ["1", "2", "step"] or lines[-1].split()[-1] == "step"
        title, first, *_ = [text.plain for text in chart([wide], 60, 5, title="rate", from_zero=True)]
        assert (title, first.split()[0]) == ("rate", "100")

    def test_curves_lie_above_each_other_and_points_stand_alone(self):
        flat, dots = Series([1, 10], [1, 1], "-"), Series([1, 10], [1, 2], "o", connected=False)
        top, *_, bottom, _, _ = [text.plain for text in chart([flat, dots], 20, 3)]
        assert top == "       2 ┤         o"
        assert bottom == "       1 ┤o---------"

    def test_wide_ranges_are_logarithmic(self):
        *lines, axis = [text.plain for text in chart([Series([1, 2, 3], [0.01, 1, 100], "*")], 60, 5)]
        assert [line.split()[0] for line in lines[:5]] == ["100", "10", "1", "0.1", "0.01"]
        assert axis.split()[-1] == "step"

    def test_a_constant_stands_in_the_middle(self):
        lines = [text.plain for text in chart([Series([1, 2], [3, 3], "*")], 20, 5)]
        assert lines[:5] == ["         │"] * 2 + ["  3.0000 ┤**********"] + ["         │"] * 2

    def test_what_is_not_finite_is_left_out(self):
        lines = [text.plain for text in chart([Series([1, 2, 3], [np.nan, np.inf, 1.0], "*")], 20, 3)]
        assert sum(line.count("*") for line in lines) == 1
        nothing = [text.plain for text in chart([Series([1, 2], [np.nan, np.nan], "*")], 20, 3)]
        assert not any("*" in line for line in nothing)


class TestTerminal:
    @pytest.mark.parametrize("columns", [40, 80, 200])
    def test_curves_and_a_heat_map(self, history, capsys, monkeypatch, columns):
        monkeypatch.setenv("COLUMNS", str(columns))
        plot.render(history)
        lines = capsys.readouterr().out.splitlines()
        titles = " ".join(lines)
        assert "loss of the training batches (•), and" in titles
        assert "accuracy of the training batches (•), and" in titles
        assert "learning rate" in lines
        assert max(map(len, lines)) <= min(columns, 100)
        conv, last, steps, scale = lines[-4:]
        assert conv.startswith("conv        ")
        assert last.startswith("last$of^all ")
        assert set(conv[12:]) | set(last[12:]) <= set("▁▂▃▄▅▆▇█")
        assert {"▁", "█"} <= set(conv[12:] + last[12:])
        assert steps.split() == ["step", "1", "8"]
        assert scale.startswith("▁ ")

    def test_regression_has_no_accuracy(self, history, capsys):
        steps = [replace(step, accuracy=None) for step in history.steps]
        plot.render(replace(history, steps=steps))
        assert "accuracy" not in capsys.readouterr().out

    def test_without_watched_steps(self, history, capsys):
        plot.render(replace(history, watched=[]))
        assert capsys.readouterr().out.endswith("no step was watched; train with --watch-every 1 or more\n")


class TestFiles:
    def test_a_png(self, history, tmp_path):
        pytest.importorskip("matplotlib")
        save_figure(history, tmp_path / "run.png")
        content = (tmp_path / "run.png").read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
        assert (width, height > 600) == (1200, True)
        save_figure(history, tmp_path / "again.PNG")
        assert (tmp_path / "again.PNG").read_bytes() == content

    def test_a_pdf(self, history, tmp_path):
        pytest.importorskip("matplotlib")
        save_figure(history, tmp_path / "run.pdf")
        content = (tmp_path / "run.pdf").read_bytes()
        assert content.startswith(b"%PDF-")
        save_figure(history, tmp_path / "again.pdf")
        assert (tmp_path / "again.pdf").read_bytes() == content

    def test_an_svg(self, history, tmp_path):
        pytest.importorskip("matplotlib")
        save_figure(history, tmp_path / "run.svg")
        root = ElementTree.parse(tmp_path / "run.svg").getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        save_figure(history, tmp_path / "again.svg")
        assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "run.svg").read_bytes()

    @pytest.mark.parametrize("what", ["nothing watched", "regression", "one step", "zero gradients", "bad values"])
    def test_runs_of_all_kinds(self, history, tmp_path, what):
        pytest.importorskip("matplotlib")
        steps, watched, epochs = history.steps, history.watched, history.epochs

        def with_gradient(value):
            return [
                replace(one, layers={name: replace(own, gradient=value) for name, own in one.layers.items()})
                for one in watched
            ]

        changed = {
            "nothing watched": {"watched": []},
            "regression": {"steps": [replace(step, accuracy=None) for step in steps]},
            "one step": {"steps": steps[:1], "watched": watched[:1], "epochs": epochs[:0]},
            "zero gradients": {"watched": with_gradient(0.0)},
            "bad values": {
                "watched": with_gradient(float("nan")),
                "steps": [replace(step, loss=float("nan")) for step in steps],
            },
        }[what]
        save_figure(replace(history, **changed), tmp_path / "run.svg")
        assert (tmp_path / "run.svg").stat().st_size > 5000

    @pytest.mark.parametrize("name", ["run.gif", "run", "run.png.txt", ".png"])
    def test_other_files(self, name):
        with pytest.raises(FigureError) as caught:
            check_suffix(Path(name))
        assert str(caught.value) == f"{name}: expected a file name that ends in .png, .svg or .pdf"

    def test_without_matplotlib(self, history, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(FigureError) as caught:
            save_figure(history, tmp_path / "run.png")
        assert str(caught.value) == (
            f"{tmp_path / 'run.png'}: needs matplotlib, which is not installed: pip install 'cnnbp[plot]'"
        )
