"""The entry point of `cnnbp`."""

from __future__ import annotations

import os
import signal
import sys

from cnnbp_cli.cli.interrupts import ignore_from_now_on, take_over
from cnnbp_cli.cli.words import spelled_out
from cnnbp_cli.parallel.launcher import mpi_launch


def main() -> None:
    """Run the command line and exit with its code."""
    take_over()  # before anything that takes its time to load
    open_closed_streams()
    if not {"--help", "-h", "--version", "-V"}.isdisjoint(spelled_out(sys.argv[1:])) and hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # typer and rich would leave with code 1, a verdict
    launch = mpi_launch()
    if launch is not None:
        from cnnbp_cli.cli.launched import lead_or_serve

        lead_or_serve(launch)
    from cnnbp_cli.cli.app import app

    if "_CNNBP_COMPLETE" in os.environ:  # a script of `cnnbp completion` asks
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
        os.environ["COLUMNS"] = "1000"  # a description is one line of the answer
    try:
        app(prog_name="cnnbp")
    finally:
        ignore_from_now_on()


def open_closed_streams() -> None:
    """Put the null device where a shell closed a stream (`>&-`), lest the next file opened take its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115
