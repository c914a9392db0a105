"""What all workers of a run are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cnnbp_cli.config.schema import Config
from cnnbp_cli.data.dataset import Dataset
from cnnbp_cli.model import Model
from cnnbp_cli.train.checkpoint import Checkpoint
from cnnbp_cli.train.resume import Changes
from cnnbp_cli.train.run_directory import RunDirectory


@dataclass(frozen=True, slots=True)
class Job:
    """A run to be made.

    Attributes
    ----------
    model : Model
    data : Dataset
    config : Config
        How to train.
    watch_every : int
        Steps from one event with the layers' statistics to the next; 0 for none.
    directory : RunDirectory or None
        Where the first worker writes.
    fingerprint : mapping of str to str
        What the data are, for the checkpoints.
    start : (Path, Checkpoint) or None
        Where to begin.
    changes : Changes or None
        How the config and the data differ from the checkpoint's.
    """

    model: Model
    data: Dataset
    config: Config
    watch_every: int
    directory: RunDirectory | None = None
    fingerprint: Mapping[str, str] = field(default_factory=dict[str, str])
    start: tuple[Path, Checkpoint] | None = None
    changes: Changes | None = None
