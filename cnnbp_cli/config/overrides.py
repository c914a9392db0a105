"""`--set key.path=YAML`: edits of the config's nodes before they are read, so that a wrong value still has a place.

Whatever an override brings carries the override's own text, and complaints about it point there. A file of overrides
says the same at length: its keys are paths, alone or in mappings of mappings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn, cast

from cnnbp_cli.config.errors import ConfigError, KeyPath, Problem, Source, Span, dotted, suggestion
from cnnbp_cli.config.expansion import Expansion, expand_blocks
from cnnbp_cli.config.nodes import (
    DEEPEST,
    InvalidNode,
    YamlEntry,
    YamlList,
    YamlMapping,
    YamlNode,
    YamlScalar,
    compose,
    show,
    to_python,
)
from cnnbp_cli.config.shortcut import Shortcut
from cnnbp_cli.config.wiring import layer_names, shares_layer, uses_block

_BARE_WORDS = ("init", "optimizer", "schedule", "then")
"""Keys whose value may be a word that stands for a mapping with that `type`, like layers."""

_KINDS = {"type", "source", "block", "share"}
"""Keys that say what a mapping is, so that it is complete by itself."""

Steps = list[tuple[str, Span]]
"""The parts of a key path, each with its place."""

Edit = tuple[Steps, YamlNode]
"""A key path, and the value to put there."""


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


def source_of(text: str, folder: Path | None = None, order: int = 0) -> Source:
    """Return an override of the command line, called what was typed."""
    source = Source("", text, folder or Path(), order, text.option if isinstance(text, Shortcut) else "--set")
    return replace(source, label=f"{source.option} {source.typed[0]}")


def overridden(
    root: YamlNode, overrides: Sequence[str | Setting | Source], folder: Path, problems: list[Problem]
) -> tuple[YamlNode, Expansion]:
    """Return the tree with every override in it, and its blocks expanded.

    Overrides of a block, or of its use, come before that, and those of a layer that it stands for after it.

    Parameters
    ----------
    overrides : sequence
        Each is ``key.path=YAML``, a value of one, or the text of a file of them.
    folder : Path
        What relative paths in the former are relative to.
    """
    later = apply_overrides(root, overrides, folder, problems)
    expansion = expand_blocks(root, problems)
    for steps, value in later:
        try:
            _edit(root, steps, value)
        except ConfigError as error:
            problems += error.problems
    return root, replace(expansion, changed=bool(later))


def apply_overrides(
    root: YamlNode, overrides: Sequence[str | Setting | Source], folder: Path, problems: list[Problem]
) -> list[Edit]:
    """Put overrides into a tree; return those of layers that there will be when blocks are expanded."""
    later: list[Edit] = []
    for order, override in enumerate(overrides, start=1):
        found: list[Problem] = []
        try:
            if isinstance(override, Source):
                _apply_file(root, replace(override, order=order), found, later)
            else:
                setting = override if isinstance(override, Setting) else None
                source = source_of(setting.text if setting else cast("str", override), folder, order)
                _apply_option(root, source, setting, found, later)
        except ConfigError as error:
            found = [problem for problem in found if problem not in error.problems] + error.problems
        problems += found
    return later


def _apply_option(
    root: YamlNode, source: Source, setting: Setting | None, problems: list[Problem], later: list[Edit]
) -> None:
    key, equals, _ = source.text.partition("=")
    if not equals or not key.strip():
        _stop("expected key.path=value", Span(source, 0, 0, max(len(source.text), 1)))
    value = read_setting(setting, source, problems) if setting else compose(source, problems, start=len(key) + 1)
    _edit_or_wait(root, _steps(key, Span(source, 0, 0, len(key))), value, later)


def read_setting(setting: Setting, source: Source, problems: list[Problem]) -> YamlNode:
    """Return the value of a setting, with its place in the source that has the setting's text."""
    if setting.drawn is not None:
        return YamlScalar(setting.drawn, Span(source, 0, setting.start, setting.end))
    return compose(source, problems, setting.start, setting.end)


def _apply_file(root: YamlNode, source: Source, problems: list[Problem], later: list[Edit]) -> None:
    overrides = compose(source, problems)
    if isinstance(overrides, YamlMapping):
        _merge(root, overrides, [], problems, later)
    elif overrides.span and not isinstance(overrides, InvalidNode):
        _stop(f"expected a mapping of key.path: value, got {show(overrides)}", overrides.span)


def _merge(root: YamlNode, overrides: YamlMapping, above: Steps, problems: list[Problem], later: list[Edit]) -> None:
    """Set what a mapping below `above` says, key by key; an inner one that names its type or source stays whole."""
    for key, entry in overrides.entries.items():
        try:
            steps = [*above, *_steps(key, entry.key or cast("Span", entry.node.span))]
            inner = entry.node
            if isinstance(inner, YamlMapping) and inner.entries and not inner.entries.keys() & _KINDS:
                _merge(root, inner, steps, problems, later)
            else:
                _edit_or_wait(root, steps, inner, later)
        except ConfigError as error:
            problems += error.problems


