"""How far something long is, for whoever listens: what does it prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple


class Reading(NamedTuple):
    """Pictures of one set are being read, or something else is being done piece by piece.

    Attributes
    ----------
    origin : str
        The source, for people.
    done, total : int
    what : str
        What is counted.
    """

    origin: str
    done: int
    total: int
    what: str = "pictures"


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
