"""`share: NAME`: what it stands for, its names, blocks, overrides, and complaints at their places."""

import json

import pytest
import yaml
from jsonschema import Draft202012Validator

from cnnbp_cli.build import build_graph
from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.config.jsonschema import json_schema
from cnnbp_cli.config.keys import complete_override, read_tree
from cnnbp_cli.config.load import config_from_dict, parse_config
from cnnbp_cli.config.write import as_yaml, to_dict, to_dict_with_blocks, to_yaml

HEAD = "data: {source: mnist-subset}\nmodel:\n  input: [1, 28, 28]\n"
LAYERS = """\
  layers:
    - {type: conv2d, name: stem, filters: 4, kernel_size: 3}
    - {type: conv2d, name: step, filters: 4, kernel_size: 3, padding: same, init: orthogonal}
    - relu
    - share: step
    - {name: third, share: step_2, inputs: [stem]}
    - {type: add, inputs: [third, relu_1]}
    - flatten
    - {type: dense, units: 10}
"""
TEXT = HEAD + LAYERS
BLOCKS = """\
  blocks:
    twice:
      parameters: {conv: null, last: true}
      layers:
        - {type: conv2d, name: own, filters: 4, kernel_size: 3, padding: same}
        - {share: $conv}
        - relu
        - {share: own, when: $last}
  layers:
    - {type: conv2d, name: stem, filters: 4, kernel_size: 3}
    - {type: conv2d, name: body, filters: 4, kernel_size: 3, padding: same}
    - {block: twice, conv: body, repeat: 2}
    - {block: twice, name: end, conv: twice_1_2_own, last: false}
    - {share: end_own}
    - flatten
    - {type: dense, units: 10}
"""


def shared(config):
    return {spec.name: spec.shares for spec in config.model.layers if spec.shares}


def message(text, *overrides):
    with pytest.raises(ConfigError) as caught:
        build_graph(parse_config(text, overrides, label="c.yaml"))
    return str(caught.value)


def test_a_share_is_its_layer_at_another_place():
    config = parse_config(TEXT)
    by_name = {spec.name: spec for spec in config.model.layers}
    assert shared(config) == {"step_2": "step", "third": "step"}
    assert by_name["step_2"].layer == by_name["third"].layer == by_name["step"].layer
    assert by_name["step_2"].inputs == ("relu_1",)
    assert by_name["third"].inputs == ("stem",)
    graph = build_graph(config)
    assert [node.name for node in graph.uses["step"]] == ["step", "step_2", "third"]
    assert graph.param_shapes["third"] == {}


def test_it_follows_what_overrides_do_to_its_layer():
    config = parse_config(TEXT, ["model.layers.step.dilation=2"])
    assert {spec.layer.dilation for spec in config.model.layers if "step" in (spec.name, spec.shares)} == {2}
    config = parse_config(TEXT, ["model.layers.2={share: step, name: relu_1}", "model.layers.third.share=step"])
    assert shared(config) == {"relu_1": "step", "step_3": "step", "third": "step"}


@pytest.mark.parametrize("override", ["model.layers.step.trainable=false", "model.freeze=[st?p]"])
def test_it_is_frozen_with_its_layer(override):
    graph = build_graph(parse_config(TEXT, [override]))
    assert [node.trainable for node in graph.nodes] == [True, False, True, False, False, True, True, True]
    assert graph.trainable["step"] == {}


def test_written_it_reads_back_as_the_same():
    config = parse_config(TEXT)
    assert "{share: step, name: third, inputs: [stem]}" in to_yaml(config)
    assert parse_config(to_yaml(config)) == config
    assert config_from_dict(json.loads(json.dumps(to_dict(config)))) == config


def test_blocks_resolve_names_where_they_are_written():
    config = parse_config(HEAD + BLOCKS)
    assert shared(config) == {
        "twice_1_1_conv_2": "body",
        "twice_1_1_own_2": "twice_1_1_own",
        "twice_1_2_conv_2": "body",
        "twice_1_2_own_2": "twice_1_2_own",
        "end_conv_2": "twice_1_2_own",
        "end_own_2": "end_own",
    }
    build_graph(config)
    assert parse_config(to_yaml(config)) == config
    assert parse_config(as_yaml(to_dict_with_blocks(config))) == config


