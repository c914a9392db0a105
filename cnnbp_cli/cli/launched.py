"""`mpiexec -n 8 cnnbp …`: the first process is the command, and the others are there for what it wants them to do.

Of the commands that share their work, `cnnbp sweep` does so by itself, in every process. Of `cnnbp train` only the
first process sees the command line. Whatever else is called, one process does it and the others leave.
"""

from __future__ import annotations

import signal
import sys

from cnnbp_cli.cli.interrupts import ignore_from_now_on
from cnnbp_cli.cli.words import spelled_out
from cnnbp_cli.parallel.launcher import Launch

ASKING = {"--help", "-h", "--version", "-V"}


def lead_or_serve(launch: Launch) -> None:
    """Do this process's part, and exit; return where it is the command alone."""
    words = spelled_out(sys.argv[1:])
    asking, command = not ASKING.isdisjoint(words), "".join(words[:1])
    if command == "sweep" and not asking:
        return
    if command == "train" and not asking:
        _lead(launch) if launch.rank == 0 else _serve(launch)
    if launch.rank > 0:
        sys.exit()
    if command and not asking:
        from cnnbp_cli.cli.boundary import complain

        complain(f"note: one of {launch.size} processes does this; only cnnbp train and sweep use all of them")


def _lead(launch: Launch) -> None:
    """Be the command, and exit with its code."""
    from cnnbp_cli.cli.app import app
    from cnnbp_cli.cli.boundary import BAD_INPUT, complain
    from cnnbp_cli.parallel.mpi import MpiError, MpiTeam
    from cnnbp_cli.report.terminal import complaint

    try:
        team = MpiTeam(launch)
    except MpiError as error:
        complain(complaint(error))
        sys.exit(BAD_INPUT)
    code = 1  # of a defect, unless it is something else
    try:
        app(prog_name="cnnbp", obj=team)
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    ignore_from_now_on()
    team.dismiss(code)
    sys.exit(code)


def _serve(launch: Launch) -> None:
    """Do what the first process wants, and exit."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # it decides, and says so
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    from cnnbp_cli.cli.boundary import BAD_INPUT
    from cnnbp_cli.parallel.mpi import MpiError, MpiTeam

    try:
        team = MpiTeam(launch)
    except MpiError:
        sys.exit(BAD_INPUT)  # the first process says it
    team.serve()
    sys.exit()
