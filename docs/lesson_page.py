"""Build the lesson as a page, with the trace that it speaks of beside it: `make lesson`.

Cells that the text names become links to them in the trace.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from urllib.parse import quote

import markdown

from cnnbp_cli.tracing.cells import CellError
from cnnbp_cli.tracing.source import Request, trace_of, write_page
from cnnbp_cli.tracing.trace import Trace

ROOT = Path(__file__).parents[1]
TOY = ROOT / "configs" / "toy.yaml"
ONLINE = "https://github.com/cnnbp/cnnbp/tree/main/docs/"
CODE = re.compile(r"(<code[^>]*>)([^<]*)")
CELL = re.compile(r"\b(?:d )?[a-z]\w*(?:\.\w+)?\[[0-9,]+\]")
STYLE = """
:root { color-scheme: light dark; }
body { font: 17px/1.55 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto 6rem; padding: 0 1rem; }
h1, h2 { line-height: 1.2; margin-top: 2.5rem; }
pre { overflow-x: auto; padding: 0.8rem 1rem; background: #8881; border-radius: 4px; line-height: 1.4; }
code { font: 0.86em ui-monospace, monospace; font-variant-numeric: tabular-nums; }
code a { color: inherit; text-decoration-color: #8888; }
details { margin: 1rem 0; padding: 0.1rem 1rem; border-left: 3px solid #8886; }
summary { cursor: pointer; margin: 0.5rem 0; }
@media print { details::details-content { content-visibility: visible; } }
"""
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>The backward pass, by hand</title>
<style>{style}</style>
<body>
{body}
</body>
</html>
"""


def build(folder: Path) -> None:
    """Write `index.html` and `toy.html`."""
    folder.mkdir(parents=True, exist_ok=True)
    trace = trace_of(str(TOY), Request())
    write_page(trace, folder / "toy.html", str(TOY))
    text = (ROOT / "docs" / "lesson.md").read_text(encoding="utf-8")
    body = markdown.markdown(text, extensions=["fenced_code", "md_in_html", "sane_lists"])
    body = re.sub(r'href="(?!https?:|#)(?:\.\./)?([^"]+)"', lambda link: f'href="{online(link[1])}"', body)
    body = CODE.sub(lambda code: code[1] + CELL.sub(lambda name: linked(name[0], trace), code[2]), body)
    (folder / "index.html").write_text(PAGE.format(style=STYLE, body=body), encoding="utf-8")


def online(target: str) -> str:
    """Return where a file of the repository can be read."""
    return ONLINE.removesuffix("docs/") + target if (ROOT / target).exists() else ONLINE + target


def linked(text: str, trace: Trace) -> str:
    """Return a name, as a link where it is that of a cell of the toy."""
    name = text.removeprefix("d ")
    try:
        cell = trace.cell(name)
    except CellError:
        return text
    return f'<a href="toy.html#{quote(str(cell), safe="")}:{"value" if name == text else "gradient"}">{text}</a>'


if __name__ == "__main__":
    build(Path(sys.argv[1]))
