"""The documents that come with the program: an index, a page for each topic, a page for each rule of the diagnosis."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources.abc import Traversable

from cnnbp_cli.config.errors import closest
from cnnbp_cli.errors import UserError
from cnnbp_cli.shipped import shipped

_ROW = re.compile(r"^\| \[([\w-]+)\]\((\S+\.md)\) \| (.*) \|$", re.MULTILINE)


class NoSuchTopicError(UserError):
    """A word that no page is about."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A page, as the index has it.

    Attributes
    ----------
    name : str
    path : str
        Below the folder of the documents.
    about : str
    """

    name: str
    path: str
    about: str


def topics() -> list[Topic]:
    """Return the pages in the order of the index."""
    index = (shipped("docs") / "README.md").read_text(encoding="utf-8")
    return [Topic(*found) for found in _ROW.findall(index)]


def rules() -> list[str]:
    """Return the rules that have a page, by name."""
    pages = (file.name.removesuffix(".md") for file in (shipped("docs") / "rules").iterdir())
    return sorted(name for name in pages if name != "README")


def page(name: str) -> str:
    """Return the page of a topic or of a rule, as Markdown; the name of its file will do.

    Raises
    ------
    NoSuchTopicError
        Names the nearest.
    """
    word = name.rpartition("/")[2].removesuffix(".md").lower().replace("_", "-").replace(" ", "-")
    paths = {rule: f"rules/{rule}.md" for rule in rules()} | {topic.name: topic.path for topic in topics()}
    if word not in paths:
        meant = closest(word, [*paths])
        raise NoSuchTopicError(
            f"there is no page on '{name}'" + (f", did you mean '{meant}'?" if meant else "; `cnnbp docs` lists them")
        )
    file: Traversable = shipped("docs")
    for part in paths[word].split("/"):
        file = file / part
    return file.read_text(encoding="utf-8")
