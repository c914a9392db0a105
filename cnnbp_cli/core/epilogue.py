"""What a layer does to a block of its result for its neighbors, while it is in the cache (see `core.fusion`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cnnbp_cli.core.rows import broadcast_to_row, by_row
from cnnbp_cli.core.types import Array, Context

Finish = Callable[[Any], None]
"""Called with the place of a block, `rows` or `(rows, channels)`, as soon as the block is there."""


def forward_epilogue(y_rows: Array, bias: Array | None, ctx: Context) -> Finish:
    """Return what makes max(y + bias + the other summand, 0) of a block of y_rows (h, c, w·n), as far as it is wanted.

    Parameters
    ----------
    y_rows : Array, shape (h, c, w·n)
        The output by rows of the image, see `by_row`.
    bias : Array or None, shape (c, 1)
    ctx : Context
    """
    biases = broadcast_to_row("bias", bias, y_rows, ctx) if bias is not None else None
    others = by_row(ctx.then_add) if ctx.then_add is not None else None
    zeros = broadcast_to_row("zero", 0, y_rows, ctx) if ctx.then_relu else None

    def finish(some: Any) -> None:
        block, channels = y_rows[some], some[1] if isinstance(some, tuple) else slice(None)
        if biases is not None:
            block += biases[channels]
        if others is not None:
            block += others[some]
        if zeros is not None:
            np.maximum(block, zeros[channels], out=block)

    return finish


def backward_epilogue(dx_rows: Array, x_rows: Array, ctx: Context) -> Finish:
    """Return what adds the gradient of x's other readers to a block of dx_rows, and stops it where x is a ReLU's 0."""
    others = by_row(ctx.plus) if ctx.plus is not None else None

    def finish(some: Any) -> None:
        block = dx_rows[some]
        if others is not None:
            block += others[some]
        if ctx.after_relu:
            block *= x_rows[some] > 0

    return finish
