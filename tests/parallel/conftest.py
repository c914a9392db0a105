"""What the tests of several workers share: a network with everything that workers have to agree on."""

from __future__ import annotations

import faulthandler
import gc
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator

import pytest
from parallel.config import CONFIG
from parallel.processes import shared_files, wait_until

from cnnbp_cli.build import build
from cnnbp_cli.config.load import parse_config
from cnnbp_cli.data.dataset import Dataset
from cnnbp_cli.loading import load_data
from cnnbp_cli.model import Model
from cnnbp_cli.parallel import local

LIMIT = 180 + 10 * int(os.environ.get("CRASH_KILLS", "0"))
"""Seconds before a test that hangs is ended, with a traceback of every thread; `make crash` takes longer."""


@pytest.fixture(autouse=True)
def hard_timeout() -> Iterator[None]:
    """End the whole test run where workers wait for each other for ever: nothing else could."""
    faulthandler.dump_traceback_later(LIMIT, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Every test leaves no process and no file of shared memory behind."""
    before = shared_files()
    yield
    assert multiprocessing.active_children() == []
    gc.collect()
    assert wait_until(lambda: shared_files() <= before, seconds=5)


@pytest.fixture(params=["fork", "spawn"])
def start_method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Start workers in this way, whatever the platform would choose."""
    if request.param not in multiprocessing.get_all_start_methods():
        pytest.skip(f"{request.param} is not to be had here")
    monkeypatch.setattr(local, "start_method", lambda: multiprocessing.get_context(request.param))
    return request.param


Setup = Callable[..., tuple[Model, Dataset]]


@pytest.fixture
def setup() -> Setup:
    """Return a function that builds the model and loads its data, given overrides."""

    def make(*overrides: str) -> tuple[Model, Dataset]:
        model = build(parse_config(CONFIG, overrides))
        return model, load_data(model)

    return make
