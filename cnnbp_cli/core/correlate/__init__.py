"""Three sums over sliding windows, each as matrix products: all that convolution needs, forward and backward.

    correlate             y[f, p, q]           = Σ_{c, i, j} w[f, c, i, j] · x[c, p·s + i·d, q·s + j·d]
    correlate_weights     dw[f, c, i, j]       = Σ_{p, q, n} dy[f, p, q] · x[c, p·s + i·d, q·s + j·d]
    correlate_transposed  dx[c, p·s + i·d, …] += Σ_{f}       w[f, c, i, j] · dy[f, p, q]

where x is 0 outside the image; `reference` has them as they are written here. The textbook way unfolds every window
into a column, which writes each pixel kh·kw times. Here they are computed `by_rows` of the image where it has many
channels, and else `by_strips`.

One core, 32 images, float32, forward / weights / transposed in ms: 32 channels to 64, 24×24 outputs, by rows
4.7 / 5.0 / 4.5, by strips 5.4 / 5.4; 1 channel to 32, 26×26 outputs, by rows 0.53 / 0.33, by strips 0.19 / 0.21.
The bare products of the first take 4.1 / 4.6 / 3.9. Winograd's minimal filtering gained less than its sums cost.

Besides the letters of `core.types`: fg and cg are the filters and the channels of one of g groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cnnbp_cli.core.correlate import by_rows, by_strips
from cnnbp_cli.core.rows import row_slices
from cnnbp_cli.core.types import Array, Context
from cnnbp_cli.core.windows import Windows

CHANNELS_PER_FILTER = 0.5
"""From so many input channels per filter on, rows of the image are multiplied as they are."""

Epilogue = Callable[[slice], None]
"""Called with the place of some rows of a result as soon as they are there, while they are in the cache."""


def correlate(
    x: Array, weight: Array, windows: Windows, groups: int, y: Array, ctx: Context, epilogue: Epilogue | None = None
) -> None:
    """Fill y (f, oh, ow, n) with the correlation of x (c, h, w, n) and weight (f, cg, kh, kw)."""
    way = by_rows if _many_channels(weight, groups) and windows.stride[1] == 1 else by_strips
    _run(way.correlate(x, weight, windows, groups, y, ctx), y, epilogue)


def correlate_weights(x: Array, dy: Array, weight: Array, windows: Windows, groups: int, ctx: Context) -> Array:
    """Return dw, of the shape of weight (f, cg, kh, kw), from x (c, h, w, n) and dy (f, oh, ow, n)."""
    way = by_rows if _many_channels(weight, groups) else by_strips
    dw = way.correlate_weights(x, dy, windows, groups, ctx)  # (g, effective kh, kw, cg, fg)
    return dw[:, :: windows.dilation[0]].transpose(0, 4, 3, 1, 2).reshape(weight.shape)


def correlate_transposed(
    weight: Array, dy: Array, windows: Windows, groups: int, dx: Array, ctx: Context, epilogue: Epilogue | None = None
) -> None:
    """Fill dx (c, h, w, n) with the transpose of `correlate`, applied to dy (f, oh, ow, n)."""
    _run(by_rows.correlate_transposed(weight, dy, windows, groups, dx, ctx), dx, epilogue)


def _many_channels(weight: Array, groups: int) -> bool:
    """Return whether the image has so many channels that it is better multiplied as it is."""
    return weight.shape[1] * groups >= CHANNELS_PER_FILTER * len(weight)


def _run(filled: Iterator[int], image: Array, epilogue: Epilogue | None) -> None:
    """Let the rows of image (c, h, w, n) be filled, and call `epilogue` whenever a slice of them is."""
    ends = {rows.stop - 1: rows for rows in row_slices(image.shape[1], image.nbytes)}
    for row in filled:
        if epilogue is not None and row in ends:
            epilogue(ends[row])
