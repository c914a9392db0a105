"""Whether a config can be used, as a report: `cnnbp validate` goes on to the next file where others stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cnnbp_cli.analysis.summary import summary
from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.config.load import Override, load_config


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one config.

    Attributes
    ----------
    config : str
        As it was called.
    layers, parameters : int or None
        None when it is wrong.
    error : ConfigError or None
    """

    config: str
    layers: int | None
    parameters: int | None
    error: ConfigError | None

    @property
    def ok(self) -> bool:
        return self.error is None

    def to_dict(self) -> dict[str, Any]:
        problems = self.error.problems if self.error else []
        return {
            "config": self.config,
            "ok": self.ok,
            "layers": self.layers,
            "parameters": self.parameters,
            "problems": [
                {
                    "file": problem.file,
                    "line": problem.line,
                    "column": problem.column,
                    "message": f"{problem.label}: {problem.message}" if problem.label else problem.message,
                }
                for problem in problems
            ],
        }


def validate_config(config: str, overrides: Sequence[Override] = ()) -> Verdict:
    """Read a config and infer its shapes; nothing is allocated and no data are read."""
    try:
        found = summary(load_config(config, overrides))
    except ConfigError as error:
        return Verdict(config, None, None, error)
    return Verdict(config, len(found.layers), found.trainable_parameters, None)
