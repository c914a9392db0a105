"""See and trust how a convolutional network learns: a CNN from one YAML file, in NumPy.

The names below load on first use, so that importing the package costs next to nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as from typing, which would take most of the time of `import cnnbp_cli`
if TYPE_CHECKING:
    from typing import Any

    from cnnbp_cli.analysis.summary import Summary as Summary
    from cnnbp_cli.analysis.summary import summary as summary
    from cnnbp_cli.config.custom_layers import load_layers as load_layers
    from cnnbp_cli.core.layers import register as register
    from cnnbp_cli.data.dataset import Dataset as Dataset
    from cnnbp_cli.diagnosis import Diagnosis as Diagnosis
    from cnnbp_cli.diagnosis import Finding as Finding
    from cnnbp_cli.diagnosis import diagnose as diagnose
    from cnnbp_cli.diagnosis import diagnose_model as diagnose_model
    from cnnbp_cli.exports.export import export as export
    from cnnbp_cli.gradient_check.check import GradcheckReport as GradcheckReport
    from cnnbp_cli.gradient_check.check import gradcheck as gradcheck
    from cnnbp_cli.loading import load as load
    from cnnbp_cli.loading import load_data as load_data
    from cnnbp_cli.model import Model as Model
    from cnnbp_cli.tracing.trace import Trace as Trace
    from cnnbp_cli.tracing.trace import trace as trace
    from cnnbp_cli.train.evaluate import Evaluation as Evaluation
    from cnnbp_cli.train.evaluate import evaluate as evaluate
    from cnnbp_cli.train.fit import fit as fit

__version__ = "0.2.0"

_HOME = {
    "Dataset": "data.dataset",
    "Diagnosis": "diagnosis",
    "Evaluation": "train.evaluate",
    "Finding": "diagnosis",
    "GradcheckReport": "gradient_check.check",
    "Model": "model",
    "Summary": "analysis.summary",
    "Trace": "tracing.trace",
    "diagnose": "diagnosis",
    "diagnose_model": "diagnosis",
    "evaluate": "train.evaluate",
    "export": "exports.export",
    "fit": "train.fit",
    "gradcheck": "gradient_check.check",
    "load": "loading",
    "load_data": "loading",
    "load_layers": "config.custom_layers",
    "register": "core.layers",
    "summary": "analysis.summary",
    "trace": "tracing.trace",
}

__all__ = ["__version__", *_HOME]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
