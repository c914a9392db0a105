"""Where configs differ, key by key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnnbp_cli.config.schema import Config
from cnnbp_cli.config.write import to_dict


@dataclass(frozen=True, slots=True)
class Difference:
    """A key of the config that is not the same in all of several.

    Attributes
    ----------
    key : str
        As after `--set`, such as ``model.layers.conv1.filters``.
    values : list
        One for each config; None where it has no such key, or null.
    """

    key: str
    values: list[Any]


def differences(configs: Sequence[Config]) -> list[Difference]:
    """Return the keys that differ, with the values of each config."""
    every = [dict(flat(to_dict(config))) for config in configs]
    known = {key for config in every for key in config}
    # A bare word stands for its type.
    every = [{f"{k}.type" if f"{k}.type" in known else k: v for k, v in config.items()} for config in every]
    keys = list(dict.fromkeys(key for config in every for key in config))
    sections = list(dict.fromkeys(key.rpartition(".")[0] for key in keys))
    keys.sort(key=lambda key: sections.index(key.rpartition(".")[0]))
    return [
        Difference(key, [config.get(key) for config in every])
        for key in keys
        if any(config.get(key) != every[0].get(key) for config in every)
    ]


def flat(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield a config's values by dotted keys, layers by their names, other lists of mappings by their indices."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from flat(part, (*path, key))
    elif isinstance(value, list) and value and all(isinstance(part, Mapping) and "name" in part for part in value):
        for part in value:
            yield from flat({key: inner for key, inner in part.items() if key != "name"}, (*path, part["name"]))
    elif isinstance(value, list) and value and all(isinstance(part, Mapping) for part in value):
        for k, part in enumerate(value):
            yield from flat(part, (*path, str(k)))
    else:
        yield ".".join(path), value
