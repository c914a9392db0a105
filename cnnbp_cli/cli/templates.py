"""The configs that come with the program, as starting points of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from cnnbp_cli.config.errors import suggestion
from cnnbp_cli.errors import UserError


class TemplateError(UserError):
    """A template that does not exist, or a place where it cannot be written."""


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
    found: list[Template] = []
    for file in sorted(_folder().iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            text = file.read_text(encoding="utf-8")
            found.append(Template(file.name.removesuffix(".yaml"), _about(text), text))
    return found


def template(name: str) -> Template:
    """Return the shipped config of that name.

    Raises
    ------
    TemplateError
        When there is none.
    """
    known = {template.name: template for template in templates()}
    if name not in known:
        raise TemplateError(f"unknown template '{name}'{suggestion(name, list(known))}")
    return known[name]


def write_new(path: Path, text: str) -> None:
    """Write a file that does not exist yet.

    Raises
    ------
    TemplateError
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
        raise TemplateError(f"{path}: exists already; name another file") from None
    except OSError as error:
        raise TemplateError(f"{path}: cannot be written: {error.strerror or error}") from None


def _folder() -> Traversable:
    """Return where the configs lie: inside an installed package, beside it in a checkout."""
    packaged = files("cnnbp_cli") / "configs"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "configs"


def _about(text: str) -> str:
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return " ".join(lines).split(". ")[0].rstrip(".")
