"""The published networks: each has the parameters, the operations and the shapes that are printed about it."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from jsonschema import Draft202012Validator

import cnnbp_cli as cnnbp
from cnnbp_cli.analysis.summary import summary
from cnnbp_cli.build import build_graph, require_target
from cnnbp_cli.config import templates
from cnnbp_cli.config.jsonschema import json_schema
from cnnbp_cli.config.load import load_config, parse_config
from cnnbp_cli.config.void import void_keys
from cnnbp_cli.config.write import as_yaml, to_dict_with_blocks, to_yaml

FOLDER = Path(__file__).parents[1] / "configs" / "published"


class Published(NamedTuple):
    """What this package counts, and what is printed.

    Attributes
    ----------
    parameters, macs : int
        Trainable parameters, and multiply-accumulate operations of one image.
    printed : dict of str to float
        Figures of the source, in millions of parameters and in millions of operations (one multiplication and one
        addition count as one), with half a unit of the last digit printed; 0 where all digits are.
    output : tuple of int
    """

    parameters: int
    macs: int
    printed: dict[str, tuple[float, float]]
    output: tuple[int, ...]


CLASSES = (1000,)
# Sources: docs/published.md.
NETWORKS = {
    "alexnet": Published(61_100_840, 714_188_480, {"parameters": (61.100840, 0), "macs": (710, 5)}, CLASSES),
    "vgg16": Published(138_357_544, 15_470_264_320, {"parameters": (138.357544, 0), "macs": (15_470, 5)}, CLASSES),
    "resnet18": Published(11_689_512, 1_814_073_344, {"parameters": (11.689512, 0), "macs": (1_810, 5)}, CLASSES),
    "resnet50": Published(25_557_032, 4_089_184_256, {"parameters": (25.557032, 0), "macs": (4_090, 5)}, CLASSES),
    "mobilenet-v1": Published(4_231_976, 568_740_352, {"parameters": (4.2, 0.05), "macs": (569, 0.5)}, CLASSES),
    "mobilenet-v2": Published(3_504_872, 300_774_272, {"parameters": (3.504872, 0), "macs": (300, 5)}, CLASSES),
    "squeezenet-1.1": Published(1_235_496, 349_151_936, {"parameters": (1.235496, 0), "macs": (350, 5)}, CLASSES),
    "densenet121": Published(7_978_856, 2_834_161_664, {"parameters": (7.978856, 0), "macs": (2_830, 5)}, CLASSES),
    "googlenet": Published(6_624_904, 1_498_376_192, {"parameters": (6.624904, 0), "macs": (1_500, 5)}, CLASSES),
    "all-cnn-c": Published(1_369_738, 270_798_336, {"parameters": (1.3, 0.1)}, (10,)),
    "wrn-16-4": Published(2_748_890, 392_612_352, {}, (10,)),
    "dcgan-generator": Published(3_576_704, 104_628_224, {"parameters": (3.576704, 0)}, (3, 64, 64)),
    "unet": Published(31_030_658, 150_428_424_448, {}, (2, 388, 388)),
    "lenet5-1998": Published(60_850, 328_096, {}, (10,)),
}

every_network = pytest.mark.parametrize("name", NETWORKS)


def config_of(name, *overrides):
    return load_config(FOLDER / f"{name}.yaml", overrides)


def test_these_are_all():
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == sorted(NETWORKS)
    assert [one.name for one in templates.templates() if one.published] == sorted(NETWORKS)


@every_network
def test_figures(name):
    expected, found = NETWORKS[name], summary(config_of(name))
    assert found.trainable_parameters == expected.parameters
    assert found.total_macs == expected.macs
    assert found.layers[-1].output_shape == list(expected.output)
    for key, (millions, half_a_digit) in expected.printed.items():
        counted = {"parameters": found.trainable_parameters, "macs": found.total_macs}[key] / 1e6
        assert abs(counted - millions) <= half_a_digit + 1e-9, key


@pytest.mark.parametrize("name", ["all-cnn-c", "wrn-16-4", "dcgan-generator", "unet"])
def test_what_nobody_publishes_is_what_pytorch_counts(name):
    """In the network of the paper, written in PyTorch, by its own counter of operations."""
    pytest.importorskip("torch")
    from published_in_torch import counted

    assert counted(name) == (NETWORKS[name].parameters, NETWORKS[name].macs)


@every_network
def test_is_a_page_and_reads_back(name):
    path = FOLDER / f"{name}.yaml"
    text = path.read_text("utf-8")
    assert len(text.splitlines()) < 70
    assert max(map(len, text.splitlines())) <= 124
    config = load_config(path)
    assert config.name == name
    assert void_keys(config) == []
    assert parse_config(to_yaml(config)) == config
    assert parse_config(as_yaml(to_dict_with_blocks(config))) == config


@pytest.fixture(scope="module")
def validator():
    return Draft202012Validator(json_schema())


@every_network
def test_editors_accept_it(validator, name):
    validator.validate(yaml.safe_load((FOLDER / f"{name}.yaml").read_text("utf-8")))


def test_the_largest_is_described_without_its_numbers():
    tracemalloc.start()
    try:
        assert summary(config_of("vgg16")).trainable_parameters == 138_357_544
        assert tracemalloc.get_traced_memory()[1] < 50_000_000  # its parameters take eleven times as much
    finally:
        tracemalloc.stop()


def test_the_wide_network_with_a_hundred_classes():
    found = summary(config_of("wrn-16-4", "model.layers.classifier.units=100"))
    assert round(found.trainable_parameters / 1e6, 2) == 2.77


def test_the_auxiliary_classifiers_of_googlenet():
    """As docs/published.md says; torchvision's googlenet(aux_logits=True), before its weights are loaded."""
    document = (FOLDER.parents[1] / "docs" / "published.md").read_text("utf-8").split("auxiliary classifiers\n")[1]
    block, uses, losses, *_ = re.findall(r"```text\n(.*?)```", document, re.DOTALL)
    before, _, after = (FOLDER / "googlenet.yaml").read_text("utf-8").partition("    - {block: conv, name: conv1")
    blocks, rest = before.removesuffix("  layers:\n"), after.partition("\n")[2]
    whole = f"{blocks}{block}  layers:\n{uses}{rest}".replace("train:\n", f"train:\n{losses}")
    config = parse_config(whole)
    found = summary(config)
    assert found.trainable_parameters == 13_004_888
    assert found.inference_macs == NETWORKS["googlenet"].macs
    own = sum(layer.trainable_parameters for layer in found.layers if layer.name.startswith("aux"))
    assert own == 13_004_888 - NETWORKS["googlenet"].parameters == 6_379_984
    require_target(config, build_graph(config))


