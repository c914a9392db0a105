"""What the data tests share: a config's `data` section."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest


@pytest.fixture
def data_config() -> Callable[..., SimpleNamespace]:
    """Return a builder of the config's `data` section, with the defaults of everything that is not given."""

    def build(source: str, **fields: object) -> SimpleNamespace:
        defaults = {
            "normalize": "standard",
            "validation": 0,
            "augment": None,
            "limit": None,
            "path": None,
            "test_path": None,
            "kind": "digits",
            "train": 100,
            "test": 40,
            "image": (1, 12, 12),
            "classes": 10,
        }
        return SimpleNamespace(source=source, **(defaults | fields))

    return build
