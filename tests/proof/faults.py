"""The faults that are seeded by hand: what people get wrong in backward passes, and around them."""

from __future__ import annotations

from proof.mutants import Mutant

CONV, POOL, NORM = "core/layers/conv.py", "core/layers/pool.py", "core/layers/norm.py"
DENSE, DROPOUT, MERGE = "core/layers/dense.py", "core/layers/dropout.py", "core/layers/merge.py"
ACTIVATION, RESHAPE = "core/layers/activation.py", "core/layers/reshape.py"
CHANNELS = "core/layers/channels.py"
WINDOWS, ROWS, GRAPH = "core/windows.py", "core/rows.py", "core/graph.py"
CORRELATE, GROUPING, BY_ROWS, BY_STRIPS, BY_POINTS, IN_PLACE, PRODUCTS = (
    f"core/correlate/{name}.py"
    for name in ("__init__", "grouping", "by_rows", "by_strips", "by_points", "in_place", "products")
)
LOSSES, MODEL, TRAINER, OPTIM = "core/losses.py", "model.py", "train/trainer.py", "core/optim.py"
PARAMETERS, RNG, PARALLEL = "core/parameters.py", "core/rng.py", "parallel/local.py"
BACKPROP, STEP = "core/backprop.py", "train/step.py"
EPILOGUE, RECYCLING = "core/epilogue.py", "core/recycling.py"

ALIKE = "both passes change alike: the gradient is the right one of another function, which the oracles see"
SAME = "it changes nothing"


def of(file: str, where: str, *faults: tuple[str, ...]) -> list[Mutant]:
    """List faults of one function: (snippet, replacement, what it is[, why it survives])."""
    return [Mutant(file, where, *fault) for fault in faults]


CONVOLUTION = [
    *of(
        CONV,
        "Conv2d.forward",
        ('params["bias"][:, None] if', '1.001 * params["bias"][:, None] if', "bias scaled in the forward pass only"),
        ('correlate(x, params["weight"]', 'correlate(x * x, params["weight"]', "convolves the square of its input"),
    ),
    *of(
        CONV,
        "Conv2d.backward",
        ("correlate_weights(x, dy", "correlate_weights(x, 1.001 * dy", "weight gradient 0.1% too large"),
        ("correlate_weights(x, dy", "correlate_weights(x, dy[..., ::-1]", "weight gradient of other samples"),
        ("sum_rows(by_row(dy)).sum(0)", "sum_rows(by_row(dy))[:-1].sum(0)", "bias gradient without the last row"),
        ("sum_rows(by_row(dy)).sum(0)", "dy.mean(3).sum((1, 2))", "bias gradient averaged over the batch"),
        ("sum_rows(by_row(dy)).sum(0)", "dy.sum((0, 2, 3))", "bias gradient summed over the wrong axes"),
        ("correlate_transposed(weight, dy", "correlate_transposed(weight, -dy", "input gradient of the wrong sign"),
        ("not ctx.wants_dx", "ctx.wants_dx", "input gradient only when nobody wants it"),
    ),
    *of(
        CONV,
        "ConvTranspose2d.forward",
        ('params["weight"], x,', 'params["weight"], x * x,', "spreads the square of its input"),
        ('params["weight"], x,', 'params["weight"][..., ::-1], x,', "kernel flipped in the forward pass only"),
    ),
    *of(CONV, "ConvTranspose2d.windows", (" + k + extra)", " + k)", "output padding ignored", ALIKE)),
    *of(
        CONV,
        "ConvTranspose2d.backward",
        ("correlate(dy, weight", "correlate(dy[:, ::-1], weight", "gradient upside down"),
        ("correlate_weights(dy, x", "correlate_weights(dy, -x", "weight gradient of the wrong sign"),
        ("correlate_weights(dy, x", "correlate_weights(dy, x[::-1]", "input channels in the wrong order"),
        ("correlate(dy, weight", "correlate(dy, weight[::-1]", "filters in the wrong order"),
        ("correlate(dy, weight", "correlate(dy, weight[..., ::-1]", "kernel flipped"),
        ("dy.sum((1, 2, 3))", "dy[:, :, :-1].sum((1, 2, 3))", "bias gradient without the last column"),
        ("dy.sum((1, 2, 3))", "dy.mean((1, 2, 3))", "bias gradient averaged"),
    ),
]

