"""What a word on the command line, or in a call from Python, names: a path, a template, a run, or the last run.

What lies on disk under the word itself always wins. Nothing here imports NumPy: shells complete such words.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from cnnbp_cli.config import templates

RUNS = Path("runs")
"""Where `cnnbp train` makes runs, and where a run may be called by its name alone."""

LAST = "last"
"""The word for the run under `RUNS` that something was recorded in last."""

EVENTS = "events.jsonl"
"""The file by which a run is known."""

DEEPEST = 4
"""How far below a folder runs are looked for."""

NEAR = 0.65
"""From which likeness on a name may be what was meant: 1 is the same."""

_YAML = (".yaml", ".yml")


def located(word: str | Path, *, template: bool = True) -> Path:
    """Return the path of the run or file that a word names; the word itself where there is none.

    Parameters
    ----------
    word : str or Path
    template : bool
        Whether the name of a template would do, which a run's name alone gives way to.
    """
    path, name = Path(word), str(word)
    if name == "-" or is_there(path) or (template and is_template(name)):
        return path
    if name == LAST:
        return last_run() or path
    return RUNS / name if path.name == name and is_run(RUNS / name) else path


def is_template(word: str) -> bool:
    """Tell whether a word is the name of a template, and of nothing on disk."""
    return word in templates.names() and not is_there(Path(word))


def is_run(path: Path) -> bool:
    """Tell whether a folder holds a run."""
    return os.path.exists(path / EVENTS)


def is_there(path: Path) -> bool:
    """Tell whether there is anything at a path, readable or not."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True  # the reader will say what is wrong with it
    return True


def runs_under(folder: Path, depth: int = DEEPEST) -> Iterator[Path]:
    """Yield the runs in a folder and in those below it, such as the folders of sweeps, by name; numbers count as such.

    The folder may itself be a run. Hidden folders are passed over.
    """
    if is_run(folder):
        yield folder
        return
    try:
        found = [entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")]
    except OSError:
        return
    if depth:
        for name in sorted(found, key=natural):
            yield from runs_under(folder / name, depth - 1)


def natural(name: str) -> list[tuple[int, str]]:
    """Return a key by which ``run-9`` comes before ``run-10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def last_run() -> Path | None:
    """Return the run under `RUNS` that something was recorded in last."""
    return max(runs_under(RUNS), key=_recorded_at, default=None)


def _recorded_at(run: Path) -> float:
    try:
        return (run / EVENTS).stat().st_mtime
    except OSError:
        return 0.0


def meant(word: str | Path, *, file: bool = True, template: bool = True, run: bool = True) -> str:
    """Return the end of a message about a word that names nothing: what was probably meant, if anything is near.

    Parameters
    ----------
    word : str or Path
    file, template, run : bool
        Whether a YAML file, a template, and a run would have done.
    """
    from difflib import SequenceMatcher

    path = Path(word)
    if run and str(word) == LAST:
        return f"; there is no run under {RUNS} yet"
    name = path.stem if path.suffix in _YAML else path.name
    if not name or len(name) > 100:
        return ""
    scores: dict[str, float] = {}
    for shown, other in _candidates(path, file=file, template=template, run=run):
        likeness = SequenceMatcher(None, name.lower(), other.lower()).ratio()
        scores[shown] = 0.8 if likeness < 0.8 and len(name) > 2 and name.lower() in other.lower() else likeness
    best = max(scores.values(), default=0.0)
    near = [shown for shown, score in scores.items() if score >= max(NEAR, best - 0.05)][:3]
    if near:
        return f", did you mean {' or '.join(near)}?"
    return "; `cnnbp init` lists the templates" if template and path.name == str(word) and not path.suffix else ""


def inside(folder: Path, *, file: bool = True, run: bool = True) -> str:
    """Return the end of a message about a folder that is none of a run: what in it would have done."""
    runs = runs_under(folder, 1) if run else ()
    files = folder.glob("*.yaml") if file else ()
    one = next((path for path in (*sorted(files), *runs) if path != folder), None)
    return f", such as '{one}'" if one else ""


def _candidates(path: Path, *, file: bool, template: bool, run: bool) -> Iterator[tuple[str, str]]:
    """Yield what there is, as a message names it, and by what name it is known."""
    if file:
        try:
            found = sorted(entry for entry in os.listdir(path.parent) if entry.endswith(_YAML))
        except (OSError, ValueError):
            found = []
        yield from ((f"'{path.parent / name}'", Path(name).stem) for name in found)
    if template:
        yield from ((f"the template '{name}'", name) for name in templates.names())
    if run:
        for folder in dict.fromkeys([RUNS, path.parent]):
            yield from ((f"'{found}'", found.name) for found in runs_under(folder, 1))
