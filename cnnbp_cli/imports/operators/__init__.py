"""What becomes of each operator: one function for each, in a file for each family.

A function emits layers and writes down what its output is, or raises `NoLayer` with the reason why it cannot.
Activations are recognized before, by what they compute.
"""

from __future__ import annotations

from cnnbp_cli.imports.operators import arithmetic, norms, parts, pointwise, products, views, windows
from cnnbp_cli.imports.translation import Handler

HANDLERS: dict[str, Handler] = {
    "Conv": windows.conv,
    "ConvTranspose": windows.conv_transpose,
    "MaxPool": windows.pool,
    "AveragePool": windows.pool,
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax"), windows.global_pool),
    "Gemm": products.dense,
    "MatMul": products.dense,
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), views.reshape),
    "Transpose": views.transpose,
    "Pad": views.pad,
    "Slice": parts.slice_,
    "Split": parts.split,
    "Gather": parts.gather,
    **dict.fromkeys(("Resize", "Upsample"), views.resize),
    "DepthToSpace": views.depth_to_space,
    "Identity": views.identity,
    "Cast": views.cast,
    "BatchNormalization": norms.batch_norm,
    "InstanceNormalization": norms.instance_norm,
    "GroupNormalization": norms.group_norm,
    "LayerNormalization": norms.layer_norm,
    "LRN": norms.local_response_norm,
    **dict.fromkeys(("Add", "Sum", "Mul"), arithmetic.merge),
    **dict.fromkeys(("Sub", "Div"), arithmetic.arithmetic),
    "Concat": arithmetic.concat,
    **dict.fromkeys(("Softmax", "LogSoftmax"), pointwise.softmax),
    "LeakyRelu": pointwise.activation("leaky_relu", slope=("alpha", 0.01)),
    "Elu": pointwise.activation("elu", alpha=("alpha", 1.0)),
    "PRelu": pointwise.prelu,
    "Dropout": pointwise.dropout,
}
"""By the operator's name in ONNX's default domain."""