SLIDING_WINDOWS = [
    *of(
        BY_ROWS,
        "correlate",
        ("kernel[:, :, : rows.stop - p", "kernel[::-1, :, : rows.stop - p", "groups in the wrong order"),
        ("] = taps", "] = taps[:, :, ::-1]", "kernel flipped"),
        ("k * sh : k * sh + kh]", "k : k + kh]", "vertical stride within a band ignored"),
        ("] = taps", "] = taps if k == 0 else 0", "first row of a band only"),
    ),
    *of(
        BY_STRIPS,
        "correlate",
        ("multiply(kernel, strips", "multiply(kernel[::-1], strips", "groups in the wrong order"),
        ("multiply(kernel, strips", "multiply(kernel[:, :, ::-1], strips", "kernel flipped"),
    ),
    *of(
        CORRELATE,
        "_flipped",
        ("::-1, ::-1].reshape", "::-1].reshape", "kernel not flipped along a row"),
        ("[:, :, ::-1, ::-1]", "[:, :, :, ::-1]", "kernel not flipped from row to row"),
        ("kernel.swapaxes(1, 2)", "kernel", "filters and channels not exchanged"),
    ),
    *of(
        BY_ROWS,
        "correlate_transposed",
        ("taps[:, :, :, i]", "taps[:, :, :, kh - 1 - i]", "kernel not flipped from row to row"),
        ("k + phase - window * sh", "k - window * sh", "vertical stride out of step"),
        ("k + phase - window * sh", "phase - window * sh", "every row of a band like its first"),
        ("spread(weight, windows, groups)", "spread(weight, windows, groups)[::-1]", "groups mixed up"),
        ("r + windows.before[0]", "r", "padding above ignored"),
        ("highest + 1, oh)", "highest + 1, oh - 1)", "last row of windows dropped"),
        ("highest + 1, oh)", "highest + 1, oh); top = max(top, 1)", "first row of windows dropped"),
    ),
    *of(
        BY_ROWS,
        "_Sum.of_windows",
        ("-before, d,", "-before, 1,", "horizontal dilation ignored"),
        ("-before, d,", "0, d,", "padding at the left ignored"),
        ("d, windows.stride[1]", "d, 1", "horizontal stride ignored"),
    ),
    *of(
        BY_ROWS,
        "_Sum.of_transposed",
        ("start, -every * d // s", "start, every * d // s", "kernel not flipped along a row"),
        ("start, -every * d // s", "start, -every // s", "horizontal dilation ignored"),
        ("start, -every * d // s", "start, -every * d", "horizontal stride ignored"),
        ("column + before - taps", "column - taps", "border at the left kept"),
        ("(phase - before) % s", "phase", "phases of the columns out of step"),
    ),
    *of(
        BY_ROWS,
        "_Sum.add",
        ("np.add.reduce(terms, 3, out=out)", "np.subtract.reduce(terms, 3, out=out)", "wrong sign"),
        ("np.add.reduce(terms, 3, out=ctx", "np.subtract.reduce(terms, 3, out=ctx", "wrong sign between columns"),
        ("if self.terms else 0)", "if self.terms else 1e-6)", "columns that no window sees are not zero"),
    ),
    *of(
        BY_ROWS,
        "_Products.fill",
        ("self._out[:, :, rows] = 0", "self._out[:, :, rows] = 1e-6", "pixels that no window sees are not zero"),
        ("seen[some]", "seen[these]", "first groups seen by all that are taken at a time"),
    ),
    *of(
        BY_ROWS,
        "_Products._make_room",
        ("inside.stop :] = 0", "inside.stop :] = 1e-3", "border is not zero"),
        ("j * part.every + column * part.shift", "j * part.every", "nothing is shifted"),
    ),
    *of(
        GROUPING,
        "rows_below",
        ("windows.image[0])", "windows.image[0] - 1)", "last row of the image dropped"),
        (" - windows.before[0]", "", "padding above ignored"),
    ),
    *of(GROUPING, "clipped", ("max(first, 0)", "max(first, 1)", "first row of the image dropped")),
    *of(
        BY_ROWS,
        "correlate_weights",
        ("] += products", "] -= products", "wrong sign"),
        ("] += products", "] = products", "last row of windows only"),
        ("fg, count, -1, cg)", "fg, count, -1, cg)[..., ::-1]", "channels in the wrong order"),
        ("np.asarray(taps)", "np.asarray(taps)[:, :, ::-1]", "kernel flipped"),
        ("np.asarray(taps)", "np.asarray(taps)[:, ::-1]", "filters in the wrong order"),
        ("dw = np.zeros(", "dw = 1e-3 + np.zeros(", "padding is not zero"),
        ("min(width, w - shift))", "min(width, w - shift) - 1)", "last column of windows dropped"),
        (" - windows.before[1]", "", "padding at the left ignored"),
        ("j * windows.dilation[1]", "j", "horizontal dilation ignored"),
        ("spread_dy.fill(0)", "spread_dy.fill(1e-3)", "columns between are not zero"),
        ("spread_dy[:, :, :, ::sw]", "spread_dy[:, :, :, : windows.out[1]]", "horizontal stride ignored"),
        ("k * sh : k * sh + kh]", "k : k + kh]", "vertical stride within a band ignored"),
        ("for k in range(band))", "for k in range(1))", "first row of a band only"),
    ),
    *of(
        BY_STRIPS,
        "correlate_weights",
        ("dw + multiply", "dw - multiply", "wrong sign"),
        (", strips).sum(0)", ", strips)[-1]", "last row of windows only"),
        ("dw + multiply", "multiply", "last strips only"),
        ("dy_rows[rows, :, :", "dy_rows[rows, ::-1, :", "groups mixed up"),
        ("dy_rows[rows, :, :", "dy_rows[rows, :, ::-1", "filters in the wrong order"),
        ("np.reshape(dw,", "np.reshape(dw[:, ::-1],", "kernel flipped"),
    ),
    *of(
        BY_POINTS,
        "correlate",
        ("(3, 0, 4, 1, 2)", "(3, 0, 4, 1, 2)[::-1]", "kernel upside down"),
        ("top - windows.before[0]", "top", "padding above ignored"),
        ("products.fill(0)", "products.fill(1e-6)", "sums do not start at zero"),
        ("A[: rows.stop - top]", "A[:m][rows.stop - top - 1 :: -1]", "rows in the wrong order"),
    ),
    *of(
        BY_POINTS,
        "correlate_weights",
        ("products.fill(0)", "products.fill(1e-6)", "sums do not start at zero"),
        ("top - windows.before[0]", "top", "padding above ignored"),
        ("_evaluate(G, dy_rows, top,", "_evaluate(G, dy_rows, 0,", "every row of windows like the first"),
        ("range(0, oh, m)", "range(0, m, m)", "first rows of windows only"),
        ("dw.transpose", "dw[::-1].transpose", "kernel upside down"),
    ),
    *of(
        BY_POINTS,
        "evaluation",
        ("/ scale[:, None]", "/ abs(scale[:, None])", "wrong sign at some points"),
        ("at_infinity[m - 1, :m]", "at_infinity[0, :m]", "infinity adds to the first row"),
        ("at_infinity[r - 1, :r]", "at_infinity[0, :r]", "infinity has the lowest coefficient"),
    ),
    *of(
        IN_PLACE,
        "Matrices.seen",
        ("j * self.windows.dilation[1]", "j", "horizontal dilation ignored"),
        (" - self.windows.before[1]", "", "padding at the left ignored"),
        ("min(ow, w - shift)", "min(ow, w - shift) - 1", "last column dropped"),
    ),
    *of(
        IN_PLACE,
        "_row_calls",
        ("else 1.0", "else 0.0", "last product only"),
        ("number * m.terms * line", "m.terms * line", "every group's channels like one's"),
        ("+ a + shift", "+ a", "columns not shifted"),
    ),
    *of(
        IN_PLACE,
        "_weight_calls",
        ("1.0, (m.kernel", "0.0, (m.kernel", "last row of windows only"),
        ("number * m.filters + f) * row", "f) * row", "every group's filters like the first's"),
        ("range(first, stop, length)", "range(first, stop, length)[:1]", "first terms only"),
    ),
    *of(
        PRODUCTS,
        "multiply",
        ("a[..., some_rows, :]", "a[..., some_rows, :][..., ::-1, :]", "rows of the pieces in the wrong order"),
        ("b[..., some_columns]", "b[..., some_columns][..., ::-1]", "columns of the pieces in the wrong order"),
    ),
    *of(
        PRODUCTS,
        "multiply_transposed",
        ("pieces += left @ right", "pieces[...] = left @ right", "last terms only"),
        ("range(0, n, terms)", "range(0, terms, terms)", "first terms only"),
        ("b[..., some_columns, start", "b[..., some_columns, :][..., ::-1, start", "columns in the wrong order"),
    ),
    *of(
        CORRELATE,
        "correlate_weights",
        ("[:, :: windows.dilation[0]]", "[:, : windows.kernel[0]]", "vertical dilation ignored"),
        ("transpose(0, 4, 3, 1, 2)", "transpose(0, 4, 3, 2, 1)", "kernel transposed"),
    ),
    *of(GROUPING, "spread", (":: windows.dilation[0]]", ": windows.kernel[0]]", "dilation ignored")),
    *of(
        BY_STRIPS,
        "_strips",
        ("enumerate(taps)", "enumerate(taps[::-1])", "columns of the kernel in the wrong order"),
        ("(end - begin - 1) * sw + 1) : sw]", "end - begin)]", "horizontal stride ignored"),
        ("row * min(sh, height)", "row", "vertical stride ignored"),
        ("image[:, first:stop, :, pixel", "image[:, : stop - first, :, pixel", "all strips taken from the top"),
        ("+ (begin - seeing.start) * sw", "", "all strips taken from the left"),
        ("stop - top :] = 0", "stop - top :] = 1e-3", "padding is not zero"),
        ("_rows(x, groups)[rows]", "_rows(x[::-1], groups)[rows]", "channels in the wrong order"),
        ("range(0, oh, at_a_time)", "range(0, min(oh, at_a_time), at_a_time)", "first strips only"),
    ),
    *of(
        WINDOWS,
        "Windows.columns",
        ("j * self.dilation[1] - self.before[1]", "j * self.dilation[1]", "padding at the left ignored"),
        ("j * self.dilation[1] - self.before[1]", "j - self.before[1]", "horizontal dilation ignored"),
    ),
    *of(
        WINDOWS,
        "Windows.crop",
        ("left : left + w]", "max(0, left - 1) : max(0, left - 1) + w]", "off by one at the border"),
        ("top : top + h", "0 : h", "top border kept"),
    ),
    *of(WINDOWS, "Windows.pad", ("] = x", "] = 1.001 * x", "scales while padding, also the transposed gradient")),
    *of(
        WINDOWS,
        "same_padding",
        ("total // 2, total - total // 2", "total - total // 2, total // 2", "odd pixel before the image", ALIKE),
    ),
]

