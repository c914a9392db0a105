"""What a config means when it is right: defaults, names, paths, YAML's finer points."""

import os
import pickle
import sys
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import AfterValidator

from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.config.hints import check
from cnnbp_cli.config.load import config_from_dict, load_config, parse_config
from cnnbp_cli.config.nodes import YamlScalar
from cnnbp_cli.config.schema import (
    Augment,
    Config,
    Csv,
    EarlyStopping,
    Idx,
    LayerSpec,
    Limit,
    MnistSubset,
    ModelConfig,
    Npz,
    Synthetic,
    TrainConfig,
)
from cnnbp_cli.core.initializers import HeNormal, Normal, Zeros
from cnnbp_cli.core.layers import LAYERS
from cnnbp_cli.core.layers.activation import Relu
from cnnbp_cli.core.layers.conv import Conv2d
from cnnbp_cli.core.layers.dense import Dense
from cnnbp_cli.core.layers.reshape import Flatten
from cnnbp_cli.core.optim import Adam, Sgd
from cnnbp_cli.core.schedules import Constant, Cosine, LinearWarmup, OneCycle
from cnnbp_cli.core.types import FieldErrors, Layer

SHIPPED = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def test_all_defaults(good):
    assert parse_config(good) == Config(
        name="config",
        seed=0,
        dtype="float32",
        data=MnistSubset(normalize="standard", validation=0, augment=None, limit=None, target="auto"),
        model=ModelConfig(
            input=(1, 28, 28),
            init=HeNormal(),
            head="softmax",
            layers=(
                LayerSpec("conv1", ("input",), Conv2d(6, 5, init=HeNormal())),
                LayerSpec("relu_1", ("conv1",), Relu()),
                LayerSpec("flatten_1", ("relu_1",), Flatten()),
                LayerSpec("dense_1", ("flatten_1",), Dense(10, init=HeNormal())),
            ),
        ),
        train=TrainConfig(
            loss="cross_entropy",
            label_smoothing=0.0,
            epochs=5,
            max_steps=None,
            batch_size=64,
            optimizer=Adam(),
            schedule=Constant(),
            clip_norm=None,
            early_stopping=None,
            workers="auto",
        ),
    )


def test_everything_said():
    config = parse_config("""
name: all
seed: 7
dtype: float64
data:
  source: idx
  path: /data/mnist
  normalize: unit
  validation: 500
  augment: {shift: 2, rotate: 10, scale: 0.1}
  limit: {train: 1000}
  target: label
model:
  input: [1, 28, 28]
  init: {type: normal, std: 1e-2}
  layers:
    - {type: conv2d, filters: 4, kernel_size: [3, 5], padding: [1, 2], bias: false, init: zeros}
    - {type: dense, units: 1}
  head: sigmoid
train:
  loss: mse
  epochs: 3
  max_steps: 100
  batch_size: 32
  optimizer: {type: sgd, learning_rate: 1E-1, momentum: .9, nesterov: true}
  schedule: {type: linear_warmup, steps: 10, then: cosine}
  clip_norm: 1
  early_stopping: {monitor: validation_accuracy, patience: 1, min_delta: 0.001}
  workers: 2
""")
    assert config == Config(
        name="all",
        seed=7,
        dtype="float64",
        data=Idx(
            path=Path("/data/mnist"),
            normalize="unit",
            validation=500,
            augment=Augment(2, 10.0, 0.1),
            limit=Limit(train=1000),
            target="label",
        ),
        model=ModelConfig(
            (1, 28, 28),
            (
                LayerSpec("conv2d_1", ("input",), Conv2d(4, (3, 5), padding=(1, 2), bias=False, init=Zeros())),
                LayerSpec("dense_1", ("conv2d_1",), Dense(1, init=Normal(0.01))),
            ),
            Normal(0.01),
            "sigmoid",
        ),
        train=TrainConfig(
            loss="mse",
            epochs=3,
            max_steps=100,
            batch_size=32,
            optimizer=Sgd(0.1, 0.9, True),
            schedule=LinearWarmup(10, then=Cosine()),
            clip_norm=1.0,
            early_stopping=EarlyStopping("validation_accuracy", 1, 0.001),
            workers=2,
        ),
    )
    assert type(config.data.validation) is int
    assert type(config.train.clip_norm) is float


@pytest.mark.parametrize(
    ("head", "loss"), [("softmax", "cross_entropy"), ("sigmoid", "binary_cross_entropy"), ("none", "mse")]
)
def test_the_loss_follows_the_head(good, head, loss):
    assert parse_config(f"{good}  head: {head}\n").train.loss == loss


def test_the_name_is_the_files(tmp_path, good):
    file = tmp_path / "my net.v2.yaml"
    file.write_text(good)
    assert load_config(file).name == "my-net.v2"
    assert load_config(str(file), ["name=other"]).name == "other"


def test_names_count_all_layers_of_a_type(good):
    text = good.replace("- relu", "- {type: conv2d, filters: 1, kernel_size: 1}").replace("- flatten", "- relu")
    assert [spec.name for spec in parse_config(text).model.layers] == ["conv1", "conv2d_2", "relu_1", "dense_1"]


