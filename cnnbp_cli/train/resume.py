"""Resuming a run: what may change, and what would make its record say something false."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cnnbp_cli.config.differences import differences
from cnnbp_cli.config.load import parse_config
from cnnbp_cli.config.schema import Config
from cnnbp_cli.train.checkpoint import Checkpoint
from cnnbp_cli.train.events import Change
from cnnbp_cli.train.run_directory import RunError

SAFE = {"name"} | {
    f"train.{key}"
    for key in ("epochs", "max_steps", "workers", "checkpoint_every", "checkpoint_minutes", "keep_checkpoints")
}
"""Keys that leave the steps alone: how long a run is, what works on it, and what it keeps."""

LOCATION = ("data.source", "data.path", "data.test_path")
"""Where data lie: what they are is compared itself, where the checkpoint has their fingerprint."""


class Changes(NamedTuple):
    """How a run goes on otherwise than it began.

    Attributes
    ----------
    changes : list of Change
        Not empty.
    safe : bool
        See `ConfigChanged`.
    """

    changes: list[Change]
    safe: bool


def find_changes(
    path: Path, checkpoint: Checkpoint, config: Config, fingerprint: Mapping[str, str], samples: int, *, allow: bool
) -> Changes | None:
    """Compare what a checkpoint was made with to what the run is to go on with.

    Parameters
    ----------
    path : Path
        The checkpoint's.
    checkpoint : Checkpoint
    config : Config
        How to go on.
    fingerprint : mapping of str to str
        What the data are now.
    samples : int
        Training images.
    allow : bool
        Let the steps so far and those to come be of different kinds.

    Returns
    -------
    Changes or None
        None where nothing differs.

    Raises
    ------
    RunError
        When something differs that is not safe to change, and is not allowed; lists all of it.
    """
    before = parse_config(checkpoint.config, label=str(path))
    known = checkpoint.data
    changes = [
        Change(difference.key, *difference.values)
        for difference in differences([before, config])
        if not (known and difference.key in LOCATION)
    ]
    if known:
        names = dict.fromkeys([*known, *fingerprint])
        changes += [Change(name, known.get(name), fingerprint.get(name)) for name in names]
        changes = [change for change in changes if change.old != change.new]
    unsafe = [change for change in changes if change.key not in SAFE]
    if unsafe and not allow:
        lines = "".join(f"\n  {change}" for change in unsafe)
        raise RunError(
            f"{path.parent.parent}: the run so far was made with other settings:{lines}\n"
            f"`cnnbp train {path.parent.parent} --resume` keeps the run's own; --allow-changes resumes with these, and "
            "records the change"
        )
    if not changes:
        return None
    same_length = before.train.total_steps(samples) == config.train.total_steps(samples)
    return Changes(changes, not unsafe and (same_length or not config.train.schedule.depends_on_total))
