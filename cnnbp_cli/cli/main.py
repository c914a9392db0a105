"""The entry point of `cnnbp`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        from cnnbp_cli.cli.app import app

        app(prog_name="cnnbp")
    except KeyboardInterrupt:  # while the program was still being imported
        sys.exit(130)
