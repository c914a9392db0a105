"""Runs on this machine, each in a process of its own.

Where processes are forked they share the data, which the parent loads; where they are spawned each loads its own.
A run's process saves a checkpoint and ends when it is asked to stop, and ends at once when its parent is gone. A pool
of the standard library would end all runs when one process is killed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from cnnbp_cli.config.schema import Config
from cnnbp_cli.config.write import to_yaml
from cnnbp_cli.data.dataset import Dataset
from cnnbp_cli.parallel.processes import (
    POLL_SECONDS,
    Child,
    StoppedProcesses,
    cause_of_death,
    forks,
    shared_bytes,
    start_method,
    start_process,
)
from cnnbp_cli.sweep.plan import load_data
from cnnbp_cli.sweep.team import Ended, do_run
from cnnbp_cli.train.events import Event


class LocalTeam:
    """Processes of this machine; see `Team`."""

    def __init__(self, layers: Sequence[Path] = ()) -> None:
        self._method = start_method()
        self._flag = shared_bytes(self._method, 1)
        self._layers = tuple(layers)
        self._failures: dict[int, str] = {}
        self.running: dict[int, Child] = {}
        self._stopped_processes = StoppedProcesses()

    def start(self, number: int, config: Config, run: Path) -> None:
        forked = forks(self._method)
        data, layers = (load_data(config), ()) if forked else (None, self._layers)
        adopt = partial(self.running.__setitem__, number)
        start_process(self._method, adopt, _work, to_yaml(config), run, data, layers, self._flag)

    def messages(self) -> Iterator[tuple[int, Event | Ended]]:
        numbers = {connection: number for number, (_, connection) in self.running.items()}
        for connection in wait([*numbers], POLL_SECONDS):
            assert isinstance(connection, Connection)
            number = numbers[connection]
            try:
                message = connection.recv()
            except (EOFError, OSError):
                yield number, self._end(number)
                continue
            if isinstance(message, str):
                self._failures[number] = message
            else:
                yield number, message

    def look_after(self, *, stop: bool) -> None:
        if stop:
            self._flag[0] = 1
        named = ((f"run {number + 1}", process.pid or 0) for number, (process, _) in self.running.items())
        self._stopped_processes.look(named, go_on=stop)

    def kill(self) -> None:
        for process, connection in self.running.values():
            process.kill()
            process.join()
            process.close()
            connection.close()
        self.running.clear()

    def _end(self, number: int) -> Ended:
        process, connection = self.running.pop(number)
        process.join()
        failure = self._failures.pop(number, None)
        if failure is None and process.exitcode:
            failure = f"its process {cause_of_death(process.exitcode)}"
        process.close()
        connection.close()
        return Ended(failure)


def _work(
    messages: Connection, config: str, run: Path, data: Dataset | None, layers: tuple[Path, ...], stop: Any
) -> None:
    """Be the process of one run, and send why it failed, if it does."""
    failure = do_run(config, run, data, layers=layers, stop=lambda: bool(stop[0]), tell=messages.send)
    if failure is not None:
        messages.send(failure)