POOLING = [
    *of(
        POOL,
        "MaxPool2d.forward",
        (
            "_maximum(windows.taps_of_band(band), y_block)",
            "_maximum([band[:, :, : windows.out[1]]], y_block)",
            "a window's first column wins in the real pass",
        ),
        ("windows.pad(x, ctx, -np.inf)", "windows.pad(x, ctx)", "padding may win", ALIKE),
    ),
    *of(
        POOL,
        "MaxPool2d.backward",
        ("won &= open_windows", "pass", "every tied pixel takes the gradient"),
        ("if k < last:", "if k < last - 1:", "the last pixel but one takes what it has not won"),
        ("maximum > 0 if ctx", "maximum >= 0 if ctx", "a fused ReLU's dead units pass the gradient"),
        ("tap == maximum", "tap >= maximum", "winners found by another comparison", f"{SAME}: no pixel is above it"),
        ("tap == maximum", "tap < maximum", "losers take the gradient"),
        (
            "windows.taps(dimage, rows)",
            "[*windows.taps(dimage, rows)][::-1]",
            "winners of the mirrored window",
        ),
        ("windows.taps(dimage, rows)", "windows.taps(dimage[..., ::-1], rows)", "winners of another image"),
        ("if windows.overlap", "if False", "overlapping windows overwrite each other"),
        ("dimage.fill(0)", "dimage.fill(1e-6)", "input gradient does not start at zero"),
        ("dy[:, rows]", "0.999 * dy[:, rows]", "0.1% too small"),
    ),
    *of(
        POOL,
        "AvgPool2d.forward",
        ("y /= divisor", "y /= windows.kernel[0] * windows.kernel[1]", "padding counted in the forward pass only"),
    ),
    *of(
        POOL,
        "AvgPool2d.backward",
        ("dy / divisor", "dy", "not divided"),
        ("dy / divisor", "dy / (windows.kernel[0] * windows.kernel[1])", "padding counted in the backward pass only"),
        ("dtap += ", "dtap[...] = ", "overlapping windows overwrite each other"),
        ("dimage.fill(0)", "dimage.fill(1e-6)", "input gradient does not start at zero"),
    ),
    *of(POOL, "AvgPool2d._divisor", ("first + k, high", "first + k, high + 1", "padding below counted", ALIKE)),
    *of(
        POOL,
        "GlobalAvgPool2d.backward",
        ("dy / (h * w)", "dy / h", "divided by the height only"),
        ("dy / (h * w)", "dy", "not divided"),
        ("x > 0", "x >= 0", "a fused ReLU's dead units pass the gradient"),
    ),
    *of(
        POOL,
        "GlobalMaxPool2d.backward",
        ("residuals.winners", "residuals.winners - 1", "the pixel before the winner takes the gradient"),
        ("dpixels.reshape(", "dpixels[:, ::-1].reshape(", "the image upside down"),
    ),
]

