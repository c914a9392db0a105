"""`cnnbp profile`: a training step layer by layer, and what it consists of besides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbp_cli.report.records import write_csv, write_json
from cnnbp_cli.report.text import count

if TYPE_CHECKING:
    from cnnbp_cli.analysis.profile import Profile

FIELDS = ("name", "type", "forward_ms", "backward_ms", "total_ms", "share", "forward_gflops", "backward_gflops")

PARTS = {
    "batch": "(batch preparation)",
    "loss": "(loss)",
    "sums": "(sums over workers)",
    "update": "(update)",
    "other": "(other)",
}


def render(profile: Profile, format: str) -> None:
    """Write a profile to standard output."""
    if format == "json":
        write_json(profile.to_dict())
    elif format == "csv":
        write_csv(FIELDS, _records(profile))
    else:
        _table(profile)


def _records(profile: Profile) -> list[list[object]]:
    rows: list[list[object]] = [
        [
            *(layer.name, layer.type, layer.forward_ms, layer.backward_ms, layer.forward_ms + layer.backward_ms),
            *(layer.share, layer.forward_gflops, layer.backward_gflops),
        ]
        for layer in profile.layers
    ]
    rows += [[PARTS[part.name], None, None, None, part.ms, part.share, None, None] for part in profile.parts]
    return rows


def _table(profile: Profile) -> None:
    from cnnbp_cli.report.table import Cell, Column, line, show

    columns = [
        Column("layer", text=True),
        Column("type", text=True, leaves=6, optional=True),
        Column("forward\nms", leaves=2),
        Column("backward\nms", leaves=2),
        Column("share", leaves=1),
        Column("forward\nGFLOP/s", leaves=4),
        Column("backward\nGFLOP/s", leaves=5),
    ]
    rows: list[list[Cell]] = [
        [
            layer.name,
            layer.type,
            f"{layer.forward_ms:.3f}",
            f"{layer.backward_ms:.3f}",
            _share(layer.share),
            _rate(layer.forward_gflops),
            _rate(layer.backward_gflops),
        ]
        for layer in profile.layers
    ]
    rows += [[PARTS[part.name], "", f"{part.ms:.3f}", "", _share(part.share), "", ""] for part in profile.parts]
    images, workers = count(profile.images, "image"), count(profile.workers, "worker")
    shared = "" if profile.workers == 1 else f", a batch of {profile.batch_size} shared by {workers}"
    line(f"{profile.name}: one step of {images}{shared}, {profile.dtype}", "bold")
    show(columns, rows, ["step", "", f"{profile.step_ms:.3f}", "", _share(1.0), _rate(profile.gflops), ""])
    line(f"{count(round(profile.images_per_second))} images/s; mean of the faster half of the steps, {profile.steps}")
    share = _share(profile.gflops / profile.peak_gflops)
    line(
        f"the step reaches {_rate(profile.gflops)} GFLOP/s, {share} of the {_rate(profile.peak_gflops)} of a large "
        "matrix product on one core"
    )


def _rate(gflops: float | None) -> str:
    return "" if gflops is None else f"{gflops:.1f}"


def _share(share: float) -> str:
    return f"{100 * share:.1f}%"
