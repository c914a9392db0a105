"""A run directory: `config.yaml`, `events.jsonl`, `metrics.csv` and `checkpoints/*.npz`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cnnbp_cli.config.sources import inside
from cnnbp_cli.data.kept import Kept
from cnnbp_cli.errors import UserError
from cnnbp_cli.files import appending, remove_leftovers, replacing, require_files, reserved, sync
from cnnbp_cli.train.checkpoint import Checkpoint, CheckpointError

STEPS = "step-*.npz"


class RunError(UserError):
    """A run directory that cannot be made, read or continued."""


class RunDirectory:
    """The folder of one run.

    Attributes
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def measured(self) -> Path:
        """What was measured on images that stay in their file."""
        return self.path / "data.json"

    @property
    def best(self) -> Path:
        return self.path / "checkpoints" / "best.npz"

    @property
    def _history(self) -> Path:
        return self.path / "config-history"

    @contextmanager
    def reserved(self, *, resume: bool) -> Iterator[None]:
        """Make the folder, and keep it from others for the length of a block.

        Raises
        ------
        RunError
            When it cannot be written, when another process trains in it, or when it holds a run already and nobody
            means to resume it.
        """
        with reserved(self.path, "the run directory", RunError):
            self.require_files(follow=False)
            if self.events.exists() or self.checkpoints():
                if not resume:
                    raise RunError(
                        f"{self.path}: already contains a run; "
                        "continue it with --resume, or choose another folder with --out"
                    )
            elif found := next((path for path in (self.config, self.metrics, self.best) if path.exists()), None):
                raise RunError(
                    f"{self.path}: contains no run, but another {found.name}; choose another folder with --out"
                )
            try:
                self.best.parent.mkdir(exist_ok=True)
            except OSError as error:
                raise self._unwritable(error) from None
            yield

    def require_files(self, *, follow: bool = True) -> None:
        """Make sure that nothing is read or written that is no file of this folder.

        Parameters
        ----------
        follow : bool
            Let symbolic links to files, and to folders, pass: nothing will be written.

        Raises
        ------
        RunError
            When there is a pipe, a socket or a device, or a link, in the place of one of the run's files.
        """
        folders = (self.best.parent, self._history)
        files = (
            *(self.config, self.events, self.metrics, self.measured, self.best),
            *self.checkpoints(),
            *self._history.glob("*"),
        )
        links = () if follow else (path for path in folders if path.is_symlink())
        require_files((*links, *files), "a run", RunError, follow=follow)

    def begin(self, config: str, best: Checkpoint | None) -> None:
        """Write the complete config and the best checkpoint so far, and remove what a killed process left.

        Raises
        ------
        RunError, CheckpointError
            When they cannot be written.
        """
        try:
            appending(self.events).close()  # first: by it a run is known
            remove_leftovers(self.path, self.config.name, self.metrics.name)
            remove_leftovers(self.best.parent, self.best.name, STEPS)
            remove_leftovers(self._history, "*.yaml")
            with replacing(self.config) as file:
                file.write(config.encode())
            if best is None:
                self.best.unlink(missing_ok=True)  # of steps that are to be made again
        except OSError as error:
            raise self._unwritable(error) from None
        if best is not None:
            best.save(self.best)

    def keep_config(self, config: str, step: int) -> None:
        """Keep the config that the steps up to this one were made with, where the run goes on with another.

        Raises
        ------
        RunError
            When it cannot be written.
        """
        path = self._history / f"step-{step:08d}.yaml"
        try:
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as file:
                file.write(config.encode())
        except OSError as error:
            raise self._unwritable(error) from None

    def keep_measured(self, kept: Kept) -> None:
        """Write what was measured on images that stay in their file.

        Raises
        ------
        RunError
            When it cannot be written.
        """
        try:
            kept.write(self.measured)
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> RunError:
        return RunError(f"{self.path}: the run directory cannot be written: {error.strerror or error}")

    @classmethod
    def next_under(cls, parent: Path, name: str) -> Path:
        """Return the first of `parent/name-1`, `name-2`, … that does not exist."""
        number = 1
        while (parent / f"{name}-{number}").exists():
            number += 1
        return parent / f"{name}-{number}"

    def checkpoints(self) -> list[Path]:
        """Return the numbered checkpoints, the latest first."""
        paths = (self.path / "checkpoints").glob(STEPS)
        return sorted(paths, key=lambda path: (len(path.name), path.name), reverse=True)

    def save(self, checkpoint: Checkpoint, step: int, *, best: bool, keep: int) -> Path:
        """Save a checkpoint, as the best too if it is, and drop all but the latest `keep`."""
        path = self.path / "checkpoints" / f"step-{step:08d}.npz"
        if self.events.exists():
            sync(self.events)  # after a power failure the log must not end before the checkpoint
        if best:  # first: a crash in between must not leave a step behind whose best is not there
            checkpoint.of_best().save(self.best)
        checkpoint.save(path)
        for old in self.checkpoints()[keep:]:
            old.unlink(missing_ok=True)
        return path

    def last_good(self) -> tuple[Path, Checkpoint] | None:
        """Return the latest checkpoint that can be read; None when there is none at all.

        Raises
        ------
        CheckpointError
            When there are checkpoints but none is whole.
        """
        paths = self.checkpoints()
        for path in paths:
            try:
                return path, Checkpoint.read(path)
            except CheckpointError:
                if path == paths[-1]:
                    raise
        return None

    def chosen(self) -> Path:
        """Return the checkpoint to evaluate: the best, or the last where no best was kept.

        Raises
        ------
        RunError
            When there is none.
        """
        self.require_files()
        if self.best.exists():
            return self.best
        paths = self.checkpoints()
        if not paths:
            runs = "" if self.events.exists() else inside(self.path, file=False)
            expected = f"; expected a run{runs}" if runs else "; train it first"
            raise RunError(f"{self.path}: contains no checkpoint{expected}")
        return paths[0]
