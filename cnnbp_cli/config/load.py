"""From text to a `Config`: nodes are read against the declarations, and every problem is kept until the end."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from cnnbp_cli.config.errors import (
    LINE_BREAK,
    MOST_PROBLEMS,
    SHOWN,
    SYNONYMS,
    ConfigError,
    KeyPath,
    Problem,
    Source,
    Span,
    closest,
    dotted,
    suggestion,
)
from cnnbp_cli.config.expansion import Expansion
from cnnbp_cli.config.hints import FAILED, check, discriminator, hints_of, members, record_in
from cnnbp_cli.config.nodes import (
    MAX_CONFIG_BYTES,
    InvalidNode,
    YamlEntry,
    YamlList,
    YamlMapping,
    YamlNode,
    YamlScalar,
    compose,
    from_python,
    show,
)
from cnnbp_cli.config.overrides import Setting, overridden
from cnnbp_cli.config.schema import Config, LayerSpec, Positions
from cnnbp_cli.config.sources import inside, is_template, located, meant
from cnnbp_cli.config.templates import template
from cnnbp_cli.config.wiring import (
    SHARE_KEYS,
    Wire,
    bad_name,
    default_inputs,
    layer_names,
    shares_layer,
    wiring_problems,
)
from cnnbp_cli.core.layers import LAYERS
from cnnbp_cli.core.types import FieldErrors

_INSTEAD = {"layers": ("block", "share")}  # what a layer may have in the place of its type
_NOUNS = {"init": "initializer", "then": "schedule", "data": "data source", "layers": "layer type"}


Override = str | Path | Setting
"""``key.path=YAML``, or the path of a YAML file whose keys are such paths, or mappings of them."""


def load_config(source: str | Path, overrides: Sequence[Override] = (), *, stdin: str | None = None) -> Config:
    """Read a config.

    Parameters
    ----------
    source : str or Path
        A YAML file, ``-`` for standard input, a template's name, or a run, whose config is read.
    overrides : sequence of str or Path
        ``key.path=YAML``, or a file of overrides, applied from left to right. A relative path in one is relative to
        the current folder, or to the file.
    stdin : str, optional
        The text that stands for ``-``; by default standard input is read.

    Raises
    ------
    ConfigError
        With everything that is wrong, each at its place.
    """
    return read_config(source, stdin=stdin).parse(overrides)


class ConfigText(NamedTuple):
    """A config before it is parsed, which may be done several times, with different overrides."""

    text: str
    label: str
    folder: Path
    name: str

    def parse(self, overrides: Sequence[Override] = ()) -> Config:
        return parse_config(self.text, overrides, label=self.label, folder=self.folder, name=self.name)


def read_config(source: str | Path, *, stdin: str | None = None) -> ConfigText:
    """Read the text of a config; see `load_config`."""
    if str(source) == "-":
        text = _decode(sys.stdin.buffer.read(MAX_CONFIG_BYTES + 1), "<stdin>") if stdin is None else stdin
        return ConfigText(text, "<stdin>", Path(), "config")
    if is_template(str(source)):
        return ConfigText(template(str(source)).text, str(source), Path(), str(source))
    path = located(source)
    name = path.stem
    if os.path.exists(path / "config.yaml"):
        name, path = path.name, path / "config.yaml"
    return ConfigText(_decode(_read(path), str(path)), str(path), path.parent, name)


def parse_config(
    text: str,
    overrides: Sequence[Override] = (),
    *,
    label: str = "<text>",
    folder: Path | None = None,
    name: str = "config",
) -> Config:
    """Read a config from text; `label` is what messages call it, relative paths start at `folder`."""
    source = Source(label, text, _absolute(folder or Path()))
    if len(text) > MAX_CONFIG_BYTES:
        raise ConfigError([Problem(f"{label}: larger than {MAX_CONFIG_BYTES:,} bytes, expected a config")])
    problems: list[Problem] = []
    root = compose(source, problems)
    if isinstance(root, YamlScalar) and root.value is None:
        root = YamlMapping({}, root.span)
        if not overrides:
            problems.append(Problem("the config is empty, expected a mapping with data and model", span=root.span))
            raise ConfigError(problems)
    edits = [_file_of_overrides(override) if isinstance(override, Path) else override for override in overrides]
    return _Reader(problems).config(*overridden(root, edits, _absolute(Path()), problems), name)


def parse_section(text: str, key: str) -> Any:
    """Read one section of a config from a text that has nothing else; relative paths start at the current folder.

    Raises
    ------
    ConfigError
        When it has problems, or is not alone. Their places are those in this text.
    """
    problems: list[Problem] = []
    root, expansion = overridden(compose(Source("<text>", text, _absolute(Path())), problems), [], Path(), problems)
    if not isinstance(root, YamlMapping) or [*root.entries] != [key]:
        raise ConfigError([*problems, Problem(f"expected the section {key}, and nothing else")])
    return _Reader(problems).section(key, root, expansion)


def config_from_dict(mapping: Mapping[str, Any], name: str = "config") -> Config:
    """Read a config that was made in Python, with the keys of the YAML format.

    `name` is for a mapping that has none. Relative paths are relative to the current folder.

    Raises
    ------
    ConfigError
        Its problems name the keys, as there are no lines.
    """
    problems: list[Problem] = []
    return _Reader(problems).config(*overridden(from_python(mapping, problems), [], Path(), problems), name)


def read_names(path: Path) -> dict[str, str]:
    """Read a YAML file that says what one name is called elsewhere, as in ``conv1: layer1.0.conv1``.

    Raises
    ------
    ConfigError
        With the place of what is no such pair.
    """
    source, problems = Source(str(path), _decode(_read(path), str(path))), list[Problem]()
    root = compose(source, problems)
    if not isinstance(root, YamlMapping):
        message = f"expected pairs of names, as in conv1: layer1.0.conv1, got {show(root)}"
        raise ConfigError([*problems, Problem(message, span=root.span)])
    names: dict[str, str] = {}
    for name, entry in root.entries.items():
        if isinstance(entry.node, YamlScalar) and entry.node.value is not None:
            names[name] = _as_written(entry.node)
        elif not isinstance(entry.node, InvalidNode):
            problems.append(Problem(f"expected a name, got {show(entry.node)}", (name,), entry.node.span))
    if problems:
        raise ConfigError(problems)
    return names


def _as_written(node: YamlScalar) -> str:
    """Return a name that may look like a number: 1.10 is not 1.1."""
    if isinstance(node.value, str) or node.span is None:
        return str(node.value)
    return LINE_BREAK.split(node.span.source.text)[node.span.line][node.span.column : node.span.end]


def _file_of_overrides(path: Path) -> Source:
    return Source(str(path), _decode(_read(path, file_only=True), str(path)), _absolute(path.parent))


def _read(path: Path, *, file_only: bool = False) -> bytes:
    try:
        mode = path.stat().st_mode
        # A pipe with a name waits for somebody to write; one that is open already, as from <(…), does not.
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or (stat.S_ISFIFO(mode) and path.parts[1:3] == ("dev", "fd"))):
            raise ConfigError([Problem(f"{path}: not a regular file, expected a YAML file; - is standard input")])
        with path.open("rb") as file:
            return file.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError:
        nearest = meant(path, template=not file_only, run=not file_only)
        raise ConfigError([Problem(f"{path}: no such file{nearest}")]) from None
    except IsADirectoryError:
        wanted = inside(path)
        raise ConfigError(
            [Problem(f"{path}: a directory, expected a YAML file{' or a run' * bool(wanted)}{wanted}")]
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError([Problem(f"{path}: cannot be read: {reason}")]) from None


def _decode(raw: bytes, label: str) -> str:
    if len(raw) > MAX_CONFIG_BYTES:
        raise ConfigError([Problem(f"{label}: larger than {MAX_CONFIG_BYTES:,} bytes, expected a config")])
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8")
        line, column = before.count("\n"), len(before) - before.rfind("\n") - 1
        source = Source(label, raw.decode("utf-8", "replace"))
        message = f"not UTF-8: byte 0x{raw[error.start]:02X}"
        raise ConfigError([Problem(message, span=Span(source, line, column, column + 1))]) from None


def _absolute(path: Path) -> Path:
    return Path(os.path.realpath(path))


class _Reader:
    """Reads nodes against declarations."""

    def __init__(self, problems: list[Problem]) -> None:
        self._problems = problems
        self._positions = Positions()

    def config(self, root: YamlNode, expansion: Expansion, name: str) -> Config:
        self._positions = Positions(root, expansion)
        if not isinstance(root, YamlMapping):
            if not isinstance(root, InvalidNode):
                self._complain((), f"expected a mapping with data and model, got {show(root)}")
            raise ConfigError(self._problems)
        root.entries.setdefault("name", YamlEntry(None, YamlScalar(re.sub(r"[\\/\s]+", "-", name) or "config")))
        config = self._record(Config, root, (), given={"positions": self._positions})
        if self._problems:
            raise ConfigError(self._problems)
        return config

    def section(self, key: str, root: YamlMapping, expansion: Expansion) -> Any:
        """Return the value of one key of a config."""
        self._positions = Positions(root, expansion)
        value = self._value(hints_of(Config)[key], root.entries[key].node, (key,))
        if self._problems:
            raise ConfigError(self._problems)
        return value

    def _value(self, hint: Any, node: YamlNode, path: KeyPath) -> Any:
        """Return the value of a field with the type `hint`."""
        options = [option for option in members(hint) if option is not type(None)]
        if isinstance(node, InvalidNode):
            return FAILED
        if options != [*members(hint)] and isinstance(node, YamlScalar) and node.value is None:
            return None
        if options == [tuple[LayerSpec, ...]]:
            return self._layers(node, path)
        if record := record_in(options):
            if not isinstance(node, YamlList):
                self._about(path, f"expected a list of mappings, got {show(node)}", node)
                return FAILED
            places = [(*path, k) for k in range(len(node.items))]
            records = [
                self._record(record, item, at, title=".".join(map(str, at)))
                for item, at in zip(node.items, places, strict=True)
            ]
            return FAILED if FAILED in records else tuple(records)
        if options == [Path]:
            return self._path(node, path)
        if all(is_dataclass(option) for option in options):
            if key := discriminator(options[0]):
                kinds = {str(_default(option, key)): option for option in options}
                return self._kind(kinds, key, node, path)
            return self._record(options[0], node, path)
        declared: list[Any] = [option for option in options if is_dataclass(option)]
        if isinstance(node, YamlMapping) and len(declared) == 1:
            return self._record(declared[0], node, path)
        return check(hint, node, lambda at, message, inner: self._about((*path, *inner), message, at))

    def _kind(
        self, kinds: Mapping[str, type], key: str, node: YamlNode, path: KeyPath, common: tuple[str, ...] = ()
    ) -> Any:
        """Read one of several declarations that `key` tells apart; a bare word stands for it without arguments."""
        noun = _NOUNS.get(_last_key(path), _last_key(path))
        word, at = node, path
        if isinstance(node, YamlMapping):
            if key not in node.entries:
                self._without_kind(node, key, kinds, path)
                return FAILED
            word, at = node.entries[key].node, (*path, key)
        if isinstance(word, InvalidNode):
            return FAILED
        if not isinstance(word, YamlScalar) or not isinstance(word.value, str):
            wanted = "a word" if word is not node else "a word or a mapping"
            self._about(at, f"expected {wanted}, got {show(word)}", word)
            return FAILED
        cls = kinds.get(word.value)
        if cls is None:
            self._complain(at, f"unknown {noun} '{word.value}'{suggestion(word.value, list(kinds))}")
            return FAILED
        table = node if isinstance(node, YamlMapping) else YamlMapping({}, node.span)
        return self._record(cls, table, path, title=word.value, common=(key, *common))

    def _without_kind(self, node: YamlMapping, key: str, kinds: Mapping[str, type], path: KeyPath) -> None:
        for other, entry in node.entries.items():
            if near := closest(other, [key, *_INSTEAD.get(_last_key(path), ())]):
                self._add(Problem(f"unknown key '{other}', did you mean '{near}'?", path, entry.key))
                return
        choice = f", expected one of: {', '.join(kinds)}" if len(kinds) <= 12 else ""
        self._complain(path, f"missing key '{key}'{choice}", whole=False)

    def _record(
        self,
        cls: type,
        node: YamlNode,
        path: KeyPath,
        *,
        title: str = "",
        common: tuple[str, ...] = (),
        given: Mapping[str, Any] | None = None,
    ) -> Any:
        """Read a dataclass from a mapping; `common` keys are somebody else's, `given` fields are no keys."""
        if not isinstance(node, YamlMapping):
            self._about(path, f"expected a mapping, got {show(node)}", node)
            return FAILED
        hints, values = hints_of(cls), dict(given or {})
        wanted = [f for f in fields(cls) if f.init and f.name not in values and f.name not in common]
        keys = [f.name for f in wanted]
        self._unknown_keys(node, [*keys, *common], path, title or ".".join(map(str, path)))
        for f in wanted:
            if f.name in node.entries:
                inner = node.entries[f.name].node
                if isinstance(inner, YamlMapping) and inner.extends_default and f.default_factory is not MISSING:
                    _name_type(inner, f.default_factory())
                values[f.name] = self._value(hints[f.name], inner, (*path, f.name))
            elif f.default is MISSING and f.default_factory is MISSING:
                of = f" of {title}" if title else ""
                self._complain(path, f"missing key '{f.name}'{of}", whole=False)
                values[f.name] = FAILED
        if any(value is FAILED for value in values.values()):
            return FAILED
        try:
            return cls(**values)
        except FieldErrors as error:
            for name, message in error.problems:
                below = (int(part) if part.isdigit() else part for part in name.split("."))
                self._about((*path, *below), message)
            return FAILED

    def _unknown_keys(self, node: YamlMapping, keys: Sequence[str], path: KeyPath, title: str) -> None:
        for key, entry in node.entries.items():
            if key not in keys:
                of = f" of {title}" if title else ""
                there = "" if closest(key, keys) or "layers" in path else elsewhere(key, path)
                meant = f", did you mean {there}?" if there else suggestion(key, keys)
                self._add(Problem(f"unknown key '{key}'{of}{meant}", path, entry.key or entry.node.span))

    def _path(self, node: YamlNode, path: KeyPath) -> Any:
        if not isinstance(node, YamlScalar) or not isinstance(node.value, str) or not node.value or "\0" in node.value:
            self._about(path, f"expected a path, got {show(node)}", node)
            return FAILED
        folder = node.span.source.folder if node.span else Path()
        return _absolute(folder / os.path.expanduser(node.value))

    def _layers(self, node: YamlNode, path: KeyPath) -> Any:
        if not isinstance(node, YamlList) or not node.items:
            self._about(path, f"expected a list of layers, got {show(node)}", node)
            return FAILED
        names = layer_names(node.items)
        layers: list[Any] = []
        owners: list[str] = []
        for i, item in enumerate(node.items):
            if not shares_layer(item):
                layer, owner = self._layer(item, (*path, i)), names[i]
            elif (shared := self._shared(item, names, i, (*path, i))) is None:
                layer, owner = FAILED, names[i]
            else:  # which may share one above itself
                layer, owner = layers[shared], owners[shared]
            layers.append(layer)
            owners.append(owner)
        wires = [self._wire(item, names[i], layers[i], (*path, i)) for i, item in enumerate(node.items)]
        for index, inner, message in islice(wiring_problems(wires), SHOWN):
            self._complain((*path, index, *inner), message)
        if any(layer is FAILED for layer in layers) or any(wire is None for wire in wires):
            return FAILED
        learns = {wire.name: wire.trainable for wire in wires if wire}
        return tuple(
            LayerSpec(
                wire.name,
                wire.inputs or default_inputs(names, i),
                layers[i],
                learns[owners[i]],
                owners[i] if owners[i] != wire.name else "",
            )
            for i, wire in enumerate(wires)
            if wire
        )

    def _layer(self, node: YamlNode, path: KeyPath) -> Any:
        if isinstance(node, InvalidNode):
            return FAILED
        if isinstance(node, YamlMapping) and {"type", "share"} <= node.entries.keys():
            kind = node.entries["type"].node
            cls = LAYERS.get(str(kind.value)) if isinstance(kind, YamlScalar) else None
            if cls and "share" not in hints_of(cls):
                message = "share stands in the place of type: the layer has its type from the one that it shares"
                self._complain((*path, "share"), message)
                return FAILED
        return self._kind(LAYERS, "type", node, path, common=("name", "inputs", "trainable"))

    def _shared(self, node: YamlNode, names: Sequence[str], index: int, path: KeyPath) -> int | None:
        """Return which layer above this one shares; None where there is no such."""
        assert isinstance(node, YamlMapping)
        at = (*path, "share")
        name = self._value(str, node.entries["share"].node, at)
        for key, entry in node.entries.items():
            if key not in SHARE_KEYS:
                message = f"unknown key '{key}' of a share{suggestion(key, SHARE_KEYS)}; all else is the shared layer's"
                self._add(Problem(message, path, entry.key or entry.node.span))
        if name is FAILED:
            return None
        if name in names[:index]:
            return names.index(name)
        if name in names[index + 1 :]:
            self._complain(at, f"the layer '{name}' stands further down: share one that stands above")
        elif name == names[index]:
            self._complain(at, "a layer cannot share itself: name one that stands above")
        else:
            self._complain(at, f"unknown layer '{name}'{suggestion(name, names[:index])}")
        return None

    def _wire(self, node: YamlNode, name: str, layer: Any, path: KeyPath) -> Wire | None:
        """Return how a layer is connected; None where that cannot be told."""
        inputs: Any = None
        trainable: Any = True
        if isinstance(node, YamlMapping):
            if "name" in node.entries:
                given = self._value(str, node.entries["name"].node, (*path, "name"))
                if given is FAILED:
                    return None
                if message := bad_name(given):
                    self._about((*path, "name"), message)
                    return None
            if "inputs" in node.entries:
                inputs = self._value(tuple[str, ...], node.entries["inputs"].node, (*path, "inputs"))
            if "trainable" in node.entries:
                trainable = self._value(bool, node.entries["trainable"].node, (*path, "trainable"))
        if inputs is FAILED or trainable is FAILED:
            return None
        kind = getattr(layer, "type", "")
        merges = getattr(layer, "several_inputs", inputs is not None and len(inputs) != 1)
        return Wire(name, inputs, kind, merges, trainable)

    def _complain(self, path: KeyPath, message: str, *, whole: bool = True) -> None:
        """Add a problem with the value at `path`, or with its key when it is not `whole`."""
        span = self._positions.span(path if whole else (*path, ""))
        self._add(Problem(message, path, span))

    def _about(self, path: KeyPath, message: str, node: YamlNode | None = None) -> None:
        """Add a problem whose message does not name the key that it is about."""
        span = node.span if node else self._positions.span(path)
        if not isinstance(node, InvalidNode):
            self._add(Problem(message, path, span, label=_label(path)))

    def _add(self, problem: Problem) -> None:
        self._problems.append(problem)
        if len(self._problems) > MOST_PROBLEMS:
            raise ConfigError(self._problems)


