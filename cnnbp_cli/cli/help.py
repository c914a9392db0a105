"""How `--help` and usage lines look: plain text, a column of names beside a column of sentences.

Typer's own help draws boxes, writes `{CONFIG}` and `<bool>`, and cuts choices in the middle of a word.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from enum import Enum, StrEnum
from textwrap import wrap
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from cnnbp_cli.cli.mistakes import WORDS
from cnnbp_cli.cli.sources import settle
from cnnbp_cli.report.terminal import plain, width

WIDEST = 100  # columns: longer lines are hard to read
WIDEST_NAME = 26  # columns of a name that has its sentence beside it
GLUE = "\N{NO-BREAK SPACE}"
OPTION_AND_VALUE = re.compile(r"(--\S+) (?!-)")
UsageError: Any = typer.BadParameter.__base__
"""A call that is no call of a command; Typer exports no name for it."""


def choices(values: type[StrEnum]) -> str:
    """Return the metavar of an option that takes one of a few words: `table|json|csv`."""
    return "|".join(values)


def usage(command: Any, ctx: Any) -> str:
    """Return the line that says how to call a command."""
    words = [ctx.command_path, "[OPTIONS]"]
    for param in arguments_of(command, ctx):
        name = param.metavar if param.required else f"[{param.metavar}]"
        words.append(name if param.nargs == 1 else f"{name}...")
    if isinstance(command, TyperGroup):
        words += ["COMMAND", "[ARGS]..."]
    return "Usage: " + " ".join(words)


def help_text(command: Any, ctx: Any) -> str:
    """Return all that `--help` shows."""
    columns = min(width(), WIDEST)
    sections = [
        ("", wrap(usage(command, ctx), columns, subsequent_indent="  ", break_on_hyphens=False)),
        *(("", wrap(paragraph, columns)) for paragraph in paragraphs(command)),
    ]
    arguments = [(param.metavar, sentence_of(param)) for param in arguments_of(command, ctx)]
    options = [(names_of(param), sentence_of(param)) for param in command.get_params(ctx) if is_option(param)]
    inner = [(name, paragraphs(one)[0]) for name, one in getattr(command, "commands", {}).items()]
    for title, rows in (("Arguments", arguments), ("Options", options), ("Commands", inner)):
        if rows:
            sections.append((title, [*_two_columns(rows, columns)]))
    if command.epilog:
        sections.append(("Examples", [_folded(line, columns) for line in command.epilog.splitlines()]))
    return "\n\n".join(_section(title, lines) for title, lines in sections) + "\n"


def _section(title: str, lines: Iterable[str]) -> str:
    text = plain("\n".join(lines), sys.stdout)
    return f"{_bold(f'{title}:')}\n{text}" if title else text


def paragraphs(command: Any) -> list[str]:
    return (command.help or "").split("\n\n")


def is_option(param: Any) -> bool:
    return param.param_type_name == "option" and not param.hidden


def arguments_of(command: Any, ctx: Any) -> list[Any]:
    return [param for param in command.get_params(ctx) if param.param_type_name == "argument"]


def names_of(param: Any) -> str:
    """Return an option's names, the short one first, and what it takes: `-j, --jobs N`."""
    names = ", ".join([*sorted(param.opts, key=len), *param.secondary_opts])
    return names if param.is_flag else f"{names} {param.metavar}"


def sentence_of(param: Any) -> str:
    """Return what a parameter does, and its default where a user could wonder."""
    default = param.show_default if isinstance(param.show_default, str) else param.default
    if isinstance(default, Enum):
        default = default.value
    flag = getattr(param, "is_flag", False)
    if flag or not param.show_default or default is None or not isinstance(default, str | int | float):
        return str(param.help)
    return f"{param.help} [default: {default}]"


def _two_columns(rows: Iterable[tuple[str, str]], columns: int) -> Iterator[str]:
    """Yield the lines of names and sentences; a name that is too long stands on a line of its own."""
    rows = list(rows)
    widest = min(WIDEST_NAME, columns // 2 - 4)
    indent = max((len(name) for name, _ in rows if len(name) <= widest), default=0) + 4
    for name, sentence in rows:
        lines = wrap(sentence, max(16, columns - indent), break_on_hyphens=False) or [""]
        if len(name) > indent - 4:
            yield f"  {name}"
        else:
            yield f"  {name}".ljust(indent) + lines.pop(0)
        yield from (" " * indent + line for line in lines)


def _folded(command: str, columns: int) -> str:
    """Return a command line as a shell takes it, on several lines where it is too long, options beside their values."""
    lines = wrap(OPTION_AND_VALUE.sub(rf"\1{GLUE}", command), columns - 8, break_on_hyphens=False)
    return "  " + " \\\n      ".join(lines).replace(GLUE, " ")


def _bold(text: str) -> str:
    from os import environ

    return typer.style(text, bold=True) if sys.stdout.isatty() and not environ.get("NO_COLOR") else text


class Command(TyperCommand):
    """A command whose help is plain text, whose options and arguments are never empty, and which knows `last`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words of a call; an empty one, as of a variable that is not set, would name the current folder."""
        ctx.meta[WORDS] = [*args]
        given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        params: list[Any] = [] if ctx.resilient_parsing else [*self.get_params(ctx)]
        for param in params:
            value = given.get(param.name)
            if value == "" or (isinstance(value, list | tuple) and "" in value):
                raise typer.BadParameter("is empty", ctx=ctx, param=param)
        rest = super().parse_args(ctx, args)
        settle(ctx, params)
        return rest

    def get_usage(self, ctx: Any) -> str:
        return usage(self, ctx)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(help_text(self, ctx))


class Group(TyperGroup):
    """Commands below a common name, with plain help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words of a call; without any, show the help instead of an error."""
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            typer.echo(ctx.get_help(), err=True)
            raise typer.Exit(2)
        rest: list[str] = super().parse_args(ctx, args)
        return rest

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options, all of them flags: off means False, where None would make Typer import pydantic."""
        params: list[Any] = super().get_params(ctx)
        for param in params:
            param.default = param.default or False
        return params

    def get_usage(self, ctx: Any) -> str:
        return usage(self, ctx)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(help_text(self, ctx))


class App(typer.Typer):
    """A Typer application whose commands have plain help."""

    def command(self, name: str | None = None, *, cls: type[TyperCommand] | None = Command, **settings: Any) -> Any:
        return super().command(name, cls=cls, **settings)
