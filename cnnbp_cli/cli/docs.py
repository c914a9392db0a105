"""`cnnbp docs`: the documents, in the terminal."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Annotated

import typer

from cnnbp_cli.cli import complete
from cnnbp_cli.cli.options import examples


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "cnnbp docs", "cnnbp docs runs", "cnnbp docs dead-relu", "cnnbp docs --man > cnnbp.1 && man ./cnnbp.1"
        )
    )(docs)


def docs(
    ctx: typer.Context,
    topic: Annotated[
        str | None,
        typer.Argument(
            metavar="TOPIC",
            autocompletion=complete.topics,
            help="A page, or a rule of the diagnosis; without one, all topics are listed.",
        ),
    ] = None,
    man: Annotated[bool, typer.Option("--man", help="Print a manual page of all commands instead.")] = False,
) -> None:
    """Show the documents: what a config may say, what a run keeps, how gradients flow, what a rule found.

    A terminal gets them laid out, in a pager if they are longer than it; a pipe or a file gets the Markdown.
    """
    from cnnbp_cli.manual import NoSuchTopicError, page, topics
    from cnnbp_cli.report.docs import drawn, render_topics

    if man:
        from cnnbp_cli.cli.manpage import manual_page

        if topic is not None:
            raise typer.BadParameter("is about all commands; leave out TOPIC", param_hint="--man")
        print(manual_page(ctx.find_root().command, ctx.find_root()), end="")
        return
    if topic is None:
        render_topics(topics())
        return
    try:
        text = page(topic)
    except NoSuchTopicError:
        if topic not in getattr(ctx.find_root().command, "commands", {}):
            raise
        raise NoSuchTopicError(f"there is no page on '{topic}'; `cnnbp help {topic}` explains the command") from None
    if sys.stdout.isatty():
        show(drawn(text))
    else:
        print(text, end="")


def show(text: str) -> None:
    """Print a text, through a pager where the terminal has fewer lines; an empty PAGER is none."""
    lines = shutil.get_terminal_size().lines
    if text.count("\n") < lines or os.environ.get("PAGER") in ("", "cat") or os.environ.get("TERM") == "dumb":
        print(text, end="")
    else:
        from pydoc import pager  # which knows PAGER, and where to find one

        os.environ.setdefault("LESS", "-R")  # without it, less writes colors as escapes
        pager(text)