def _steps(key: str, at: Span) -> Steps:
    steps: Steps = []
    column = at.column + max(at.end - at.column - len(key), 0) // 2  # after the quotation mark, if there is one
    for part in key.split("."):
        steps.append((part, Span(at.source, at.line, column, column + max(len(part), 1))))
        column += len(part) + 1
    if len(steps) > DEEPEST:
        _stop(f"nested more than {DEEPEST} deep", steps[DEEPEST][1])
    for part, span in steps:
        if not part or part != part.strip():
            _stop(f"expected a key, got {part!r}", span)
    return steps


def _edit_or_wait(root: YamlNode, steps: Steps, value: YamlNode, later: list[Edit]) -> None:
    """Put a value where the steps lead, or keep it for when that is there."""
    model = root.entries.get("model") if isinstance(root, YamlMapping) else None
    layers = model.node.entries.get("layers") if model and isinstance(model.node, YamlMapping) else None
    items = layers.node.items if layers and isinstance(layers.node, YamlList) else []
    if [part for part, _ in steps[:2]] == ["model", "layers"] and len(steps) > 2:
        names = layer_names(items)
        part = steps[2][0]
        uses = [name for name, item in zip(names, items, strict=True) if uses_block(item) or shares_layer(item)]
        if part not in names and any(part.startswith(f"{use}_") for use in uses):
            later.append((steps, value))
            return
    _edit(root, steps, value)


def _edit(root: YamlNode, steps: Steps, value: YamlNode) -> None:
    """Put a value where the steps lead. A short option may not contradict another option; else the last one counts."""
    *above, (last, last_span) = steps
    node, path = root, cast("KeyPath", ())
    for part, span in above:
        node, path = _descend(node, path, part, span)
    if isinstance(node, YamlList):
        node.items[_index(node, last, path, last_span)] = value
    elif isinstance(node, YamlMapping):
        if last_span.source.option not in ("", "--set") and last in node.entries:
            _refuse_contradiction(node.entries[last].node, value)
        node.entries[last] = YamlEntry(last_span, value)


def _refuse_contradiction(before: YamlNode, value: YamlNode) -> None:
    """Complain about the value of a short option where another option has set another one."""
    if before.span and before.span.source.is_option and value.span and to_python(before) != to_python(value):
        _stop(f"contradicts {before.span.source.label}; leave one of them out", value.span)


def _descend(node: YamlNode, path: KeyPath, part: str, span: Span) -> tuple[YamlNode, KeyPath]:
    """Return what stands under one part of the path, made into something that has keys, and its path."""
    if isinstance(node, YamlList):
        index = _index(node, part, path, span)
        path = (*path, index)
        inner = node.items[index] = _open(node.items[index], path, span)
        return inner, path
    if isinstance(node, YamlMapping):
        path = (*path, part)
        entry = node.entries.get(part)
        inner = _open(entry.node if entry else None, path, span)
        node.entries[part] = YamlEntry(entry.key if entry else span, inner)
        return inner, path
    return node, path  # below something broken, which has been complained about


def _open(node: YamlNode | None, path: KeyPath, span: Span) -> YamlNode:
    """Return `node` as something that has keys."""
    if isinstance(node, YamlList | YamlMapping | InvalidNode):
        return node
    if node is None or node.value is None:
        return YamlMapping({}, span, extends_default=True)
    may_be_word = path[-1] in _BARE_WORDS or path[-2:-1] == ("layers",) or path == ("data",)
    if may_be_word and isinstance(node.value, str):
        return YamlMapping({"source" if path == ("data",) else "type": YamlEntry(node.span, node)}, node.span)
    _stop(f"{dotted(path)} is {show(node)}, which has no keys", span)


def _index(node: YamlList, part: str, path: KeyPath, span: Span) -> int:
    """Return the place in a list that a number or a layer's name stands for."""
    is_layers = path[:1] == ("model",) and path[-1] == "layers"
    names = layer_names(node.items) if is_layers else []
    if part in names:
        return names.index(part)
    if part.isascii() and part.isdigit() and len(part) < 10:
        if int(part) < len(node.items):
            return int(part)
        _stop(f"{dotted(path)} has {len(node.items)} items, counted from 0", span)
    if is_layers:
        _stop(f"unknown layer '{part}'{suggestion(part, names)}", span)
    _stop(f"{dotted(path)} is a list: expected a number, got {part!r}", span)


def _stop(message: str, span: Span) -> NoReturn:
    raise ConfigError([Problem(message, span=span)])
