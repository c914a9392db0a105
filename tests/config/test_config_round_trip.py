"""Law 6: config → YAML → config is the identity. And whatever the text, a config or a `ConfigError` comes out."""

import json
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType
from typing import ClassVar, Literal, get_args, get_origin

import pytest
from by_type import INITIALIZERS, OPTIMIZERS, SCHEDULES
from hypothesis import example, given, reject
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.config.hints import FAILED, MAX_INTEGER, check, hints_of, members
from cnnbp_cli.config.load import config_from_dict, load_config, parse_config
from cnnbp_cli.config.nodes import from_python
from cnnbp_cli.config.schema import (
    LOSSES,
    MOST_WORKERS,
    Augment,
    Config,
    Csv,
    EarlyStopping,
    Idx,
    LayerSpec,
    Limit,
    LossAt,
    MeanStd,
    MnistSubset,
    ModelConfig,
    Npz,
    Synthetic,
    TrainConfig,
)
from cnnbp_cli.config.wiring import bad_name
from cnnbp_cli.config.write import to_dict, to_yaml
from cnnbp_cli.core.layers import LAYERS
from cnnbp_cli.core.types import FieldErrors

GOOD = Path(__file__).with_name("good.yaml").read_text("utf-8")
CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def values(hint):
    """Values of a field's type, possible or not."""
    parts = []
    for option in members(hint):
        if option is int:
            parts.append(st.integers(1, 9))
        elif option is float:
            parts.append(st.floats(0, 1, exclude_max=True) | st.floats(0, 1e300))
        elif option is bool:
            parts.append(st.booleans())
        elif option is NoneType:
            parts.append(st.none())
        elif get_origin(option) is Literal:
            parts.append(st.sampled_from(get_args(option)))
        elif get_origin(option) is tuple:
            inner = get_args(option)
            parts.append(
                st.lists(values(inner[0]), min_size=1, max_size=3).map(lambda v: tuple(sorted(v)))
                if inner[-1] is Ellipsis
                else st.tuples(*map(values, inner))
            )
        else:
            parts.append(declarations(option))
    return st.one_of(parts)


@st.composite
def declarations(draw, cls):
    """An instance of a declaration, some of its fields set."""
    hints = hints_of(cls)
    strategies = {f.name: values(hints[f.name]) for f in fields(cls) if f.name not in ("type", "source")}
    needed = {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}
    for _ in range(20):
        chosen = {name: draw(s) for name, s in strategies.items() if name in needed or draw(st.booleans())}
        try:
            return cls(**chosen)
        except FieldErrors:
            continue
    reject()


NAMES = st.text(min_size=1, max_size=8).filter(lambda name: bad_name(name) is None)
FOLDER_NAMES = st.text(min_size=1).filter(
    lambda s: s.strip() and s.isprintable() and s not in (".", "..") and not set(s) & set("/\\")
)
PATHS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).map(
    lambda text: Path("/data").joinpath(*(part for part in text.split("/") if part not in ("", ".", "..")))
)


def with_crops_of_any_size(augment):
    """A crop that says its size is for one size of the input."""
    return replace(augment, crop=augment.crop and replace(augment.crop, size=None))


def of_channels(data, channels):
    """Given means and deviations are one for all channels, or one for each."""
    if not isinstance(data.normalize, MeanStd) or len(data.normalize.mean) == 1:
        return data
    (mean, *_), (std, *_) = data.normalize.mean, data.normalize.std
    return replace(data, normalize=MeanStd((mean,) * channels, (std,) * channels))


@st.composite
def sources(draw):
    cls = draw(st.sampled_from([MnistSubset, Idx, Npz, Csv, Synthetic]))
    places = {Idx: ["path"], Npz: ["path"], Csv: ["path", "test_path"]}.get(cls, [])
    common = {
        "normalize": draw(st.sampled_from(["standard", "unit", "none"]) | declarations(MeanStd)),
        "validation": draw(st.integers(1, 10**6) | st.floats(1e-9, 1, exclude_max=True)),
        "augment": draw(st.none() | declarations(Augment).map(with_crops_of_any_size)),
        "limit": draw(st.none() | declarations(Limit)),
        "target": draw(st.sampled_from(["auto", "label", "image"])),
    }
    kind = {"kind": draw(st.sampled_from(["digits", "bars"]))} if cls is Synthetic else {}
    return cls(**common, **kind, **{place: draw(PATHS) for place in places})


