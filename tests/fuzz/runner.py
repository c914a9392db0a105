"""Feed hostile inputs to the program: each is accepted, or refused with a message, in time and in little memory."""

from __future__ import annotations

import argparse
import faulthandler
import resource
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from fuzz.kinds import Kind, kinds
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from cnnbp_cli.errors import UserError
from cnnbp_cli.report.terminal import complaint

SECONDS = 5  # of the processor, for one input
STUCK = 3600  # seconds after which a campaign that waits for something tells where, and ends
LINES = 61  # a config's twenty problems, three lines each, and their number
COLUMNS = 1200


class Hang(BaseException):
    """An input took too long; nothing on the way may catch this."""


@dataclass(slots=True)
class Tally:
    """What came of the inputs of one kind.

    Attributes
    ----------
    accepted, refused : int
    slowest : float
        Seconds of the processor.
    growth : int
        Bytes by which the process grew at most.
    """

    kind: str
    accepted: int = 0
    refused: int = 0
    slowest: float = 0.0
    growth: int = 0
    failure: str = ""

    @property
    def inputs(self) -> int:
        return self.accepted + self.refused


class Feeder:
    """Feeds inputs of one kind and keeps the tally."""

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.kind, self.tally = kind, Tally(kind.name)
        self._folder = folder / "input"

    def feed(self, content: Any) -> None:
        """Raise an error unless the program deals with the input as it should."""
        self._folder.mkdir()
        resident = reset_peak()
        started, refusal = process_time(), None
        try:
            with _time_limit(), warnings.catch_warnings():
                warnings.simplefilter("error")
                self.kind.feed(self._folder, content)
        except UserError as error:
            refusal = complaint(error).replace(str(self._folder), "")
        finally:
            shutil.rmtree(self._folder)
        seconds, growth = process_time() - started, peak_memory() - resident
        if refusal is None:
            self.tally.accepted += 1
        else:
            self.tally.refused += 1
            check_message(refusal)
        self.tally.slowest = max(self.tally.slowest, seconds)
        assert growth <= self.kind.memory, f"the process grew by {growth >> 20} MiB"
        self.tally.growth = max(self.tally.growth, growth)


def check_message(text: str) -> None:
    """Raise an error unless a person could read this on a terminal."""
    lines = text.split("\n")
    assert text.strip(), "refused without a word"
    assert len(lines) <= LINES, f"a message of {len(lines)} lines"
    assert max(map(len, lines)) <= COLUMNS, f"a line of {max(map(len, lines))} characters"
    assert all(line.isprintable() for line in lines), f"characters that a terminal may obey: {text[:300]!r}"
    assert "Traceback" not in text, text[:300]
    assert "memory" not in text.partition("there are")[0], text[:300]


def reset_peak() -> int:
    """Return the bytes that this process has in memory, and let its peak begin anew where the system can do that."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return peak_memory()
    return _status("VmRSS")


def _status(key: str) -> int:
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition(key + ":")[2].split(maxsplit=1)[0]) * 1024


def peak_memory() -> int:
    """Return the most bytes that this process has had in memory."""
    if Path("/proc/self/clear_refs").exists():
        return _status("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def _time_limit() -> Iterator[None]:
    def late(*_: Any) -> None:
        raise Hang(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def run(kind: Kind, inputs: int, seed: int = 0, *, shrink: bool = True) -> Tally:
    """Feed so many inputs of a kind.

    Raises
    ------
    Exception
        Hypothesis's report of the smallest input that is not dealt with as it should be.
    """
    with tempfile.TemporaryDirectory(prefix="cnnbp-fuzz-") as folder:
        feeder = Feeder(kind, Path(folder))
        phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]

        @seeded(seed)
        @settings(
            max_examples=inputs,
            phases=phases,
            database=None,
            derandomize=False,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        )
        @given(kind.inputs)
        def feed(content: Any) -> None:
            feeder.feed(content)

        feed()
        return feeder.tally


def guided(name: str, *options: str) -> None:
    """Let atheris look for inputs that reach new places, with libFuzzer's options, until it is stopped.

    It makes the choices that Hypothesis makes otherwise.
    """
    import atheris

    kind = next(kind for kind in kinds() if kind.name == name)
    with tempfile.TemporaryDirectory(prefix="cnnbp-fuzz-") as folder:
        feed = settings(deadline=None, database=None)(given(kind.inputs)(Feeder(kind, Path(folder)).feed))
        atheris.Setup([sys.argv[0], *options], feed.hypothesis.fuzz_one_input)
        atheris.Fuzz()


def _run_by_name(name: str, inputs: int, seed: int) -> Tally:
    faulthandler.enable()
    kind = next(kind for kind in kinds() if kind.name == name)
    tally = Tally(name)
    try:
        while tally.inputs < inputs:  # Hypothesis ends early when it has seen all that it can make
            faulthandler.dump_traceback_later(STUCK, exit=True)
            part = run(kind, inputs - tally.inputs, seed + tally.inputs)
            tally.accepted += part.accepted
            tally.refused += part.refused
            tally.slowest, tally.growth = max(tally.slowest, part.slowest), max(tally.growth, part.growth)
    except BaseException as error:
        notes = "\n".join(getattr(error, "__notes__", ()))
        tally.failure = f"{type(error).__name__}: {error}\n{notes}"[:3000]
    return tally


def main() -> int:
    """Run the campaign and return the exit code: 1 when any input was not dealt with as it should be."""
    parser = argparse.ArgumentParser(prog="python tests/fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="in all")
    parser.add_argument("--seed", type=int, default=0, help="draw others")
    parser.add_argument("--only", default="", metavar="TEXT", help="only kinds whose name has this text")
    parser.add_argument("--jobs", type=int, default=2)
    given_ = parser.parse_args()
    chosen = [kind for kind in kinds() if given_.only in kind.name]
    shares, started = sum(kind.share for kind in chosen), perf_counter()
    total = Tally("in all")
    print(f"{'kind':12} {'inputs':>8} {'accepted':>9} {'refused':>8} {'slowest':>9} {'growth':>9}")
    with ProcessPoolExecutor(given_.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        futures = [
            pool.submit(_run_by_name, kind.name, -(-given_.inputs * kind.share // shares), given_.seed)
            for kind in chosen
        ]
        for future in futures:
            tally = future.result()
            _show(tally)
            total.accepted += tally.accepted
            total.refused += tally.refused
            total.slowest, total.growth = max(total.slowest, tally.slowest), max(total.growth, tally.growth)
            total.failure += tally.failure
    _show(total, failures=False)
    print(f"{perf_counter() - started:.0f} s")
    return 1 if total.failure else 0


def _show(tally: Tally, *, failures: bool = True) -> None:
    counts = f"{tally.inputs:8,} {tally.accepted:9,} {tally.refused:8,}"
    print(f"{tally.kind:12} {counts} {tally.slowest:7.2f} s {tally.growth / (1 << 20):5.0f} MiB", flush=True)
    if tally.failure and failures:
        print(f"  FAILS: {tally.failure}", flush=True)
