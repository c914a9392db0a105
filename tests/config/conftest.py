"""What the tests of configs share: one small config that is right."""

from pathlib import Path

import pytest


@pytest.fixture
def good() -> str:
    return Path(__file__).with_name("good.yaml").read_text("utf-8")
