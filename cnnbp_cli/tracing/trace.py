"""`cnnbp.trace`: a pass with the documents and the page that show it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cnnbp_cli.tracing.cells import Cell
from cnnbp_cli.tracing.document import cell_document, trace_document
from cnnbp_cli.tracing.traced_pass import TracedPass


class Trace(TracedPass):
    """A pass that has been run: its numbers, their terms and readers (see `TracedPass`), and its documents."""

    def document(self, layers: Sequence[str] = ()) -> dict[str, Any]:
        """Return the whole trace as plain values; see `document.trace_document`."""
        return trace_document(self, layers)

    def cell_document(self, cell: str | Cell, of: str = "gradient", top: int | None = 10) -> dict[str, Any]:
        """Return one cell's explanation as plain values; see `document.cell_document`."""
        return cell_document(self, self.cell(cell), of, top)

    def to_json(self, layers: Sequence[str] = ()) -> str:
        """Return `document` as JSON."""
        return json.dumps(self.document(layers), allow_nan=False)

    def to_html(self, **options: Any) -> str:
        """Return the page that shows the trace, one file that loads nothing; `options` go to `payload.page_payload`."""
        from cnnbp_cli.tracing.html import page
        from cnnbp_cli.tracing.payload import page_payload

        return page(page_payload(self, **options))

    def _repr_html_(self) -> str:
        """Return the page in a frame, as a notebook shows it."""
        from html import escape

        style = "width: 100%; height: 720px; border: 0"
        return f'<iframe sandbox="allow-scripts" style="{style}" srcdoc="{escape(self.to_html())}"></iframe>'


trace = Trace.of
"""Run one pass, to ask about every number in it; see `TracedPass.of`."""
