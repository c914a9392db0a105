"""The lesson's numbers are those of the code: every one is bound to an expression, every excerpt to an output."""

from __future__ import annotations

import math
import re
import runpy
from decimal import Decimal
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from typer.testing import CliRunner

from cnnbp_cli.cli.app import app
from cnnbp_cli.tracing.source import Request, trace_of
from cnnbp_cli.tracing.trace import Trace

ROOT = Path(__file__).parents[1]
LESSON = (ROOT / "docs" / "lesson.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")

TOY = "configs/toy.yaml"
AVERAGES = "examples/lesson/averages.yaml"
TRACES = [(TOY,), ("examples/lesson/branches.yaml",), (AVERAGES,), (AVERAGES, "--mode", "training", "--batch", "4")]
NUMBER = r"(?<![\w.])[−-]?\d[\d,]*(?:\.\d+)?(?:e[−-]?\d+)?"
BOUND = re.compile(rf"({NUMBER})<!-- (.*?) -->")


class Asked:
    """A trace, asked in a few letters."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.size = trace.model.layout.size

    def v(self, cell: str) -> float:
        return self.trace.value(cell)

    def d(self, cell: str) -> float:
        return self.trace.gradient(cell)

    def u(self, cell: str) -> float:
        return self.trace.terms(cell, "update").value

    def size_of(self, tensor: str) -> int:
        return self.trace.array(tensor).size

    count = size_of

    def open(self, layer: str) -> int:
        return int(np.count_nonzero(self.trace.decisions(layer)[1]))

    def nonzero(self, tensor: str) -> int:
        return int(np.count_nonzero(self.trace.array(tensor, "gradient")))


@cache
def names() -> dict[str, object]:
    toy, branches, averages = (Asked(trace_of(str(ROOT / path), Request())) for (path, *_) in TRACES[:3])
    return {"toy": toy, "branches": branches, "averages": averages, "v": toy.v, "d": toy.d, "u": toy.u, "math": math}


@cache
def output(*arguments: str) -> str:
    """Return what `cnnbp trace` writes."""
    path, *options = arguments
    done = CliRunner().invoke(app, ["trace", str(ROOT / path), *options], env={"COLUMNS": "100"}, prog_name="cnnbp")
    assert done.exit_code == 0
    return done.stdout


def prose(text: str) -> str:
    """Return the text without code, comments, links and the numbers of headings."""
    for pattern in (r"^```.*?^```$", r"`[^`]*`", r"<code>.*?</code>", r"\]\([^)]*\)", r"^#+ .*$"):
        text = re.sub(pattern, "", text, flags=re.MULTILINE | re.DOTALL)
    return text


@pytest.mark.parametrize(("shown", "expression"), BOUND.findall(LESSON))
def test_a_number_is_what_its_expression_gives(shown, expression):
    value = eval(expression, {"__builtins__": {}}, names())
    number = Decimal(shown.replace("−", "-").replace(",", ""))
    assert abs(Decimal(value) - number) <= Decimal(1).scaleb(number.as_tuple().exponent) / 2, (expression, value)


def test_every_number_in_the_prose_is_bound_to_an_expression():
    assert len(BOUND.findall(LESSON)) > 30
    unbound = re.findall(NUMBER, BOUND.sub("", prose(LESSON)))
    # Single digits are labels, places and the 1 of a formula.
    assert [number for number in unbound if "." in number or len(number) > 1] == []


SHOWN = LESSON + README.partition("\n## See the backward pass\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("excerpt", re.findall(r"^```text\n(.*?)^```$", SHOWN, re.MULTILINE | re.DOTALL))
def test_an_excerpt_stands_in_the_output_as_it_is(excerpt):
    assert any(excerpt in output(*arguments) for arguments in TRACES), excerpt


def test_the_page_leads_to_the_cells_that_the_lesson_names(tmp_path):
    pytest.importorskip("markdown")
    build = runpy.run_path(str(ROOT / "docs" / "lesson_page.py"))["build"]
    build(tmp_path)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    links = re.findall(r'href="toy\.html#([^"]*):(value|gradient)"', page)
    assert len(links) > 20
    for cell, _ in links:
        names()["toy"].trace.cell(unquote(cell))
    for title in re.findall(r"^## (.*)$", LESSON, re.MULTILINE):
        assert f"<h2>{title}</h2>" in page
    assert (tmp_path / "toy.html").stat().st_size > 100_000
    assert not re.findall(r"(?:src|<link[^>]*href)=", page)


def test_the_readme_counts_the_toys_parameters():
    toy = names()["toy"]
    parts = [value.size for value in toy.trace.model.parameters().values()]
    assert f"{' + '.join(map(str, parts))} = {toy.size} parameters" in README
    for image in re.findall(r'(?:src|srcset)="(docs/[^"]*)"', README):
        assert (ROOT / image).exists()
