"""Many configs that are much alike, such as those of a sweep: a section that several share is read once."""

from __future__ import annotations

import re
from dataclasses import fields
from functools import lru_cache
from typing import Any

from cnnbp_cli.config.differences import flat
from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.config.load import parse_config, parse_section
from cnnbp_cli.config.schema import Config
from cnnbp_cli.config.write import plain, to_dict
from cnnbp_cli.core.types import FieldErrors

SECTIONS = frozenset(f.name for f in fields(Config) if f.compare)
_SECTION = re.compile(r"^(?=[a-z]+:)", re.MULTILINE)


class _NoSectionsError(Exception):
    """A text whose parts are no sections by themselves."""


def values_of(text: str) -> dict[str, Any]:
    """Return all values of a config by dotted keys: the same as `flat` of the config that `parse_config` returns.

    Raises
    ------
    ConfigError
        As `parse_config` does.
    """
    try:
        return _by_sections(text)
    except (_NoSectionsError, ConfigError, FieldErrors):  # what is wrong has its place in the whole text
        return dict(flat(to_dict(parse_config(text))))


def _by_sections(text: str) -> dict[str, Any]:
    """Return the values of a text that has each section, and each by itself, as that of a run does."""
    before, *parts = _SECTION.split(text)
    found = {part.partition(":")[0]: part for part in parts}
    if before.strip() or len(found) != len(parts) or found.keys() != SECTIONS:
        raise _NoSectionsError
    sections = {key: _section(part, key) for key, part in found.items()}
    config = Config(**{key: value for key, (value, _) in sections.items()})  # which compares them with each other
    values: dict[str, Any] = {}
    for key in (f.name for f in fields(Config) if f.compare):
        value, by_keys = sections[key]
        whole = getattr(config, key)
        values |= by_keys if whole == value else flat(plain(whole), (key,))
    return values


@lru_cache(maxsize=1024)
def _section(text: str, key: str) -> tuple[Any, dict[str, Any]]:
    """Return what a section says, and its values by dotted keys."""
    value = parse_section(text, key)
    return value, dict(flat(plain(value), (key,)))
