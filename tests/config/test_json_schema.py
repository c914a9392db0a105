"""The schema for editors accepts what the program accepts, and knows what every key means."""

import json
import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.config.jsonschema import json_schema
from cnnbp_cli.config.load import load_config, parse_config
from cnnbp_cli.config.write import to_dict
from cnnbp_cli.core.layers import LAYERS

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(json.dumps(json_schema()))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accepts_the_shipped_configs(validator, path):
    validator.validate(yaml.safe_load(path.read_text("utf-8")))
    validator.validate(json.loads(json.dumps(to_dict(load_config(path)))))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("relu", "rely"),
        ("filters: 6", "filtrs: 6"),
        ("filters: 6", "filters: six"),
        (", kernel_size: 5", ""),
        ("mnist-subset", "mnist"),
        ("[1, 28, 28]", "[1, 28]"),
        ("data:", "daten:"),
        ("- flatten", "- {type: add, inputs: conv1}"),
    ],
)
def test_rejects(validator, good, old, new):
    assert validator.is_valid(yaml.safe_load(good))
    assert old in good
    assert not validator.is_valid(yaml.safe_load(good.replace(old, new)))


BLOCKS = """
data: {source: mnist-subset}
model:
  input: [1, 28, 28]
  blocks:
    unit:
      parameters: {filters: null, kernel: 3, join: true}
      layers:
        - {type: conv2d, filters: 2 * $filters, kernel_size: [1, $kernel], padding: same}
        - {type: add, inputs: [conv2d_1, $input], when: $join}
        - relu
  layers:
    - {block: unit, name: a, filters: 4, repeat: 2, first: {filters: 8}}
    - flatten
    - {type: dense, units: 10}
"""


def test_blocks(validator):
    validator.validate(yaml.safe_load(BLOCKS))
    parse_config(BLOCKS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("repeat: 2", "repeat: -1"),
        ("$join}", "maybe}"),
        ("[1, $kernel]", "[1, six]"),
        ("parameters:", "parameter:"),
        ("      layers:", "      layer:"),
        ("when: $join", "wen: $join"),
        ("inputs: [conv2d_1, $input]", "inputs: [$input, 3]"),
        ("{block: unit, ", "{blok: unit, "),
    ],
)
def test_rejects_in_blocks(validator, old, new):
    assert old in BLOCKS
    wrong = BLOCKS.replace(old, new, 1)
    assert not validator.is_valid(yaml.safe_load(wrong))
    with pytest.raises(ConfigError):
        parse_config(wrong)


def test_has_every_layer_with_its_meaning():
    schema = json_schema()
    choices = schema["properties"]["model"]["properties"]["layers"]["items"]["anyOf"]
    described = {choice["title"]: choice["description"] for choice in choices if "type" in choice.get("properties", ())}
    assert list(described) == list(LAYERS)
    assert all(described.values())
    assert described["dropout"] == " ".join(LAYERS["dropout"].__doc__.split("\n\n")[0].split())


def test_describes_keys_and_gives_defaults():
    train = json_schema()["properties"]["train"]["properties"]
    assert train["max_steps"] == {
        "anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}],
        "description": "Maximum number of updates; training ends there or after the epochs, whichever comes first.",
    }
    assert train["batch_size"] == {
        "type": "integer",
        "minimum": 1,
        "description": "Number of images per update.",
        "default": 64,
    }
    assert "default" not in train["loss"]


def test_limits_are_those_of_the_declarations():
    schema = json_schema()
    layers = {
        choice["title"]: choice["properties"]
        for choice in schema["properties"]["model"]["properties"]["layers"]["items"]["anyOf"]
        if "properties" in choice
    }
    assert layers["dropout"]["rate"].items() >= {"minimum": 0, "exclusiveMaximum": 1}.items()
    assert layers["conv2d"]["kernel_size"]["anyOf"][0] == {"type": "integer", "minimum": 1}
    assert layers["conv2d"]["kernel_size"]["anyOf"][1]["prefixItems"] == [{"type": "integer", "minimum": 1}] * 2
    assert layers["batch_norm"]["epsilon"]["exclusiveMinimum"] == 0
    assert "minimum" not in layers["leaky_relu"]["slope"]


def subschemas(schema, path="config"):
    """Yield every schema with the keys that lead to it."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from subschemas(inner, f"{path}.{name}")
    for inner in schema.get("anyOf", []):
        yield from subschemas(inner, f"{path} {inner.get('title', '')}".strip())
    if isinstance(schema.get("items"), dict):
        yield from subschemas(schema["items"], f"{path}[]")


def test_every_key_has_a_description_and_every_example_is_one():
    seen, root = 0, json_schema()
    blocks = root["properties"]["model"]["properties"]["blocks"]["additionalProperties"]
    for path, schema in [*subschemas(root), *subschemas(blocks, "blocks")]:
        for name, inner in schema.get("properties", {}).items():
            assert inner.get("description", "").endswith("."), f"{path}.{name}"
            assert "`" not in re.sub(r"`[^`]+`", "", inner["description"]), f"{path}.{name}"
        if "properties" in schema and schema["title"] != "cnnbp config":
            assert schema["description"], path
        for example in schema.get("examples", []):
            Draft202012Validator(schema | {"$defs": root["$defs"]}).validate(example)
            seen += 1
        if "default" in schema:
            Draft202012Validator(schema | {"$defs": root["$defs"]}).validate(json.loads(json.dumps(schema["default"])))
    assert seen > 50


def test_every_example_of_a_layer_loads(good):
    config = yaml.safe_load(good)
    choices = json_schema()["properties"]["model"]["properties"]["layers"]["items"]["anyOf"]
    examples = [example for choice in choices for example in choice.get("examples", [])]
    assert len(examples) == len(LAYERS)
    for example in examples:
        config["model"]["layers"] = [{"type": "conv2d", "filters": 4, "kernel_size": 3}, example]
        parse_config(yaml.safe_dump(config), label="example.yaml")


BEYOND_A_SCHEMA = {
    *("a key twice in a layer", "cycles", "characters beyond ASCII"),  # what a layer is called, and names as inputs
    *("a loss that does not go with the head", "label smoothing without cross entropy"),
    *("early stopping by default on validation images that there are not", "the same after a warm-up"),
    *("early stopping on validation images that there are not", "a schedule on validation images that there are not"),
    *("an impossible pair", "an input without height", "a name with a slash", "a seed below zero"),
    *("losses at layers that there are not, or twice", "losses without the output's"),
    *("losses that do not fit the head", "label smoothing where one of several losses has no use for it"),
    *("a normalization of other channels", "a normalization of too few channels"),
    *("a normalization without numbers", "everything held out"),
}


def test_rejects_the_bad_configs_as_far_as_a_schema_can(validator):
    text = Path(__file__).with_name("bad_configs.txt").read_text("utf-8")
    accepted, judged = set(), 0
    for case in text.split("\n==== ")[1:]:
        title, _, rest = case.partition("\n")
        try:
            document = json.loads(json.dumps(yaml.safe_load(rest.partition("---- gets\n")[0])))
        except (yaml.YAMLError, ValueError, TypeError):
            continue  # not even plain YAML
        judged += 1
        if validator.is_valid(document):
            accepted.add(title)
    assert judged > 50
    assert accepted <= BEYOND_A_SCHEMA
