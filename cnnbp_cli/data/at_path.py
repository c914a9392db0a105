"""The source that a bare path to data stands for, where no config describes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cnnbp_cli.config.schema import AnyData, Csv, Npz, Pictures
from cnnbp_cli.config.sources import is_run


def source_at(path: Path, trained_on: AnyData) -> AnyData | None:
    """Return the source that a path to data stands for; None where it may be that of a config."""
    common: dict[str, Any] = {
        "path": path.absolute(),
        "normalize": trained_on.normalize,
        "first_label": trained_on.first_label,
        "target": trained_on.target,
        "image_size": trained_on.image_size,
    }
    if path.suffix == ".csv":
        own = trained_on if isinstance(trained_on, Csv) else None
        return Csv(**common, label=own.label, delimiter=own.delimiter) if own else Csv(**common)
    if path.suffix == ".npz":
        return Npz(**common, keys=trained_on.keys) if isinstance(trained_on, Npz) else Npz(**common)
    return Pictures(**common) if path.is_dir() and not is_run(path) else None
