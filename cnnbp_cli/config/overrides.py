"""`--set key.path=YAML`: edits of the config's nodes before they are read, so that a wrong value still has a place.

Whatever an override brings carries the override's own text, and complaints about it point there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, cast

from cnnbp_cli.config.errors import ConfigError, KeyPath, Problem, Source, Span, dotted, suggestion
from cnnbp_cli.config.nodes import Broken, Entry, Items, Node, Scalar, Table, compose, show
from cnnbp_cli.config.wiring import layer_names

_BARE_WORDS = ("init", "optimizer", "schedule", "then")
"""Keys whose value may be a word that stands for a mapping with that `type`, like layers."""

_DEFAULTS: dict[KeyPath, str] = {
    ("model", "init"): "he_normal",
    ("train", "optimizer"): "adam",
    ("train", "schedule"): "constant",
}
"""What a key that is set under one of these extends, where the config does not have it."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One value of an override whose text offers several; complaints show the whole text and point at this one.

    Attributes
    ----------
    text : str
        All of the override: ``train.batch_size=32,64``.
    start, end : int
        Where in it the value stands.
    drawn : int, float or None
        The value, where the text there is a range that it was drawn from.
    """

    text: str
    start: int
    end: int
    drawn: int | float | None = None


def apply_overrides(root: Node, overrides: Sequence[str | Setting], folder: Path, problems: list[Problem]) -> Node:
    """Return the tree with every override in it; relative paths in them start at `folder`."""
    for order, override in enumerate(overrides, start=1):
        setting = override if isinstance(override, Setting) else None
        text = setting.text if setting else str(override)
        source = Source(f"--set {text}", text, folder, order)
        key, equals, _ = text.partition("=")
        whole = Span(source, 0, 0, max(len(text), 1))
        if not equals or not key.strip():
            problems.append(Problem("expected key.path=value", span=whole))
            continue
        found: list[Problem] = []
        try:
            value = read_setting(setting, source, found) if setting else compose(source, found, start=len(key) + 1)
            _Edit(source).apply(root, key, value)
        except ConfigError as error:
            found = error.problems
        problems += found
    return root


def read_setting(setting: Setting, source: Source, problems: list[Problem]) -> Node:
    """Return the value of a setting, with its place in the source that has the setting's text."""
    if setting.drawn is not None:
        return Scalar(setting.drawn, Span(source, 0, setting.start, setting.end))
    return compose(source, problems, setting.start, setting.end)


class _Edit:
    """One override on its way through the tree."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def apply(self, root: Node, key: str, value: Node) -> None:
        *steps, (last, last_span) = self._steps(key)
        node, path = root, cast("KeyPath", ())
        for part, span in steps:
            node, path = self._descend(node, path, part, span)
        if isinstance(node, Items):
            node.items[self._index(node, last, path, last_span)] = value
        elif isinstance(node, Table):
            node.entries[last] = Entry(last_span, value)

    def _steps(self, key: str) -> list[tuple[str, Span]]:
        """Return the parts of a key path, each with its place."""
        steps: list[tuple[str, Span]] = []
        column = 0
        for part in key.split("."):
            steps.append((part, Span(self._source, 0, column, column + max(len(part), 1))))
            column += len(part) + 1
        for part, span in steps:
            if not part or part != part.strip():
                self._stop(f"expected a key, got {part!r}", span)
        return steps

    def _descend(self, node: Node, path: KeyPath, part: str, span: Span) -> tuple[Node, KeyPath]:
        """Return what stands under one part of the path, made into something that has keys, and its path."""
        if isinstance(node, Items):
            index = self._index(node, part, path, span)
            path = (*path, index)
            inner = node.items[index] = self._open(node.items[index], path, span)
            return inner, path
        if isinstance(node, Table):
            path = (*path, part)
            entry = node.entries.get(part)
            inner = self._open(entry.node if entry else None, path, span)
            node.entries[part] = Entry(entry.key if entry else span, inner)
            return inner, path
        return node, path  # below something broken, which has been complained about

    def _open(self, node: Node | None, path: KeyPath, span: Span) -> Node:
        """Return `node` as something that has keys."""
        if isinstance(node, Items | Table | Broken):
            return node
        if node is None or node.value is None:
            word = _DEFAULTS.get(path)
            entries = {"type": Entry(span, Scalar(word, span))} if word else {}
            return Table(entries, span)
        may_be_word = path[-1] in _BARE_WORDS or path[:-1] == ("model", "layers") or path == ("data",)
        if may_be_word and isinstance(node.value, str):
            return Table({"source" if path == ("data",) else "type": Entry(node.span, node)}, node.span)
        self._stop(f"{dotted(path)} is {show(node)}, which has no keys", span)

    def _index(self, node: Items, part: str, path: KeyPath, span: Span) -> int:
        """Return the place in a list that a number or a layer's name stands for."""
        is_layers = path == ("model", "layers")
        names = layer_names(node.items) if is_layers else []
        if part in names:
            return names.index(part)
        if part.isascii() and part.isdigit() and len(part) < 10:
            if int(part) < len(node.items):
                return int(part)
            self._stop(f"{dotted(path)} has {len(node.items)} items, counted from 0", span)
        if is_layers:
            self._stop(f"unknown layer '{part}'{suggestion(part, names)}", span)
        self._stop(f"{dotted(path)} is a list: expected a number, got {part!r}", span)

    def _stop(self, message: str, span: Span) -> NoReturn:
        raise ConfigError([Problem(message, span=span)])
