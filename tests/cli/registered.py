"""The commands of the program, by their full names."""

from __future__ import annotations

from typing import Any

import typer

from cnnbp_cli.cli.app import app


def commands() -> dict[str, Any]:
    """Return every command by its full name, as in `data info`."""
    found: dict[str, Any] = {}

    def walk(name: str, command: Any) -> None:
        for part, inner in getattr(command, "commands", {}).items():
            walk(f"{name} {part}".strip(), inner)
        if not hasattr(command, "commands"):
            found[name] = command

    walk("", typer.main.get_command(app))
    return found