NORMALISATION = [
    *of(
        NORM,
        "standardize_backward",
        ("- mean(dxhat) ", "", "mean term missing"),
        (" - s.xhat * mean(dxhat * s.xhat)", "", "variance term missing"),
        ("s.r * (dxhat", "s.r * s.r * (dxhat", "r twice"),
        ("- mean(dxhat) ", "+ mean(dxhat) ", "mean term of the wrong sign"),
    ),
    *of(
        NORM,
        "standardize",
        (
            "mean(centered * centered)",
            "1.001 * mean(centered * centered)",
            "variance 0.1% too large in the forward pass",
        ),
        ("np.sqrt(variance + epsilon)", "(np.sqrt(variance) + epsilon)", "epsilon outside of the root"),
    ),
    *of(
        NORM,
        "affine_backward",
        ("(dy * xhat).sum", "(dy * xhat).mean", "weight gradient averaged"),
        ('"bias": dy.sum', '"bias": (dy * xhat).sum', "bias gradient is that of the weight"),
        ('"bias": dy.sum', '"bias": -dy.sum', "bias gradient of the wrong sign"),
        ('return dy * np.expand_dims(params["weight"], axes)', "return dy", "weight forgotten on the way to the input"),
    ),
    *of(
        NORM,
        "BatchNorm.forward",
        (
            "(variance + self.epsilon)",
            "(1.001 * variance + self.epsilon)",
            "variance 0.1% too large in the forward pass",
        ),
        ("if ctx.training", "if True", "batch statistics in evaluation", ALIKE),
        ("offset = bias - mean * scale if", "offset = bias if", "mean not subtracted in the real pass"),
    ),
    *of(
        NORM,
        "BatchNorm.backward",
        ("if values is None", "if True", "statistics taken for constants in training"),
        ("(dy_rows[some], scales[some[1]]", "(dy_rows[some], r[some[1]]", "weight forgotten in evaluation"),
        ("mean_dy - mean * slope if", "-mean * slope if", "mean term missing"),
        ("else mean_dy,", "else 0 * mean_dy,", "mean term missing far from 0"),
        ("mean_dy - mean * slope if", "mean_dy if", "x taken for x - mean in the variance term"),
        ("parts[1] -= mean * parts[0]", "pass", "x taken for x - mean in the weight gradient"),
        ("r * mean_dy_xhat", "0 * mean_dy_xhat", "variance term missing"),
        ("r * mean_dy_xhat", "mean_dy_xhat", "r forgotten in the variance term"),
        ("ctx.workers.all_reduce(sums) / values", "ctx.workers.all_reduce(sums) / (values - 1)", "divided by one less"),
        ("ctx.workers.all_reduce(sums)", "(ctx.workers.size * sums)", "every worker takes its own slice for all"),
        ("sum_rows(dy_block)", "sum_rows(dy_block[..., :-1])", "last value forgotten"),
        ("_dots(x_block, dy_block)", "_dots(x_block[..., :-1], dy_block[..., :-1])", "last product forgotten"),
        (
            '"weight": sums[1, :, 0], "bias": sums[0',
            '"weight": sums[0, :, 0], "bias": sums[1',
            "weight and bias swapped",
        ),
        (
            '{"weight": sums[1, :, 0]',
            '{"weight": sums[1, ::-1, 0]',
            "channels of the weight gradient in the wrong order",
        ),
    ),
    *of(
        NORM,
        "BatchNorm._statistics",
        ("_dots(block, block) - m * mean * mean", "_dots(block, block)", "mean square taken for the variance"),
        ("/ counts.sum(), int", "/ (counts.sum() - 1), int", "unbiased variance in the forward pass only"),
        ("= ctx.workers.all_reduce(workers)", "= workers", "every worker takes its own slice for all"),
    ),
    *of(
        NORM,
        "_together",
        ("squares + counts * (off * off)", "squares", "rows' and workers' means taken for the common mean"),
        ("(counts * means).sum(0)", "(means).sum(0)", "counts ignored"),
    ),
    *of(
        NORM,
        "LayerNorm.backward",
        ("self._mean(dy)", "lambda values: values.mean(-1, keepdims=True)", "mean over the batch"),
        ("self._mean(dy)", "lambda values: values.mean(0, keepdims=True)", "mean over the channels only"),
        ("xhat, dy,", "xhat[..., ::-1], dy,", "parameter gradients of other samples"),
    ),
    *of(
        NORM,
        "GroupNorm.backward",
        ("residuals, self._mean)", "residuals, lambda v: v.mean((0, 1), keepdims=True))", "mean over all groups"),
        ("dxhat.reshape(self", "dxhat[::-1].reshape(self", "groups mixed up"),
    ),
]

