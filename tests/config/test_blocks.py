"""Blocks: the flat config that each stands for, names, overrides, and complaints at both places."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbp_cli.build import build_graph
from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.config.keys import complete_override, names_of_layers, read_tree
from cnnbp_cli.config.load import config_from_dict, parse_config
from cnnbp_cli.config.void import void_keys
from cnnbp_cli.config.write import as_yaml, to_dict, to_dict_with_blocks, to_yaml


def config(layers, blocks="", model=""):
    text = "data: {source: mnist-subset}\nmodel:\n  input: [1, 28, 28]\n" + model
    if blocks:
        text += "  blocks:\n" + "".join(f"    {line}\n" for line in blocks.strip("\n").splitlines())
    return text + "  layers:\n" + "".join(f"    {line}\n" for line in layers.strip("\n").splitlines())


UNIT = """
unit:
  parameters: {filters: null, stride: 1, join: true}
  layers:
    - {type: conv2d, name: conv, filters: $filters, kernel_size: 3, stride: $stride}
    - relu
    - {type: add, inputs: [relu_1, $input], when: $join}
"""
USES = """
- {block: unit, name: stem, filters: 4, join: false}
- {block: unit, name: stage, filters: 4, repeat: 2}
- {block: unit, filters: 2 , repeat: 2, first: {join: false, stride: 2}}
- flatten
- {type: dense, units: 10}
"""
FLAT = """
- {type: conv2d, name: stem_conv, filters: 4, kernel_size: 3}
- {type: relu, name: stem_relu_1}
- {type: conv2d, name: stage_1_conv, filters: 4, kernel_size: 3}
- {type: relu, name: stage_1_relu_1}
- {type: add, name: stage_1_add_1, inputs: [stage_1_relu_1, stem_relu_1]}
- {type: conv2d, name: stage_2_conv, filters: 4, kernel_size: 3}
- {type: relu, name: stage_2_relu_1}
- {type: add, name: stage_2_add_1, inputs: [stage_2_relu_1, stage_1_add_1]}
- {type: conv2d, name: unit_3_1_conv, filters: 2, kernel_size: 3, stride: 2}
- {type: relu, name: unit_3_1_relu_1}
- {type: conv2d, name: unit_3_2_conv, filters: 2, kernel_size: 3}
- {type: relu, name: unit_3_2_relu_1}
- {type: add, name: unit_3_2_add_1, inputs: [unit_3_2_relu_1, unit_3_1_relu_1]}
- flatten
- {type: dense, units: 10}
"""


def flat_names(text, *overrides):
    return [spec.name for spec in parse_config(text, overrides).model.layers]


def inputs_of(text):
    return {spec.name: list(spec.inputs) for spec in parse_config(text).model.layers}


def complaint(text, *overrides):
    with pytest.raises(ConfigError) as caught:
        parse_config(text, overrides, label="c.yaml")
    return str(caught.value)


def test_stand_for_their_layers():
    assert parse_config(config(USES, UNIT)) == parse_config(config(FLAT))


def test_the_run_keeps_the_flat_config():
    flat = to_yaml(parse_config(config(USES, UNIT)))
    assert "block" not in flat
    assert parse_config(flat) == parse_config(config(FLAT))


def test_written_with_blocks_it_is_the_same_config():
    read = parse_config(config(USES, UNIT), ["model.layers.stage.repeat=3", "model.blocks.unit.parameters.stride=1"])
    written = as_yaml(to_dict_with_blocks(read))
    assert "    - {block: unit, name: stage, filters: 4, repeat: 3}" in written.splitlines()
    assert "    unit:\n      parameters: {filters: null, stride: 1, join: true}\n      layers:\n" in written
    assert "filters: $filters" in written
    again = parse_config(written)
    assert again == read
    assert as_yaml(to_dict_with_blocks(again)) == written
    assert config_from_dict(to_dict_with_blocks(read)) == read


def test_without_blocks_both_ways_of_writing_are_the_same(good):
    read = parse_config(good)
    assert to_dict_with_blocks(read) == to_dict(read)


def test_reading_leaves_the_text_for_the_next_reading():
    text = config(USES, UNIT)
    assert parse_config(text, ["model.layers.stem_conv.filters=7"]) != parse_config(text)
    assert parse_config(text) == parse_config(config(FLAT))


def test_arithmetic_and_the_number_of_the_repetition():
    layers = "- {block: unit, name: s, filters: 4 + 2 * $index, join: false, repeat: 3}"
    found = parse_config(config(layers, UNIT)).model.layers
    assert [spec.layer.filters for spec in found if spec.layer.type == "conv2d"] == [6, 8, 10]


NESTED = """
inner:
  parameters: {width: null, skip: null}
  layers:
    - {type: conv2d, filters: 2 * $width, kernel_size: 1}
    - {type: concat, inputs: [conv2d_1, $skip]}
