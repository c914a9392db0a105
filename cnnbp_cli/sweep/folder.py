"""The folder of a sweep: a run directory for each run, and `sweep.json`, which says what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cnnbp_cli.config.write import to_yaml
from cnnbp_cli.files import replacing, require_files
from cnnbp_cli.sweep.plan import Plan, SweepError
from cnnbp_cli.sweep.points import Values
from cnnbp_cli.train.run_directory import RunDirectory


class SweepFolder:
    """The folder of a sweep, with `sweep.json`: what it runs, so that nobody resumes something else.

    Parameters
    ----------
    path : Path
    plan : Plan
    resume : bool
        Go on with the sweep that the folder holds, if it does.

    Raises
    ------
    SweepError
        When the folder holds a sweep and it is not to be resumed, or is another one.
    """

    def __init__(self, path: Path, plan: Plan, *, resume: bool) -> None:
        self.path, self._plan = path, plan
        self._record = path / "sweep.json"
        self._sweep: dict[str, Any] = {
            "search": plan.search,
            "set": [part if isinstance(part, str) else part.text for part in plan.space.parts],
        }
        if plan.search != "grid":
            self._sweep |= {"samples": plan.count, "search_seed": plan.seed}
        if plan.search == "optuna":
            self._sweep["by"] = plan.by
        self.values: list[Values] = [] if plan.search == "optuna" else [point.values for point in plan.points]
        require_files([self._record], "a sweep", SweepError)
        if self._record.exists():
            if not resume:
                raise SweepError(
                    f"{path}: already contains a sweep; continue it with --resume, or choose another folder with --out"
                )
            self._match()
        elif RunDirectory(path).config.exists():
            raise SweepError(f"{path}: contains a single run; choose another folder with --out")

    def _match(self) -> None:
        try:
            found = json.loads(self._record.read_text(encoding="utf-8"))
            begun = [[*run["set"].values()] for run in found.pop("runs")]
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            raise SweepError(
                f"{self._record}: is not the record of a sweep; choose another folder with --out"
            ) from None
        for key in (*self._sweep, *found):
            if found.get(key) != self._sweep.get(key):
                was, now = (json.dumps(record.get(key)) for record in (found, self._sweep))
                raise SweepError(
                    f"{self.path}: contains another sweep: its {key} was {was}, now it is {now}; "
                    "give the same options, or choose another folder with --out"
                )
        if self._plan.search == "optuna":
            self.values = [tuple(values) for values in begun]
        elif begun != [[*values] for values in self.values]:
            raise SweepError(
                f"{self.path}: contains another sweep: its points differ; choose another folder with --out"
            )
        for number in range(len(self.values)):
            run = RunDirectory(self.run(number))
            run.require_files()
            config = run.config
            point = self._plan.point(self.values[number])
            if config.exists() and config.read_text(encoding="utf-8") != to_yaml(point.config):
                raise SweepError(
                    f"{self.run(number)}: was made by another config; "
                    "resume with the config it was made by, or choose another folder with --out"
                )

    def run(self, number: int) -> Path:
        """Return the folder of a run, by its number counted from 0."""
        return self.path / f"{number + 1:0{max(2, len(str(self._plan.count)))}}"

    def add(self, values: Values) -> None:
        """Add a run that a search came up with."""
        self.values.append(values)
        self.write()

    def write(self) -> None:
        """Write the record; what was there is replaced at once, or not at all.

        Raises
        ------
        SweepError
            When the folder cannot be written.
        """
        runs = [
            {"run": self.run(number).name, "set": self._plan.space.named(values)}
            for number, values in enumerate(self.values)
        ]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with replacing(self._record) as file:
                file.write(json.dumps(self._sweep | {"runs": runs}, indent=1).encode())
        except OSError as error:
            raise SweepError(f"{self.path}: the sweep cannot be written: {error.strerror or error}") from None