@st.composite
def models(draw):
    names = draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))
    specs = []
    for i, name in enumerate(names):
        shared = draw(st.sampled_from([None, None, *specs]))  # a share of a share is one of the layer that owns
        shares = (shared.shares or shared.name) if shared else ""
        layer = shared.layer if shared else draw(st.sampled_from(sorted(LAYERS)).map(LAYERS.get).flatmap(declarations))
        before = st.sampled_from(["input", *names[:i]])
        inputs = draw(st.lists(before, min_size=2, max_size=3)) if layer.several_inputs else [draw(before)]
        specs.append(LayerSpec(name, tuple(inputs), layer, shares=shares))
    size = draw(st.tuples(*[st.integers(1, 99)] * 3))
    init = draw(st.sampled_from(sorted(INITIALIZERS)).map(INITIALIZERS.get).flatmap(declarations))
    return ModelConfig(size, tuple(specs), init, draw(st.sampled_from(list(LOSSES))))


@st.composite
def configs(draw):
    model = draw(models())
    loss = draw(st.sampled_from(LOSSES[model.head]))
    *others, output = [spec.name for spec in model.layers]
    weights = st.floats(0, 1e300, exclude_min=True)
    places = draw(st.permutations([output, *(name for name in others if draw(st.booleans()))]))
    train = TrainConfig(
        loss=loss,
        losses=tuple(LossAt(name, draw(weights), loss) for name in places) if draw(st.booleans()) else (),
        label_smoothing=draw(st.floats(0, 0.99)) if loss == "cross_entropy" else 0.0,
        epochs=draw(st.integers(1, MAX_INTEGER)),
        max_steps=draw(st.none() | st.integers(1, MAX_INTEGER)),
        batch_size=draw(st.integers(1, MAX_INTEGER)),
        optimizer=draw(st.sampled_from(sorted(OPTIMIZERS)).map(OPTIMIZERS.get).flatmap(declarations)),
        schedule=draw(st.sampled_from(sorted(SCHEDULES)).map(SCHEDULES.get).flatmap(declarations)),
        clip_norm=draw(st.none() | st.floats(0, 1e300, exclude_min=True)),
        early_stopping=draw(st.none() | declarations(EarlyStopping)),
        workers=draw(st.just("auto") | st.integers(1, MOST_WORKERS)),
    )
    seed, dtype = draw(st.integers(0, MAX_INTEGER)), draw(st.sampled_from(["float32", "float64"]))
    data = of_channels(draw(sources()), model.input[0])
    return Config(draw(FOLDER_NAMES), seed=seed, dtype=dtype, data=data, model=model, train=train)