def test_inputs_may_point_forward():
    config = parse_config("""
data: mnist-subset
model:
  input: [1, 28, 28]
  layers:
    - {type: add, inputs: [a, b]}
    - {type: relu, name: a, inputs: [input]}
    - {type: tanh, name: b}
""")
    assert [(spec.name, spec.inputs) for spec in config.model.layers] == [
        ("add_1", ("a", "b")),
        ("a", ("input",)),
        ("b", ("a",)),
    ]


def test_yaml_words_and_numbers(good):
    # YAML 1.2: `no` and `on` are words, only true and false are booleans; leading zeros are decimal.
    text = good.replace("conv1", "no") + "seed: 0x1F\ntrain: {clip_norm: 1e-3, epochs: 010, max_steps: 0o17}\n"
    config = parse_config(text)
    assert config.model.layers[0].name == "no"
    assert (config.seed, config.train.clip_norm, config.train.epochs, config.train.max_steps) == (31, 0.001, 10, 15)
    for number, value in {"1E5": 1e5, ".5e-3": 0.0005, "+2.": 2.0, "3": 3.0, "1e+2": 100.0}.items():
        assert parse_config(f"{good}train: {{clip_norm: {number}}}\n").train.clip_norm == value
    for word in ("true", "True", "TRUE"):
        assert parse_config(
            f"{good}train: {{optimizer: {{type: rmsprop, centered: {word}}}}}\n"
        ).train.optimizer.centered


def test_null_is_the_default_where_there_may_be_nothing(good):
    assert parse_config(good + "train: {clip_norm: null, max_steps: ~, early_stopping: }\n") == parse_config(good)


def test_anchors_and_merge_keys(good):
    text = good.replace("- {type: conv2d, name: conv1", "- &c {type: conv2d").replace(
        "- relu", "- {<<: *c, filters: 8}"
    )
    first, second = parse_config(text).model.layers[:2]
    assert (first.layer, second.layer) == (
        Conv2d(6, 5, init=HeNormal()),
        Conv2d(8, 5, init=HeNormal()),
    )


def test_an_override_of_one_alias_leaves_the_others(good):
    text = good.replace("- relu", "- &d {type: dropout, rate: 0.1}").replace("- flatten", "- *d")
    layers = parse_config(text, ["model.layers.1.rate=0.5"]).model.layers
    assert [layers[1].layer.rate, layers[2].layer.rate] == [0.5, 0.1]


def test_paths_are_relative_to_the_file(tmp_path, good, monkeypatch):
    (tmp_path / "a").mkdir()
    file = tmp_path / "a" / "c.yaml"
    file.write_text(good.replace("{source: mnist-subset}", "{source: csv, path: ../d/x.csv, test_path: /t.csv}"))
    monkeypatch.chdir(tmp_path)
    for source in (file, "a/c.yaml"):
        assert load_config(source).data == Csv(path=tmp_path / "d" / "x.csv", test_path=Path("/t.csv"))
    assert load_config(file, ["data.test_path=y.csv"]).data == Csv(
        path=tmp_path / "d" / "x.csv", test_path=tmp_path / "y.csv"
    )


def test_standard_input(monkeypatch, good, tmp_path):
    monkeypatch.chdir(tmp_path)
    text = good.replace("{source: mnist-subset}", "{source: npz, path: x.npz}")
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(text.encode())))
    assert load_config("-").data == Npz(path=tmp_path / "x.npz")
    with pytest.raises(ConfigError) as caught:
        load_config("-", stdin=good + "seed: x\n")
    assert str(caught.value).splitlines()[0] == "<stdin>:9:7: seed: expected an integer, got 'x'"


def test_byte_order_mark(tmp_path, good):
    file = tmp_path / "config.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + good.encode())
    assert load_config(file) == parse_config(good)


def test_synthetic_defaults_follow_the_kind():
    assert Synthetic() == Synthetic(kind="digits", train=1000, test=200, image=(1, 28, 28), classes=10)
    assert Synthetic(kind="bars") == Synthetic(kind="bars", image=(1, 6, 6), classes=2)