DENSE_LAYERS = [
    *of(
        DENSE,
        "Dense.backward",
        ('params["weight"].T', 'params["weight"].reshape(len(x), -1)', "weight reshaped, not transposed"),
        ("np.matmul(dy, x.T", "np.matmul(dy[::-1], x.T", "units of the weight gradient in the wrong order"),
        ("np.matmul(dy, x.T", "np.matmul(dy[:, :-1], x[:, :-1].T", "last sample forgotten"),
        ("np.matmul(dy, x.T", "np.matmul(dy / dy.shape[1], x.T", "weight gradient averaged over the batch"),
        ("dy.sum(1)", "dy.mean(1)", "bias gradient averaged over the batch"),
        ("dy.sum(1)", "dy[:, :-1].sum(1)", "bias gradient without the last sample"),
        ("dy.sum(1)", "dy.sum(0)", "bias gradient summed over the units"),
        ("if ctx.wants_dx", "if not ctx.wants_dx", "input gradient only when nobody wants it"),
    ),
]

DROPPED = [
    *of(
        DROPOUT,
        "Dropout.forward",
        ("np.multiply(x, mask", "np.multiply(x, mask != 0", "not scaled in the forward pass"),
        ("start=ctx.first_sample", "start=0", "every worker draws the first one's masks"),
        ("not ctx.training or ", "", "drops in evaluation, too", ALIKE),
    ),
    *of(
        DROPOUT,
        "Dropout.backward",
        ("np.multiply(dy, residuals", "np.multiply(dy, residuals != 0", "not scaled"),
        (
            "np.multiply(dy, residuals",
            "np.multiply(dy, np.roll(residuals, 1, -1)",
            "another mask than in the forward pass",
        ),
        ("residuals is None", "True", "no mask"),
    ),
]

