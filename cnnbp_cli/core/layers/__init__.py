"""The layers, a file for each family; a class under `@register` is all that a new one takes."""

# ruff: noqa: F401, I001 (the order is that of messages, completion and the schema)
from cnnbp_cli.core.layers.conv import Conv2d, ConvTranspose2d
from cnnbp_cli.core.layers.pool import AvgPool2d, GlobalAvgPool2d, GlobalMaxPool2d, MaxPool2d
from cnnbp_cli.core.layers.resample import AdaptiveAvgPool2d, Upsample
from cnnbp_cli.core.layers.reshape import Flatten, Identity, PixelShuffle
from cnnbp_cli.core.layers.border import Crop, Pad
from cnnbp_cli.core.layers.channels import ChannelShuffle, SliceChannels
from cnnbp_cli.core.layers.dense import Dense
from cnnbp_cli.core.layers.norm import BatchNorm, GroupNorm, LayerNorm
from cnnbp_cli.core.layers.local_response_norm import LocalResponseNorm
from cnnbp_cli.core.layers.dropout import Dropout
from cnnbp_cli.core.layers.activation import Elu, Gelu, LeakyRelu, Relu, Sigmoid, Silu, Softmax, Softplus, Tanh
from cnnbp_cli.core.layers.piecewise import HardSigmoid, HardSwish, PRelu, Relu6
from cnnbp_cli.core.layers.merge import Add, Concat, Multiply
from cnnbp_cli.core.layers.registry import LAYERS as LAYERS, register as register
