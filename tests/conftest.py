"""What all tests share: this folder as a place to import `laws` and `oracles` from, and draws that repeat."""

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from cnnbp_cli.core.layers import LAYERS, register

sys.path.append(str(Path(__file__).parent))

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# A background job ignores Ctrl-C, and one that outlives its terminal ignores the hang-up; so would the programs
# that tests start in order to interrupt them.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)


@pytest.fixture(autouse=True)
def registered() -> Iterator[Callable[[type], None]]:
    """Register layers until the end of the test, whichever way: every test begins with those of the package."""
    before = dict(LAYERS)
    yield register
    LAYERS.clear()
    LAYERS.update(before)
