"""What the shell offers for the arguments of commands, and after their options; imports nothing that is slow."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from cnnbp_cli.config.nodes import YamlNode

Candidate = str | tuple[str, str]
"""A word, alone or with what it means."""


def config_files(incomplete: str) -> list[str]:
    """Offer YAML files and folders."""
    return list(_paths(incomplete, ".yaml", ".yml"))


def configs(incomplete: str) -> list[Candidate]:
    """Offer YAML files, run directories, templates, and the last run; runs by name where no path begins so."""
    paths = [*_paths(incomplete, ".yaml", ".yml", runs=True)]
    return [*paths, *templates(incomplete), *_names(incomplete, unless=paths), *_last(incomplete)]


def sources(incomplete: str) -> list[Candidate]:
    """Offer the same, and checkpoints."""
    paths = [*_paths(incomplete, ".yaml", ".yml", ".npz", runs=True)]
    return [*paths, *templates(incomplete), *_names(incomplete, unless=paths), *_last(incomplete)]


def trained(incomplete: str) -> list[Candidate]:
    """Offer run directories, checkpoints, and runs by name."""
    return [*_paths(incomplete, ".npz", runs=True), *_names(incomplete), *_last(incomplete)]


def runs(incomplete: str) -> list[Candidate]:
    """Offer run directories, and runs by name."""
    return [*_paths(incomplete, runs=True), *_names(incomplete), *_last(incomplete)]


def folders(incomplete: str) -> list[str]:
    """Offer folders, those of runs as well."""
    return list(_paths(incomplete, runs=True))


def layer_files(incomplete: str) -> list[str]:
    """Offer Python files."""
    return list(_paths(incomplete, ".py"))


def templates(incomplete: str) -> list[Candidate]:
    """Offer the configs that come with the program."""
    from cnnbp_cli.config.templates import templates as shipped

    return [(one.name, one.about) for one in shipped() if one.name.startswith(incomplete)]


def topics(incomplete: str) -> list[Candidate]:
    """Offer the documents, and the rules of the diagnosis."""
    from cnnbp_cli.manual import rules
    from cnnbp_cli.manual import topics as pages

    found = [(topic.name, topic.about) for topic in pages()] + [(rule, "a rule of the diagnosis") for rule in rules()]
    return [one for one in found if one[0].startswith(incomplete)]


def _names(incomplete: str, unless: Sequence[str] = ()) -> Iterator[Candidate]:
    """Yield the names of runs, which need no path, unless something else is offered."""
    from cnnbp_cli.config.sources import RUNS, runs_under

    for run in () if unless else runs_under(RUNS, 1):
        if run.parent == RUNS and run.name.startswith(incomplete):
            yield run.name, str(run)


def _last(incomplete: str) -> Iterator[Candidate]:
    """Yield the word for the last run, if there is one."""
    from cnnbp_cli.config.sources import LAST, last_run

    if LAST.startswith(incomplete) and (newest := last_run()):
        yield LAST, f"the last run, {newest}"


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
