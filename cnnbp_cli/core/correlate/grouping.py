"""Images and kernels by groups of channels."""

from __future__ import annotations

import numpy as np

from cnnbp_cli.core.types import Array
from cnnbp_cli.core.windows import Windows


def by_group(array: Array, groups: int) -> Array:
    """Return an array with channels or filters first, such as an image (c, h, w, n), as (g, cg, …)."""
    return array.reshape(groups, len(array) // groups, *array.shape[1:])


def spread(weight: Array, windows: Windows, groups: int) -> Array:
    """Write weight (f, cg, kh, kw) as (g, fg, effective kh, kw, cg), with zeros for the rows that a dilation skips."""
    f, cg, kh, kw = weight.shape
    kernel = np.zeros((groups, f // groups, windows.effective_kernel[0], kw, cg), weight.dtype)
    kernel[:, :, :: windows.dilation[0]] = weight.transpose(0, 2, 3, 1).reshape(groups, f // groups, kh, kw, cg)
    return kernel