ACTIVATIONS = [
    *of(
        ACTIVATION,
        "Relu.backward",
        ("y_rows[some] > 0", "y_rows[some] >= 0", "dead units pass the gradient"),
        ("y_rows[some] > 0", "dy_rows[some].real > 0", "mask of the gradient's sign"),
        ("y_rows[some] > 0", "y_rows[some] > 0.1", "mask with another threshold"),
        ("y_rows[some] > 0", "y_rows[some, ..., ::-1] > 0", "mask of another sample"),
    ),
    *of(
        ACTIVATION,
        "LeakyRelu.backward",
        ("self.slope * dy", "0 * dy", "slope ignored"),
        ("x.real > 0", "x.real >= 0", "wrong side at zero"),
    ),
    *of(
        ACTIVATION,
        "Elu.backward",
        ("(y + self.alpha)", "(y + 1)", "alpha ignored"),
        ("(y + self.alpha)", "y", "alpha forgotten"),
    ),
    *of(
        ACTIVATION,
        "Gelu.backward",
        ("3 * GELU_CUBIC", "GELU_CUBIC", "derivative of the cube without its 3"),
        ("(1 - t * t)", "(1 - t)", "derivative of tanh without its square"),
        ("0.5 * (1 + t) + ", "", "product rule forgotten"),
    ),
    *of(
        ACTIVATION,
        "Silu.backward",
        ("dy * s * (1 + x * (1 - s))", "dy * s * (1 - s)", "derivative of the sigmoid"),
        ("x * (1 - s)", "(1 - s)", "x forgotten"),
    ),
    *of(
        ACTIVATION,
        "Sigmoid.backward",
        ("dy * y * (1 - y)", "dy * y", "1 - y forgotten"),
        ("(1 - y)", "(1 - y) * 1.001", "0.1% too large"),
    ),
    *of(ACTIVATION, "Tanh.backward", ("1 - y * y", "1 - y", "square forgotten")),
    *of(ACTIVATION, "Softplus.backward", ("logistic(residuals)", "logistic(-residuals)", "sign forgotten")),
    *of(
        ACTIVATION,
        "Softmax.backward",
        ("(dy - (y * dy).sum(0))", "dy", "cross term missing"),
        ("(y * dy).sum(0)", "(y * dy).mean(0)", "mean instead of sum"),
        ("(y * dy).sum(0)", "(y * dy).sum(-1, keepdims=True)", "summed over the batch"),
        ("return y * (dy - (y * dy).sum(0))", "return dy * y * (1 - y)", "only the diagonal of the Jacobian"),
    ),
]

RESHAPES_AND_MERGES = [
    *of(
        CHANNELS,
        "SliceChannels.backward",
        ("dx.fill(0)", "dx.fill(1e-3)", "a gradient for channels that were not taken"),
        ("dx[self.start : self.stop]", "dx[: len(dy)]", "the first channels get it, whichever were taken"),
    ),
    *of(
        CHANNELS,
        "ChannelShuffle.backward",
        ("dx[self._sources(len(dy))] = dy", "dx[:] = dy[self._sources(len(dy))]", "shuffled again, not back"),
        ("] = dy", "] = dy[::-1]", "channels in the wrong order"),
    ),
    *of(
        RESHAPE,
        "Flatten.backward",
        ("dy.reshape(residuals)", "dy[::-1].reshape(residuals)", "features in the wrong order"),
        ("dy.reshape(residuals)", "dy.reshape(residuals, order='F')", "columns before rows"),
    ),
    *of(
        MERGE,
        "Add.backward",
        ("gather(dy, shape)", "gather(dy / len(residuals), shape)", "divided among the inputs"),
        ("gather(dy, shape)", "gather(dy * (shape is residuals[0]), shape)", "only the first input gets it"),
    ),
    *of(
        MERGE,
        "Multiply.backward",
        ("wide[:k] + wide[k + 1 :]", "wide", "its own factor included"),
        ("wide[:k] + wide[k + 1 :]", "wide[k : k + 1]", "its own factor instead of the others"),
        ("wide[:k] + wide[k + 1 :]", "wide[k + 1 :]", "factors before it forgotten"),
    ),
    *of(
        MERGE,
        "gather",
        ("dy.sum(axes", "dy.mean(axes", "mean over the places that read a cell, not the sum"),
        ("dy.sum(axes", "dy.max(axes", "only the largest gradient of those that arrive"),
    ),
    *of(
        MERGE,
        "Concat.backward",
        ("np.split(dy, residuals)", "np.split(dy, residuals)[::-1]", "parts in the wrong order"),
        ("np.split(dy, residuals)", "np.split(dy[::-1], residuals)", "channels in the wrong order"),
    ),
]

