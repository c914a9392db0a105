"""From blocks to layers: each use of a block in `model.layers` becomes the layers that it stands for.

Nothing after this file knows of blocks. A layer `conv1` of the use `stage2` is called `stage2_conv1`, or
`stage2_1_conv1`, `stage2_2_conv1`, … where the use is repeated; in `inputs`, `stage2` and `stage2_1` stand for the last
layer of theirs. Names inside a block are its own: it sees other layers only by `$input` and its parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

from cnnbp_cli.config.arithmetic import ExpressionError, Number, evaluate, is_expression, parameter_alone
from cnnbp_cli.config.blocks import INDEX, INPUT, USE_KEYS, Block, read_blocks, scalars
from cnnbp_cli.config.errors import MOST_PROBLEMS, ConfigError, KeyPath, Problem, Span, suggestion
from cnnbp_cli.config.nodes import (
    DEEPEST,
    MOST_NODES,
    InvalidNode,
    YamlEntry,
    YamlList,
    YamlMapping,
    YamlNode,
    YamlScalar,
    copy,
    show,
)
from cnnbp_cli.config.wiring import IMAGE, SHARE_KEYS, layer_names, shares_layer, uses_block

_REFERENCES = ("inputs", "share")
"""The keys of a layer whose values are names: of outputs, or of the layer itself whose parameters it shares."""


class _Unusable(Exception):
    """What has been complained about, and cannot be expanded."""


@dataclass(frozen=True, slots=True)
class Expansion:
    """What became of a config's blocks.

    Attributes
    ----------
    uses : tuple of str
        The names of the uses at the top, which begin the names of their layers.
    unused : tuple of str
        Blocks that no layer uses.
    blocks, layers : YamlNode or None
        What stood under `model` before; None where there was no block.
    changed : bool
        Whether overrides changed single layers afterwards.
    """

    uses: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    blocks: YamlNode | None = None
    layers: YamlNode | None = None
    changed: bool = False


NO_BLOCKS = Expansion()


def expand_blocks(root: YamlNode, problems: list[Problem]) -> Expansion:
    """Put the layers that blocks stand for into `model.layers`, and take `model.blocks` away.

    Complaints are added to `problems`; where there are any, an `InvalidNode` stands for the layers.
    """
    model = root.entries["model"].node if isinstance(root, YamlMapping) and "model" in root.entries else None
    if not isinstance(model, YamlMapping):
        return NO_BLOCKS
    layers = model.entries["layers"].node if "layers" in model.entries else None
    items = layers.items if isinstance(layers, YamlList) else []
    if "blocks" not in model.entries and not any(map(uses_block, items)):
        return NO_BLOCKS
    definitions = model.entries.pop("blocks", YamlEntry(None, YamlMapping())).node
    expander = _Expander(problems)
    flat: YamlNode = InvalidNode(layers.span if layers else None)
    try:
        expander.define(definitions)
        if items:
            flat = YamlList(expander.expand(items), layers.span if layers else None)
        elif layers:
            flat = layers  # the reader complains
    except _Unusable:
        pass
    if layers:
        model.entries["layers"] = YamlEntry(model.entries["layers"].key, flat)
    uses = tuple(name for name, item in zip(layer_names(items), items, strict=True) if uses_block(item))
    return Expansion(uses, expander.unused(), definitions, layers)


@dataclass(eq=False, slots=True)
class _Output:
    """The output of a layer, or of what stands for one: a block's use, a layer that is left out.

    Attributes
    ----------
    name : str
        Of the layer.
    of : _Output, _Link or None
        Which output it stands for, if it is no layer's.
    what : str
        Says then what it is.
    use : _Use or None
        A block's use, which may be shared.
    """

    name: str = ""
    of: _Output | _Link | None = None
    what: str = ""
    use: _Use | None = None


@dataclass(frozen=True, slots=True)
class _Link:
    """The name of a layer, which may be one that comes later.

    Attributes
    ----------
    name : str
    names : mapping
        Those that it may be.
    block : str
        Where it stands; empty at the top, where all layers of blocks have names, too.
    node : YamlNode
    path : KeyPath
    """

    name: str
    names: Mapping[str, _Output]
    block: str
    node: YamlNode
    path: KeyPath


_Again = tuple[str, str, Span | None]

_Named = tuple[_Output, Span | None]
"""An output, and where a layer names it."""


@dataclass(frozen=True, slots=True)
class _Argument:
    """The value of a parameter, and the names that may stand in it."""

    node: YamlNode
    names: Mapping[str, _Output]


@dataclass(frozen=True, slots=True)
class _Scope:
    """Where a list of layers stands: at the top, or in one use of a block.

    Attributes
    ----------
    path : KeyPath
        Of the list.
    block : str
        Empty at the top.
    values : mapping
        Of the parameters.
    names : dict
        The outputs that `inputs` may name.
    prefix : str
        Of the layers' names.
    used_at : Span or None
        The place of the use.
    around : tuple of str
        The blocks that this use is in, its own included.
    again : (str, str, Span or None) or None
        In a use that shares the layers of another: the prefixes of the names of both, and where it says so.
    """

    path: KeyPath = ("model", "layers")
    block: str = ""
    values: Mapping[str, _Argument | _Output] = field(default_factory=dict[str, "_Argument | _Output"])
    names: dict[str, _Output] = field(default_factory=dict[str, _Output])
    prefix: str = ""
    used_at: Span | None = None
    around: tuple[str, ...] = ()
    again: _Again | None = None


@dataclass(frozen=True, slots=True)
class _Use:
    """A use of a block that has been expanded.

    Attributes
    ----------
    item : YamlMapping
    scope : _Scope
        Where it stands.
    prefix : str
        Of its layers' names.
    """

    item: YamlMapping
    scope: _Scope
    prefix: str


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer at its place, its links not yet followed.

    Attributes
    ----------
    links : dict of str to list of _Link
        By the key that they stand under.
    """

    node: YamlNode
    output: _Output
    before: _Output
    links: Mapping[str, list[_Named]]


