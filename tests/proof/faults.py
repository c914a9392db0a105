"""The faults that are seeded by hand: what people get wrong in backward passes, and around them."""

from __future__ import annotations

from proof.mutants import Mutant

CONV, POOL, NORM = "core/layers/conv.py", "core/layers/pool.py", "core/layers/norm.py"
DENSE, DROPOUT, MERGE = "core/layers/dense.py", "core/layers/dropout.py", "core/layers/merge.py"
ACTIVATION, RESHAPE = "core/layers/activation.py", "core/layers/reshape.py"
WINDOWS, ROWS, GRAPH = "core/windows.py", "core/rows.py", "core/graph.py"
CORRELATE, GROUPING, BY_ROWS, BY_STRIPS = (
    f"core/correlate/{name}.py" for name in ("__init__", "grouping", "by_rows", "by_strips")
)
LOSSES, MODEL, TRAINER, OPTIM = "core/losses.py", "model.py", "train/trainer.py", "core/optim.py"
PARAMETERS, RNG, PARALLEL = "core/parameters.py", "core/rng.py", "parallel/local.py"
BACKPROP, STEP = "core/backprop.py", "train/step.py"

ALIKE = "both passes change alike: the gradient is the right one of another function, which the oracles see"
SAME = "it changes nothing"


def of(file: str, where: str, *faults: tuple[str, ...]) -> list[Mutant]:
    """List faults of one function: (snippet, replacement, what it is[, why it survives])."""
    return [Mutant(file, where, *fault) for fault in faults]


