"""What the shell offers for the arguments of commands, and after their options; imports nothing that is slow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from cnnbp_cli.config.nodes import YamlNode


def configs(incomplete: str) -> list[str]:
    """Offer YAML files and folders."""
    return list(_paths(incomplete, ".yaml", ".yml"))


def sources(incomplete: str) -> list[str]:
    """Offer configs, run directories and checkpoints."""
    return list(_paths(incomplete, ".yaml", ".yml", ".npz", runs=True))


def trained(incomplete: str) -> list[str]:
    """Offer run directories and checkpoints."""
    return list(_paths(incomplete, ".npz", runs=True))


def runs(incomplete: str) -> list[str]:
    """Offer run directories."""
    return list(_paths(incomplete, runs=True))


def layer_files(incomplete: str) -> list[str]:
    """Offer Python files."""
    return list(_paths(incomplete, ".py"))


def templates(incomplete: str) -> list[tuple[str, str]]:
    """Offer the configs that come with the program."""
    from cnnbp_cli.cli.templates import templates as shipped

    return [(template.name, template.about) for template in shipped()]


def overrides(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Offer keys of the config, layers by name, and the words that a value may be."""
    from cnnbp_cli.config.keys import complete_override

    return complete_override(incomplete, _tree(ctx))


def layers(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the config's layers."""
    from cnnbp_cli.config.keys import names_of_layers

    return names_of_layers(_tree(ctx))


def parameters(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer what begins the name of a parameter: its layer."""
    return ["input", *(f"{name}." for name in layers(ctx, incomplete))]


def _tree(ctx: typer.Context) -> YamlNode:
    """Return what the command's config and its overrides so far say."""
    from cnnbp_cli.config.keys import read_tree

    given: Any = ctx.params.get("config") or ctx.params.get("source") or ctx.params.get("configs") or ctx.args
    first = given if isinstance(given, str) else next(iter(given), "")
    settings = [text for text in ctx.params.get("overrides") or () if isinstance(text, str)]
    return read_tree(Path(first), settings)


def _paths(incomplete: str, *suffixes: str, runs: bool = False) -> Iterator[str]:
    """Yield what a path may go on with: folders, files with a suffix, and runs as a whole where they are wanted."""
    folder, start = os.path.split(incomplete)
    shown = incomplete[: len(incomplete) - len(start)]
    try:
        found = sorted(os.scandir(Path(folder).expanduser()), key=lambda entry: entry.name)
    except (OSError, RuntimeError):
        return
    for entry in found:
        if not entry.name.startswith(start) or (not start and entry.name.startswith(".")):
            continue
        if entry.is_dir():
            is_run = runs and os.path.exists(os.path.join(entry.path, "events.jsonl"))
            yield f"{shown}{entry.name}{'' if is_run else '/'}"
        elif entry.name.endswith(suffixes):
            yield f"{shown}{entry.name}"
