"""`cnnbp init`: a config to start from."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from cnnbp_cli.cli import complete
from cnnbp_cli.cli.options import examples
from cnnbp_cli.errors import UserError


class NotWrittenError(UserError):
    """A place where a template cannot be written."""


def add_to(app: typer.Typer) -> None:
    app.command(epilog=examples("cnnbp init", "cnnbp init lenet5", "cnnbp init resnet50 mine.yaml"))(init)


def init(
    template: Annotated[
        str | None,
        typer.Argument(
            metavar="TEMPLATE", autocompletion=complete.templates, help="Template to copy; without one, all are listed."
        ),
    ] = None,
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="File to write; by default TEMPLATE.yaml, - is standard output."),
    ] = None,
) -> None:
    """Write a config from a template, or list the templates."""
    from cnnbp_cli.config import templates
    from cnnbp_cli.report.terminal import note, plain

    if template is None:
        from cnnbp_cli.analysis.summary import summary
        from cnnbp_cli.config.load import parse_config
        from cnnbp_cli.report.templates import render

        render([(one, summary(parse_config(one.text))) for one in templates.templates()])
        return
    if file is None and Path(template).suffix in (".yaml", ".yml"):
        raise typer.BadParameter(
            f"name one before the file, as in `cnnbp init lenet5 {shlex.quote(template)}`", param_hint="TEMPLATE"
        )
    chosen = templates.template(template)
    if file == "-":
        print(chosen.text, end="")
        return
    path = Path(file or f"{chosen.name}.yaml")
    write_new(path, chosen.text)
    print(plain(str(path), sys.stdout))
    note(f"next: `cnnbp {'summary' if chosen.published else 'train'} {shlex.quote(str(path))}`")


def write_new(path: Path, text: str) -> None:
    """Write a file that does not exist yet.

    Raises
    ------
    NotWrittenError
        When it does, or cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            try:
                file.write(text)
                file.flush()
            except BaseException:  # a full disk, or Ctrl-C
                path.unlink(missing_ok=True)
                raise
    except FileExistsError:
        raise NotWrittenError(f"{path}: exists already; name another file") from None
    except OSError as error:
        raise NotWrittenError(f"{path}: cannot be written: {error.strerror or error}") from None