def elsewhere(key: str, here: KeyPath) -> str:
    """Return where a key belongs that stands in another section, as ``'train.epochs'``; nothing where it is unknown."""
    name = SYNONYMS.get(key, key)
    places = [path for path in _paths().get(name, ()) if path != dotted((*here, name))]
    return " or ".join(f"'{path}'" for path in places)


@cache
def _paths() -> dict[str, dict[str, None]]:
    """Return the paths of each key below the sections of a config, those that are least deep."""
    found: dict[str, dict[str, None]] = {}
    level: list[tuple[str, Any]] = [("", Config)]
    while level:
        below: list[tuple[str, Any]] = []
        for above, cls in level:
            for f in fields(cls):
                if f.init and f.name not in ("type", "source", "positions", "layers"):
                    path = f"{above}.{f.name}" if above else f.name
                    if above and all(other.count(".") == path.count(".") for other in found.get(f.name, ())):
                        found.setdefault(f.name, {})[path] = None
                    below += [(path, option) for option in members(hints_of(cls)[f.name]) if is_dataclass(option)]
        level = below
    return found


def _label(path: KeyPath) -> str:
    """Return the last key of a path and the indices after it: ``input[1]``."""
    cut = max((i for i, part in enumerate(path) if isinstance(part, str)), default=0)
    return "".join(f"[{part}]" if isinstance(part, int) else part for part in path[cut:])


def _last_key(path: KeyPath) -> str:
    return next((part for part in reversed(path) if isinstance(part, str)), "")


def _name_type(node: YamlMapping, default: Any) -> None:
    """Give overrides of a default its type, unless they name one themselves."""
    cls: type = type(default)
    if key := discriminator(cls):
        node.entries.setdefault(key, YamlEntry(node.span, YamlScalar(getattr(default, key), node.span)))


def _default(cls: type, key: str) -> Any:
    return next(f.default for f in fields(cls) if f.name == key)