GRAPHS = [
    *of(
        EPILOGUE,
        "forward_epilogue",
        ("block += others[some]", "block -= others[some]", "the other summand subtracted"),
        ("np.maximum(block, zeros[channels], out=block)", "pass", "ReLU left out"),
    ),
    *of(
        EPILOGUE,
        "backward_epilogue",
        ("block += others[some]", "block[...] = others[some]", "the other readers' gradient overwrites"),
        ("block *= x_rows[some] > 0", "pass", "ReLU's mask left out"),
        ("x_rows[some] > 0", "x_rows[some] >= 0", "dead units pass the gradient"),
    ),
    *of(
        GRAPH,
        "Graph.backward",
        ("if name in flows:", "if False:", "fan-out overwrites instead of adding"),
        ("out=total)", "out=flows[name])", "adds in place to a gradient that a sibling shares"),
        ("np.add(flows[name], dx, out=total)", "flows[name]", "only the last reader's gradient counts"),
        ("flows.pop(node.inputs[0], None)", "flows.get(node.inputs[0])", "what a layer has added is added again"),
        ("zip(node.inputs, dxs", "zip(node.inputs[::-1], dxs", "gradients handed to the wrong inputs"),
        ("flow = np.zeros(tape.shapes", "flow = np.ones(tape.shapes", "what nobody reads has a gradient"),
        (
            "zip(self.outputs, dys",
            "zip([self.nodes[-1].name, *self.outputs[1:]], dys",
            "begins at the last node, not the output",
        ),
        ("wants_dx=ctx.wants_dx or ", "wants_dx=ctx.wants_dx or not ", "gradients left out where they are needed"),
    ),
    *of(
        RECYCLING,
        "RecycledArrays.only_holds",
        ("held and not any(", "held or any(", "writes over a gradient that a sibling shares"),
    ),
    *of(
        RECYCLING,
        "RecycledArrays.keep",
        ("elif not any(np.may_share_memory(array, one) for one in needed)", "else", "overwrites what is still needed"),
    ),
    *of(
        GRAPH,
        "Graph._find_needs_gradient",
        (
            "bool(self.trainable[node.owner]) or any(needs[name] for name in node.inputs)",
            "bool(self.trainable[node.owner])",
            "only layers with parameters are thought to need it",
        ),
    ),
    *of(
        GRAPH,
        "_sum_over_uses",
        ("if others is None:", "if True:", "only the first use's gradient counts"),
        ("np.add(others[key], value", "np.subtract(others[key], value", "a shared layer's gradients subtracted"),
        ("return own", "return {key: 2 * value for key, value in own.items()}", "what is not shared counts twice"),
        (
            "ctx.arrays.empty((node.name, key)",
            "ctx.arrays.empty((node.owner, key)",
            "the sum over uses lies where the owner's own gradient comes next",
        ),
    ),
    *of(
        ROWS,
        "row_slices",
        ("min(start + step, count)", "min(start + step + 1, count)", "blocks of rows overlap"),
        ("min(start + step, count)", "min(start + step, count - 1)", "last row dropped"),
        (
            "range(0, count, step)",
            "[*range(0, count, step)][::-1]",
            "blocks in reverse order",
            f"{SAME}: any order will do",
        ),
    ),
    *of(
        ROWS,
        "by_row",
        ("x.swapaxes(0, 1).reshape(h, c", "x.reshape(h, c", "channels taken for rows"),
    ),
]