@given(configs())
def test_the_identity(config):
    assert parse_config(to_yaml(config)) == config
    assert config_from_dict(to_dict(config)) == config
    assert config_from_dict(json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs(path):
    config = load_config(path)
    assert parse_config(to_yaml(config)) == config


def test_as_written(good):
    assert to_yaml(parse_config(good + "name: 'no: 1e3'\n")) == (
        'name: "no: 1e3"\n'
        "seed: 0\n"
        "dtype: float32\n"
        "\n"
        "data:\n"
        "  source: mnist-subset\n"
        "  normalize: standard\n"
        "  validation: 0\n"
        "  augment: null\n"
        "  limit: null\n"
        "  target: auto\n"
        "  classes: null\n"
        "  first_label: 0\n"
        "  image_size: null\n"
        "  leave_out: []\n"
        "  shuffle: full\n"
        "\n"
        "model:\n"
        "  input: [1, 28, 28]\n"
        "  layers:\n"
        "    - {type: conv2d, name: conv1, inputs: [input], filters: 6, kernel_size: 5, stride: 1, padding: valid, "
        "dilation: 1, groups: 1, bias: true, init: he_normal}\n"
        "    - {type: relu, name: relu_1, inputs: [conv1]}\n"
        "    - {type: flatten, name: flatten_1, inputs: [relu_1]}\n"
        "    - {type: dense, name: dense_1, inputs: [flatten_1], units: 10, bias: true, init: he_normal}\n"
        "  init: he_normal\n"
        "  head: softmax\n"
        "  freeze: []\n"
        "\n"
        "train:\n"
        "  loss: cross_entropy\n"
        "  losses: []\n"
        "  label_smoothing: 0.0\n"
        "  class_weights: null\n"
        "  epochs: 5\n"
        "  max_steps: null\n"
        "  batch_size: 64\n"
        "  optimizer: {type: adam, learning_rate: 0.001, betas: [0.9, 0.999], epsilon: 1e-08, weight_decay: 0.0}\n"
        "  schedule: constant\n"
        "  clip_norm: null\n"
        "  early_stopping: null\n"
        "  workers: auto\n"
        "  checkpoint_every: null\n"
        "  checkpoint_minutes: 10.0\n"
        "  keep_checkpoints: 3\n"
    )


def config_or_error(read, *arguments):
    try:
        config = read(*arguments)
    except ConfigError as error:
        config, text = None, str(error)
    assert isinstance(config, Config) or text


SNIPPETS = [
    *GOOD.splitlines(keepends=True),
    *"[]{},:-&*!|>'\"#%@`~\n\t \\",
    "&a ",
    "*a",
    "<<: ",
    "!!",
    "- ",
    "null",
    "1e999",
]


@given(st.text())
@example("\x85")
@example("\ufeff")
@example("a: |\n\n\n ")
def test_any_text(text):
    config_or_error(parse_config, text)


@given(st.lists(st.sampled_from(SNIPPETS) | st.text(max_size=3)).map("".join))
def test_any_text_that_looks_like_yaml(text):
    config_or_error(parse_config, text)


@given(st.data())
def test_a_good_config_with_a_hole_filled_by_anything(data):
    start = data.draw(st.integers(0, len(GOOD)))
    end = data.draw(st.integers(start, min(start + 12, len(GOOD))))
    filling = data.draw(st.lists(st.sampled_from(SNIPPETS) | st.text(max_size=3), max_size=3).map("".join))
    config_or_error(parse_config, GOOD[:start] + filling + GOOD[end:])


KEYS = st.sampled_from(
    ["data", "model", "train", "layers", "0", "conv1", "input", "init", "optimizer", "filters", "inputs"]
)


@given(st.lists(st.lists(KEYS | st.text(max_size=2), max_size=5).map(".".join), max_size=2), st.text(max_size=8))
def test_any_override(paths, value):
    config_or_error(parse_config, GOOD, [f"{path}={value}" for path in paths])


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(KEYS, PLAIN))
def test_any_dict(mapping):
    config_or_error(config_from_dict, mapping)


HINTS = sorted(
    {
        hint
        for registry in (LAYERS, INITIALIZERS, OPTIMIZERS, SCHEDULES)
        for cls in (*registry.values(), TrainConfig, Synthetic, EarlyStopping)
        for hint in hints_of(cls).values()
        if get_origin(hint) is not ClassVar and not any(is_dataclass(option) for option in members(hint))
    },
    key=str,
)
SMALL = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False)
WORDS = st.sampled_from(["same", "valid", "auto", "3", "true", "", "conv2d", "validation_loss", "mse"])


@given(st.sampled_from(HINTS), st.recursive(SMALL | WORDS, lambda inner: st.lists(inner, max_size=3), max_leaves=4))
def test_the_rules_are_those_of_strict_pydantic(hint, value):
    complaints = []
    got = check(hint, from_python(value, []), lambda *complaint: complaints.append(complaint))
    try:
        expected = TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
    except ValidationError:
        assert got is FAILED
        assert complaints
    else:
        assert (got, type(got)) == (expected, type(expected))
        assert not complaints
