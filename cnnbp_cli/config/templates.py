"""The configs that come with the program, as starting points of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources.abc import Traversable

from cnnbp_cli.config.errors import suggestion
from cnnbp_cli.errors import UserError
from cnnbp_cli.shipped import shipped

PUBLISHED = "configs/published"


class TemplateError(UserError):
    """A template that does not exist."""


@dataclass(frozen=True, slots=True)
class Template:
    """A shipped config.

    Attributes
    ----------
    name : str
    about : str
        The first sentence of the comment at its top.
    text : str
    published : bool
        Whether it is a network of the literature, and no small one to start with.
    """

    name: str
    about: str
    text: str
    published: bool = False


def templates() -> list[Template]:
    """Return the shipped configs, by name."""
    return [template(name) for name in names()]


def names() -> list[str]:
    """Return the names of the shipped configs: the small ones, then the published networks."""
    return [*_paths()]


def template(name: str) -> Template:
    """Return the shipped config of that name.

    Raises
    ------
    TemplateError
        When there is none.
    """
    paths = _paths()
    if name not in paths:
        raise TemplateError(f"unknown template '{name}'{suggestion(name, [*paths])}")
    folder, path = paths[name]
    text = path.read_text(encoding="utf-8")
    return Template(name, _about(text), text, folder == PUBLISHED)


@cache
def _paths() -> dict[str, tuple[str, Traversable]]:
    """Return the folder and the file of each config, by name."""
    found: dict[str, tuple[str, Traversable]] = {}
    for folder in ("configs", PUBLISHED):
        files = sorted((file for file in shipped(folder).iterdir() if file.name.endswith(".yaml")), key=str)
        found |= {file.name.removesuffix(".yaml"): (folder, file) for file in files}
    return found


def _about(text: str) -> str:
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return " ".join(lines).split(". ")[0].rstrip(".")