LOSS_FUNCTIONS = [
    *of(
        LOSSES,
        "SoftmaxCrossEntropy.forward",
        (
            "return (np.log(total) - (y * shifted).sum(0)).sum(), FusedResiduals(e / total, y)",
            "return (np.log(total) - (y * shifted).sum(0)).sum(), FusedResiduals(e / total, unfolded(z, target))",
            "label smoothing forgotten in the backward pass",
        ),
        (
            "return (np.log(total) - (y * shifted).sum(0)).sum(), FusedResiduals(e / total, y)",
            "return (np.log(total) - (y * shifted).sum(0)).sum(), FusedResiduals(e, y)",
            "not normalized",
        ),
        ("y.sum(0) * np.log(total)", "np.log(total)", "class weights missing from the forward pass"),
    ),
    *of(
        LOSSES,
        "SoftmaxCrossEntropy.backward",
        ("p - y if", "y - p if", "wrong sign"),
        ("p - y if", "p * (p - y) if", "softmax differentiated twice"),
        ("p * y.sum(0) - y", "p - y", "class weights missing from the softmax's share"),
        ("p * y.sum(0) - y", "(p - y / y.sum(0))", "class weights forgotten"),
    ),
    *of(LOSSES, "SoftmaxCrossEntropy.count", ("prod(z.shape[1:])", "z.size", "divided by the classes, too")),
    *of(
        LOSSES,
        "SigmoidBinaryCrossEntropy.backward",
        (
            "residuals.p - residuals.y",
            "residuals.p * (1 - residuals.p) * (residuals.p - residuals.y)",
            "sigmoid differentiated twice",
        ),
    ),
    *of(LOSSES, "SigmoidBinaryCrossEntropy.count", ("z.shape[-1]", "z.size", "divided by the units, too")),
    *of(LOSSES, "MeanSquaredError.forward", ("(error * error).sum()", "0.5 * (error * error).sum()", "half the loss")),
    *of(
        LOSSES,
        "MeanSquaredError.backward",
        ("2 * residuals.error", "residuals.error", "2 forgotten"),
        ("p * (dp - (p * dp).sum(0))", "p * dp", "cross term of the softmax missing"),
        ("dp * p * (1 - p)", "dp", "sigmoid not differentiated"),
    ),
    *of(LOSSES, "MeanSquaredError.count", ("prod(z.shape)", "z.shape[-1]", "sum over outputs instead of mean")),
]

TRAINING = [
    *of(
        MODEL,
        "Model.backpropagate",
        ("return found.loss,", "return found.loss_sums[0],", "sum of the losses instead of the mean"),
    ),
    *of(
        MODEL,
        "Model.loss_and_gradients",
        ("training=True", "training=False", "gradients in evaluation mode"),
        ("np.moveaxis(dx, -1, 0)", "np.moveaxis(dx, -1, 0)[::-1]", "images in the wrong order"),
    ),
    *of(
        BACKPROP,
        "backpropagate",
        ("(one.loss.backward(residuals) / count)", "one.loss.backward(residuals)", "gradient of the sum, not the mean"),
        ("one.weight * (one", "(one", "the weights of losses count in the loss alone"),
    ),
    *of(
        STEP,
        "TrainingStep.__call__",
        ("model.targets_in(labels, x)", "model.targets_in(labels[::-1], x)", "labels of other images"),
        ("update(mine, gradient", "update(mine, 1.001 * gradient", "0.1% too far"),
        ("wants_dx=False", "wants_dx=True", "image's gradient computed for nobody", f"{SAME} but the time it takes"),
    ),
    *of(
        TRAINER,
        "Trainer._rest_of_epoch",
        ("(batch + 1) * size]", "(batch + 1) * size - 1]", "last image of every batch left out"),
    ),
    *of(
        OPTIM,
        "add_weight_decay",
        (
            "decayed += grad",
            "grad += decayed; decayed = grad",
            "weight decay leaks into the gradient",
            f"{SAME} here: the gradient is not read again, and the optimizers' own tests say that they are pure",
        ),
    ),
    *of(OPTIM, "momentum", ("buffer = decay * ", "buffer = ", "old gradients never fade")),
    *of(
        STEP,
        "TrainingStep._send",
        ("self._workers.gradient)", "self._workers.gradient.copy())", "gradients not gathered"),
    ),
    *of(
        STEP,
        "TrainingStep._counts",
        ("] * len(self._losses)", "] + [len(batch)] * (len(self._losses) - 1)", "class weights of the first loss only"),
        (
            "count * len(batch)",
            "count * self._config.train.batch_size",
            "a short batch is divided by the full size",
        ),
    ),
    *of(
        PARAMETERS,
        "Layout.place",
        ("value.ctypes.data != home.ctypes.data", "False", "gradients that lie elsewhere are not copied"),
    ),
    *of(
        PARALLEL,
        "LocalWorker.reduce_share",
        (
            "self._gradients[0, mine] + self._gradients[1, mine]",
            "2 * self._gradients[0, mine]",
            "second worker ignored",
        ),
    ),
    *of(RNG, "sample_words", ("bits.advance(start * draws)", "bits.advance(start)", "masks depend on the slice")),
]

FAULTS: list[Mutant] = [
    *CONVOLUTION,
    *SLIDING_WINDOWS,
    *POOLING,
    *NORMALISATION,
    *DENSE_LAYERS,
    *DROPPED,
    *ACTIVATIONS,
    *RESHAPES_AND_MERGES,
    *GRAPHS,
    *LOSS_FUNCTIONS,
    *TRAINING,
]
