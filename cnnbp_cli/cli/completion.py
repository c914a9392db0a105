"""`cnnbp completion`: the script that lets a shell complete commands, options, config keys and layers."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from cnnbp_cli.cli.options import examples


class Shell(StrEnum):
    """Shells that there is a script for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def add_to(app: typer.Typer) -> None:
    app.command(epilog=examples("source <(cnnbp completion bash)", "cnnbp completion zsh > ~/.zfunc/_cnnbp"))(
        completion
    )


def completion(shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")]) -> None:
    """Print the completion script for a shell."""
    from importlib.resources import files

    print(files("cnnbp_cli.cli").joinpath(f"shells/cnnbp.{shell.value}").read_text(encoding="utf-8"), end="")
