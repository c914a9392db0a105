"""Whether a config can be used, as a report: `cnnbp validate` goes on to the next file where others stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cnnbp_cli.build import build_graph, require_target
from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.config.load import Override, load_config
from cnnbp_cli.config.void import UNKNOWN, Counts, void_keys
from cnnbp_cli.core.parameters import Layout
from cnnbp_cli.data.dataset import DataError, check_labels
from cnnbp_cli.loading import load_data
from cnnbp_cli.model import class_count, classifies


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one config.

    Attributes
    ----------
    config : str
        As it was called.
    layers, parameters : int or None
        None when it is wrong.
    error : ConfigError or DataError, or None
    remarks : tuple of str
        What is no error, but should be known about the data.
    """

    config: str
    layers: int | None
    parameters: int | None
    error: ConfigError | DataError | None
    remarks: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.error is None

    def to_dict(self) -> dict[str, Any]:
        return {
            "config": self.config,
            "ok": self.ok,
            "layers": self.layers,
            "parameters": self.parameters,
            "problems": self._problems(),
            "remarks": list(self.remarks),
        }

    def _problems(self) -> list[dict[str, Any]]:
        if isinstance(self.error, DataError):
            return [{"file": None, "line": None, "column": None, "message": str(self.error), "used_at": []}]
        return [
            {
                "file": problem.file,
                "line": problem.line,
                "column": problem.column,
                "message": f"{problem.label}: {problem.message}" if problem.label else problem.message,
                "used_at": [
                    {"file": place.source.label, "line": place.line + 1, "column": place.column + 1}
                    for place in problem.used_at
                ],
            }
            for problem in (self.error.problems if self.error else ())
        ]


def validate_config(config: str, overrides: Sequence[Override] = (), *, with_data: bool = False) -> Verdict:
    """Read a config and infer its shapes; nothing is allocated.

    Parameters
    ----------
    config : str
        The path, or ``-``.
    overrides : sequence
        See `load_config`.
    with_data : bool
        Whether to read the data too, and to check that the network can learn it.
    """
    remarks: tuple[str, ...] = ()
    counts = UNKNOWN
    try:
        loaded = load_config(config, overrides)
        graph = build_graph(loaded)
        if with_data:
            require_target(loaded, graph)
            data = load_data(loaded)
            output = graph.shapes[graph.output]
            if classifies(loaded, output):
                check_labels(data, class_count(output))
            remarks = data.remarks
            counts = Counts(len(data.train), len(data.validation or ()), len(data.test or ()))
    except (ConfigError, DataError) as error:
        return Verdict(config, None, None, error)
    remarks += tuple(f"warning: {void}" for void in void_keys(loaded, counts))
    return Verdict(config, len(graph.nodes), Layout(graph).size, None, remarks)
