"""Overrides that have an option of their own; in a file of its own, as the command line starts with it."""

from __future__ import annotations


class Shortcut(str):
    """``KEY=VALUE``, typed as a short option with the value alone: ``--lr 0.1``.

    Attributes
    ----------
    option : str
        As it was typed: ``--lr`` or ``--learning-rate``.
    """

    __slots__ = ("option",)

    option: str

    def __new__(cls, text: str, option: str) -> Shortcut:
        self = super().__new__(cls, text)
        self.option = option
        return self

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        """Return what to make it of again: a config that was typed so reaches other processes."""
        return str(self), self.option
