"""How valid input becomes hostile: edits of bytes, of YAML's tokens and of JSON's values, drawn by Hypothesis."""

from __future__ import annotations

import re
import struct
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

NUMBERS = (0, 1, 2, 3, 7, 255, 256, 32767, 32768, 65535, 10_000, 1 << 20, (1 << 24) + 1, (1 << 31) - 1, 1 << 31)
NUMBERS += ((1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)

WORDS = (
    *map(str, NUMBERS),
    *("-1", "-0.0", "0.5", "1e-320", "1e308", "1e400", "1e-3", "1" + "0" * 30, "-1" + "0" * 30, "9" * 999, "9" * 5000),
    *(
        ".nan",
        ".inf",
        "-.inf",
        "NaN",
        "0x" + "f" * 900,
        "0o17",
        "1_000",
        "1:30",
        "2001-01-01",
        "٣",
        "null",
        "~",
        "true",
    ),
    *(
        "''",
        '""',
        '"\\0"',
        '"\\e[31m"',
        '"\\n\\n"',
        '"\\ud800"',
        "\0",
        "\x1b[2J",
        "\x85",
        "\u2028",
        "\u202e",
        "\ufeff",
        "𝟙",
    ),
    *("!!python/object/apply:os.system [id]", "!!python/name:os.system", "!!python/module:os", "!!binary aGk=", "!x"),
    *(
        "&a",
        "*a",
        "&a [*a, *a]",
        "{<<: *a}",
        "<<: *a",
        "*b",
        "%YAML 1.1",
        "%TAG ! tag:x,2000:",
        "---",
        "...",
        "|",
        ">",
        "?",
    ),
    *(
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "- ",
        ": ",
        "#",
        "\n",
        "\t",
        "\r",
        "  ",
        "@",
        "`",
        "'",
        '"',
        "\\",
        "[" * 60,
        "{a: " * 60,
    ),
    *("[]", "{}", "[[1, 2], [3]]", "{a: 1}", "[1, 28, 28]", "a" * 3000, "../../etc/passwd", "/dev/zero", "/", "."),
    *("input", "output", "conv1", "dense_1", "add", "concat", "type", "name", "inputs", "layers", "padding", "same"),
)
"""What takes the place of a word of a config, or stands between two of them."""

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3, 10**6, 2**63, 10**30, -(10**30), 10**400, 0.5, -0.0, 1e308, 1e-320),
    *(float("nan"), float("inf"), -float("inf"), "", "1", "\0", "\x1b[31mred", "\u2028", "😀", "x" * 5000, "best.npz"),
    *([], {}, [[]], {"": None}, [1, 2, 3], ["a"], [None], {"a": {"b": [1]}}, [1e308] * 3, [10**400], "[" * 50),
)
"""What takes the place of a value of a JSON text."""

_TOKEN = re.compile(r"[\w.+-]+|[ ]+|[^\w ]")

places = st.integers(0, (1 << 24) - 1)
"""Where an edit takes place, modulo the length."""

byte_edits = st.lists(
    st.tuples(
        st.sampled_from(("flip", "set", "cut", "drop", "repeat", "insert", "<I", ">I", "<H", ">H", "<Q")),
        places,
        st.sampled_from(NUMBERS) | st.integers(0, 255),
    ),
    min_size=1,
    max_size=5,
)

token_edits = st.lists(
    st.tuples(
        st.sampled_from(("replace", "replace", "insert", "drop", "repeat", "swap", "move")),
        places,
        st.sampled_from(WORDS) | st.text(max_size=6),
    ),
    min_size=1,
    max_size=4,
)


def edited_bytes(content: bytes, edits: list[tuple[str, int, int]]) -> bytes:
    """Apply edits one after another; numbers are written over what is there in the given byte order."""
    data = bytearray(content)
    for what, place, number in edits:
        at = place % (len(data) + 1)
        if what == "flip" and data:
            data[at % len(data)] ^= 1 << number % 8
        elif what == "set" and data:
            data[at % len(data)] = number % 256
        elif what == "cut":
            del data[at:]
        elif what == "drop":
            del data[at : at + number % 64]
        elif what == "repeat":
            data[at:at] = data[max(0, at - number % 512) : at]
        elif what == "insert":
            data[at:at] = bytes([number % 256]) * (number % 64)
        elif what[0] in "<>":
            size = struct.calcsize(what)
            data[at : at + size] = struct.pack(what, number % (1 << 8 * size))
    return bytes(data)


def edited_text(text: str, edits: list[tuple[str, int, str]]) -> str:
    """Apply edits of words, blanks and punctuation."""
    tokens: list[str] = _TOKEN.findall(text)
    for what, place, word in edits:
        at = place % (len(tokens) + 1)
        if what == "replace":
            tokens[at : at + 1] = [word]
        elif what == "insert":
            tokens.insert(at, word)
        elif what == "drop":
            del tokens[at : at + 1 + len(word) % 9]
        elif what == "repeat":
            tokens[at:at] = tokens[max(0, at - 40) : at] * (1 + len(word) % 3)
        elif what == "swap" and tokens:
            one, other = at % len(tokens), (place >> 8) % len(tokens)
            tokens[one], tokens[other] = tokens[other], tokens[one]
        elif what == "move":
            tokens[at:at] = tokens[(place >> 8) % (len(tokens) + 1) :][:12]
    return "".join(tokens)


def texts(bases: list[str]) -> SearchStrategy[bytes]:
    """Return texts that were right, as UTF-8 but for a few."""
    spliced = st.builds(edited_text, st.sampled_from(bases), token_edits).map(
        lambda text: text.encode("utf-8", "surrogatepass")
    )
    damaged = st.builds(lambda text, edits: edited_bytes(text.encode(), edits), st.sampled_from(bases), byte_edits)
    return st.one_of(spliced, spliced, spliced, damaged)


def contents(bases: list[bytes]) -> SearchStrategy[bytes]:
    """Return files that were right."""
    return st.builds(edited_bytes, st.sampled_from(bases), byte_edits)


def replaced(document: Any, place: int, value: Any) -> Any:
    """Return a JSON document with the value at one place, or one key, exchanged."""
    spots: list[tuple[Any, Any]] = []

    def copy(part: Any) -> Any:
        if isinstance(part, dict):
            result: Any = {key: copy(inner) for key, inner in part.items()}
            spots.extend((result, key) for key in result)
        elif isinstance(part, list):
            result = [copy(inner) for inner in part]
            spots.extend((result, k) for k in range(len(result)))
        else:
            result = part
        return result

    whole = copy(document)
    if not spots:
        return value
    parent, key = spots[place % len(spots)]
    if value == "[" * 50 and isinstance(parent, dict):
        del parent[key]
    else:
        parent[key] = value
    return whole