class _Expander:
    def __init__(self, problems: list[Problem]) -> None:
        self._problems = problems
        self._blocks: dict[str, Block] = {}
        self._used: set[str] = set()
        self._flat: list[_Layer] = []
        self._open: list[YamlMapping] = []  # the uses that are being expanded, each within the one before
        self._count = 0
        self._wrong = False
        self._path: KeyPath = ()

    def unused(self) -> tuple[str, ...]:
        return tuple(name for name in self._blocks if name not in self._used)

    def define(self, node: YamlNode) -> None:
        """Read `model.blocks`."""

        def complain(message: str, node: YamlNode, path: KeyPath) -> None:
            self._path = path
            self._complain(message, node)

        self._blocks = read_blocks(node, complain)
        if self._wrong or isinstance(node, InvalidNode):
            raise _Unusable

    def expand(self, items: Sequence[YamlNode]) -> list[YamlNode]:
        """Return the layers that a list with blocks in it stands for."""
        image = _Output(IMAGE)
        self._list(items, _Scope(names={IMAGE: image}), image)
        if not self._flat and not self._wrong:
            self._complain("expected a list of layers, but all are left out", items[0])
        by_name = {layer.output.name: layer.output for layer in self._flat}
        before = IMAGE
        for layer in self._flat:
            self._connect(layer, before, by_name)
            before = layer.output.name
        if self._wrong:
            raise _Unusable
        return [layer.node for layer in self._flat]

    def _list(self, items: Sequence[YamlNode], scope: _Scope, before: _Output) -> _Output:
        """Add the layers of a list; return the last output."""
        names = layer_names(items)
        outputs = [_Output() for _ in items]
        for name, output in zip(names, outputs, strict=True):
            scope.names.setdefault(name, output)
        for k, (item, name, output) in enumerate(zip(items, names, outputs, strict=True)):
            self._path = (*scope.path, k)
            if self._is_left_out(item, scope):
                output.of = next((output for output, _ in self._links(item, "inputs", scope)), before)
                output.what = "is left out here"
            elif isinstance(item, YamlMapping) and uses_block(item):
                self._start(item, scope, before, output)
                self._use(item, name, scope, output, _Use(item, scope, f"{scope.prefix}{name}_"), scope.again)
            elif isinstance(item, YamlMapping) and (use := self._shared_use(item, scope)):
                self._start(item, scope, before, output)
                self._use_again(item, name, scope, output, use)
            else:
                self._layer(item, name, scope, before, output)
            before = output
        return before

    def _is_left_out(self, item: YamlNode, scope: _Scope) -> bool:
        entry = item.entries.get("when") if isinstance(item, YamlMapping) and scope.block else None
        if entry is None:
            return False
        node = self._value(entry.node, scope)
        if isinstance(node, YamlScalar) and isinstance(node.value, bool):
            return not node.value
        self._complain(f"when: expected true or false, got {show(node)}", node)
        return False

    def _layer(self, item: YamlNode, name: str, scope: _Scope, before: _Output, output: _Output) -> None:
        """Add a layer, under its final name."""
        output.name = scope.prefix + name
        links = {key: found for key in _REFERENCES if (found := self._links(item, key, scope))}
        if isinstance(item, YamlMapping):
            left_out = {*links, "when"} if scope.block else {*links}
            item = YamlMapping({k: e for k, e in item.entries.items() if k not in left_out}, item.span)
        node = self._value(item, scope) if scope.block else copy(item)
        if isinstance(node, YamlScalar):
            node = YamlMapping({"type": YamlEntry(None, node)}, node.span)
        if isinstance(node, YamlMapping):
            given = node.entries.get("name")
            if given is None or (isinstance(given.node, YamlScalar) and isinstance(given.node.value, str)):
                at = given.node.span if given else node.span
                node.entries["name"] = YamlEntry(at, YamlScalar(output.name, at))
        if scope.again and isinstance(node, YamlMapping):
            own, shared, place = scope.again
            owner = YamlScalar(shared + output.name.removeprefix(own), place)
            node = YamlMapping({"share": YamlEntry(place, owner), "name": node.entries["name"]}, place)
            links = {key: found for key, found in links.items() if key == "inputs"}
        self._spend(1 + sum(1 for _ in scalars(node)), node)
        self._flat.append(_Layer(node, output, before, links))

    def _start(self, item: YamlMapping, scope: _Scope, before: _Output, output: _Output) -> None:
        """Let a use's output be that which it begins with."""
        output.of, output.what = before, "is a use of a block"
        if "inputs" in item.entries:
            links = self._links(item, "inputs", scope)
            if len(links) == 1:
                output.of = links[0][0]
            else:
                message = "inputs: a block takes a list of one layer; other layers can be the values of parameters"
                self._complain(message, self._value(item.entries["inputs"].node, scope))

    def _shared_use(self, item: YamlMapping, scope: _Scope) -> _Use | None:
        """Return the use of a block that an item shares, if it does."""
        for output, _ in self._links(item, "share", scope) if shares_layer(item) else ():
            found = output.of.names.get(output.of.name) if isinstance(output.of, _Link) else None
            if found and found.use and all(found.use.item is not item for item in self._open):
                return found.use
        return None

    def _use_again(self, item: YamlMapping, name: str, scope: _Scope, output: _Output, use: _Use) -> None:
        """Add the layers of a use once more, each of which shares the one that it is."""
        known = [*SHARE_KEYS, *(["when"] if scope.block else [])]
        for key, entry in item.entries.items():
            if key not in known:
                message = f"unknown key '{key}' of a share{suggestion(key, known)}; all else is the block's"
                self._complain(message, YamlScalar(key, self._placed(entry.key or entry.node.span, scope)))
        prefix, place = f"{scope.prefix}{name}_", self._placed(item.entries["share"].node.span, scope)
        self._use(use.item, name, scope, output, _Use(use.item, use.scope, prefix), (prefix, use.prefix, place))

    def _use(
        self,
        item: YamlMapping,
        name: str,
        at: _Scope,
        output: _Output,
        use: _Use,
        again: _Again | None,
    ) -> None:
        """Add the layers of a block, as often as it is repeated, behind what `output` stands for.

        Parameters
        ----------
        name : str
            Of the use, which stands `at` a place; what its item says is said in `use.scope`.
        """
        scope = use.scope
        word = self._value(item.entries["block"].node, scope)
        used_at = self._placed(item.entries["block"].node.span, scope)
        if not isinstance(word, YamlScalar) or not isinstance(word.value, str):
            self._complain(f"block: expected the name of a block, got {show(word)}", word)
            return
        block = self._blocks.get(word.value)
        if block is None:
            known = [*self._blocks]
            hint = suggestion(word.value, known) if known else ": there is no model.blocks"
            self._complain(f"unknown block '{word.value}'{hint}", word)
            return
        self._used.add(word.value)
        around = (*scope.around, word.value)
        if word.value in scope.around:
            self._stop(f"a block cannot use itself: {' → '.join(around)}", word)
        if len(around) > DEEPEST or len(self._open) > DEEPEST:
            self._stop(f"blocks nested more than {DEEPEST} deep", word)
        first = self._first(item, scope)
        self._check_keys(word.value, item, first, block, scope)
        self._open.append(use.item)
        path = self._path
        for index in self._repetitions(item, scope):
            self._path = path
            self._spend(1, word)
            own = f"{name}_{index}" if index else name
            names: dict[str, _Output] = {IMAGE: _Output(IMAGE)}
            arguments = {**item.entries, **(first if index == 1 else {})}
            values = self._arguments(YamlScalar(word.value, used_at), block, arguments, index, scope, names)
            inner = _Scope(
                path=("model", "blocks", word.value, "layers"),
                block=word.value,
                values={**values, INPUT: _Output(of=output.of)},
                names=names,
                prefix=f"{at.prefix}{own}_",
                used_at=used_at,
                around=around,
                again=again,
            )
            output.of = self._list(block.layers, inner, _Output(of=output.of))
            if index:
                at.names.setdefault(own, _Output(of=output.of, what="is a repetition of a block"))
        output.use = use
        self._open.pop()

    def _check_keys(
        self, name: str, item: YamlMapping, first: Mapping[str, YamlEntry], block: Block, scope: _Scope
    ) -> None:
        known = [*block.parameters, *USE_KEYS, *(["when"] if scope.block else [])]
        for entries, keys in ((item.entries, known), (first, [*block.parameters])):
            for key, entry in entries.items():
                if key not in keys:
                    place = YamlScalar(key, self._placed(entry.key or entry.node.span, scope))
                    self._complain(f"unknown key '{key}' of block {name}{suggestion(key, keys)}", place)

    def _first(self, item: YamlMapping, scope: _Scope) -> Mapping[str, YamlEntry]:
        """Return the arguments of the first repetition that differ from those of the others."""
        entry = item.entries.get("first")
        if entry is None:
            return {}
        if "repeat" not in item.entries:
            place = YamlScalar("first", self._placed(entry.key, scope))
            self._complain("first: there is only one, as there is no repeat", place)
        if isinstance(entry.node, YamlMapping):
            return entry.node.entries
        node = self._value(entry.node, scope)
        self._complain(f"first: expected a mapping of parameters, got {show(node)}", node)
        return {}

    def _repetitions(self, item: YamlMapping, scope: _Scope) -> Iterator[int]:
        """Yield the numbers of the repetitions from 1, or a single 0 where the use is not repeated."""
        if "repeat" not in item.entries:
            yield 0
            return
        node = self._value(item.entries["repeat"].node, scope)
        count = node.value if isinstance(node, YamlScalar) else None
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            self._complain(f"repeat: expected an integer, 0 or more, got {show(node)}", node)
        else:
            yield from range(1, count + 1)

    def _arguments(
        self,
        word: YamlScalar,
        block: Block,
        given: Mapping[str, YamlEntry],
        index: int,
        scope: _Scope,
        names: Mapping[str, _Output],
    ) -> dict[str, _Argument | _Output]:
        """Return the values of a block's parameters; defaults may name the block's own layers."""
        values: dict[str, _Argument | _Output] = {}
        if index:
            scope = replace(scope, values={**scope.values, INDEX: _Argument(YamlScalar(index), {})})
        for parameter, default in block.parameters.items():
            if entry := given.get(parameter):
                values[parameter] = self._argument(entry.node, scope)
            elif default is not None:
                values[parameter] = _Argument(_moved(default, word.span), names)
            else:
                self._complain(f"missing parameter '{parameter}' of block {word.value}", word)
                values[parameter] = _Argument(InvalidNode(), {})
        return values

    def _argument(self, node: YamlNode, scope: _Scope) -> _Argument | _Output:
        """Return what a parameter gets: a value, or the output that `$input` stands for."""
        given = scope.values.get(_alone(node))
        if isinstance(given, _Output):
            return given
        return _Argument(self._value(node, scope), given.names if given else scope.names)

    # Values

    def _value(self, node: YamlNode, scope: _Scope) -> YamlNode:
        """Return a copy of a node, its place that of this use, with the values of its expressions."""
        place = self._placed(node.span, scope)
        if isinstance(node, YamlList):
            return YamlList([self._value(item, scope) for item in node.items], place)
        if isinstance(node, YamlMapping):
            entries = {
                key: YamlEntry(self._placed(entry.key, scope), self._value(entry.node, scope))
                for key, entry in node.entries.items()
            }
            return YamlMapping(entries, place)
        if isinstance(node, YamlScalar) and is_expression(node.value):
            return self._computed(str(node.value), YamlScalar(node.value, place), scope)
        return replace(node, span=place)

    def _computed(self, text: str, node: YamlScalar, scope: _Scope) -> YamlNode:
        """Return the value of an expression; one that is a parameter alone keeps the place where it was given."""
        given = scope.values.get(_alone(node))
        if isinstance(given, _Argument):
            used_at = replace(node.span, via=None) if node.span else None
            return _moved(given.node, used_at) if given.node.span else replace(given.node, span=node.span)
        broken = False

        def number(parameter: str) -> Number:
            nonlocal broken
            given = scope.values.get(parameter)
            value = given.node.value if isinstance(given, _Argument) and isinstance(given.node, YamlScalar) else None
            if isinstance(value, int | float) and not isinstance(value, bool):
                return value
            if not isinstance(given, _Argument):
                raise ExpressionError(_no_number(parameter, given))
            if not isinstance(given.node, InvalidNode):
                used_at = replace(node.span, via=None) if node.span else None
                message = f"{parameter}: expected a number, as the block computes with it, got {show(given.node)}"
                self._complain(message, _moved(given.node, used_at))
            broken = True
            return 1

        try:
            value = evaluate(text, number)
        except ExpressionError as error:
            self._complain(str(error), node)
            return InvalidNode(node.span)
        return InvalidNode(node.span) if broken else YamlScalar(value, node.span)

    def _placed(self, span: Span | None, scope: _Scope) -> Span | None:
        return replace(span, via=scope.used_at) if span and scope.block else span

    # Names

    def _links(self, item: YamlNode, key: str, scope: _Scope) -> list[_Named]:
        """Return the outputs that a layer's names stand for; none where they are not names, or not given."""
        entry = item.entries.get(key) if isinstance(item, YamlMapping) else None
        if entry is None:
            return []
        node: YamlNode = entry.node
        names: Mapping[str, _Output] = scope.names
        given = scope.values.get(_alone(node))
        if isinstance(given, _Argument):
            node, names = given.node, given.names
        items = [node] if key == "share" else node.items if isinstance(node, YamlList) else []
        found = [self._link(item, names, scope) for item in items]
        return [] if None in found else [named for named in found if named]

    def _link(self, node: YamlNode, names: Mapping[str, _Output], scope: _Scope) -> _Named | None:
        given = scope.values.get(_alone(node))
        if isinstance(given, _Output):
            return given, self._placed(node.span, scope)
        value = self._value(node, scope)
        if not isinstance(value, YamlScalar) or not isinstance(value.value, str):
            return None
        if isinstance(given, _Argument):
            names = given.names
        block = scope.block if names is scope.names else ""
        return _Output(of=_Link(value.value, names, block, value, self._path)), value.span

    def _connect(self, layer: _Layer, before: str, by_name: Mapping[str, _Output]) -> None:
        """Write a layer's inputs under their final names, where they are not just the layer before."""
        node = layer.node
        if not isinstance(node, YamlMapping):
            return
        if "inputs" not in node.entries and "inputs" not in layer.links:
            name = self._final(layer.before, by_name, node)
            if name not in (before, None):
                node.entries["inputs"] = YamlEntry(node.span, YamlList([YamlScalar(name, node.span)], node.span))
        for key, links in layer.links.items():
            if key == "share":
                ((output, span),) = links
                node.entries[key] = YamlEntry(span, YamlScalar(self._owner(output, by_name, layer), span))
                continue
            items: list[YamlNode] = [YamlScalar(self._final(output, by_name, node), span) for output, span in links]
            node.entries[key] = YamlEntry(links[0][1], YamlList(items, links[0][1]))

    def _final(self, output: _Output, by_name: Mapping[str, _Output], node: YamlNode) -> str | None:
        """Return the name of the layer that an output is of, once all are known."""
        met: set[int] = set()
        while output.of is not None:
            if id(output) in met:
                self._complain("these layers stand for each other in a circle", node)
                return None
            met.add(id(output))
            following = output.of
            if isinstance(following, _Link):
                found = self._found(following, by_name)
                if found is None:
                    return None
                following = found
            output = following
        return output.name

    def _owner(self, output: _Output, by_name: Mapping[str, _Output], layer: _Layer) -> str | None:
        """Return the name of a layer that another shares: nothing can stand for it, as for an output."""
        link = output.of
        if not isinstance(link, _Link):
            self._complain(f"share: expected the name of a layer, not ${INPUT}, which is an output", layer.node)
            return None
        found = self._found(link, by_name, layer.output)
        if found is None:
            return None
        if found.of is not None:
            self._path = link.path
            why = f"{found.what}: share names a layer, or a whole use of a block"
            why = "does not stand above: share what does" if found.use else why
            self._complain(f"'{link.name}' {why}", link.node)
            return None
        return found.name

    def _found(self, link: _Link, by_name: Mapping[str, _Output], but: _Output | None = None) -> _Output | None:
        """Return what a name means; complain where it means nothing, and suggest all `but` one."""
        found = link.names.get(link.name) or (None if link.block else by_name.get(link.name))
        if found is None:
            known = [name for name, one in {**link.names, **({} if link.block else by_name)}.items() if one is not but]
            where = f" in block {link.block}" if link.block else ""
            self._path = link.path
            self._complain(f"unknown layer '{link.name}'{where}{suggestion(link.name, known)}", link.node)
        return found

    # Problems

    def _spend(self, count: int, node: YamlNode) -> None:
        self._count += count
        if self._count > MOST_NODES:
            self._stop(f"the blocks come to more than {MOST_NODES:,} values", node)

    def _complain(self, message: str, node: YamlNode) -> None:
        self._wrong = True
        problem = Problem(message, self._path, node.span)
        if problem not in self._problems:
            self._problems.append(problem)
        if len(self._problems) > MOST_PROBLEMS:
            raise ConfigError(self._problems)

    def _stop(self, message: str, node: YamlNode) -> NoReturn:
        self._complain(message, node)
        raise _Unusable


def _alone(node: YamlNode) -> str:
    """Return the parameter that a node consists of, or nothing."""
    return (parameter_alone(node.value) or "") if isinstance(node, YamlScalar) and isinstance(node.value, str) else ""


def _no_number(parameter: str, given: _Output | None) -> str:
    if isinstance(given, _Output):
        return f"${parameter} is a layer: it stands in a list of inputs, or is the whole value of a parameter"
    if given is None and parameter == INDEX:
        return f"${INDEX} counts the repetitions of a block: it stands in the parameters of one with repeat"
    return f"unknown parameter '${parameter}': parameters are known inside a block"


def _moved(node: YamlNode, used_at: Span | None) -> YamlNode:
    """Return a copy whose places say where it is used."""

    def at(span: Span | None) -> Span | None:
        return replace(span, via=used_at) if span else None

    if isinstance(node, YamlList):
        return YamlList([_moved(item, used_at) for item in node.items], at(node.span))
    if isinstance(node, YamlMapping):
        entries = {key: YamlEntry(at(e.key), _moved(e.node, used_at)) for key, e in node.entries.items()}
        return YamlMapping(entries, at(node.span))
    return replace(node, span=at(node.span))
