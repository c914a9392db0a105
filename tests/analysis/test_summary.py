"""The summary's arithmetic: against counts made by hand, and its receptive fields against real gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cnnbp_cli
from cnnbp_cli.analysis.summary import LayerSummary, Summary, describe, summary
from cnnbp_cli.config.load import load_config
from cnnbp_cli.core.graph import Graph, Node
from cnnbp_cli.core.layers.activation import Relu
from cnnbp_cli.core.layers.conv import Conv2d, ConvTranspose2d
from cnnbp_cli.core.layers.dense import Dense
from cnnbp_cli.core.layers.dropout import Dropout
from cnnbp_cli.core.layers.merge import Add, Concat
from cnnbp_cli.core.layers.norm import BatchNorm
from cnnbp_cli.core.layers.pool import AvgPool2d, GlobalAvgPool2d
from cnnbp_cli.core.layers.reshape import Flatten
from cnnbp_cli.core.types import Context, Operation

CONFIGS = Path(__file__).parents[2] / "configs"


def layer(found: Summary, name: str) -> LayerSummary:
    return next(one for one in found.layers if one.name == name)


def seen(image: tuple[int, int, int], nodes: list[Node]) -> list[int]:
    """Return the extent, in the image, of the gradient of one position in the middle of the last output."""
    graph = Graph(image, nodes)
    rng = np.random.default_rng(0)
    params = graph.init_params(0, np.dtype(np.float64))
    for value in (value for own in params.values() for value in own.values()):
        value[...] = rng.uniform(0.5, 1, value.shape)  # positive: no two paths cancel
    (y,), tape = graph.forward(params, rng.uniform(0.5, 1, (*image, 1)), Context())
    dy = np.zeros_like(y)
    dy[(0, *(size // 2 for size in y.shape[1:-1]), 0)] = 1
    dx, _ = graph.backward(params, tape, [dy], Context())
    assert dx is not None
    rows, columns = np.nonzero(dx[..., 0].any(0))
    return [int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1]


@pytest.mark.parametrize(
    ("name", "total", "learnt", "macs"),
    [
        ("toy", 15, 15, 16 * 9 + 4),
        ("lenet5", 61_706, 61_706, 416_520),
        ("keras-mnist", 34_826, 34_826, 2_440_960),
        ("pytorch-mnist", 1_199_882, 1_199_882, 26 * 26 * 32 * 9 + 24 * 24 * 64 * 288 + 9216 * 128 + 1280),
        ("vgg-bn", 65_834 + 2 * (32 + 32 + 64 + 64), 65_834, 18_289_792),
    ],
)
def test_totals_of_the_shipped_configs(name: str, total: int, learnt: int, macs: int) -> None:
    found = summary(load_config(CONFIGS / f"{name}.yaml"))
    assert (found.total_parameters, found.trainable_parameters, found.total_macs) == (total, learnt, macs)
    assert sum(one.parameters for one in found.layers) == total
    assert sum(one.macs for one in found.layers) == macs


def test_a_model_and_its_config_give_the_same() -> None:
    path = CONFIGS / "resnet-mini.yaml"
    assert cnnbp_cli.summary(cnnbp_cli.load(path)) == summary(load_config(path))


def test_memory_in_both_dtypes() -> None:
    single = summary(load_config(CONFIGS / "toy.yaml"))
    double = summary(load_config(CONFIGS / "toy.yaml", ["dtype=float64"]))
    assert single.total_activation_bytes == 4 * (16 + 16 + 4 + 4 + 1)
    assert single.total_gradient_bytes == 4 * 15
    assert double.total_activation_bytes == 2 * single.total_activation_bytes
    assert double.total_gradient_bytes == 2 * single.total_gradient_bytes
    assert (single.dtype, single.batch_size) == ("float32", 20)


def test_keys_of_the_json_are_those_that_scripts_rely_on() -> None:
    found = summary(load_config(CONFIGS / "toy.yaml")).to_dict()
    assert {"name", "layers", "total_parameters", "trainable_parameters", "total_macs"} <= found.keys()
    keys = {"name", "type", "inputs", "input_shape", "output_shape", "parameters", "macs", "receptive_field"}
    assert keys | {"activation_bytes"} <= found["layers"][0].keys()


def test_kernels() -> None:
    found = summary(load_config(CONFIGS / "autoencoder.yaml"))
    upward = layer(found, "conv_transpose2d_1").kernel
    assert upward is not None
    assert (upward.size, upward.stride, upward.dilation) == ((4, 4), (2, 2), (1, 1))
    assert layer(found, "relu_1").kernel is None


def test_fields_of_lenet5() -> None:
    found = summary(load_config(CONFIGS / "lenet5.yaml"))
    names = ["conv1", "max_pool2d_1", "conv2", "max_pool2d_2", "flatten_1", "dense_1"]
    assert [layer(found, name).receptive_field[0] for name in names] == [5, 6, 14, 16, 28, 28]


def test_pixels_that_no_window_reaches_are_not_counted() -> None:
    found = summary(load_config(CONFIGS / "keras-mnist.yaml"))  # the last pool leaves out a row and a column
    assert layer(found, "dense_1").receptive_field == [26, 26]


STACKS: dict[str, list[Operation[Any]]] = {
    "convolutions": [Conv2d(2, (3, 5)), Conv2d(2, (3, 5))],
    "strides": [Conv2d(2, 3, stride=2), Conv2d(2, (1, 3), stride=(1, 2)), Conv2d(2, 2)],
    "dilation": [Conv2d(1, 3, dilation=(1, 3)), Conv2d(1, 3, dilation=2)],
    "pools": [Conv2d(2, 3), AvgPool2d(3, stride=2), AvgPool2d(2)],
    "point by point": [Conv2d(4, 3, padding="same"), Relu(), BatchNorm(), Dropout(0.5), Conv2d(4, 3, groups=4)],
    "transposed": [Conv2d(2, 3, stride=3), ConvTranspose2d(2, 6, stride=3)],
    "global pool": [Conv2d(2, 3, stride=2), GlobalAvgPool2d(), Dense(2)],
    "flatten": [Conv2d(2, 5, stride=4), Flatten(), Dense(2)],
}


@pytest.mark.parametrize("name", STACKS)
def test_fields_are_the_extent_of_real_gradients(name: str) -> None:
    image, nodes = (1, 21, 23), [Node("layer0", STACKS[name][0], ("input",))]
    for k, operation in enumerate(STACKS[name][1:], start=1):
        nodes.append(Node(f"layer{k}", operation, (f"layer{k - 1}",)))
    found = describe(Graph(image, nodes), 4)
    for k, one in enumerate(found, start=1):
        if one.type != "flatten":  # one of its numbers sees one position only, all of them the image
            assert one.receptive_field == seen(image, nodes[:k]), one.name


def test_where_branches_meet_the_widest_counts() -> None:
    nodes = [
        Node("stem", Conv2d(2, 3, padding="same"), ("input",)),
        Node("wide", Conv2d(2, 5, padding="same"), ("stem",)),
        Node("sum", Add(), ("wide", "stem")),
        Node("all", Concat(), ("input", "sum")),
    ]
    found = describe(Graph((1, 21, 21), nodes), 4)
    assert [one.receptive_field for one in found] == [[3, 3], [7, 7], [7, 7], [7, 7]]
    assert found[2].receptive_field == seen((1, 21, 21), nodes[:3])
    assert (found[2].parameters, found[2].macs, found[2].inputs) == (0, 0, ["wide", "stem"])


def test_a_field_may_be_larger_than_the_image() -> None:
    wide = Conv2d(1, 5, padding="same")
    nodes = [
        Node("a", wide, ("input",)),
        Node("b", wide, ("a",)),
        Node("c", wide, ("b",)),
        Node("d", Flatten(), ("c",)),
    ]
    found = describe(Graph((1, 8, 8), nodes), 4)
    assert [one.receptive_field for one in found] == [[5, 5], [9, 9], [13, 13], [8, 8]]