def test_the_u_net_of_the_paper():
    found = summary(config_of("unet"))
    shapes = {layer.name: tuple(layer.output_shape) for layer in found.layers}
    assert sum(layer.type in ("conv2d", "conv_transpose2d") for layer in found.layers) == 23
    drawn = {"down1": 568, "down2": 280, "down3": 136, "down4": 64, "bottom": 28}
    assert {name: shapes[f"{name}_relu2"][1] for name in drawn} == drawn
    assert [shapes[f"up{k}_double_relu2"] for k in (4, 3, 2, 1)] == [
        (512, 52, 52),
        (256, 100, 100),
        (128, 196, 196),
        (64, 388, 388),
    ]


def test_lenet5_has_the_parameters_and_connections_of_each_printed_layer():
    graph = build_graph(config_of("lenet5-1998"))
    layers = {layer.name: layer for layer in summary(config_of("lenet5-1998")).layers}

    def parameters(*names):
        return sum(layers[name].parameters for name in names)

    def connections(*names):
        """Weights and biases, counted at every place where they are used."""
        biases = sum(int(np.prod(layers[name].output_shape)) for name in names)
        return sum(layers[name].macs for name in names) + biases

    c1, c3 = [f"m{k}_c" for k in range(6)], [f"n{k}_c" for k in range(16)]
    s2, s4 = [f"m{k}_s_scale" for k in range(6)], [f"n{k}_s_scale" for k in range(16)]
    assert (parameters(*c1), connections(*c1)) == (156, 122_304)
    assert (parameters(*c3), connections(*c3)) == (1_516, 151_600)
    assert (parameters("c5"), connections("c5")) == (48_120, 48_120)
    assert parameters("f6") == 10_164
    assert (parameters(*s2), parameters(*s4)) == (12, 32)
    # A place of S2 has four pixels and a bias; here the four have one factor.
    assert 5 * sum(layers[name].macs for name in s2) == 5_880
    assert 5 * sum(layers[name].macs for name in s4) == 2_000
    assert parameters(*c1, *s2, *c3, *s4, "c5", "f6") == 60_000
    seen = [sorted({name[1] for name in graph_inputs(graph, f"n{k}_maps")}) for k in range(16)]
    assert [len(maps) for maps in seen] == [3] * 6 + [4] * 9 + [6]
    assert seen[4] == ["0", "4", "5"]
    assert seen[12:15] == [["0", "1", "3", "4"], ["1", "2", "4", "5"], ["0", "2", "3", "5"]]


