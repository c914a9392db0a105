"""Runs on many machines that share a folder, through whatever gives futures: Dask, or the processes of MPI.

The folder is all that passes between the machines: a run's record tells how it goes, a file `stop` asks all runs to
save a checkpoint and end, and checkpoints let another machine go on with a run whose machine is gone.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Protocol

from cnnbp_cli.config.schema import Config
from cnnbp_cli.config.write import to_yaml
from cnnbp_cli.files import replacing
from cnnbp_cli.parallel.blas import set_blas_threads
from cnnbp_cli.parallel.processes import POLL_SECONDS
from cnnbp_cli.sweep.plan import SweepError
from cnnbp_cli.sweep.team import Ended, do_run
from cnnbp_cli.train.events import EpochDone, Event, RunStarted, StepDone, from_dict

MARK = ".shared"
"""The file with the word."""

STOP_SECONDS = 0.5
"""The time between two looks for the file `stop`."""


class Future(Protocol):
    """A result that will be there; as of `concurrent.futures`."""

    def done(self) -> bool: ...
    def result(self) -> Any: ...
    def cancel(self) -> Any: ...


Submit = Callable[..., Future]
"""Called with a function and its arguments, which are pickled; another machine calls it."""


@dataclass(frozen=True, slots=True)
class SharedFolder:
    """A folder that all machines see, and the word in it by which they know that it is the same one."""

    path: Path
    word: str

    @classmethod
    def make(cls, path: Path) -> SharedFolder:
        """Return a sweep's folder, with a word in it that is written once."""
        path = path.resolve()
        mark = path / MARK
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not mark.exists():
                with replacing(mark) as file:
                    file.write(uuid.uuid4().hex.encode())
            return cls(path, mark.read_text(encoding="ascii"))
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SweepError(f"{path}: the sweep cannot be written: {reason}") from None

    @property
    def stop(self) -> Path:
        """The file that asks all runs to end."""
        return self.path / "stop"

    def is_seen(self) -> bool:
        """Return whether this machine sees the folder."""
        with suppress(OSError):
            return (self.path / MARK).read_text(encoding="ascii") == self.word
        return False

    def unseen(self, machine: str) -> str:
        """Say that a machine does not see the folder."""
        return (
            f"{machine} does not see {self.path}: a sweep on several machines needs a folder that they share; choose "
            "one with --out"
        )


def work(folder: SharedFolder, config: str, run: str, layers: Sequence[str]) -> str | None:
    """Do one run, on whatever machine this is; return why it failed, if it did."""
    if not folder.is_seen():
        import socket

        return folder.unseen(socket.gethostname())
    set_blas_threads(1)
    looked, found = -STOP_SECONDS, False

    def stop() -> bool:
        nonlocal looked, found
        if monotonic() - looked > STOP_SECONDS:
            looked, found = monotonic(), folder.stop.exists()
        return found

    files = [Path(file) for file in layers]
    return do_run(config, folder.path / run, layers=files, stop=stop, tell=lambda event: None)


class RemoteTeam:
    """Runs that others do; see `Team`.

    Parameters
    ----------
    submit : callable
    folder : SharedFolder
        Of the sweep, whose runs are the folders in it.
    layers : sequence of Path
    """

    def __init__(self, submit: Submit, folder: SharedFolder, layers: Sequence[Path] = ()) -> None:
        self._submit, self._folder = submit, folder
        self._layers = [str(file.resolve()) for file in layers]
        self._futures: dict[int, Future] = {}
        self._records: dict[int, _Record] = {}
        self._stopped = False

    @property
    def running(self) -> Collection[int]:
        return self._futures.keys()

    def start(self, number: int, config: Config, run: Path) -> None:
        if not self._records:  # the folder is this sweep's alone from its first run on
            self._folder.stop.unlink(missing_ok=True)
        self._records[number] = _Record(self._folder.path / run.name / "events.jsonl")
        self._futures[number] = self._submit(work, self._folder, to_yaml(config), run.name, self._layers)

    def messages(self) -> Iterator[tuple[int, Event | Ended]]:
        sleep(POLL_SECONDS)
        for number, future in [*self._futures.items()]:
            over = future.done()  # before the record is read, which is complete then
            for event in self._records[number].news():
                yield number, event
            if over:
                del self._futures[number]
                yield number, Ended(_failure(future))

    def look_after(self, *, stop: bool) -> None:
        if stop and not self._stopped:
            self._stopped = True
            self._folder.stop.touch()

    def kill(self) -> None:
        if self._futures:  # what has begun elsewhere can only be asked
            self._folder.stop.touch()
        for future in self._futures.values():
            future.cancel()
        self._futures.clear()


def _failure(future: Future) -> str | None:
    try:
        failure: str | None = future.result()
        return failure
    except Exception as error:  # such as a worker that was lost too often
        return f"{type(error).__name__}: {error}"


class _Record:
    """A run's `events.jsonl` while another machine writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with suppress(OSError):
            self._read = path.stat().st_size  # of an earlier attempt
            return
        self._read = 0

    def news(self) -> Iterator[Event]:
        """Yield what is new: the start, epochs, and the last of the steps."""
        step: StepDone | None = None
        for line in self._lines():
            with suppress(ValueError):
                event = from_dict(json.loads(line))
                if isinstance(event, StepDone):
                    step = event
                elif isinstance(event, RunStarted | EpochDone):
                    yield event
        if step is not None:
            yield step

    def _lines(self) -> list[bytes]:
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(min(self._read, size))  # a run that resumes cuts its record
                text = file.read()
        except OSError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._read = min(self._read, size) + len(whole)
        return whole.splitlines()
