"""How far a long read is, for whoever listens: the reader itself prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple


class Reading(NamedTuple):
    """Pictures of one set are being read.

    Attributes
    ----------
    origin : str
        The source, for people.
    done, total : int
    """

    origin: str
    done: int
    total: int


Listener = Callable[[Reading], None]

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call `listener` with the progress of what is read in the block."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(reading: Reading) -> None:
    """Tell the listener, if there is one."""
    if (listener := _listener.get()) is not None:
        listener(reading)
