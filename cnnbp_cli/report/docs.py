"""`cnnbp docs`: the list of topics, and pages of Markdown as a terminal shows them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cnnbp_cli.manual import Topic
from cnnbp_cli.report.table import Column, line, show
from cnnbp_cli.report.terminal import console, width

WIDEST = 100  # columns: longer lines are hard to read
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)[^)]*\)")


def render_topics(topics: Sequence[Topic]) -> None:
    """List the topics, each with what it says."""
    columns = [Column("topic", text=True), Column("what it says", text=True)]
    show(columns, [[topic.name, topic.about] for topic in topics])
    line()
    line("`cnnbp docs TOPIC` shows one, `cnnbp docs RULE` the page of a rule that `cnnbp diagnose` named.")


def drawn(markdown: str) -> str:
    """Return a page as a terminal shows it: folded at its width, in its colors; links to pages are their words."""
    from rich.markdown import Markdown

    out = console()
    out.width = min(width(), WIDEST)
    with out.capture() as capture:
        out.print(Markdown(_LINK.sub(r"\1", markdown), hyperlinks=False, code_theme="ansi_dark"), soft_wrap=False)
    return "\n".join(text.rstrip() for text in capture.get().splitlines()) + "\n"