TOWERS = """\
  blocks:
    unit:
      parameters: {filters: 4, norm: true}
      layers:
        - {type: conv2d, name: conv, filters: $filters, kernel_size: 3, padding: same}
        - {type: batch_norm, when: $norm}
        - relu
    tower:
      parameters: {filters: null}
      layers:
        - {block: unit, name: first, filters: $filters}
        - {block: unit, name: more, filters: $filters, repeat: 2, first: {norm: false}}
        - {type: add, name: sum, inputs: [more, first]}
        - {share: first, name: again, inputs: [$input]}
        - {type: add, name: end, inputs: [sum, again]}
  layers:
    - {block: tower, name: left, filters: 3}
    - {type: tanh, inputs: [input]}
    - {share: left, name: right}
    - {share: right, inputs: [input]}
    - {type: add, inputs: [left, right, right_2]}
    - flatten
    - {type: dense, units: 10}
"""


def test_a_use_of_a_block_is_shared_layer_by_layer():
    config = parse_config(HEAD + TOWERS)
    specs = {spec.name: spec for spec in config.model.layers}
    left = [name for name in specs if name.startswith("left_")]
    assert len(left) == 13
    for name in left:
        rest = name.removeprefix("left_")
        owner = specs[name].shares or name
        for side, first in (("right", "tanh_1"), ("right_2", "input")):
            spec = specs[f"{side}_{rest}"]
            assert spec.shares == owner
            renamed = tuple(
                first if source == "input" else source.replace("left", side) for source in specs[name].inputs
            )
            assert spec.inputs == renamed
    assert specs["left_again_conv"].shares == "left_first_conv"
    assert specs["add_1"].inputs == ("left_end", "right_end", "right_2_end")
    graph = build_graph(config)
    assert {len(graph.uses[name]) for name in ("left_more_1_conv", "left_more_2_conv")} == {3}
    assert len(graph.uses["left_first_conv"]) == 6
    assert not any(node.shares for node in graph.nodes if node.layer.type in ("relu", "add", "tanh"))
    assert parse_config(to_yaml(config)) == config
    assert parse_config(as_yaml(to_dict_with_blocks(config))) == config


def test_what_is_wrong_with_the_use_of_a_shared_block():
    text = HEAD + TOWERS
    said = message(text.replace("name: right}", "name: right, filters: 4}")).splitlines()[0]
    assert said == (
        "c.yaml:22:34: unknown key 'filters' of a share, expected one of: share, name, inputs; all else is the block's"
    )
    said = message(text.replace("{type: tanh, inputs: [input]}", "{type: conv2d, filters: 2, kernel_size: 1}"))
    assert said.splitlines()[0].partition(" (shapes")[0] == (
        "c.yaml:22:15: layer right_first_conv shares the parameters of left_first_conv, which takes 1×28×28, but takes "
        "2×28×28 itself: weight would be 3×2×3×3 here and 3×1×3×3 there"
    )


def test_the_schema_knows_it():
    validator = Draft202012Validator(json_schema())
    for text in (TEXT, HEAD + BLOCKS):
        assert validator.is_valid(yaml.safe_load(text))
        for bad in ("share: step, filters: 4", "share: [step]", "share: step, type: conv2d"):
            layers = text.replace("share: step\n", f"{{{bad}}}\n").replace("share: end_own", bad)
            assert not validator.is_valid(yaml.safe_load(layers))


