"""Settings that change nothing, named on standard error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbp_cli.config.void import UNKNOWN, Counts, void_keys
from cnnbp_cli.report.terminal import note

if TYPE_CHECKING:
    from cnnbp_cli.config.schema import Config
    from cnnbp_cli.data.dataset import Dataset


def warn_of_void_keys(*configs: Config, data: Dataset | None = None) -> None:
    """Warn of the keys that have no effect in some config, each once; some show with the data alone."""
    counts = UNKNOWN
    if data is not None:
        counts = Counts(len(data.train), len(data.validation or ()), len(data.test or ()))
    for text in dict.fromkeys(str(void) for config in configs for void in void_keys(config, counts)):
        note(f"warning: {text}")