outer:
  parameters: {width: 2, kind: inner}
  layers:
    - {type: conv2d, name: a, filters: $width, kernel_size: 1}
    - {block: $kind, name: b, width: $width + 1, skip: a}
    - {block: inner, name: c, width: $width, skip: $input, inputs: [a]}
    - {type: add, inputs: [b, b]}
"""


def test_blocks_in_blocks_see_the_names_of_their_own_place():
    text = config("- {type: relu, name: a}\n- {block: outer, name: o}\n- {type: concat, inputs: [o, a]}", NESTED)
    assert inputs_of(text) == {
        "a": ["input"],
        "o_a": ["a"],
        "o_b_conv2d_1": ["o_a"],
        "o_b_concat_1": ["o_b_conv2d_1", "o_a"],
        "o_c_conv2d_1": ["o_a"],
        "o_c_concat_1": ["o_c_conv2d_1", "a"],
        "o_add_1": ["o_b_concat_1", "o_b_concat_1"],
        "concat_1": ["o_add_1", "a"],
    }
    widths = {spec.name: spec.layer.filters for spec in parse_config(text).model.layers if spec.layer.type == "conv2d"}
    assert widths == {"o_a": 2, "o_b_conv2d_1": 6, "o_c_conv2d_1": 4}


def test_a_use_and_each_repetition_can_be_an_input():
    layers = """
- {block: unit, name: s, filters: 1, repeat: 2}
- {type: concat, name: all, inputs: [s, s_1, s_2_conv, input]}
- {block: unit, name: t, inputs: [s_1], filters: 1}
- {type: add, name: sum, inputs: [t, later]}
- {type: relu, name: later, inputs: [all]}
"""
    found = inputs_of(config(layers, UNIT))
    assert found["all"] == ["s_2_add_1", "s_1_add_1", "s_2_conv", "input"]
    assert found["t_conv"] == ["s_1_add_1"]
    assert found["sum"] == ["t_add_1", "later"]


def test_what_is_left_out_stands_for_its_input():
    blocks = """
maybe:
  parameters: {there: null}
  layers:
    - {type: relu, name: a}
    - {type: conv2d, name: b, inputs: [$input], filters: 3, kernel_size: 1, when: $there}
    - {type: batch_norm, name: c, when: $there}
    - {type: concat, name: d, inputs: [a, c, b]}
"""
    layers = "- {type: relu, name: first}\n- {block: maybe, name: m, there: %s}"
    assert inputs_of(config(layers % "false", blocks))["m_d"] == ["m_a", "first", "first"]
    assert inputs_of(config(layers % "true", blocks))["m_d"] == ["m_a", "m_c", "m_b"]
    none = config("- {type: relu, name: x}\n- {block: unit, name: u, filters: 1, repeat: 0}\n- flatten", UNIT)
    assert inputs_of(none) == {"x": ["input"], "flatten_1": ["x"]}


def test_parameters_may_be_lists_and_mappings_and_words():
    blocks = """
any:
  parameters: {size: [3, 5], init: {type: normal, std: 0.1}, kind: relu, from: null}
  layers:
    - {type: conv2d, filters: 2, kernel_size: $size, padding: [0, $pad], init: $init}
    - {type: $kind}
    - {type: concat, inputs: $from}
