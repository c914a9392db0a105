"""`cnnbp plot` as a PNG, SVG or PDF file, drawn by matplotlib, which only this needs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnbp_cli.analysis.history import History
from cnnbp_cli.core.types import Array
from cnnbp_cli.errors import UserError
from cnnbp_cli.report.chart import WIDE_RANGE
from cnnbp_cli.report.plot import gradients

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

SUFFIXES = (".png", ".svg", ".pdf")
UNDATED: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
}
"""What makes the same run give the same bytes."""
WINDOWS = 40  # parts of the run over which the dark curve averages
TRAINING, VALIDATION = "tab:blue", "tab:orange"


class FigureError(UserError):
    """A figure that cannot be drawn."""


def check_suffix(path: Path) -> None:
    """Raise `FigureError` when the file's name says something else than PNG, SVG or PDF."""
    if path.suffix.lower() not in SUFFIXES:
        raise FigureError(f"{path}: expected a file name that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")


def save_figure(history: History, path: Path) -> None:
    """Draw loss, accuracy, learning rate and the gradient norms of a run into a file.

    Raises
    ------
    FigureError
        When matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise FigureError(f"{path}: needs matplotlib, which is not installed: pip install 'cnnbp[plot]'") from None
    rows = gradients(history)
    classifies = history.steps[0].accuracy is not None
    top = ["loss", "accuracy"] if classifies else ["loss", "loss"]
    mosaic: Any = [top, ["rate", "rate"]]
    heights = [3.0, 1.3]
    if rows:
        mosaic.append(["gradients", "gradients"])
        heights.append(1.2 + 0.22 * len(rows))
    # The same run gives the same bytes: no date, and names that do not change.
    with (
        warnings.catch_warnings(),
        matplotlib.rc_context({"svg.hashsalt": "cnnbp", "axes.grid": True, "grid.alpha": 0.3}),
    ):
        warnings.simplefilter("ignore", UserWarning)  # a layer's name may need a font that is not there
        figure = Figure(figsize=(10, sum(heights) + 0.8), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        title = [str(history.run), *map(str, history.changes)]
        figure.suptitle("\n".join(title), parse_math=False)
        axes: dict[str, Axes] = figure.subplot_mosaic(mosaic, height_ratios=heights)
        _curves(axes["loss"], history, "loss")
        if classifies:
            _curves(axes["accuracy"], history, "accuracy")
        _rate(axes["rate"], history)
        for change in history.changes:
            for name in {*top, "rate"}:
                axes[name].axvline(change.step, color="black", linestyle="--", linewidth=0.8)
        if rows:
            _heat_map(axes["gradients"], rows, [watched.step for watched in history.watched])
        kind = path.suffix.lower().removeprefix(".")
        figure.savefig(path, format=kind, metadata=UNDATED[kind])


def _curves(axes: Axes, history: History, name: str) -> None:
    """Draw every batch's figure, their running mean, and what the validation split says."""
    steps = np.array([step.step for step in history.steps])
    values = np.array([getattr(step, name) for step in history.steps], np.float64)
    window = max(len(values) // WINDOWS, 1)
    axes.plot(steps, values, color=TRAINING, alpha=0.3, linewidth=0.8)
    if window > 1:
        mean = np.convolve(values, np.full(window, 1 / window), "valid")
        axes.plot(steps[window - 1 :], mean, color=TRAINING, label="training batches")
    else:
        axes.plot(steps, values, color=TRAINING, label="training batches")
    held_out = [(epoch.step, getattr(epoch, f"validation_{name}")) for epoch in history.epochs]
    held_out = [(step, value) for step, value in held_out if value is not None]
    if held_out:
        axes.plot(*zip(*held_out, strict=True), "o-", color=VALIDATION, markersize=4, label="validation")
    finite = values[np.isfinite(values)]
    if name == "loss" and finite.size and finite.max() > WIDE_RANGE * finite.min() > 0:
        axes.set_yscale("log")
        _round_ticks(axes.yaxis)
        name = f"{name}, logarithmic scale"
    axes.set_title(name)
    _step_axis(axes)
    axes.legend()


def _rate(axes: Axes, history: History) -> None:
    axes.plot([step.step for step in history.steps], [step.learning_rate for step in history.steps], color=TRAINING)
    axes.set_title("learning rate")
    axes.set_ylim(bottom=0)
    _step_axis(axes)


def _round_ticks(axis: Axis) -> None:
    """Label a logarithmic axis at 1, 2 and 5 times powers of ten, in plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _step_axis(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("step")
    axes.margins(x=0.01)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def _heat_map(axes: Axes, rows: dict[str, list[float]], steps: list[int]) -> None:
    """Draw the norms in colors of a logarithmic scale; gray where a norm is 0 or not finite."""
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm

    norms = np.array(list(rows.values()))
    norms = np.ma.masked_where(~(np.isfinite(norms) & (norms > 0)), norms)
    scale: dict[str, Any] = {"norm": LogNorm(norms.min(), norms.max())} if norms.count() else {}
    colors = colormaps["viridis"].with_extremes(bad="lightgray")
    mesh = axes.pcolormesh(_edges(steps), np.arange(len(rows) + 1), norms, cmap=colors, edgecolors="face", **scale)
    axes.set_yticks(np.arange(len(rows)) + 0.5, list(rows), parse_math=False)
    axes.invert_yaxis()
    axes.grid(False)
    axes.set_title("gradient norm of each layer (L2, before clipping), logarithmic scale")
    _step_axis(axes)
    bar = axes.figure.colorbar(mesh, ax=axes, pad=0.01)
    if scale:
        _round_ticks(bar.ax.yaxis)


def _edges(steps: list[int]) -> Array:
    """Return where each watched step's cell begins, and where the last ends: halfway between the steps."""
    middles = (np.array(steps[:-1]) + np.array(steps[1:])) / 2
    half = (steps[-1] - steps[-2]) / 2 if len(steps) > 1 else 0.5
    return np.concatenate([[max(steps[0] - half, 0)], middles, [steps[-1] + half]])
