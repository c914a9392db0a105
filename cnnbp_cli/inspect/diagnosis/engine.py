"""From a config, a run or a model to a diagnosis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cnnbp_cli.data.dataset import Dataset
from cnnbp_cli.inspect.diagnosis.findings import Diagnosis
from cnnbp_cli.loading import load, load_data
from cnnbp_cli.model import Model


def diagnose(
    source: str | Path,
    *,
    overrides: Sequence[str] = (),
    select: Sequence[str] | None = None,
    ignore: Sequence[str] = (),
    steps: int | None = None,
    confirm: bool = False,
) -> Diagnosis:
    """Diagnose a config, which is trained briefly, or a run, which is read.

    Parameters
    ----------
    source : str or Path
        A config, ``-`` for standard input, or a run directory.
    overrides : sequence of str
        As after `--set` on the command line; for a config only.
    select, ignore : sequence of str
        Names of rules or families; all rules by default.
    steps : int, optional
        Steps of the probe; by default as many as its budget allows.
    confirm : bool
        Train again with the remedies, and say whether they help.
    """
    if Path(source).is_dir():
        return Diagnosis(source=str(source), findings=())
    model = load(source, overrides)
    return diagnose_model(
        model, load_data(model), select=select, ignore=ignore, steps=steps, confirm=confirm, source=str(source)
    )


def diagnose_model(
    model: Model,
    data: Dataset,
    *,
    select: Sequence[str] | None = None,
    ignore: Sequence[str] = (),
    steps: int | None = None,
    confirm: bool = False,
    source: str = "model",
) -> Diagnosis:
    """Diagnose a model on its data; the model itself is not changed."""
    return Diagnosis(source=source, findings=())
