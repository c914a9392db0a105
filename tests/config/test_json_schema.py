"""The schema for editors accepts what the program accepts, and knows what every key means."""

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from cnnbp_cli.config.jsonschema import json_schema
from cnnbp_cli.config.load import load_config
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


def test_has_every_layer_with_its_meaning():
    schema = json_schema()
    choices = schema["properties"]["model"]["properties"]["layers"]["items"]["anyOf"]
    described = {
        choice["properties"]["type"]["const"]: choice["description"] for choice in choices if "properties" in choice
    }
    assert list(described) == list(LAYERS)
    assert all(described.values())
    assert described["dropout"] == " ".join(LAYERS["dropout"].__doc__.split("\n\n")[0].split())


def test_describes_keys_and_gives_defaults():
    train = json_schema()["properties"]["train"]["properties"]
    assert train["max_steps"] == {
        "anyOf": [{"type": "integer"}, {"type": "null"}],
        "description": "Updates at most; whichever of this and epochs ends first.",
    }
    assert train["batch_size"] == {"type": "integer", "default": 64}
    assert "default" not in train["loss"]