CONVOLUTION = [
    *of(
        CONV,
        "Conv2d.forward",
        ("block += bias", "block += 1.001 * bias", "bias scaled in the forward pass only"),
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
        ("np.matmul(seen, x_rows", "np.matmul(seen[::-1], x_rows", "groups in the wrong order"),
        ("np.matmul(seen, x_rows", "np.matmul(seen[:, :, ::-1], x_rows", "kernel flipped"),
        ("y_groups[:, :, p] = 0", "y_groups[:, :, p] = 1e-3", "windows on padding alone are not zero", ALIKE),
    ),
    *of(
        BY_STRIPS,
        "correlate",
        ("np.matmul(kernel, strips", "np.matmul(kernel[::-1], strips", "groups in the wrong order"),
        ("np.matmul(kernel, strips", "np.matmul(kernel[:, :, ::-1], strips", "kernel flipped"),
    ),
    *of(
        BY_ROWS,
        "correlate_transposed",
        ("::-1, ::-1].transpose", "::-1].transpose", "kernel not flipped along a row"),
        ("[:, :, ::-1, ::-1]", "[:, :, :, ::-1]", "kernel not flipped from row to row"),
        ("range(sh)]\n    kernels", "reversed(range(sh))]\n    kernels", "vertical stride out of step"),
        ("spread(weight, windows, groups)", "spread(weight, windows, groups)[::-1]", "groups mixed up"),
        ("room.fill(0)", "room.fill(1e-3)", "columns between are not zero"),
        ("room[:, :, ::sw] =", "room[:, :, :ow] =", "horizontal stride ignored"),
        ("np.add.reduce(", "np.subtract.reduce(", "wrong sign"),
        ("dx_groups[:, :, r] = 0", "dx_groups[:, :, r] = 1e-6", "pixels that no window sees are not zero"),
    ),
    *of(
        BY_ROWS,
        "_Shifts.of_transposed_products",
        ("before=windows.effective_kernel[1] - 1", "before=windows.kernel[1] - 1", "horizontal dilation ignored"),
        ("start=windows.before[1]", "start=0", "border at the left kept"),
    ),
    *of(
        BY_ROWS,
        "_Shifts.place",
        ("end:] = 0", "end:] = 1e-3", "border is not zero"),
        ("j + self.d * column", "j", "nothing is shifted"),
        ("j + self.d * column", "j + column", "horizontal dilation ignored"),
    ),
    *of(
        BY_ROWS,
        "_rows_below",
        ("max(first, 0)", "max(first, 1)", "first row of the image dropped"),
        ("windows.image[0])", "windows.image[0] - 1)", "last row of the image dropped"),
        (" - windows.before[0]", "", "padding above ignored"),
    ),
    *of(
        BY_ROWS,
        "_windows_over",
        ("windows.out[0])", "windows.out[0] - 1)", "last row of windows dropped"),
        ("max(first, 0)", "max(first, 1)", "first row of windows dropped"),
        ("r + windows.before[0]", "r", "padding above ignored"),
    ),
    *of(
        BY_ROWS,
        "correlate_weights",
        ("taps += dy_rows", "taps -= dy_rows", "wrong sign"),
        ("taps += dy_rows", "taps[...] = dy_rows", "last row of windows only"),
        ("shifted[:, :, j, seeing]", "shifted[:, ::-1, j, seeing]", "channels in the wrong order"),
        ("[:, ::-1]", "", "kernel flipped"),
        ("shifted.fill(0)", "shifted.fill(1e-3)", "padding is not zero"),
        ("dw.transpose(0, 1, 4, 3, 2)", "dw[:, :, ::-1].transpose(0, 1, 4, 3, 2)", "filters in the wrong order"),
    ),
    *of(
        BY_STRIPS,
        "correlate_weights",
        ("dw + strips", "dw - strips", "wrong sign"),
        ("dw + strips", "strips", "last row of windows only"),
        ("dy_groups[:, :, p]", "dy_groups[::-1, :, p]", "groups mixed up"),
        ("dy_groups[:, :, p]", "dy_groups[:, ::-1, p]", "filters in the wrong order"),
        ("np.reshape(dw,", "np.reshape(dw[:, ::-1],", "kernel flipped"),
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
        ("column * windows.dilation[1]", "column", "horizontal dilation ignored"),
        ("column * sw", "column", "horizontal stride ignored"),
        ("(p - start) * sh * kw", "(p - start) * kw", "vertical stride ignored"),
        ("image[:, start * sh :]", "image[:, :]", "all strips taken from the top"),
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
        ("(residuals[1] * residuals[2])", "residuals[1]", "divided by the height only"),
        ("(residuals[1] * residuals[2])", "1", "not divided"),
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
    ),
    *of(
        NORM,
        "BatchNorm.backward",
        ("if values is None", "if True", "statistics taken for constants in training"),
        ("scale.reshape(", "r.reshape(", "weight forgotten in evaluation"),
        ('"mean_dy", mean_dy,', '"mean_dy", 0 * mean_dy,', "mean term missing"),
        ("r * mean_dy_xhat", "0 * mean_dy_xhat", "variance term missing"),
        ("r * mean_dy_xhat", "mean_dy_xhat", "r forgotten in the variance term"),
        ("ctx.workers.all_reduce(sums) / values", "ctx.workers.all_reduce(sums) / (values - 1)", "divided by one less"),
        ("ctx.workers.all_reduce(sums)", "(ctx.workers.size * sums)", "every worker takes its own slice for all"),
        ("sum_rows(dy_rows[some])", "sum_rows(dy_rows[some][..., :-1])", "last value forgotten"),
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
        GRAPH,
        "Graph.backward",
        ("flows[name] + dx if name in flows else dx", "dx", "fan-out overwrites instead of adding"),
        ("flows[name] + dx if", "flows[name].__iadd__(dx) if", "adds in place to a gradient that a sibling shares"),
        ("flows[name] + dx if", "flows[name] if", "only the last reader's gradient counts"),
        ("zip(node.inputs, dxs", "zip(node.inputs[::-1], dxs", "gradients handed to the wrong inputs"),
        ("flow = np.zeros(tape.shapes", "flow = np.ones(tape.shapes", "what nobody reads has a gradient"),
        ("{self.output: dy}", "{self.nodes[-1].name: dy}", "begins at the last node instead of the output"),
        ("wants_dx=ctx.wants_dx or ", "wants_dx=ctx.wants_dx or not ", "gradients left out where they are needed"),
    ),
    *of(
        GRAPH,
        "Graph._find_needs_gradient",
        (
            "bool(self.trainable[node.name]) or any(needs[name] for name in node.inputs)",
            "bool(self.trainable[node.name])",
            "only layers with parameters are thought to need it",
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
            "FusedResiduals(e / total, y)",
            "FusedResiduals(e / total, one_hot(target, len(z), z.real.dtype) if target.ndim < 2 else target)",
            "label smoothing forgotten in the backward pass",
        ),
        ("FusedResiduals(e / total", "FusedResiduals(e", "not normalized"),
    ),
    *of(
        LOSSES,
        "SoftmaxCrossEntropy.backward",
        ("residuals.p - residuals.y", "residuals.y - residuals.p", "wrong sign"),
        ("residuals.p - residuals.y", "residuals.p * (residuals.p - residuals.y)", "softmax differentiated twice"),
    ),
    *of(LOSSES, "SoftmaxCrossEntropy.count", ("z.shape[-1]", "z.size", "divided by the classes, too")),
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
        ("float(found.loss_sum) / found.loss_count", "float(found.loss_sum)", "sum of the losses instead of the mean"),
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
        ("backward(residuals) / count", "backward(residuals)", "gradient of the sum instead of the mean"),
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
        "TrainingStep._count",
        (
            "_per_sample * len(batch)",
            "_per_sample * self._config.train.batch_size",
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
