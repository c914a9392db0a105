"""Does the proof see a fault? Seed faults into the sources, one at a time, and let the zoo judge.

A mutant replaces one snippet of one function. Everything of `cnnbp_cli` is then imported anew with the
faulty source, and every network of the zoo is judged until one of them complains: the mutant is killed. A
snippet that is not found exactly once is an error, so that a refactoring cannot empty the campaign silently.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

from proof.judge import complaint
from proof.zoo import ZOO, Inhabitant

PACKAGE = Path(__file__).parents[2] / "cnnbp_cli"


class LostSnippetError(AssertionError):
    """A mutant's snippet does not stand exactly once in its function."""


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes
    ----------
    file : str
        Below `cnnbp_cli`.
    where : str
        The function, as ``Class.method``; empty for the whole file.
    old, new : str
        The snippet, which stands there once, and the fault in its place.
    fault : str
        What it is, in words.
    survives : str
        Why no network can show it; empty for a fault that must be seen.
    """

    file: str
    where: str
    old: str
    new: str
    fault: str
    survives: str = ""

    @property
    def module(self) -> str:
        return "cnnbp_cli." + self.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def __str__(self) -> str:
        return f"{self.module.rpartition('.')[2]} {self.where}: {self.fault}"

    def source(self) -> str:
        """Return the file's text with the fault in it.

        Raises
        ------
        LostSnippetError
            When the function is missing, or the snippet does not stand in it exactly once.
        """
        text = (PACKAGE / self.file).read_text("utf-8")
        lines = text.splitlines(keepends=True)
        first, last = _extent(ast.parse(text), self.where, len(lines))
        inside = "".join(lines[first:last])
        if inside.count(self.old) != 1:
            raise LostSnippetError(f"{self}: {self.old!r} stands there {inside.count(self.old)} times")
        return "".join(lines[:first]) + inside.replace(self.old, self.new) + "".join(lines[last:])


def _extent(tree: ast.AST, where: str, lines: int) -> tuple[int, int]:
    """Return the lines of a function as a range that starts at 0."""
    at: Any = tree
    for name in filter(None, where.split(".")):
        at = next((node for node in at.body if getattr(node, "name", "") == name), None)
        if at is None:
            raise LostSnippetError(f"there is no {where}")
    return (at.lineno - 1, at.end_lineno) if where else (0, lines)


class _FaultyLoader(SourceFileLoader):
    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self.source = source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, self.path, "exec", dont_inherit=True)


class _FaultyFinder(MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self.mutant, self.text = mutant, mutant.source()
        self.was_asked = False

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        if fullname != self.mutant.module:
            return None
        self.was_asked = True
        file = PACKAGE / self.mutant.file
        package = [str(file.parent)] if file.name == "__init__.py" else None
        loader = _FaultyLoader(fullname, str(file), self.text)
        return importlib.util.spec_from_file_location(fullname, file, loader=loader, submodule_search_locations=package)


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Let imports of `cnnbp_cli` find the fault, and put everything back in the end.

    Raises
    ------
    AssertionError
        When nothing has imported the faulty module: what was judged was the right one.
    """
    finder = _FaultyFinder(mutant)
    before = _take_out()
    sys.meta_path.insert(0, finder)
    try:
        yield
        assert finder.was_asked, f"{mutant}: nothing imports {mutant.module}"
    finally:
        sys.meta_path.remove(finder)
        _take_out()
        sys.modules.update(before)


def _take_out() -> dict[str, Any]:
    """Forget the package's modules, and return them."""
    names = [name for name in sys.modules if name.partition(".")[0] == "cnnbp_cli"]
    return {name: sys.modules.pop(name) for name in names}


def verdict(mutant: Mutant) -> str | None:
    """Return what complains about a mutant first, or None when it survives the whole zoo."""
    with planted(mutant):
        return first_complaint(lambda inhabitant: not _concerns(mutant, inhabitant))


def _concerns(mutant: Mutant, inhabitant: Inhabitant) -> bool:
    """Tell whether a network has much to do with the faulty function, to begin with such networks."""
    named = mutant.where.partition(".")[0].lower()
    trains = mutant.file.startswith(("train/", "parallel/")) or "optim" in mutant.file
    return named in {kind.replace("_", "") for kind in inhabitant.types} or (inhabitant.steps and trains)


def first_complaint(
    order: Callable[[Inhabitant], Any] = lambda inhabitant: 0,
    only: Callable[[Inhabitant], bool] = lambda inhabitant: True,
) -> str | None:
    """Judge networks of the zoo in some order; return the first complaint with the network's name, or None."""
    for name, inhabitant in sorted(ZOO.items(), key=lambda item: order(item[1])):
        if only(inhabitant):
            try:
                found = complaint(inhabitant)
            except (ImportError, NameError, SyntaxError):
                raise  # not a fault, but a source that does not run
            except Exception as error:  # whatever a fault breaks, it does not pass unseen
                found = f"{type(error).__name__}: {error}"
            if found:
                return f"{name}: {found}"
    return None
