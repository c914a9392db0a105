"""Arguments that name a config, a run or a checkpoint: a template's name and `last` are as good as a path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

ROLES = {"CONFIG", "RUN", "CHECKPOINT", "DATA"}


def settle(ctx: Any, params: list[Any]) -> None:
    """Put the path of a run in the place of its name, and say on standard error which run or template is meant.

    What a parameter may be is what its help calls it: `CONFIG`, `RUN`, `CHECKPOINT`, `DATA`, or several of them.
    """
    from cnnbp_cli.report.terminal import note

    say: Callable[[str], None] = (lambda text: None) if ctx.params.get("quiet") else note
    for param in params:
        roles, value = set(str(param.metavar).split("|")), ctx.params.get(param.name)
        if not value or not roles <= ROLES:
            continue
        if isinstance(value, str | Path):
            ctx.params[param.name] = _settled(value, "CONFIG" in roles, say)
        else:
            ctx.params[param.name] = [_settled(one, "CONFIG" in roles, say) for one in value]


def _settled(word: str | Path, template: bool, say: Callable[[str], None]) -> str | Path:
    """Return a word of the command line, or the path of the run that it names."""
    from cnnbp_cli.config.sources import is_template, located

    if template and is_template(str(word)):
        say(f"{word}: the template; `cnnbp init {word}` copies it for changes")
        return word
    path = located(word, template=template)
    if str(path) == str(Path(word)):
        return word
    say(f"{word}: {path}")
    return type(word)(path)