""".replace("$pad", "2")
    text = config("- {type: relu, name: r}\n- {block: any, name: x, kind: tanh, from: [r, input]}", blocks)
    layers = parse_config(text).model.layers
    assert layers[1].layer.kernel_size == (3, 5)
    assert layers[1].layer.init.std == 0.1
    assert layers[2].layer.type == "tanh"
    assert layers[3].inputs == ("r", "input")


def test_unnamed_layers_count_as_if_blocks_were_not_there():
    assert flat_names(config("- relu\n- {block: unit, filters: 1}\n- relu", UNIT))[::4] == ["relu_1", "relu_2"]


class TestOverrides:
    def test_of_a_use(self):
        read = parse_config(config(USES, UNIT), ["model.layers.stage.filters=8", "model.layers.2.first.stride=4"])
        filters = {s.name: s.layer for s in read.model.layers if s.layer.type == "conv2d"}
        assert (filters["stage_1_conv"].filters, filters["stage_2_conv"].filters) == (8, 8)
        assert filters["unit_3_1_conv"].stride == 4

    def test_of_a_block(self):
        read = parse_config(config(USES, UNIT), ["model.blocks.unit.layers.conv.kernel_size=5"])
        assert {s.layer.kernel_size for s in read.model.layers if s.layer.type == "conv2d"} == {5}

    @pytest.mark.parametrize("turn", [1, -1])
    def test_of_a_single_layer_comes_last(self, turn):
        overrides = ["model.layers.stage_2_conv.filters=3", "model.layers.stage.filters=8"][::turn]
        read = parse_config(config(USES, UNIT), overrides)
        assert {
            s.name: s.layer.filters
            for s in read.model.layers
            if s.name.startswith("stage_") and s.layer.type == "conv2d"
        } == {"stage_1_conv": 8, "stage_2_conv": 3}
        assert read.positions.expansion.changed
        assert to_dict_with_blocks(read) == to_dict(read)

    def test_of_all_layers(self):
        read = parse_config(config(USES, UNIT), ["model.layers=[flatten, {type: dense, units: 10}]"])
        assert [str(void) for void in void_keys(read)] == ["model.blocks.unit has no effect: no layer uses this block"]

    def test_from_a_file(self, tmp_path):
        path = tmp_path / "o.yaml"
        path.write_text("model: {layers: {stage: {repeat: 1}, stage_1_conv: {filters: 3}}}", "utf-8")
        read = parse_config(config(USES, UNIT), [path])
        assert [s.layer.filters for s in read.model.layers if s.name == "stage_1_conv"] == [3]
        assert "stage_2_conv" not in [s.name for s in read.model.layers]

    def test_of_a_layer_that_there_is_not(self):
        assert complaint(config(USES, UNIT), "model.layers.stage_3_conv.filters=8").splitlines()[0] == (
            "--set model.layers.stage_3_conv.filters=8:14: unknown layer 'stage_3_conv', did you mean 'stage_2_conv'?"
        )
        assert complaint(config(USES, UNIT), "model.layers.stag.filters=8").splitlines()[0] == (
            "--set model.layers.stag.filters=8:14: unknown layer 'stag', did you mean 'stage'?"
        )


def test_unused_blocks_are_void():
    assert [void.key for void in void_keys(parse_config(config(FLAT, UNIT)))] == ["model.blocks.unit"]
    assert void_keys(parse_config(config(USES, UNIT))) == []


def test_completion(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(config(USES, UNIT), "utf-8")
    root = read_tree(path)
    assert names_of_layers(root)[:3] == ["stem_conv", "stem_relu_1", "stage_1_conv"]

    def offered(text):
        return [word for word, _ in complete_override(text, root)]

    assert offered("model.layers.stage.f") == ["model.layers.stage.filters=", "model.layers.stage.first="]
    assert offered("model.layers.stage.s") == ["model.layers.stage.stride="]
    assert offered("model.layers.stage_2_conv.f") == ["model.layers.stage_2_conv.filters="]
    assert "model.layers.stage." in offered("model.layers.st")


def test_a_fault_in_a_block_shows_both_places_once():
    text = config(USES, UNIT.replace("kernel_size: 3", "kernel_size: 0"))
    assert complaint(text) == (
        "c.yaml:8:70: kernel_size: expected 1 or more, got 0\n"
        "  8 |         - {type: conv2d, name: conv, filters: $filters, kernel_size: 0, stride: $stride}\n"
        "    |                                                                      ^\n"
        "c.yaml:12:15: used here\n"
        "  12 |     - {block: unit, name: stem, filters: 4, join: false}\n"
        "     |               ^^^^"
    )


def test_a_wrong_parameter_shows_both_places():
    assert complaint(config("- {block: unit, filters: six}", UNIT)) == (
        "c.yaml:12:30: filters: expected an integer, got 'six'\n"
        "  12 |     - {block: unit, filters: six}\n"
        "     |                              ^^^\n"
        "c.yaml:8:47: used here\n"
        "  8 |         - {type: conv2d, name: conv, filters: $filters, kernel_size: 3, stride: $stride}\n"
        "    |                                               ^^^^^^^^"
    )


def test_a_shape_that_does_not_fit_shows_both_places():
    text = config("- {block: unit, name: x, filters: 4, stride: 2}", UNIT)
    with pytest.raises(ConfigError) as caught:
        build_graph(parse_config(text, label="c.yaml"))
    (problem,) = caught.value.problems
    assert problem.message.startswith("layer x_add_1 needs inputs of one shape")
    assert (problem.line, [place.line + 1 for place in problem.used_at]) == (10, [12])


def test_places_in_blocks_in_blocks():
    blocks = NESTED.replace("kernel_size: 1}\n    - {type: concat", "kernel_size: x}\n    - {type: concat")
    first = complaint(config("- {block: outer, name: o}", blocks)).split("\n2 problems")[0]
    assert [line.split(": ")[0] for line in first.splitlines() if line.startswith("c.yaml")][:3] == [
        "c.yaml:8:60",
        "c.yaml:14:19",
        "c.yaml:18:15",
    ]


@pytest.mark.parametrize(
    ("layers", "blocks", "message"),
    [
        ("- {block: x}", "", "c.yaml:5:15: unknown block 'x': there is no model.blocks"),
        ("- {block: unt, filters: 1}", UNIT, "unknown block 'unt', did you mean 'unit'?"),
        ("- {block: [unit], filters: 1}", UNIT, "block: expected the name of a block, got a list of 1"),
        ("- {block: unit}", UNIT, "missing parameter 'filters' of block unit"),
        (
            "- {block: unit, filters: 1, units: 3}",
            UNIT,
            "unknown key 'units' of block unit, expected one of: filters, "
            "stride, join, block, name, inputs, repeat, first",
        ),
        ("- {block: unit, filters: 1, repeat: -1}", UNIT, "repeat: expected an integer, 0 or more, got -1"),
        ("- {block: unit, filters: 1, repeat: true}", UNIT, "repeat: expected an integer, 0 or more, got true"),
        ("- {block: unit, filters: 1, repeat: 0}", UNIT, "expected a list of layers, but all are left out"),
        ("- {block: unit, filters: 1, repeat: 99999999}", UNIT, "the blocks come to more than 100,000 values"),
        ("- {block: unit, filters: 1, first: {stride: 2}}", UNIT, "first: there is only one, as there is no repeat"),
        ("- {block: unit, filters: 1, repeat: 2, first: 3}", UNIT, "first: expected a mapping of parameters, got 3"),
        (
            "- {block: unit, filters: 1, repeat: 2, first: {strid: 2}}",
            UNIT,
            "unknown key 'strid' of block unit, did you mean 'stride'?",
        ),
        ("- {block: unit, filters: 1, join: 1}", UNIT, "when: expected true or false, got 1"),
        (
            "- {block: unit, filters: $index}",
            UNIT,
            "$index counts the repetitions of a block: it stands in the parameters of one with repeat",
        ),
        ("- {block: unit, filters: $width}", UNIT, "unknown parameter '$width': parameters are known inside a block"),
        (
            "- {block: unit, filters: 1, inputs: [input, input]}",
            UNIT,
            "inputs: a block takes a list of one layer; other layers can be the values of parameters",
        ),
        ("- {block: unit, filters: 1, inputs: [imput]}", UNIT, "unknown layer 'imput', did you mean 'input'?"),
        (
            "- relu\n- {type: add, inputs: [relu_1, u_conv2]}\n- {block: unit, name: u, filters: 1}",
            UNIT,
            "unknown layer 'u_conv2', did you mean 'u_conv'?",
        ),
        (
            "- relu\n- {block: b}",
            "b: {layers: [{type: add, inputs: [$input, relu_1]}]}",
            "unknown layer 'relu_1' in block b, expected one of: input, add_1",
        ),
        (
            "- {block: b}",
            "b: {layers: [{type: conv2d, filters: $input, kernel_size: 1}]}",
            "$input is a layer: it stands in a list of inputs, or is the whole value of a parameter",
        ),
        ("- {block: b}", "b: {layers: [{block: b}]}", "a block cannot use itself: b → b"),
        (
            "- {block: a}",
            "a: {layers: [{block: b}]}\nb: {layers: [relu, {block: a}]}",
            "a block cannot use itself: a → b → a",
        ),
        (
            "- relu",
            "b: {layers: [{type: dense, units: $n}]}",
            "unknown parameter '$n' of block b, expected one of: input, index",
        ),
        ("- relu", "b: {parameters: {n: 1}, layers: [relu]}", "parameter 'n' of block b is used nowhere in it"),
        (
            "- relu",
            "b: {parameters: {when: 1}, layers: [{type: dense, units: $when}]}",
            "'when' has a meaning of its own: rename this one",
        ),
        ("- relu", "b: {parameters: {a-b: 1}, layers: [relu]}", "expected a word of letters, digits and _, got 'a-b'"),
        (
            "- relu",
            "b: {parameters: [n], layers: [relu]}",
            "parameters: expected a mapping of names to defaults, null for none, got a list of 1",
        ),
        (
            "- relu",
            "b: {layers: [{type: dense, units: $n ** 2}], parameters: {n: 1}}",
            "expected numbers and $parameters with + - * // and parentheses, got '$n ** 2'",
        ),
        (
            "- {block: b}",
            "b: {layers: [{type: dense, units: 4 // $n}], parameters: {n: 0}}",
            "'4 // $n' divides by zero",
        ),
        (
            "- {block: b, n: [1]}",
            "b: {layers: [{type: dense, units: 4 * $n}], parameters: {n: 0}}",
            "n: expected a number, as the block computes with it, got a list of 1",
        ),
        ("- relu", "b: {layers: [relu, {type: relu, name: relu_1}]}", "duplicate layer name 'relu_1' in block b"),
        ("- relu", "b: {layers: [{type: relu, name: $x}], parameters: {x: a}}", "name: a name cannot be computed"),
        (
            "- relu",
            "b: {layers: [{type: relu, name: a.b}]}",
            "name: expected a word without spaces, dots, slashes and '=' that is not a number, got 'a.b'",
        ),
        ("- relu", "b: {layers: []}", "layers: expected a list of layers, got an empty list"),
        ("- relu", "b: {parameters: {}}", "missing key 'layers' of block b"),
        ("- relu", "b: relu", "expected a mapping with layers, and parameters if it has any, got 'relu'"),
        (
            "- relu",
            "b: {layers: [relu], parameter: {}}",
            "unknown key 'parameter' of block b, did you mean 'parameters'?",
        ),
        (
            "- relu",
            "a/b: {layers: [relu]}",
            "expected a word without spaces, dots, slashes and '=' that is not a number, got 'a/b'",
        ),
        ("- relu", "- b", "blocks: expected a mapping of names to blocks, got a list of 1"),
        (
            "- {block: a, name: b}\n- {block: a, name: b}",
            "a: {layers: [relu]}",
            "duplicate layer name 'b_relu_1', first at model.layers[0]",
        ),
        ("- {block: a, name: b.c}", "a: {layers: [relu]}", "expected a word without spaces, dots, slashes and '='"),
        (
            "- {block: a}",
            "a: {layers: [{type: relu, inputs: [b], when: $off}, {type: relu, name: b, inputs: [relu_1], "
            "when: $off}, tanh], parameters: {off: false}}",
            "these layers stand for each other in a circle",
        ),
    ],
    ids=lambda text: text[:40],
)
def test_complaints(layers, blocks, message):
    found = complaint(config(layers, blocks))
    assert message in found.splitlines()[0]
    assert "\n2 problems" not in found or "circle" in message


def test_a_name_twice_is_caught_across_blocks_and_layers():
    text = config("- {type: relu, name: u_conv}\n- {block: unit, name: u, filters: 1}", UNIT)
    assert "duplicate layer name 'u_conv', first at model.layers[0]" in complaint(text)


def test_python_mappings():
    layers = [{"block": "b", "name": "x", "n": 4, "repeat": 2}, "flatten", {"type": "dense", "units": 10}]
    model = {"input": [1, 28, 28], "layers": layers}
    model["blocks"] = {
        "b": {"parameters": {"n": None}, "layers": [{"type": "conv2d", "filters": "2 * $n", "kernel_size": 1}]}
    }
    document = {"data": {"source": "mnist-subset"}, "model": model}
    assert [s.name for s in config_from_dict(document).model.layers][:2] == ["x_1_conv2d_1", "x_2_conv2d_1"]
    layers[0]["n"] = "four"
    with pytest.raises(ConfigError, match=r"^model\.blocks\.b\.layers\[0\]: n: expected a number"):
        config_from_dict(document)


PIECES = [
    "$input",
    "$index",
    "$filters",
    "$",
    "unit",
    "repeat: ",
    "first: ",
    "when: ",
    "inputs: ",
    "block: ",
    "*",
    "//",
]
PIECES += [*"[]{},:- \n01$*+", "null", "true", "stage_1", "name: ", "parameters: ", "layers: ", "999999999"]


@given(st.data())
def test_blocks_with_a_hole_filled_by_anything(data):
    text = config(USES, UNIT + NESTED.strip("\n"))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(start + 14, len(text))))
    filling = data.draw(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=4).map("".join))
    try:
        read = parse_config(text[:start] + filling + text[end:])
    except ConfigError:
        return
    assert parse_config(to_yaml(read)) == read
    assert parse_config(as_yaml(to_dict_with_blocks(read))) == read
