"""What a sweep wants of whatever does its runs; and one run, from its last checkpoint to its end."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Protocol

from cnnbp_cli.build import build
from cnnbp_cli.config.custom_layers import load_layers
from cnnbp_cli.config.load import parse_config
from cnnbp_cli.config.schema import Config
from cnnbp_cli.data.dataset import Dataset
from cnnbp_cli.errors import UserError
from cnnbp_cli.files import replacing
from cnnbp_cli.sweep.plan import load_data
from cnnbp_cli.train.events import EpochDone, Event, RunStarted, StepDone
from cnnbp_cli.train.fit import fit

STEP_SECONDS = 0.2
"""From one step that a run reports to the next."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A run has ended; `failure` is why, if it is not that the run is over or was asked to stop."""

    failure: str | None


class Team(Protocol):
    """Does runs at the same time, each with one worker and one thread for its matrix products.

    Attributes
    ----------
    running : collection of int
        The numbers of the runs that have not ended.
    """

    @property
    def running(self) -> Collection[int]: ...

    def start(self, number: int, config: Config, run: Path) -> None:
        """Begin the run in a folder, or go on with it; raise `UserError` when that cannot be."""
        ...

    def messages(self) -> Iterator[tuple[int, Event | Ended]]:
        """Wait a moment, and yield what happened in the runs meanwhile."""
        ...

    def look_after(self, *, stop: bool) -> None:
        """Ask the runs to save a checkpoint and end, if that is wanted; called before every wait."""
        ...

    def kill(self) -> None:
        """End what is still running, at once where that is possible."""
        ...


def do_run(
    config: str,
    run: Path,
    data: Dataset | None = None,
    *,
    layers: Sequence[Path] = (),
    stop: Callable[[], bool],
    tell: Callable[[Event], None],
) -> str | None:
    """Do one run, whatever its config and its folder hold; return why it failed, if it did.

    Parameters
    ----------
    config : str
        As YAML.
    run : Path
    data : Dataset, optional
        By default read as the config says.
    layers : sequence of Path
        The user's files that define layers.
    stop : callable
        See `fit`.
    tell : callable
        Called with the events that a sweep shows.
    """
    try:
        for file in layers:
            load_layers(file)
        read = parse_config(config, label=str(run))
        next_step = 0.0
        for event in fit(build(read), data or load_data(read), run=run, resume=True, stop=stop):
            if isinstance(event, StepDone):
                if perf_counter() < next_step:
                    continue
                next_step = perf_counter() + STEP_SECONDS
            if isinstance(event, RunStarted | StepDone | EpochDone):
                tell(event)
    except UserError as error:
        return str(error)
    except MemoryError:
        return "out of memory; try fewer --jobs, or a smaller train.batch_size"
    except OSError as error:
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except Exception as error:  # a defect of the program, or of the user's layers: the other runs go on
        run.mkdir(parents=True, exist_ok=True)
        place = run / "traceback.txt"
        with replacing(place) as report:
            report.write(traceback.format_exc().encode())
        return f"{type(error).__name__}: {error} (see {place})"
    return None
