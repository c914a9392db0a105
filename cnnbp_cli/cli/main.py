"""The entry point of `cnnbp`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        from cnnbp_cli.cli.app import app

        if "_CNNBP_COMPLETE" in os.environ:  # a script of `cnnbp completion` asks
            from typer.completion import completion_init  # type: ignore[attr-defined]

            completion_init()
            os.environ["COLUMNS"] = "1000"  # a description is one line of the answer
        app(prog_name="cnnbp")
    except KeyboardInterrupt:  # while the program was still being imported
        sys.exit(130)