def test_from_a_dict(good, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mapping = {
        "data": {"source": "idx", "path": Path("mnist")},
        "model": {"input": (1, 28, 28), "layers": ["flatten", {"type": "dense", "units": 10}]},
        "train": {"schedule": {"type": "one_cycle", "max_learning_rate": 1}},
    }
    config = config_from_dict(mapping, name="mine")
    assert config.name == "mine"
    assert config.data == Idx(path=tmp_path / "mnist")
    assert config.model.layers[1] == LayerSpec("dense_1", ("flatten_1",), Dense(10, init=HeNormal()))
    assert config.train.schedule == OneCycle(1.0)


def test_complaints_about_a_dict_name_the_keys():
    with pytest.raises(ConfigError) as caught:
        config_from_dict(
            {
                "data": {"source": "mnist"},
                "model": {"input": [1, 28.5, 28], "layers": [{"type": "dense", "units": 0}, {"units": {1}}]},
                3: 4,
            }
        )
    assert str(caught.value) == (
        "model.layers[1].units: expected a value that YAML can hold, got set\n"
        "expected a word as the key, got 3\n"
        "data.source: unknown data source 'mnist', "
        "expected one of: mnist-subset, idx, npz, npy, csv, folder, synthetic\n"
        "model.input[1]: expected an integer, got 28.5\n"
        "model.layers[0].units: expected 1 or more, got 0\n"
        "model.layers[1]: missing key 'type'\n"
        "6 problems"
    )


def test_a_dict_that_contains_itself():
    mapping: dict = {}
    mapping["data"] = mapping
    with pytest.raises(ConfigError) as caught:
        config_from_dict(mapping)
    assert str(caught.value) == "data.data.data: nested more than 40 deep"


def test_positions_outlive_the_reading(good):
    config = parse_config(good, label="c.yaml")
    assert str(config.positions.problem(("model", "layers", 3), "does not fit")) == (
        "c.yaml:8:7: does not fit\n  8 |     - {type: dense, units: 10}\n    |       ^^^^^^^^^^^^^^^^^^^^^^^^"
    )
    assert str(config.positions.problem(("model", "layers", 0, "stride"), "too far", label="stride")) == (
        "c.yaml:5:14: stride: too far\n"
        "  5 |     - {type: conv2d, name: conv1, filters: 6, kernel_size: 5}\n"
        "    |              ^^^^^^"
    )
    assert str(config.positions.problem(("model", "head"), "no")).splitlines()[0] == "c.yaml:2:1: no"
    assert str(config.positions.problem(("train", "epochs"), "no")).splitlines()[0] == "c.yaml:1:1: no"


def test_positions_of_a_config_made_of_dataclasses():
    model = ModelConfig((1, 2, 2), (LayerSpec("flatten", ("input",), Flatten()),))
    config = Config("mine", data=MnistSubset(), model=model)
    assert str(config.positions.problem(("model", "layers", 0), "no")) == "model.layers[0]: no"
    assert config.train.loss == "cross_entropy"


def test_positions_are_no_part_of_the_value(good):
    config = parse_config(good)
    assert config == parse_config("# moved\n" + good)
    assert hash(config) == hash(parse_config("# moved\n" + good))
    assert "positions" not in repr(config)
    assert pickle.loads(pickle.dumps(config)) == config


def test_dataclasses_check_themselves():
    model = ModelConfig((1, 2, 2), (LayerSpec("flatten", ("input",), Flatten()),), head="sigmoid")
    with pytest.raises(FieldErrors) as caught:
        Config("a/b", data=MnistSubset(), model=model, train=TrainConfig(loss="cross_entropy"))
    assert caught.value.problems == [
        ("name", "expected a name that a folder can have, got 'a/b'"),
        ("train.loss", "the head sigmoid requires binary_cross_entropy or mse, got cross_entropy"),
    ]


def test_a_layer_of_ones_own(good, monkeypatch):
    @dataclass(frozen=True, slots=True)
    class Blur(Layer[None]):
        weights: dict[str, int]
        type: Literal["blur"] = "blur"

        def forward(self, params, x, ctx):
            return x, None

        def backward(self, params, residuals, dy, ctx):
            return dy, {}

    monkeypatch.setitem(LAYERS, "blur", Blur)
    text = good.replace("- relu", "- {type: blur, weights: {a: 1}}")
    assert parse_config(text).model.layers[1] == LayerSpec("blur_1", ("conv1",), Blur({"a": 1}))
    with pytest.raises(ConfigError) as caught:
        parse_config(text.replace("a: 1", "a: true"), label="c.yaml")
    assert str(caught.value) == (
        "c.yaml:6:29: weights: input should be a valid integer, got a mapping\n"
        "  6 |     - {type: blur, weights: {a: true}}\n"
        "    |                             ^^^^^^^^^"
    )


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped(path):
    assert load_config(path).name == path.stem
    assert path.read_text("utf-8").startswith("# ")


def test_nine_configs_are_shipped():
    assert [path.stem for path in SHIPPED] == [
        *("allconv", "autoencoder", "depthwise", "keras-mnist", "lenet5"),
        *("pytorch-mnist", "resnet-mini", "toy", "vgg-bn"),
    ]


def test_other_hints_are_told_without_the_validators_own_words():
    def even(value: int) -> int:
        if value % 2:
            raise ValueError("expected an even number")
        return value

    found: list[str] = []
    check(Annotated[int, AfterValidator(even)], YamlScalar(3), lambda node, message, at: found.append(message))
    assert found == ["expected an even number, got 3"]


def test_a_tilde_is_the_home_folder(good, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    data = parse_config(good, ["data={source: csv, path: ~/a.csv, test_path: ./~/b.csv}"]).data
    assert (data.path, data.test_path) == (Path(os.path.realpath(tmp_path / "a.csv")), Path.cwd() / "~" / "b.csv")
