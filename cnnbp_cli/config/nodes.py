"""A config before it means anything: values with their places in the text.

PyYAML's parser supplies the events, and everything above them is here: its constructors lose the places, let the
last of two equal keys win, and know tags that run code. Scalars follow YAML 1.2's core schema instead of
PyYAML's YAML 1.1: `1e-3` is a number, `no` and `on` are words, and `0x1F` and `0o17` are the only
integers that are not decimal.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any, NoReturn

import yaml

from cnnbp_cli.config.errors import LINE_BREAK, ConfigError, KeyPath, Problem, Source, Span

MOST_NODES = 100_000  # after the expansion of aliases; a network of a thousand layers has about ten thousand
DEEPEST = 40
MAX_CONFIG_BYTES = 1_000_000

Plain = None | bool | int | float | str


@dataclass(slots=True, eq=False)
class YamlScalar:
    """A single value."""

    value: Plain
    span: Span | None = None


@dataclass(slots=True, eq=False)
class YamlList:
    """A list."""

    items: list[YamlNode] = field(default_factory=list["YamlNode"])
    span: Span | None = None


@dataclass(slots=True, eq=False)
class YamlEntry:
    """A key's place, and its value."""

    key: Span | None
    node: YamlNode


@dataclass(slots=True, eq=False)
class YamlMapping:
    """A mapping.

    Attributes
    ----------
    extends_default : bool
        Whether it holds overrides of something that the config does not mention: what it leaves out, its type
        included, is then the default's.
    """

    entries: dict[str, YamlEntry] = field(default_factory=dict[str, YamlEntry])
    span: Span | None = None
    extends_default: bool = False


@dataclass(slots=True, eq=False)
class InvalidNode:
    """What stands where a value was that has been complained about already."""

    span: Span | None = None


YamlNode = YamlScalar | YamlList | YamlMapping | InvalidNode

