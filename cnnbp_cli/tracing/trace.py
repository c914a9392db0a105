"""`cnnbp.trace`: a pass with the documents and the page that show it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cnnbp_cli.core.types import Array
from cnnbp_cli.model import Model
from cnnbp_cli.tracing.cells import Cell
from cnnbp_cli.tracing.document import cell_document, trace_document
from cnnbp_cli.tracing.numbers import Mode
from cnnbp_cli.tracing.traced_pass import TracedPass
from cnnbp_cli.tracing.update import Update


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


def trace(
    model: Model,
    image: Array,
    label: Any = None,
    *,
    mode: Mode = "evaluation",
    shown: int = 0,
    split: str | None = None,
    index: int | None = None,
    exact: bool = False,
    update: Update | None = None,
) -> Trace:
    """Run one pass forward and backward, to ask about every number in it.

    Parameters
    ----------
    model : Model
    image : Array, shape (C, H, W) or (N, C, H, W)
        One image or a batch; (H, W) will do for one channel. Integers are raw pixels, floats are normalized already.
    label : int or array, optional
        The label, or one for each image; none where the target is the image. A classifier without a label is asked
        about the class that it predicts.
    mode : {"evaluation", "training"}
        Training drops units and normalizes over the batch.
    shown : int
        The image on show. Gradients are always those of the mean loss over all images.
    split, index : str and int, optional
        Where the image on show comes from, for the document.
    exact : bool
        Round weights and pixels to eighths first, so that a person with a pencil gets finite decimals.
    update : Update, optional
        What the optimizer brings to the next update; by default its first.

    Raises
    ------
    ModelInputError
        When image or label do not fit the model.
    """
    return Trace.of(model, image, label, mode=mode, shown=shown, split=split, index=index, exact=exact, update=update)
