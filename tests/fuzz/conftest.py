"""The command line and a trained run, as in the tests of the commands."""

from cli.conftest import bars_run, cnnbp

__all__ = ["bars_run", "cnnbp"]