def test_completion(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(TEXT, "utf-8")
    root = read_tree(path)
    keys = [f"model.layers.third.{key}=" for key in ("share", "name", "inputs")]
    assert [word for word, _ in complete_override("model.layers.third.", root)] == keys
    offered = [word for word, _ in complete_override("model.layers.third.share=", root)]
    assert offered == [f"model.layers.third.share={name}" for name in ("stem", "step", "relu_1", "step_2")]


@pytest.mark.parametrize(
    ("share", "complaint"),
    [
        ("share: stp", "c.yaml:8:14: unknown layer 'stp', did you mean 'step'?"),
        ("share: third", "c.yaml:8:14: the layer 'third' stands further down: share one that stands above"),
        ("{share: me, name: me}", "c.yaml:8:15: a layer cannot share itself: name one that stands above"),
        ("share: 3", "c.yaml:8:14: share: expected text, got 3"),
        (
            "{share: step, filters: 8}",
            "c.yaml:8:21: unknown key 'filters' of a share, expected one of: share, name, inputs; "
            "all else is the shared layer's",
        ),
        (
            "{share: step, trainable: false}",
            "c.yaml:8:21: unknown key 'trainable' of a share, expected one of: share, name, inputs; "
            "all else is the shared layer's",
        ),
        (
            "{type: conv2d, share: step}",
            "c.yaml:8:29: share stands in the place of type: the layer has its type from the one that it shares",
        ),
        (
            "share: stem",
            "c.yaml:8:7: layer stem_2 shares the parameters of stem, which takes 1×28×28, but takes 4×26×26 itself: "
            "weight would be 4×4×3×3 here and 4×1×3×3 there "
            "(shapes: input 1×28×28 → stem 4×26×26 → step 4×26×26 → relu_1 4×26×26 → stem_2)",
        ),
    ],
)
def test_complaints(share, complaint):
    text = TEXT.replace("step_2", "step").replace("share: step\n", f"{share}\n", 1)
    assert message(text).splitlines()[0] == complaint


@pytest.mark.parametrize(
    ("old", "new", "complaint", "used_at"),
    [
        ("share: own", "share: oen", "11:19: unknown layer 'oen' in block twice, did you mean 'own'?", "15:15"),
        ("share: $conv", "share: own_2", "9:19: 'own_2' is left out here: share names a layer, or", "16:15"),
        ("share: $conv", "share: $input", "share: expected the name of a layer, not $input, which is an output", ""),
        ("conv: body", "conv: end", "15:28: 'end' does not stand above: share what does", "15:15"),
        ("conv: twice_1_2_own", "conv: end", "16:39: 'end' does not stand above: share what does", "16:15"),
        ("share: end_own", "share: twice_1_1", "17:15: 'twice_1_1' is a repetition of a block: share names", ""),
        ("conv: body", "conv: end_own", "15:28: the layer 'end_own' stands further down: share one", "15:15"),
        ("conv: body", "conv: nobody", "15:28: unknown layer 'nobody', did you mean 'body'?", "15:15"),
    ],
)  # fmt: skip
def test_complaints_about_blocks(old, new, complaint, used_at):
    text = HEAD + BLOCKS.replace(old, new, 1)
    if "$conv" not in text:
        text = text.replace("conv: null, ", "").replace("conv: body, ", "").replace("conv: twice_1_2_own, ", "")
    said = message(text)
    assert complaint in said
    assert f"c.yaml:{used_at}" in said


def test_an_override_of_what_is_the_layer_s_points_at_the_override():
    said = message(TEXT, "model.layers.step_2.filters=8").splitlines()[0]
    assert said.startswith("--set model.layers.step_2.filters=8:21: unknown key 'filters' of a share")
    said = message(TEXT, "model.freeze=[third]").splitlines()[0]
    assert said.startswith("--set model.freeze=[third]:15: no layer with parameters is called 'third', expected one of")


def test_a_field_called_share_is_a_custom_layer_s_own(tmp_path):
    from cnnbp_cli.config.custom_layers import load_layers

    file = tmp_path / "own.py"
    file.write_text(
        "from dataclasses import dataclass\nfrom typing import Literal\n\n"
        "from cnnbp_cli.core.layers.registry import register\nfrom cnnbp_cli.core.types import Layer\n\n@register\n"
        "@dataclass(frozen=True, slots=True)\nclass Keep(Layer):\n    share: float\n"
        "    type: Literal['keep'] = 'keep'\n\n"
        "    def forward(self, params, x, ctx):\n        return self.share * x, None\n\n"
        "    def backward(self, params, residuals, dy, ctx):\n        return self.share * dy, {}\n",
        "utf-8",
    )
    load_layers(file)
    config = parse_config(TEXT.replace("- relu\n", "- {type: keep, name: relu_1, share: 0.5}\n"))
    assert config.model.layers[2].layer.share == 0.5
