"""Every complaint, word for word: the place, the reason, the line and the caret."""

from pathlib import Path

import pytest
import yaml

from cnnbp_cli.config.errors import ConfigError, Problem, Source, Span, dotted, suggestion
from cnnbp_cli.config.load import load_config, parse_config
from cnnbp_cli.core.layers import LAYERS
from cnnbp_cli.errors import UserError


def cases():
    text = Path(__file__).with_name("bad_configs.txt").read_text("utf-8")
    for case in text.split("\n==== ")[1:]:
        title, _, rest = case.partition("\n")
        config, _, message = rest.partition("---- gets\n")
        # Syntax errors are in the words of the C library that parses; PyYAML without it has others.
        marks = [pytest.mark.skipif(not yaml.__with_libyaml__, reason="needs libyaml")] if "not YAML" in message else []
        yield pytest.param(config, message.strip("\n"), id=title, marks=marks)


def complaint(text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, overrides, label="bad.yaml")
    return str(caught.value)


@pytest.mark.parametrize(("config", "message"), list(cases()))
def test_the_whole_message(config, message):
    assert complaint(config) == message


def test_an_error_of_the_user():
    assert issubclass(ConfigError, UserError)


def test_an_unknown_layer_that_is_close_to_none_gets_all_there_are(good):
    first = complaint(good.replace("relu", "qqqqq")).splitlines()[0]
    assert first == f"bad.yaml:6:7: unknown layer type 'qqqqq', expected one of: {', '.join(LAYERS)}"


def test_empty():
    assert complaint("") == (
        "bad.yaml:1:1: the config is empty, expected a mapping with data and model\n  1 |\n    | ^"
    )


@pytest.mark.skipif(not yaml.__with_libyaml__, reason="needs libyaml")
def test_tab():
    assert complaint("model:\n\tinput: 3\n") == (
        "bad.yaml:2:1: a tab cannot indent, use spaces\n  2 |  input: 3\n    | ^"
    )


def test_control_character():
    assert complaint("name: a\r\ndtype: b\x07c\n") == (
        "bad.yaml:2:9: unprintable character U+0007\n  2 | dtype: b c\n    |         ^"
    )


def test_columns_count_characters_whatever_ends_the_lines(good):
    for end in ("\n", "\r\n", "\r", "\x85", "\u2028"):
        assert complaint((good + "name: é日本\nseed: {ü: 1}\n").replace("\n", end)) == (
            "bad.yaml:10:7: seed: expected an integer, got a mapping\n  10 | seed: {ü: 1}\n     |       ^^^^^^"
        )


def test_nested_too_deep():
    assert complaint("[" * 500 + "]" * 500).splitlines()[0] == "bad.yaml:1:42: nested more than 40 deep"


def test_aliases_that_expand_to_too_much():
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))
    assert complaint(bomb) == (
        "bad.yaml:5:45: more than 100,000 values\n"
        "  5 | a4: &a4 [*a3, *a3, *a3, *a3, *a3, *a3, *a3, *a3, *a3, *a3]\n"
        "    |                                             ^^^"
    )


def test_a_problem_at_an_alias_is_shown_once_where_the_value_stands(good):
    text = good.replace("- relu", "- &d {type: dropout, rate: 2}").replace("- flatten", "- *d")
    assert complaint(text) == (
        "bad.yaml:6:32: rate: expected a number from 0 below 1, got 2.0\n"
        "  6 |     - &d {type: dropout, rate: 2}\n"
        "    |                                ^"
    )


def test_many_problems_are_not_all_shown(good):
    text = complaint(good + "".join(f"key{i}: 1\n" for i in range(30)))
    assert text.splitlines()[0].startswith("bad.yaml:9:1: unknown key 'key0'")
    assert text.splitlines()[-1] == "30 problems, the first 20 shown"
    assert text.count("unknown key") == 20


def test_problems_are_kept_one_by_one(good):
    with pytest.raises(ConfigError) as caught:
        parse_config(good + "seed: x\nname: 3\n", label="bad.yaml")
    assert [(p.file, p.line, p.column, p.path, p.label, p.message) for p in caught.value.problems] == [
        ("bad.yaml", 9, 7, ("seed",), "seed", "expected an integer, got 'x'"),
        ("bad.yaml", 10, 7, ("name",), "name", "expected text, got 3"),
    ]


def test_long_lines_are_windowed_on_either_side():
    line = "a" * 300
    shown = str(Problem("wrong", span=Span(Source("f", line), 0, 150, 153))).splitlines()
    assert shown[1] == "  1 | …" + "a" * 94 + "…"
    assert shown[2] == "    | " + " " * 32 + "^^^"
    shown = str(Problem("wrong", span=Span(Source("f", line), 0, 0, 300))).splitlines()
    assert shown[1] == "  1 | " + "a" * 95 + "…"
    assert shown[2] == "    | " + "^" * 96
    shown = str(Problem("wrong", span=Span(Source("f", line), 0, 299, 300))).splitlines()
    assert shown[1] == "  1 | …" + "a" * 95
    assert shown[2] == "    | " + " " * 95 + "^"


def test_paths_and_suggestions():
    assert dotted(("model", "layers", 3, "kernel_size", 1)) == "model.layers[3].kernel_size[1]"
    assert suggestion("RELU", ["relu", "elu"]) == ", did you mean 'relu'?"
    assert suggestion("zzz", ["relu", "elu"]) == ", expected one of: relu, elu"
    assert suggestion("zzz", [str(i) for i in range(50)]).endswith("38, 39, …")
    assert suggestion("zzz", []) == ""


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "no.yaml")
    assert str(caught.value) == f"{tmp_path / 'no.yaml'}: no such file"


def test_directory(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path)
    assert str(caught.value) == f"{tmp_path}: a directory, expected a YAML file"


def test_a_path_that_no_file_can_have(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_config("a\0b")
    assert str(caught.value) == "a b: cannot be read: embedded null byte"
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / ("x" * 300))
    assert str(caught.value) == f"{tmp_path}/{'x' * 300}: cannot be read: File name too long"


def test_not_utf8(tmp_path):
    file = tmp_path / "latin.yaml"
    file.write_bytes("name: a\n# é\nseed: gr\xfc\xdf\n".encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(caught.value) == f"{file}:2:3: not UTF-8: byte 0xE9\n  2 | # \ufffd\n    |   ^"


def test_too_large(tmp_path, good):
    file = tmp_path / "large.yaml"
    file.write_text(good + "#" * 1_000_000)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(caught.value) == f"{file}: larger than 1,000,000 bytes, expected a config"
