"""What only a terminal gets: bold titles, colors, lines that fold between words."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import pytest

if os.name == "nt":
    pytest.skip("needs pseudo-terminals", allow_module_level=True)

from cli.pseudo import on_terminal

from cnnbp_cli.config import templates
from cnnbp_cli.config.load import parse_config
from cnnbp_cli.config.write import folded, to_yaml
from cnnbp_cli.report import diagnose, scale, terminal

SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def test_help_is_bold_and_plain_with_no_color(tmp_path: Path) -> None:
    code, bold = on_terminal("runs", "--help", folder=tmp_path)
    assert code == 0
    assert "\x1b[1mOptions:\x1b[0m" in bold
    assert "x1b" not in bold  # an escape of an escape
    code, plain = on_terminal("runs", "--help", folder=tmp_path, NO_COLOR="1")
    assert code == 0
    assert plain == SEQUENCE.sub("", bold)
    assert "--filter 'accuracy>0.98'" in plain  # an option stays beside its value


def test_sentences_fold_between_words_and_commands_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "40")
    text = "next: `cnnbp evaluate runs/lenet5-1` shows each class, `cnnbp trace runs/lenet5-1` one image's pass"
    assert terminal.folded(text, Terminal()).splitlines() == [
        "next: `cnnbp evaluate runs/lenet5-1`",
        "shows each class,",
        "`cnnbp trace runs/lenet5-1` one image's",
        "pass",
    ]
    assert terminal.folded(text, io.StringIO()) == text  # a pipe gets the line
    quoted = f"a.yaml:6:14: unknown layer type 'conv2', did you mean 'conv2d'?\n  6 |     - {{{'x' * 60}\n    |   ^"
    first, second, *rest = terminal.folded(quoted, Terminal()).splitlines()
    assert (first, second) == ("a.yaml:6:14: unknown layer type 'conv2',", "did you mean 'conv2d'?")
    assert rest == quoted.splitlines()[1:]  # what quotes a file stays as it is
    path = "x" * 60
    assert terminal.folded(f"cannot read {path}", Terminal()) == f"cannot read\n{path}"


def test_messages_fold_between_words(tmp_path: Path) -> None:
    code, told = on_terminal("tune", folder=tmp_path, columns=60)
    assert code == 2
    assert all(len(line) <= 60 for line in told.splitlines())
    assert len(told.splitlines()) > 1


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return the contrast of two colors as WCAG 2 defines it, from 1 to 21."""

    def luminance(color: tuple[float, ...]) -> float:
        linear = [(c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4) for c in color]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", [*scale.STYLES])
def test_colors_are_readable_on_white_and_on_black(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLORTERM": ""}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = terminal.console(io.StringIO())
    assert out.color_system == "256"
    color = out.get_style(name).color
    assert color is not None
    shown = tuple(color.get_truecolor())
    assert contrast(shown, (255, 255, 255)) >= 3
    assert contrast(shown, (0, 0, 0)) >= 3
    monkeypatch.setenv("TERM", "xterm")
    assert terminal.console(io.StringIO()).get_style(name).color.name == name  # of 16, the theme of the user decides


def test_a_diagnosis_is_dim_in_its_labels_alone(monkeypatch: pytest.MonkeyPatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    diagnose.field("evidence", "it is wrong")
    assert capsys.readouterr().out == "\x1b[2m  evidence  \x1b[0mit is wrong\n"


@pytest.mark.parametrize("columns", [50, 80])
def test_a_folded_config_is_the_same(columns: int) -> None:
    for name in templates.names():
        config = parse_config(templates.template(name).text)
        text = to_yaml(config)
        shown = folded(text, columns)
        assert parse_config(shown) == config
        assert shown.split() == text.split()
        assert not any(len(line) > columns and re.search(r", \w+: ", line) for line in shown.splitlines()), name


def test_a_config_folds_on_a_terminal(tmp_path: Path) -> None:
    code, shown = on_terminal("config", "toy", folder=tmp_path, columns=80)
    assert code == 0
    assert max(map(len, shown.splitlines())) <= 80
    assert "filters: 1,\n        kernel_size: 3, stride: 1" in shown
