"""`--set`: what it changes, and how it complains about itself."""

import pickle
from pathlib import Path

import pytest

from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.config.load import parse_config
from cnnbp_cli.config.schema import Augment, EarlyStopping, Idx, MnistSubset
from cnnbp_cli.config.shortcut import Shortcut
from cnnbp_cli.core.initializers import HeNormal, Normal
from cnnbp_cli.core.layers.activation import LeakyRelu
from cnnbp_cli.core.layers.dense import Dense
from cnnbp_cli.core.optim import Adam, Sgd
from cnnbp_cli.core.schedules import Cosine


def layer(config, index):
    return config.model.layers[index].layer


@pytest.mark.parametrize(
    ("overrides", "what", "value"),
    [
        (["seed=3"], lambda c: c.seed, 3),
        (["seed=3", "seed=4"], lambda c: c.seed, 4),
        (["name='3'"], lambda c: c.name, "3"),
        (["model.layers.0.filters=8"], lambda c: layer(c, 0).filters, 8),
        (["model.layers.conv1.filters=8"], lambda c: layer(c, 0).filters, 8),
        (["model.layers.dense_1.units=3"], lambda c: layer(c, 3).units, 3),
        (["model.layers.dense_1={type: dense, units: 4}"], lambda c: layer(c, 3), Dense(4, init=HeNormal())),
        (
            ["model.layers.relu_1=leaky_relu", "model.layers.leaky_relu_1.slope=.2"],
            lambda c: layer(c, 1),
            LeakyRelu(0.2),
        ),
        (["model.layers.relu_1.name=act"], lambda c: c.model.layers[2].inputs, ("act",)),
        (["model.layers.conv1.kernel_size=[3, 5]"], lambda c: layer(c, 0).kernel_size, (3, 5)),
        (
            ["model.layers.conv1.kernel_size=[3, 5]", "model.layers.conv1.kernel_size.1=7"],
            lambda c: layer(c, 0).kernel_size,
            (3, 7),
        ),
        (["model.input.0=3"], lambda c: c.model.input, (3, 28, 28)),
        (["model.init={type: normal, std: 1}", "model.init.std=2"], lambda c: c.model.init, Normal(2.0)),
        (["train.optimizer.learning_rate=0.1"], lambda c: c.train.optimizer, Adam(0.1)),
        (["train.optimizer=sgd", "train.optimizer.momentum=0.5"], lambda c: c.train.optimizer, Sgd(momentum=0.5)),
        (["train.schedule=cosine", "train.schedule.minimum=1e-5"], lambda c: c.train.schedule, Cosine(1e-5)),
        (["data={source: idx, path: /mnist}"], lambda c: c.data, Idx(path=Path("/mnist"))),
        (["data.augment.shift=2"], lambda c: c.data.augment, Augment(2)),
        (["data=mnist-subset", "data.validation=5"], lambda c: c.data, MnistSubset(validation=5)),
        (
            ["data.validation=5", "train.early_stopping.patience=9"],
            lambda c: c.train.early_stopping,
            EarlyStopping(patience=9),
        ),
        (["train.clip_norm=1", "train.clip_norm="], lambda c: c.train.clip_norm, None),
        (["train={epochs: 2}"], lambda c: c.train.epochs, 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_overrides(good, overrides, what, value):
    assert what(parse_config(good, overrides)) == value


def test_a_mapping_replaces_the_whole_mapping(good):
    text = good + "train: {epochs: 2, optimizer: {type: sgd, momentum: 0.9}}\n"
    train = parse_config(text, ["train.optimizer={type: sgd, learning_rate: 1}"]).train
    assert (train.epochs, train.optimizer) == (2, Sgd(1.0))


def test_a_config_may_be_all_overrides(good):
    config = parse_config("", ["data=mnist-subset", "model.input=[1, 2, 2]", "model.layers=[flatten]"])
    assert [spec.name for spec in config.model.layers] == ["flatten_1"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "train.optimiser.learning_rate=0.1",
            "--set train.optimiser.learning_rate=0.1:7: unknown key 'optimiser' of train, did you mean 'optimizer'?\n"
            "  --set train.optimiser.learning_rate=0.1\n"
            "              ^^^^^^^^^",
        ),
        (
            "train.optimizer.lr=0.1",
            "--set train.optimizer.lr=0.1:17: unknown key 'lr' of adam, did you mean 'learning_rate'?\n"
            "  --set train.optimizer.lr=0.1\n"
            "                        ^^",
        ),
        (
            "model.layers.conv1.filters=six",
            "--set model.layers.conv1.filters=six:28: filters: expected an integer, got 'six'\n"
            "  --set model.layers.conv1.filters=six\n"
            "                                   ^^^",
        ),
        (
            "model.layers.conv2.filters=6",
            "--set model.layers.conv2.filters=6:14: unknown layer 'conv2', did you mean 'conv1'?\n"
            "  --set model.layers.conv2.filters=6\n"
            "                     ^^^^^",
        ),
        (
            "model.layers.4=relu",
            "--set model.layers.4=relu:14: model.layers has 4 items, counted from 0\n"
            "  --set model.layers.4=relu\n"
            "                     ^",
        ),
        (
            "model.input.x=1",
            "--set model.input.x=1:13: model.input is a list: expected a number, got 'x'\n"
            "  --set model.input.x=1\n"
            "                    ^",
        ),
        (
            "model.layers.0.stride.x=1",
            "--set model.layers.0.stride.x=1:16: stride: expected an integer or a list of 2 integers, got a mapping\n"
            "  --set model.layers.0.stride.x=1\n"
            "                       ^^^^^^",
        ),
        (
            "model.layers.0.filters.x=1",
            "--set model.layers.0.filters.x=1:16: model.layers[0].filters is 6, which has no keys\n"
            "  --set model.layers.0.filters.x=1\n"
            "                       ^^^^^^^",
        ),
        (
            "model.layers.relu_1.slope=1",
            "--set model.layers.relu_1.slope=1:21: unknown key 'slope' of relu, "
            "expected one of: type, name, inputs, trainable\n"
            "  --set model.layers.relu_1.slope=1\n"
            "                            ^^^^^",
        ),
        ("seed", "--set seed:1: expected key.path=value\n  --set seed\n        ^^^^"),
        ("", "--set :1: expected key.path=value\n  --set\n        ^"),
        ("=3", "--set =3:1: expected key.path=value\n  --set =3\n        ^^"),
        (
            "train..epochs=3",
            "--set train..epochs=3:7: expected a key, got ''\n  --set train..epochs=3\n              ^",
        ),
        (
            "seed=!!python/name:x 3",
            "--set seed=!!python/name:x 3:6: tags such as !!python/name:x are not allowed\n"
            "  --set seed=!!python/name:x 3\n"
            "             ^^^^^^^^^^^^^^^",
        ),
        (
            "data={source: idx,\n  path: 3}",
            "--set data={source: idx,   path: 3}:2:9: path: expected a path, got 3\n"
            "          path: 3}\n"
            "                ^",
        ),
        (
            "train.epochs=0",
            "--set train.epochs=0:14: epochs: expected 1 or more, got 0\n"
            "  --set train.epochs=0\n"
            "                     ^",
        ),
    ],
    ids=lambda text: text.splitlines()[0][:40] if text else "empty",
)
def test_complaints_point_into_the_override(good, override, message):
    with pytest.raises(ConfigError) as caught:
        parse_config(good, [override], label="c.yaml")
    assert str(caught.value) == message


def test_problems_of_the_file_come_first(good):
    with pytest.raises(ConfigError) as caught:
        parse_config(good + "seed: x\n", ["train.epochs=0", "name=3"], label="c.yaml")
    assert [str(problem).splitlines()[0] for problem in caught.value.problems] == [
        "c.yaml:9:7: seed: expected an integer, got 'x'",
        "--set train.epochs=0:14: epochs: expected 1 or more, got 0",
        "--set name=3:6: name: expected text, got 3",
    ]


def test_a_head_that_conflicts_with_the_loss_of_the_file(good):
    with pytest.raises(ConfigError) as caught:
        parse_config(good + "train: {loss: cross_entropy}\n", ["model.head=sigmoid"], label="c.yaml")
    assert str(caught.value).splitlines()[0] == (
        "c.yaml:9:15: loss: the head sigmoid requires binary_cross_entropy or mse, got cross_entropy"
    )


class TestFilesOfOverrides:
    @pytest.fixture
    def overridden(self, good, tmp_path):
        """Read the good config with a file of overrides, and more overrides after it."""

        def read(text, *more):
            path = tmp_path / "over.yaml"
            path.write_text(text, encoding="utf-8")
            return parse_config(good, [path, *more], label="c.yaml")

        return read

    @pytest.mark.parametrize(
        ("text", "what", "value"),
        [
            ("train.optimizer.learning_rate: 0.1", lambda c: c.train.optimizer, Adam(0.1)),
            ("train: {optimizer: {learning_rate: 0.1}, epochs: 2}", lambda c: c.train.optimizer, Adam(0.1)),
            ("train.optimizer: {type: sgd, momentum: 0.5}", lambda c: c.train.optimizer, Sgd(momentum=0.5)),
            ("model: {layers.conv1: {filters: 8}}", lambda c: layer(c, 0).filters, 8),
            ("model: {layers: {dense_1: {type: dense, units: 4}}}", lambda c: layer(c, 3), Dense(4, init=HeNormal())),
            ("model.layers: {0: {kernel_size: [3, 5]}}", lambda c: layer(c, 0).kernel_size, (3, 5)),
            ("'seed': 3", lambda c: c.seed, 3),
        ],
    )
    def test_keys_are_paths_or_mappings_of_them(self, overridden, text, what, value):
        assert what(overridden(text)) == value

    def test_a_mapping_is_merged_unless_it_names_its_type(self, overridden):
        start = "train: {epochs: 9, optimizer: {type: adam, epsilon: 1e-3}}"
        merged = overridden(start, "seed=1").train
        assert (merged.epochs, merged.batch_size, merged.optimizer) == (9, 64, Adam(epsilon=1e-3))

    def test_what_comes_later_wins(self, overridden):
        assert overridden("seed: 3", "seed=4").seed == 4

    def test_relative_paths_start_at_the_file(self, overridden, tmp_path):
        assert overridden("data: {source: idx, path: mnist}").data.path == (tmp_path / "mnist").resolve()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "train:\n  epocs: 3",
                "over.yaml:2:3: unknown key 'epocs' of train, did you mean 'epochs'?\n  2 |   epocs: 3\n    |   ^^^^^",
            ),
            (
                "seed: 1\n'model.layers.conv2.filters': 3",
                "over.yaml:2:15: unknown layer 'conv2', did you mean 'conv1'?\n"
                "  2 | 'model.layers.conv2.filters': 3\n"
                "    |               ^^^^^",
            ),
            (
                "model: {layers.conv1: {filters: six}}",
                "over.yaml:1:33: filters: expected an integer, got 'six'\n"
                "  1 | model: {layers.conv1: {filters: six}}\n"
                "    |                                 ^^^",
            ),
            (
                "[seed=3]",
                "over.yaml:1:1: expected a mapping of key.path: value, got a list of 1\n  1 | [seed=3]\n    | ^^^^^^^^",
            ),
            ("", "over.yaml:1:1: expected a mapping of key.path: value, got nothing\n  1 |\n    | ^"),
            ("a..b: 3", "over.yaml:1:3: expected a key, got ''\n  1 | a..b: 3\n    |   ^"),
        ],
    )
    def test_complaints_point_into_the_file(self, overridden, tmp_path, text, message):
        with pytest.raises(ConfigError) as caught:
            overridden(text)
        assert str(caught.value) == f"{tmp_path}/{message}"

    def test_every_problem_is_shown(self, overridden):
        with pytest.raises(ConfigError) as caught:
            overridden("seed: x\nmodel.layers.no.units: 1\nseed.x: 1\ntrain: !!set {}", "dtype=int8")
        assert [problem.message.split(",")[0] for problem in caught.value.problems] == [
            "expected an integer",
            "unknown layer 'no'",
            "seed is 'x'",
            "tags such as !!set are not allowed",
            "expected float32 or float64",
        ]

    def test_a_file_that_is_not_there(self, good, tmp_path):
        with pytest.raises(ConfigError, match=r"gone\.yaml: no such file"):
            parse_config(good, [tmp_path / "gone.yaml"])


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_an_override_typed_as_an_option_reaches_other_processes(protocol):
    typed = Shortcut("train.max_steps=3", "--max-steps")
    there = pickle.loads(pickle.dumps(typed, protocol))
    assert (there, there.option) == (typed, "--max-steps")
