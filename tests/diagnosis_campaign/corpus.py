"""The two corpora as they lie on disk: what each file's first comment says, and the model and data it describes."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from zlib import crc32

import cnnbp_cli as cnnbp

TESTS = Path(__file__).parents[1]
FAULTS, HEALTHY, SHIPPED = TESTS / "faults", TESTS / "healthy", TESTS.parent / "configs"

HALVES = ("tuning", "test")
_NO_CASES = {"make_data.py"}
_KEY = re.compile(r"(expects|also-right|fixed-by|hazard|reaches): *(.+)")
_RULE = re.compile(r"([a-z]+(?:-[a-z]+)*)(?: \((.+)\))?")
_REACHES = re.compile(r"([0-9.]+) test (accuracy|loss) in (\d+) epochs?")

Pair = tuple["cnnbp.Model", "cnnbp.Dataset"]


class HeaderError(ValueError):
    """A file whose first comment does not say what it has to."""


@dataclass(frozen=True, slots=True)
class Case:
    """A file of a corpus.

    Attributes
    ----------
    path : Path
        A config, or a Python file with the functions `broken` and `fixed`.
    comment : str
        What a person sees.
    expects : str or None
        The rule that has to be found; None for a sound config.
    also_right : dict of str to str
        Rules that are as right as the first finding, each with the reason.
    fixed_by : tuple of str
        Overrides that take the fault away.
    hazard : str
        Why training looks well all the same; empty where the fault shows in the figures of a run.
    reaches : tuple of (float, str) or None
        What a sound config reaches at least, and whether that is an accuracy or (at most) a loss.
    """

    path: Path
    comment: str
    expects: str | None = None
    also_right: dict[str, str] | None = None
    fixed_by: tuple[str, ...] = ()
    hazard: str = ""
    reaches: tuple[float, str] | None = None

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def half(self) -> str:
        """The half that it belongs to: thresholds are chosen on the tuning half alone."""
        return HALVES[crc32(self.name.encode()) % 2]

    @property
    def right(self) -> tuple[str, ...]:
        """Every rule that is right as the first finding."""
        return (self.expects, *(self.also_right or ())) if self.expects else ()

    def broken(self) -> Pair:
        """Return the model and the data as they stand in the file."""
        return _module(self.path).broken() if self.path.suffix == ".py" else load(self.path)

    def fixed(self) -> Pair:
        """Return the model and the data without the fault."""
        return _module(self.path).fixed() if self.path.suffix == ".py" else load(self.path, self._overrides())

    def _overrides(self) -> list[str]:
        """Return `fixed_by` with paths that begin at the file's folder, as paths in the file do."""
        key = "data.path="
        return [f"{key}{self.path.parent / o.removeprefix(key)}" if o.startswith(key) else o for o in self.fixed_by]


def load(path: Path, overrides: Sequence[str] = ()) -> Pair:
    """Return a config's model, trained by one process, and its data."""
    model = cnnbp.load(path, [*overrides, "train.workers=1"])
    return model, cnnbp.load_data(model)


def faults() -> list[Case]:
    """Return every broken config, and the cases written in Python."""
    paths = sorted([*FAULTS.glob("*.yaml"), *FAULTS.glob("*.py")])
    return [read_case(path) for path in paths if path.name not in _NO_CASES]


def healthy() -> list[Case]:
    """Return every sound config; those that are shipped have no figure in their comment."""
    own = [read_case(path) for path in sorted(HEALTHY.glob("*.yaml"))]
    return own + [Case(path, "shipped") for path in sorted(SHIPPED.glob("*.yaml"))]


def read_case(path: Path) -> Case:
    """Read the comment at the top of a file.

    Raises
    ------
    HeaderError
        When a line is missing, is there twice, or cannot be read.
    """
    keys: dict[str, list[str]] = {}
    prose: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line.removeprefix("#").strip()
        if found := _KEY.fullmatch(text):
            keys.setdefault(found[1], []).append(found[2])
        elif text:
            prose.append(text)
    if not prose:
        raise HeaderError(f"{path.name}: the first comment does not say what a person sees")
    comment = " ".join(prose)
    if "reaches" in keys:
        return Case(path, comment, reaches=_read_reaches(path, keys["reaches"]))
    if len(keys.get("expects", ())) != 1:
        raise HeaderError(f"{path.name}: one line '# expects: RULE' or '# reaches: …' is needed")
    also = dict(_read_rule(path, text) for text in keys.get("also-right", ()))
    if not all(also.values()):
        raise HeaderError(f"{path.name}: also-right needs a reason: '# also-right: RULE (why)'")
    hazard = " ".join(keys.get("hazard", ()))
    fixed_by = tuple(override for text in keys.get("fixed-by", ()) for override in _each(text))
    if path.suffix == ".yaml" and not fixed_by and not hazard:
        raise HeaderError(f"{path.name}: neither '# fixed-by: KEY=VALUE' nor '# hazard: why'")
    expects, _ = _read_rule(path, keys["expects"][0])
    return Case(path, comment, expects, also, fixed_by, hazard)


def _each(override: str) -> list[str]:
    """Write out what a comment shortens, as a shell does: `block{1..8}.type=relu`, `layers.{2,4}=relu`."""
    key, _, value = override.partition("=")
    before, brace, rest = key.partition("{")
    if not brace:
        return [override]
    inner, _, after = rest.partition("}")
    first, dots, last = inner.partition("..")
    names = [str(k) for k in range(int(first), int(last) + 1)] if dots else inner.split(",")
    return [f"{before}{name}{after}={value}" for name in names]


def _read_rule(path: Path, text: str) -> tuple[str, str]:
    found = _RULE.fullmatch(text)
    if not found:
        raise HeaderError(f"{path.name}: {text!r} is no rule")
    return found[1], found[2] or ""


def _read_reaches(path: Path, lines: list[str]) -> tuple[float, str]:
    found = _REACHES.fullmatch(lines[0])
    if not found or len(lines) > 1:
        raise HeaderError(f"{path.name}: expected one line '# reaches: 0.95 test accuracy in 5 epochs'")
    return float(found[1]), found[2]


def _module(path: Path) -> ModuleType:
    name = f"faults_{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses and pickles look there
        spec.loader.exec_module(module)
    return sys.modules[name]