_WORDS: dict[str, Plain] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **{sign + word: float(sign + "inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
}
_INTEGER = re.compile(r"[-+]?[0-9]{1,1000}|0o[0-7]{1,1000}|0x[0-9a-fA-F]{1,1000}", re.ASCII)
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_HANDLE = re.compile("^%TAG", re.MULTILINE)
_CONTROL = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


_FALSE = "[\u00a0\u2000-\u200b\u202f\u205f\u3000\ufeff]"  # no-break space and its kin
_FALSE_SEPARATOR = re.compile(rf"(?:^[ \t]*|[:,-])({_FALSE})")
_FALSE_SPACE = re.compile(rf"((?<![^:,-]){_FALSE}|{_FALSE}$)")
_ESCAPE_PROBLEM = re.compile("escape character|hexa?decimal")


def resolve(text: str) -> Plain:
    """Return the value of a plain (unquoted) scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    return float(text) if _NUMBER.fullmatch(text) else text


def compose(source: Source, problems: list[Problem], start: int = 0, end: int | None = None) -> YamlNode:
    """Parse the source's text, from the character `start` of its first line on, up to `end`.

    Duplicate keys and tags are added to `problems`, with a `InvalidNode` node in the tag's place.

    Raises
    ------
    ConfigError
        With `problems` and the one that makes it pointless to go on.
    """
    return _Composer(source, problems, start, end).document()


class _Composer:
    """Builds nodes from the parser's events."""

    def __init__(self, source: Source, problems: list[Problem], start: int, end: int | None) -> None:
        self._source, self._problems, self._start, self._end = source, problems, start, end
        self._lines = LINE_BREAK.split(source.text)
        self._events = self._parse()
        self._count = 0
        self._anchors: dict[str, tuple[YamlNode, int] | None] = {}  # the node and its size; None inside the node itself

    def _parse(self) -> Iterator[yaml.Event]:
        if control := _CONTROL.search(self._source.text):
            before = LINE_BREAK.split(self._source.text[: control.start()])
            line, column = len(before) - 1, len(before[-1])
            self._stop(f"unprintable character U+{ord(control[0]):04X}", Span(self._source, line, column, column + 1))
        if handle := _HANDLE.search(self._source.text):  # the parser compares each of them with all others
            before = LINE_BREAK.split(self._source.text[: handle.start()])
            self._stop("tag directives are not allowed", Span(self._source, len(before) - 1, 0, 4))
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            yield from yaml.parse(self._source.text[self._start : self._end], Loader=loader)
        except yaml.MarkedYAMLError as error:
            self._not_yaml(error)

    def _not_yaml(self, error: yaml.MarkedYAMLError) -> NoReturn:
        line, column = self._at(error.problem_mark)
        if not any(self._lines[line:]):  # the parser noticed at the end of the text, past the last line
            line = max((i for i, text in enumerate(self._lines) if text.strip()), default=0)
            column = len(self._lines[line].rstrip())
        if self._lines[line][column : column + 1] == "\t":
            self._stop("a tab cannot indent, use spaces", Span(self._source, line, column, column + 1))
        for near in range(line, max(line - 3, -1), -1):  # the parser notices later what was not indented
            if match := _FALSE_SEPARATOR.search(self._lines[near]):
                self._stop_at_false_space(match[1], near, match.start(1))
        if error.context == "while parsing a quoted scalar" and _ESCAPE_PROBLEM.search(str(error.problem)):
            message = "in double quotes a backslash begins an escape; use single quotes, or / in paths"
            self._stop(message, Span(self._source, line, column, column + 1))
        began = f" {error.context}" if error.context else ""
        if error.context_mark and error.context_mark.line != line:
            began += f" that began on line {error.context_mark.line + 1}"
        self._stop(f"not YAML: {error.problem}{began}", Span(self._source, line, column, column + 1))

    def _stop_at_false_space(self, character: str, line: int, column: int) -> NoReturn:
        name = unicodedata.name(character, "unnamed").lower()
        message = f"not a space, but U+{ord(character):04X} ({name}); replace it by a space"
        self._stop(message, Span(self._source, line, column, column + 1))

    def _check_spaces(self, event: Any) -> None:
        """Complain about what looks like a space in a plain scalar, at a place where a space would matter."""
        if not event.value.isascii() and not event.style and (match := _FALSE_SPACE.search(event.value)):
            line, column = self._at(event.start_mark)
            place = self._lines[line].find(match[1], column) if line < len(self._lines) else -1
            self._stop_at_false_space(match[1], line, max(place, column))

    def document(self) -> YamlNode:
        """Return the root of the only document there may be."""
        next(self._events)  # the start of the stream
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return YamlScalar(None, Span(self._source, 0, self._start, self._start + 1))
        root = self._node(next(self._events), 0)
        next(self._events)  # the end of the document
        if not isinstance(more := next(self._events), yaml.StreamEndEvent):
            self._stop("a second document begins here, expected one config", self._span(more, more))
        return root

    def _node(self, event: yaml.Event, depth: int) -> YamlNode:
        self._count += 1
        if self._count > MOST_NODES:
            self._stop(f"more than {MOST_NODES:,} values", self._span(event, event))
        if depth > DEEPEST:
            self._stop(f"nested more than {DEEPEST} deep", self._span(event, event))
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        anchor, count = getattr(event, "anchor", None), self._count
        if anchor:
            self._anchors[anchor] = None
        node = self._content(event, depth)
        if tag := getattr(event, "tag", None):
            name = str(tag).replace("tag:yaml.org,2002:", "!!")
            self._complain(f"tags such as {name} are not allowed", self._span(event, event, width=len(name)))
            node = InvalidNode(node.span)
        if anchor:
            self._anchors[anchor] = (node, self._count - count + 1)
        return node

    def _content(self, event: yaml.Event, depth: int) -> YamlNode:
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[YamlNode] = []
            while not isinstance(inner := next(self._events), yaml.SequenceEndEvent):
                items.append(self._node(inner, depth + 1))
            return YamlList(items, self._span(event, inner))
        if isinstance(event, yaml.MappingStartEvent):
            entries: dict[str, YamlEntry] = {}
            while not isinstance(inner := next(self._events), yaml.MappingEndEvent):
                self._entry(entries, inner, depth + 1)
            if merged := entries.pop("<<", None):
                self._merge(entries, merged.node)
            return YamlMapping(entries, self._span(event, inner))
        span = self._span(event, event)
        self._check_spaces(event)
        return YamlScalar(event.value if event.style else resolve(event.value), span)  # type: ignore[attr-defined]

    def _entry(self, entries: dict[str, YamlEntry], event: yaml.Event, depth: int) -> None:
        span = self._span(event, event)
        if not isinstance(event, yaml.ScalarEvent):
            self._stop("expected a word as the key", span)
        self._check_spaces(event)
        node = self._node(next(self._events), depth)
        if event.tag or event.anchor:
            self._complain("expected a word as the key, without tag or anchor", span)
        elif event.value in entries:
            first = entries[event.value].key
            self._complain(f"duplicate key '{event.value}', first on line {first.line + 1 if first else 1}", span)
        else:
            entries[event.value] = YamlEntry(span, node)

    def _merge(self, entries: dict[str, YamlEntry], node: YamlNode) -> None:
        """Add the keys of YAML's merge key, `<<: *anchor`, where the mapping does not have them itself."""
        for table in node.items if isinstance(node, YamlList) else [node]:
            if isinstance(table, YamlMapping):
                for key, entry in table.entries.items():
                    entries.setdefault(key, entry)
            elif node.span and not isinstance(table, InvalidNode):
                self._complain(f"expected a mapping to merge, got {show(table)}", node.span)

    def _alias(self, event: yaml.AliasEvent) -> YamlNode:
        span = self._span(event, event)
        if event.anchor not in self._anchors:
            self._stop(f"unknown alias '*{event.anchor}'", span)
        anchored = self._anchors[event.anchor]
        if anchored is None:
            self._stop(f"alias '*{event.anchor}' is inside the value it refers to", span)
        node, size = anchored
        self._count += size - 1
        if self._count > MOST_NODES:
            self._stop(f"more than {MOST_NODES:,} values", span)
        return copy(node)

    def _at(self, mark: Any) -> tuple[int, int]:
        return mark.line, mark.column + (self._start if mark.line == 0 else 0)

    def _span(self, first: yaml.Event, last: yaml.Event, width: int = 0) -> Span:
        line, column = self._at(first.start_mark)
        end_line, end = self._at(last.end_mark)
        if end_line != line:
            end = len(self._lines[line].rstrip()) if line < len(self._lines) else 0
        return Span(self._source, line, column, column + width if width else max(end, column + 1))

    def _complain(self, message: str, span: Span) -> None:
        self._problems.append(Problem(message, span=span))

    def _stop(self, message: str, span: Span) -> NoReturn:
        self._complain(message, span)
        raise ConfigError(self._problems)


def copy(node: YamlNode) -> YamlNode:
    """Return a tree of its own, so that an edit at one alias leaves the others alone."""
    if isinstance(node, YamlList):
        return YamlList([copy(item) for item in node.items], node.span)
    if isinstance(node, YamlMapping):
        return YamlMapping(
            {key: YamlEntry(entry.key, copy(entry.node)) for key, entry in node.entries.items()}, node.span
        )
    return node


def from_python(value: object, problems: list[Problem], path: KeyPath = ()) -> YamlNode:
    """Return the nodes of a mapping that was made in Python; they have no places in a text."""
    if len(path) > DEEPEST:
        raise ConfigError([*problems, Problem(f"nested more than {DEEPEST} deep", path[:3])])
    if value is None or isinstance(value, bool | str):
        return YamlScalar(value)
    if isinstance(value, PurePath):
        return YamlScalar(str(value))
    if isinstance(value, Integral):
        return YamlScalar(int(value))
    if isinstance(value, Real):
        return YamlScalar(float(value))
    if isinstance(value, Mapping):
        entries: dict[str, YamlEntry] = {}
        for key, inner in value.items():
            if isinstance(key, str):
                entries[key] = YamlEntry(None, from_python(inner, problems, (*path, key)))
            else:
                problems.append(Problem(f"expected a word as the key, got {key!r}", path))
        return YamlMapping(entries)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return YamlList([from_python(inner, problems, (*path, i)) for i, inner in enumerate(value)])
    problems.append(Problem(f"expected a value that YAML can hold, got {type(value).__name__}", path))
    return InvalidNode()


def to_python(node: YamlNode) -> Any:
    """Return the plain value that a node stands for."""
    if isinstance(node, YamlList):
        return [to_python(item) for item in node.items]
    if isinstance(node, YamlMapping):
        return {key: to_python(entry.node) for key, entry in node.entries.items()}
    return node.value if isinstance(node, YamlScalar) else None


def show(node: YamlNode) -> str:
    """Write a value for a message: ``'six'``, ``0.5``, ``a list of 3``."""
    if isinstance(node, YamlMapping):
        return "a mapping"
    if isinstance(node, YamlList):
        return f"a list of {len(node.items)}" if node.items else "an empty list"
    value = node.value if isinstance(node, YamlScalar) else None
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:59] + "…")
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else text[:59] + "…"
