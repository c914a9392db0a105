"""What was measured on images that stay in their file, kept beside a run: nobody reads 8 GB twice to learn the same.

A record is found again by the file's path, size and time of change, and by which of its rows are meant.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from cnnbp_cli.data.file_rows import FileRows, Images
from cnnbp_cli.files import replacing

Measured = dict[str, Any]


class Kept:
    """Records of measurements, by the rows that they were made on; empty where the file has none, or is damaged.

    Parameters
    ----------
    path : Path, optional
        Where an earlier run has kept its own.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._records: list[tuple[Any, Measured]] = []
        if path is not None:
            with suppress(OSError, ValueError, LookupError, TypeError):
                found = json.loads(path.read_text(encoding="utf-8"))
                self._records = [(record["images"], dict(record["measured"])) for record in found]

    def get(self, images: Images, what: str) -> Any:
        """Return what was measured on images in a file; None for others, and where nothing was."""
        if not isinstance(images, FileRows):
            return None
        return self._of(images).get(what)

    def put(self, images: Images, what: str, value: Any) -> None:
        """Keep a measurement on images in a file, which JSON can hold; on others, do nothing."""
        if isinstance(images, FileRows):
            self._of(images)[what] = value

    def write(self, path: Path) -> None:
        """Write the records, if there are any."""
        if self._records:
            records = [{"images": images, "measured": measured} for images, measured in self._records]
            with replacing(path) as file:
                file.write(json.dumps(records, indent=1).encode())

    def _of(self, images: FileRows) -> Measured:
        identity = images.identity()
        for known, measured in self._records:
            if known == identity:
                return measured
        self._records.append((identity, {}))
        return self._records[-1][1]
