"""Fewer multiplications for small square kernels: Winograd's minimal filtering.

A tile of m×m outputs of an r×r convolution depends on an a×a patch of the image, a = m + r - 1. In a
suitable basis the convolution of the patch is a product element by element:

    Y = A (U ⊙ V),   U = G w,   V = B d

with d the patch, w the kernel and Y the tile, each written as a vector, and A, B, G fixed matrices. Summed
over channels, the products of all patches are a² matrix products of (f, c) by (c, tiles), which take
a² / (m·r)² of the multiplications that the windows of `Conv2d` take. Every map here is linear, so the
backward pass is its transposes, in the opposite order:

    M = U ⊙ V:  dM = Aᵀ dY        dV = Uᵀ dM,  dd = Bᵀ dV        dU = dM Vᵀ,  dw = Gᵀ dU

Patches are windows of size a and stride m, so `Windows` cuts them out of the image and adds them back.
B and A are applied as matrix products, too: in NumPy that is faster than their few additions.

One core, 32 channels to 64, 24×24 outputs, 32 images, float32: forward 5.3 ms against 8.5 ms unfolded,
backward 11.5 ms against 20.9 ms. The rounding error grows with a: for a = 6 it is about 5e-6 of the largest
output, against 2e-7 for a = 4, which takes 8.0 and 17.6 ms.

References
----------
Lavin & Gray 2016, *Fast Algorithms for Convolutional Neural Networks*, arXiv:1509.09308; Winograd 1980,
*Arithmetic Complexity of Computations*; Toom–Cook points as in Barabasz et al. 2020, arXiv:1803.10986.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from cnnbp_cli.core.types import Array, Context
from cnnbp_cli.core.windows import Windows

POINTS = (0.0, 1.0, -1.0, 0.5, -0.5)
"""Where the polynomials of patches and kernels are evaluated, besides infinity: one less than a."""

PATCH = len(POINTS) + 1


@dataclass(frozen=True, slots=True)
class Transforms:
    """The matrices for vectors of m outputs and kernels of r weights, in two dimensions.

    Attributes
    ----------
    A : Array, shape (m², a²)
    B : Array, shape (a², a²)
    G : Array, shape (a², r²)
    """

    A: Array
    B: Array
    G: Array

    @classmethod
    @cache
    def of(cls, r: int, dtype: np.dtype[np.floating]) -> Transforms:
        """Derive the matrices by Toom and Cook: multiply polynomials by way of their values at `POINTS`."""
        a, m = PATCH, PATCH - r + 1
        points = np.array(POINTS)
        A, B, G = np.zeros((m, a)), np.zeros((a, a)), np.zeros((a, r))
        for i, point in enumerate(points):
            others = np.delete(points, i)
            A[:, i] = point ** np.arange(m)
            G[i] = point ** np.arange(r) / np.prod(point - others)
            B[i, : a - 1] = np.poly(others)[::-1]
        A[-1, -1] = G[-1, -1] = 1.0  # the point at infinity sees the leading coefficients alone
        B[-1] = np.poly(points)[::-1]
        return cls(*(np.kron(matrix, matrix).astype(dtype) for matrix in (A, B, G)))


@dataclass(frozen=True, slots=True)
class Winograd:
    """A convolution of stride 1 with an r×r kernel, by patches of `PATCH` pixels.

    Attributes
    ----------
    r : int
    patches : Windows
        Over the image with its padding, and with more at the end to fill the last tiles.
    tiles : Windows
        Over the output, filled up in the same way.
    """

    r: int
    patches: Windows
    tiles: Windows

    @classmethod
    def over(cls, windows: Windows) -> Winograd:
        """Take the place of `windows`, whose kernel is square and has stride and dilation 1."""
        r = windows.kernel[0]
        m = PATCH - r + 1
        count = (-(-windows.out[0] // m), -(-windows.out[1] // m))
        covered = (count[0] * m + r - 1, count[1] * m + r - 1)
        after = (
            covered[0] - windows.image[0] - windows.before[0],
            covered[1] - windows.image[1] - windows.before[1],
        )
        size, step, one = (PATCH, PATCH), (m, m), (1, 1)
        patches = Windows(windows.image, size, step, one, windows.before, after, count)
        rest = (count[0] * m - windows.out[0], count[1] * m - windows.out[1])
        return cls(r, patches, Windows(windows.out, step, step, one, (0, 0), rest, count))

    def forward(self, weight: Array, bias: Array | None, image: Array, y: Array, ctx: Context) -> None:
        """Fill y (f, oh, ow, n) from the image (c, h+, w+, n), padded by `patches`."""
        t = Transforms.of(self.r, image.real.dtype)
        f, c, n = weight.shape[0], weight.shape[1], image.shape[3]
        U = self._transformed(weight, t)  # (a², f, c)
        for rows in self._blocks(c, n, image.itemsize):
            V = self._patches_transformed(t, image, rows, ctx)  # (a², c, tiles·n)
            M = ctx.scratch("M", (len(U), f, V.shape[2]), y.dtype)
            np.matmul(U, V, out=M)
            Y = ctx.scratch("Y", (len(t.A), f * V.shape[2]), y.dtype)
            np.matmul(t.A, M.reshape(len(U), -1), out=Y)
            for pixels, values in self._tile_pixels(y, Y, rows):
                if bias is None:
                    pixels[...] = values
                else:
                    np.add(values, bias.reshape(-1, 1, 1, 1), out=pixels)

    def backward(self, weight: Array, image: Array, dy: Array, dimage: Array | None, ctx: Context) -> Array:
        """Return dw (f, c, r, r), and fill dimage, the gradient to the padded image, if there is one."""
        t = Transforms.of(self.r, image.dtype)
        f, c, n = weight.shape[0], weight.shape[1], image.shape[3]
        U = self._transformed(weight, t)  # (a², f, c)
        dU = np.zeros_like(U)
        if dimage is not None:
            dimage.fill(0)
        for rows in self._blocks(c, n, image.itemsize):
            tiles = len(rows) * self.tiles.out[1] * n
            dY = ctx.scratch("Y", (len(t.A), f * tiles), dy.dtype)
            self._gather_tiles(dy, dY, rows)
            dM = ctx.scratch("M", (len(U), f, tiles), dy.dtype)
            np.matmul(t.A.T, dY, out=dM.reshape(len(U), -1))
            V = self._patches_transformed(t, image, rows, ctx)  # (a², c, tiles·n)
            dU += dM @ V.swapaxes(1, 2)
            if dimage is not None:
                dV = np.matmul(U.swapaxes(1, 2), dM, out=V)
                dd = ctx.scratch("columns", (len(U), c * tiles), dy.dtype)
                np.matmul(t.B.T, dV.reshape(len(U), -1), out=dd)
                taps = dd.reshape(len(U), c, len(rows), self.tiles.out[1], n)
                for tap, pixels in zip(taps, self.patches.taps(dimage, rows), strict=True):
                    pixels += tap
        return (t.G.T @ dU.reshape(len(U), -1)).T.reshape(weight.shape)

    @staticmethod
    def _transformed(weight: Array, t: Transforms) -> Array:
        f, c, r, _ = weight.shape
        return (t.G @ weight.reshape(f * c, r * r).T).reshape(-1, f, c)

    def _blocks(self, c: int, n: int, itemsize: int) -> list[range]:
        return list(self.patches.row_blocks(PATCH * PATCH * c, n, itemsize))

    def _patches_transformed(self, t: Transforms, image: Array, rows: range, ctx: Context) -> Array:
        """Return V (a², c, tiles·n) of some rows of tiles."""
        patches = self.patches.view(image, rows).transpose(1, 2, 0, 3, 4, 5)  # (a, a, c, rows, columns, n)
        d = ctx.scratch("columns", patches.shape, image.dtype)
        np.copyto(d, patches)
        c = image.shape[0]
        V = ctx.scratch("V", (len(t.B), c * d[0, 0, 0].size), image.dtype)
        np.matmul(t.B, d.reshape(len(t.B), -1), out=V)
        return V.reshape(len(t.B), c, -1)

    def _tile_pixels(self, y: Array, Y: Array, rows: range) -> list[tuple[Array, Array]]:
        """Pair each pixel position of the tiles in y (f, oh, ow, n) with its values in Y (m², f·tiles·n).

        The last tiles may reach past the output; what lies outside is cut off on both sides.
        """
        (m, _), (oh, ow), columns = self.tiles.kernel, self.tiles.image, self.tiles.out[1]
        values = Y.reshape(m, m, y.shape[0], len(rows), columns, y.shape[3])
        pairs: list[tuple[Array, Array]] = []
        for i in range(m):
            for j in range(m):
                pixels = y[:, rows.start * m + i : min(rows.stop * m, oh) : m, j:ow:m]
                pairs.append((pixels, values[i, j, :, : pixels.shape[1], : pixels.shape[2]]))
        return pairs

    def _gather_tiles(self, dy: Array, dY: Array, rows: range) -> None:
        (m, _), (oh, ow) = self.tiles.kernel, self.tiles.image
        if rows.stop * m > oh or self.tiles.out[1] * m > ow:
            dY.fill(0)
        for pixels, values in self._tile_pixels(dy, dY, rows):
            values[...] = pixels


def suits(windows: Windows, c: int, f: int, dtype: np.dtype[np.generic]) -> bool:
    """Tell whether Winograd's way is the faster one (see the measurements above), and exact enough.

    It serves float32 alone. Its rounding depends on where in a tile an output lies, so equal windows of a
    flat background give outputs that differ in the last bits, and max pooling's rule for ties no longer
    decides. In float64, where gradients are proven and compared, outputs are plain sums.
    """
    square_and_dense = windows.kernel in ((3, 3), (5, 5)) and windows.stride == windows.dilation == (1, 1)
    return dtype == np.float32 and square_and_dense and c >= 4 and f >= 4
