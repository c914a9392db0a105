"""Reports for pasting: Markdown as GitHub reads it, LaTeX as `pdflatex` compiles it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from cli.bars import Command

from cnnbp_cli.report.markup import latex, markdown, sheet
from cnnbp_cli.report.table import Column

CALLS = {
    "summary": "summary bars.yaml",
    "summary --memory": "summary bars.yaml --memory",
    "gradnorms": "gradnorms bars.yaml --steps 3",
    "evaluate": "evaluate RUN",
    "compare": "compare RUN RUN --layers",
}


@pytest.mark.parametrize("name", CALLS)
def test_markdown_tables_are_whole_and_aligned(cnnbp: Command, bars_run: Path, name: str) -> None:
    done = cnnbp(*CALLS[name].replace("RUN", str(bars_run)).split(), "--format", "markdown", columns=40)
    assert done.code == 0
    blocks = [block.split("\n") for block in done.stdout.rstrip("\n").split("\n\n")]
    tables = [block for block in blocks if block[0].startswith("|")]
    assert tables
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
        assert all(re.fullmatch(r"-+:?", rule) for rule in table[1].strip("| ").split(" | "))
    assert any("-:" in table[1] for table in tables)  # numbers stand at the right
    assert not set("▁▂▃▄▅▆▇█│") & set(done.stdout)


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs LaTeX")
@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_latex_compiles(cnnbp: Command, bars_run: Path, name: str) -> None:
    done = cnnbp(*CALLS[name].replace("RUN", str(bars_run)).split(), "--format", "latex")
    assert done.code == 0
    body = done.stdout + "\n\n" + latex('a_b {c} $d & e # f % g \\ h ^ ~ < > | " × → … − · ≥ σ Σ √ ² ³ π')
    start, end = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n", "\n\\end{document}\n"
    Path("report.tex").write_text(start + body + end, encoding="utf-8")
    call = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    compiled = subprocess.run(call, capture_output=True, text=True, check=False)
    assert compiled.returncode == 0, compiled.stdout[-2000:]
    assert "Missing character" not in Path("report.log").read_text(encoding="utf-8", errors="replace")


def test_what_latex_takes_for_commands_is_escaped() -> None:
    assert latex(r"a_b {c} $1 & 5% #2 \x ^ ~") == (
        r"a\_b \{c\} \$1 \& 5\% \#2 \textbackslash{}x \textasciicircum{} \textasciitilde{}"
    )
    assert latex("6×28") == r"6$\times$28"
    assert latex("a\nb\x1b") == "a b "


def test_what_markdown_takes_for_markup_is_escaped() -> None:
    assert markdown("conv_1 *a* |b| `c` <i> [d] _e_") == r"conv_1 \*a\* \|b\| \`c\` \<i\> \[d\] \_e\_"


def test_numbers_of_latex_are_mathematics(capsys: pytest.CaptureFixture[str]) -> None:
    sheet("latex").show([Column("x_y", text=True), Column("n")], [["a&b", "1.50e-05"], ["c", "-0.5"]], ["sum", "1,000"])
    assert (
        capsys.readouterr().out
        == r"""% needs \usepackage{booktabs}

\begin{tabular}{lr}
  \toprule
  x\_y         &                     n \\
  \midrule
  a\&b         & $1.50 \times 10^{-5}$ \\
  c            &                $-0.5$ \\
  \midrule
  \textbf{sum} &        \textbf{1,000} \\
  \bottomrule
\end{tabular}
"""
    )


def test_other_commands_say_what_they_take(cnnbp: Command) -> None:
    done = cnnbp("profile", "bars.yaml", "--format", "latex")
    assert (done.code, done.stdout) == (2, "")
    assert all(word in done.stderr for word in ("latex", "table", "json", "csv"))
