"""The configs that come with the program, as starting points of one's own."""

from __future__ import annotations

from dataclasses import dataclass

from cnnbp_cli.config.errors import suggestion
from cnnbp_cli.errors import UserError
from cnnbp_cli.shipped import shipped


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
    """

    name: str
    about: str
    text: str


def templates() -> list[Template]:
    """Return the shipped configs, by name."""
    return [template(name) for name in names()]


def names() -> list[str]:
    """Return the names of the shipped configs."""
    return sorted(
        file.name.removesuffix(".yaml") for file in shipped("configs").iterdir() if file.name.endswith(".yaml")
    )


def template(name: str) -> Template:
    """Return the shipped config of that name.

    Raises
    ------
    TemplateError
        When there is none.
    """
    if name not in (known := names()):
        raise TemplateError(f"unknown template '{name}'{suggestion(name, known)}")
    text = (shipped("configs") / f"{name}.yaml").read_text(encoding="utf-8")
    return Template(name, _about(text), text)


def _about(text: str) -> str:
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return " ".join(lines).split(". ")[0].rstrip(".")
