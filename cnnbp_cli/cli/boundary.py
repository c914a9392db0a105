"""Where errors become messages and exit codes: the only place that catches what commands let through.

0 success, 1 the command's own verdict is negative, 2 bad input, 130 interrupted. A reader that closes
the pipe early (`cnnbp summary … | head -1`) ends the command without a word, with the code that the
shell gives to any program that a closed pipe stops.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import typer

from cnnbp_cli.cli.help import Group, UsageError
from cnnbp_cli.cli.interrupts import INTERRUPTED, Interruptible
from cnnbp_cli.cli.mistakes import told, told_of_word
from cnnbp_cli.cli.words import spelled_out
from cnnbp_cli.data.progress import Reading, listening
from cnnbp_cli.errors import UserError

if TYPE_CHECKING:
    from cnnbp_cli.report.reading import ReadingProgress

VERDICT, BAD_INPUT, BROKEN_PIPE = 1, 2, 141


class Boundary(Group):
    """The root of the command line."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        from cnnbp_cli.report.terminal import never_fail_to_encode

        never_fail_to_encode(sys.stdout, sys.stderr)
        try:
            with boundary():  # help and usage errors are written before there is a command to invoke
                return super().main(*args, **kwargs)
        except typer.Exit as leaving:
            sys.exit(leaving.exit_code)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with boundary():  # options of `cnnbp` itself; those of a command are read when it is invoked
            return super().parse_args(ctx, spelled_out(args))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command of a call; a word that is none, but known, gets its hint."""
        unknown = self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing
        if unknown and (text := told_of_word(args[0])):
            fail(text)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with boundary():
            return super().invoke(ctx)


@contextmanager
def boundary() -> Iterator[None]:
    """Turn what is the user's to fix into one message on standard error."""
    try:
        try:
            with Interruptible(), _reading_shown():
                yield
        finally:
            sys.stdout.flush()
    except UserError as error:
        fail(error)
    except UsageError as error:
        fail(told(error))
    except KeyboardInterrupt:
        complain("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        _forget_output()
        raise typer.Exit(BROKEN_PIPE) from None
    except MemoryError:
        fail("out of memory; try a smaller train.batch_size or data.limit, and see the network with cnnbp summary")
    except OSError as error:
        if not error.filename:
            _forget_output()
        fail(f"{error.filename}: {error.strerror}" if error.filename else f"cannot write: {error.strerror or error}")


@contextmanager
def _reading_shown() -> Iterator[None]:
    """Show how far a long read is, at no cost before there is one, and leave nothing of it, whatever ends it."""
    shown: ReadingProgress | None = None

    def show(reading: Reading) -> None:
        nonlocal shown
        if shown is None:
            from cnnbp_cli.report.reading import ReadingProgress

            shown = ReadingProgress()
        shown(reading)

    try:
        with listening(show):
            yield
    finally:
        if shown is not None:
            shown.close()


def _forget_output() -> None:
    """Drop what is still in the buffer: it would raise again when Python closes the stream."""
    with suppress(OSError, ValueError):  # a stream of a test is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(error: UserError | str) -> None:
    """Print a complaint and exit with the code for bad input."""
    from cnnbp_cli.report.terminal import complaint

    complain(complaint(error))
    raise typer.Exit(BAD_INPUT) from None


def complain(text: str) -> None:
    """Write a message to standard error, if anybody can still read it."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        return
