"""Files that are either whole or not there: written beside their place, flushed to the disk and renamed."""

from __future__ import annotations

import os
from pathlib import Path

from cnnbp_cli.errors import UserError


class WriteError(UserError):
    """A file that cannot be written; what was there before is intact."""


def replace_file(path: Path, content: bytes) -> None:
    """Write `path`, or replace it at once.

    Raises
    ------
    WriteError
        When the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise WriteError(f"{path}: cannot be written: {error.strerror or error}") from None
