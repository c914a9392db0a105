"""The manual page, made of the help of all commands: `cnnbp docs --man`, for `man` and `groff -man`.

The language is that of man(7): a line that begins with a dot is a request, a backslash begins an escape.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cnnbp_cli import __version__
from cnnbp_cli.cli.help import arguments_of, is_option, names_of, paragraphs, sentence_of, usage

EXIT_STATUS = {
    "0": "Success.",
    "1": "The command's own verdict is negative, such as a wrong gradient, or a training that met NaN.",
    "2": "Bad input of any kind, with one message that names the place and the remedy.",
    "130": "Interrupted, with a checkpoint saved.",
    "141": "The reader of the output closed it.",
}
ENVIRONMENT = {
    "COLUMNS": "The width to write in, instead of that of the terminal.",
    "NO_COLOR": "Where set, nothing is colored.",
    "PAGER": "The program that shows long pages of the documents; none where it is empty.",
}
FILES = {
    "runs/NAME-K": "The folder of a run: its config, its events, its metrics and its checkpoints.",
    "sweeps/NAME-K": "The folder of a sweep, with a folder for each run.",
}


def manual_page(command: Any, ctx: Any) -> str:
    """Return the page of the program's root command."""
    return "\n".join(_page(command, ctx)) + "\n"


def _page(command: Any, ctx: Any) -> Iterator[str]:
    yield f'.TH CNNBP 1 "" "cnnbp {__version__}" "User Commands"'
    about = paragraphs(command)[0]
    yield from (".SH NAME", f"cnnbp \\- {_plain(about[0].lower() + about[1:].rstrip('.'))}")
    yield from (".SH SYNOPSIS", f".B {_plain(usage(command, ctx).removeprefix('Usage: '))}")
    yield from (".SH OPTIONS", *_options(command, ctx))
    yield ".SH COMMANDS"
    for name, inner in _commands(command, ""):
        yield from (f'.SS "{_plain(f"cnnbp {name}")}"', *_command(name, inner, ctx))
    for title, rows in (("EXIT STATUS", EXIT_STATUS), ("ENVIRONMENT", ENVIRONMENT), ("FILES", FILES)):
        yield f".SH {title}"
        for word, about in rows.items():
            yield from _item(word, about)
    yield from (".SH SEE ALSO", _plain("cnnbp docs lists the documents, and cnnbp docs TOPIC shows one."))


def _commands(command: Any, above: str) -> Iterator[tuple[str, Any]]:
    """Yield the commands by their full names, as in ``data info``."""
    for name, inner in command.commands.items():
        if hasattr(inner, "commands"):
            yield from _commands(inner, f"{above}{name} ")
        else:
            yield f"{above}{name}", inner


def _command(name: str, command: Any, ctx: Any) -> Iterator[str]:
    words = " ".join(usage(command, ctx).split()[2:])  # behind `Usage: cnnbp`
    yield from (f".B {_plain(f'cnnbp {name} {words}')}", ".PP")
    for paragraph in paragraphs(command):
        yield from (_plain(paragraph), ".PP")
    for param in arguments_of(command, ctx):
        yield from _item(param.metavar, sentence_of(param))
    yield from _options(command, ctx)
    yield from (".PP", "Examples:", ".nf", *(f"    {_plain(line)}" for line in command.epilog.splitlines()), ".fi")


def _options(command: Any, ctx: Any) -> Iterator[str]:
    for param in command.get_params(ctx):
        if is_option(param):
            yield from _item(names_of(param), sentence_of(param))


def _item(name: str, about: str) -> Iterator[str]:
    yield from (".TP", f".B {_plain(name)}", _plain(about))


def _plain(text: str) -> str:
    """Return a text in which nothing is a request or an escape, in ASCII, on one line."""
    text = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq").replace("'", "\\(aq")
    text = re.sub(r"[^\x00-\x7f]", lambda match: f"\\[u{ord(match[0]):04X}]", text)
    return f"\\&{text}" if text.startswith(".") else text