def graph_inputs(graph, name):
    return next(node.inputs for node in graph.nodes if node.name == name)


def test_gradients_of_a_small_one():
    model = cnnbp.load(FOLDER / "lenet5-1998.yaml", overrides=["data.train=4"])
    data = cnnbp.load_data(model)
    model.normalization = data.normalization
    report = cnnbp.gradcheck(model, data.train.images[:2], data.train.labels[:2], directions=1, elements=0)
    assert report.ok
    assert {check.status for check in report.parameters} <= {"ok", "noise"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in ("unet", "dcgan-generator")])
def test_gradients(name):
    size = 32 if NETWORKS[name].output == (10,) else 64
    channels = 1 if name == "lenet5-1998" else 3
    image = f"[{channels}, {size}, {size}]"
    model = cnnbp.load(FOLDER / f"{name}.yaml", overrides=[f"model.input={image}", f"data.image={image}"])
    data = cnnbp.load_data(model)
    model.normalization = data.normalization
    report = cnnbp.gradcheck(model, data.train.images[:2], data.train.labels[:2], directions=1, elements=0, time=30)
    assert report.ok
    assert report.comparisons > 0


class TestAgainstPyTorch:
    """Networks written down in PyTorch, from torchvision's description, with the same numbers in them."""

    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch")

    def resnet18(self, torch):
        nn = torch.nn

        class Basic(nn.Module):
            def __init__(self, before, filters, stride):
                super().__init__()
                self.conv1 = nn.Conv2d(before, filters, 3, stride, 1, bias=False)
                self.bn1 = nn.BatchNorm2d(filters)
                self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
                self.bn2 = nn.BatchNorm2d(filters)
                projects = stride > 1 or before != filters
                shortcut = [nn.Conv2d(before, filters, 1, stride, bias=False), nn.BatchNorm2d(filters)]
                self.downsample = nn.Sequential(*shortcut) if projects else nn.Identity()

            def forward(self, x):
                y = torch.relu(self.bn1(self.conv1(x)))
                return torch.relu(self.bn2(self.conv2(y)) + self.downsample(x))

        stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        blocks = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
        blocks += [(128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
        top = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)]
        return nn.Sequential(*stem, *(Basic(*block) for block in blocks), *top)

    def squeezenet(self, torch):
        nn = torch.nn

        class Fire(nn.Module):
            def __init__(self, before, squeeze, expand):
                super().__init__()
                self.squeeze = nn.Conv2d(before, squeeze, 1)
                self.expand1 = nn.Conv2d(squeeze, expand, 1)
                self.expand3 = nn.Conv2d(squeeze, expand, 3, padding=1)

            def forward(self, x):
                x = torch.relu(self.squeeze(x))
                return torch.cat([torch.relu(self.expand1(x)), torch.relu(self.expand3(x))], 1)

        def pool():
            return nn.MaxPool2d(3, 2, ceil_mode=True)

        fires = [Fire(64, 16, 64), Fire(128, 16, 64), pool(), Fire(128, 32, 128), Fire(256, 32, 128), pool()]
        fires += [Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)]
        top = [nn.Conv2d(512, 1000, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool(), *fires, *top)

    @pytest.mark.parametrize(("name", "twin"), [("resnet18", "resnet18"), ("squeezenet-1.1", "squeezenet")])
    def test_outputs(self, torch, name, twin):
        image = "[3, 64, 64]"
        overrides = [f"model.input={image}", f"data.image={image}", "model.head=none", "dtype=float64"]
        model = cnnbp.load(FOLDER / f"{name}.yaml", overrides=overrides)
        network = getattr(self, twin)(torch).double().eval()
        rng = np.random.default_rng(0)
        values = {}
        theirs = {key: value for key, value in network.state_dict().items() if "num_batches" not in key}
        ours = model.parameters()
        assert [tuple(value.shape) for value in theirs.values()] == [value.shape for value in ours.values()]
        for key, mine in zip(theirs, ours.items(), strict=True):
            name_of_mine, value = mine
            drawn = rng.uniform(0.5, 1.5, value.shape) if "var" in key else value + 0.02 * rng.normal(size=value.shape)
            values[name_of_mine] = drawn
            theirs[key].copy_(torch.from_numpy(drawn))
        model.set_parameters(values)
        images = rng.random((2, 3, 64, 64))
        with torch.no_grad():
            expected = network(torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(model.predict(images), expected, rtol=1e-9, atol=1e-9)
