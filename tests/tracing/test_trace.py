"""A trace answers for every cell: what the course's ten points say, on networks small enough to see it."""

from __future__ import annotations

import json
import re
import sys
import textwrap
import types
from collections import Counter
from dataclasses import dataclass
from math import fsum
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

import cnnbp_cli as cnnbp
from cnnbp_cli.build import build
from cnnbp_cli.config.load import config_from_dict, load_config
from cnnbp_cli.core.layers import LAYERS
from cnnbp_cli.core.losses import WeightedLoss
from cnnbp_cli.core.types import Layer, Loss
from cnnbp_cli.model import ModelInputError
from cnnbp_cli.tracing.cells import CellError
from cnnbp_cli.tracing.html import MODULES
from cnnbp_cli.tracing.update import next_update
from cnnbp_cli.train.checkpoint import Checkpoint


def network(*layers, image=(1, 4, 4), head="softmax", dtype="float64", **train):
    """Return a model of these layers, with its weights drawn."""
    return build(
        config_from_dict(
            {
                "dtype": dtype,
                "data": {"source": "synthetic", "kind": "bars", "image": list(image)},
                "model": {"input": list(image), "layers": list(layers), "head": head},
                "train": train,
            }
        )
    )


def images(model, count=1, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *model.config.model.input))


CONV = {"type": "conv2d", "filters": 2, "kernel_size": 3, "padding": "same"}
TAIL = ("flatten", {"type": "dense", "units": 3})


@pytest.fixture(scope="module")
def toy():
    model = cnnbp.load("configs/toy.yaml", overrides=["dtype=float64"])
    data = cnnbp.load_data(model)
    image = data.normalization.apply(data.test.images[:1], "float64")[0]
    return cnnbp.trace(model, image, data.test.labels[0], split="test", index=0)


def test_the_loss_starts_it_with_prediction_less_target(toy):
    found = toy.terms("dense_1[0]")
    assert found.formula == "dz = p − y"
    assert found.value == toy.value("prediction[0]") - toy.value("target[0]")
    assert toy.gradient("loss") == 1
    assert toy.value("loss") == toy.loss


def test_a_weight_needs_the_input_and_the_input_needs_the_weight(toy):
    weight = toy.terms("conv2d_1.weight[0,0,1,1]")
    assert len(weight.terms) == 16
    assert {(f.cell.tensor, f.of) for term in weight.terms for f in term.factors} == {
        ("conv2d_1", "gradient"),
        ("input", "value"),
    }
    pixel = toy.terms("input[0,3,3]")
    assert {(f.cell.tensor, f.of) for term in pixel.terms for f in term.factors} == {
        ("conv2d_1.weight", "value"),
        ("conv2d_1", "gradient"),
    }
    assert len(pixel.terms) == 9
    assert "flipped" not in pixel.formula
    assert pixel.retold.startswith("each dy[f, p, q] stamps")


def test_one_of_four_wins_and_the_others_say_so(toy):
    (winner,) = toy.terms("max_pool2d_1[0,1,0]", "value").terms[0].factors
    window = [f"relu_1[0,{r},{c}]" for r in (2, 3) for c in (0, 1)]
    reasons = {cell: toy.terms(cell).reason for cell in window}
    assert reasons.pop(str(winner.cell)) is None
    assert list(reasons.values()) == ["not the winner"] * 3
    assert toy.gradient(winner.cell) == toy.gradient("max_pool2d_1[0,1,0]")
    assert all(toy.gradient(cell) == 0 for cell in reasons)


def test_reasons_for_zeros():
    model = network(CONV, "relu", {"type": "max_pool2d", "pool_size": 2}, *TAIL)
    trace = cnnbp.trace(model, images(model), 1)
    reasons = {trace.terms(f"conv2d_1[{c},{h},{w}]").reason for c in (0, 1) for h in range(4) for w in range(4)}
    assert {None, "gate closed", "nothing arrived"} >= reasons >= {None, "nothing arrived"}
    black = cnnbp.trace(model, np.zeros((1, 4, 4)), 1)
    assert black.terms("conv2d_1.weight[0,0,1,1]").reason in ("multiplied by 0", "nothing arrived")
    corner = network({"type": "conv2d", "filters": 1, "kernel_size": 2, "stride": 3}, *TAIL)
    assert cnnbp.trace(corner, images(corner), 0).terms("input[0,2,2]").reason == "not read"
    bordered = network({"type": "conv2d", "filters": 1, "kernel_size": 3, "padding": 2, "stride": 6}, *TAIL)
    assert cnnbp.trace(bordered, images(bordered), 0).terms("conv2d_1.weight[0,0,0,0]").reason == "padding"


def test_a_bias_before_batch_norm_gets_nothing_as_its_gradients_cancel():
    model = network(CONV, "batch_norm", "relu", *TAIL)
    trace = cnnbp.trace(model, images(model, 4), [0, 1, 2, 0], mode="training", shown=2)
    found = trace.terms("conv2d_1.bias[1]")
    assert abs(found.value) < 1e-15
    assert found.reason == "canceled"
    assert len(found.terms) == 4 * 16
    assert {f.image for term in found.terms for f in term.factors} == {0, 1, 2, 3}
    evaluated = cnnbp.trace(model, images(model, 4), [0, 1, 2, 0], shown=2)
    assert evaluated.terms("conv2d_1.bias[1]").reason is None


def test_where_an_output_feeds_two_layers_the_gradients_add():
    model = network(
        {**CONV, "name": "stem", "filters": 1},
        {**CONV, "name": "branch", "filters": 1, "inputs": ["stem"]},
        {"type": "add", "name": "sum", "inputs": ["stem", "branch"]},
        *TAIL,
    )
    trace = cnnbp.trace(model, images(model), 2)
    found = trace.terms("stem[0,1,1]")
    assert [term.via for term in found.terms] == ["branch"] * 9 + ["sum"]
    assert fsum(term.product for term in found.terms) == pytest.approx(found.value, rel=1e-14)
    assert found.formula.startswith("the sum over its readers: branch: dx[0, 1, 1] = ")
    assert set(map(str, trace.used_by("stem[0,1,1]", "value"))) >= {"sum[0,1,1]", "branch[0,0,0]", "branch[0,2,2]"}


def test_a_shared_parameter_has_the_terms_of_each_use():
    model = network({**CONV, "filters": 1, "name": "conv"}, "tanh", {"share": "conv"}, *TAIL)
    trace = cnnbp.trace(model, images(model), 2)
    for cell in ("conv.weight[0,0,1,2]", "conv.bias[0]"):
        found = trace.terms(cell)
        parts = {told.via: fsum(told.products) for told in found.told}
        assert [*parts] == ["conv", "conv_2"]
        assert all(parts.values())
        assert fsum(parts.values()) == pytest.approx(found.value, rel=1e-13)
        assert found.formula.startswith("the sum over its uses: conv: d")
    assert {str(cell)[:4] for cell in trace.used_by("conv.bias[0]", "value")} == {"conv"}
    assert len(trace.used_by("conv.bias[0]", "value")) == 32
    value = trace.terms("conv_2[0,1,1]", "value")
    assert {factor.cell.tensor for term in value.terms for factor in term.factors} == {
        *("conv.weight", "conv.bias", "tanh_1")
    }
    nodes = {node["name"]: node for node in json.loads(trace.to_json())["nodes"]}
    assert nodes["conv_2"]["shares"] == "conv"
    assert nodes["conv_2"]["parameters"] == {}
    assert "shares" not in nodes["conv"]


def test_what_leads_nowhere_is_detached():
    model = network({**CONV, "name": "dead"}, {"type": "flatten", "inputs": ["input"]}, {"type": "dense", "units": 2})
    trace = cnnbp.trace(model, images(model), 0)
    for cell in ("dead[0,0,0]", "dead.weight[0,0,1,1]"):
        found = trace.terms(cell)
        assert (found.value, found.reason) == (0, "detached")
    assert trace.terms("input[0,0,0]").reason is None


def test_dropped_units_say_so_in_training_only():
    model = network("flatten", {"type": "dropout", "rate": 0.5}, {"type": "dense", "units": 2})
    trace = cnnbp.trace(model, images(model, 2), [0, 1], mode="training")
    kept = [trace.terms(f"dropout_1[{k}]", "value").reason for k in range(16)]
    assert set(kept) == {None, "dropped"}
    assert [trace.terms(f"flatten_1[{k}]").reason for k in range(16)] == kept
    assert {cnnbp.trace(model, images(model), 0).terms(f"flatten_1[{k}]").reason for k in range(16)} == {None}


# ---------------------------------------------------------------- the update


def test_plain_descent_moves_against_the_gradient():
    model = network(CONV, "relu", *TAIL, optimizer={"type": "sgd", "learning_rate": 0.1})
    trace = cnnbp.trace(model, images(model), 1)
    found = trace.terms("dense_1.weight[2,5]", "update")
    assert found.value == pytest.approx(-0.1 * trace.gradient("dense_1.weight[2,5]"), rel=1e-15)
    assert found.formula == "change = −rate · gradient"


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop", "adagrad"])
@pytest.mark.parametrize("clip", [None, 0.01])
def test_an_update_is_the_one_that_training_makes(optimizer, clip, tmp_path):
    """Three steps on one batch; before each, the checkpoint tells what the step will do."""
    extra = {"sgd": {"momentum": 0.9, "weight_decay": 0.01}, "rmsprop": {"momentum": 0.5}}.get(optimizer, {})
    overrides = {
        "dtype": "float64",
        "data": {"source": "synthetic", "kind": "bars", "image": [1, 6, 6], "train": 8, "test": 4},
        "model": {"input": [1, 6, 6], "layers": ["flatten", {"type": "dense", "units": 2}]},
        "train": {
            "optimizer": {"type": optimizer, "learning_rate": 0.05, **extra},
            "batch_size": 8,
            "epochs": 3,
            "clip_norm": clip,
            "keep_checkpoints": 9,
            "workers": 1,
        },
    }
    if clip is None:
        del overrides["train"]["clip_norm"]
    model = build(config_from_dict(overrides))
    data = cnnbp.load_data(model)
    for _ in cnnbp.fit(model, data, run=tmp_path / "run"):
        pass
    checkpoints = [Checkpoint.read(path) for path in sorted((tmp_path / "run" / "checkpoints").glob("step-*.npz"))]
    by_step = {checkpoint.progress["step"]: checkpoint for checkpoint in checkpoints}
    assert {0, 1, 2, 3} <= by_step.keys()
    pixels = data.normalization.apply(data.train.images, "float64")
    for step in (0, 1, 2):
        before, after = by_step[step], by_step[step + 1]
        model.set_parameters(before.parameters)
        update = next_update(model, before, samples=len(data.train))
        trace = cnnbp.trace(model, pixels, data.train.labels, mode="training", update=update)
        for cell in ("dense_1.weight[1,7]", "dense_1.bias[0]"):
            found = trace.terms(cell, "update")
            index = found.cell.index
            change = after.parameters[found.cell.tensor][index] - before.parameters[found.cell.tensor][index]
            assert found.value == pytest.approx(change, rel=1e-9)
            assert fsum(term.product for term in found.terms) == pytest.approx(found.value, rel=1e-12)


def test_what_is_not_learned_has_no_update_and_no_gradient():
    model = network(CONV, "batch_norm", *TAIL)
    trace = cnnbp.trace(model, images(model), 1)
    for cell, of in [("conv2d_1[0,0,0]", "update"), ("batch_norm_1.running_mean[0]", "update"), ("loss", "update")]:
        with pytest.raises(CellError, match=r": has no update: only parameters are learned$"):
            trace.terms(cell, of)
    with pytest.raises(CellError, match=r"^batch_norm_1\.running_var: has no gradient: running statistics follow"):
        trace.gradient("batch_norm_1.running_var[0]")
    with pytest.raises(CellError, match=r"^prediction: has no gradient of its own; see the gradient of dense_1$"):
        trace.terms("prediction[0]")
    with pytest.raises(CellError, match=r"^expected value, gradient or update, got 'slope'$"):
        trace.terms("conv2d_1[0,0,0]", "slope")


# ---------------------------------------------------------------- any network


@dataclass(frozen=True, slots=True)
class Halved(Layer[None]):
    """A layer of the user's own, without terms."""

    type: Literal["halved"] = "halved"

    def forward(self, params, x, ctx):
        return x / 2, None

    def backward(self, params, residuals, dy, ctx):
        return dy / 2, {}


def test_a_layer_without_terms_is_told_as_far_as_its_numbers_go(monkeypatch):
    monkeypatch.setitem(LAYERS, "halved", Halved)
    model = network(CONV, "halved", *TAIL)
    trace = cnnbp.trace(model, images(model), 1)
    found = trace.terms("conv2d_1[0,1,1]")
    assert found.formula == "computed by Halved.backward, terms not stated"
    assert (found.terms, found.stated, found.reason) == ((), False, None)
    assert found.value == trace.gradient("halved_1[0,1,1]") / 2
    document = trace.cell_document("halved_1[0,1,1]", "value")
    assert document["terms"] == []
    assert document["others"] == {"count": 0, "sum": document["value"]}
    assert document["value"] == trace.value("conv2d_1[0,1,1]") / 2


def test_the_terms_of_the_guide_are_those_of_its_layer(monkeypatch):
    guide = Path("docs/custom-layer.md").read_text(encoding="utf-8")
    layer, terms = re.findall(r"```py(?:thon)?\n(.*?)```", guide, re.DOTALL)
    names = "from cnnbp_cli.core.terms import OUTPUT, Index, LayerPass, Ref, Term, Terms\n"
    module = types.ModuleType("scale")
    monkeypatch.setitem(sys.modules, "scale", module)
    monkeypatch.setitem(LAYERS, "scale", Halved)  # so that it is taken back
    del LAYERS["scale"]
    imported = layer.replace("import cnnbp_cli as cnnbp\n", "import cnnbp_cli as cnnbp\n" + names).rstrip()
    source = imported + "\n\n" + textwrap.indent(terms, "    ")
    exec(compile(source, "scale.py", "exec"), vars(module))
    model = network({**CONV, "name": "conv"}, {"type": "scale", "start": 2.0}, *TAIL)
    trace = cnnbp.trace(model, images(model, 2), [0, 1], shown=1)
    for cell, of in [("scale_1[1,2,2]", "value"), ("conv[1,2,2]", "gradient"), ("scale_1.gain[1]", "gradient")]:
        found = trace.terms(cell, of)
        assert found.stated
        assert fsum(term.product for term in found) == pytest.approx(found.value, rel=1e-12)


def test_float32_and_images_as_targets():
    model = cnnbp.load("configs/autoencoder.yaml")
    trace = cnnbp.trace(model, images(model).astype(np.float32))
    assert trace.source.label is None
    output = trace.model.graph.output
    for cell, of in [(f"{output}[0,5,5]", "gradient"), ("input[0,9,9]", "gradient"), ("loss", "value")]:
        found = trace.terms(cell, of)
        size = fsum(abs(term.product) for term in found.terms)
        assert abs(fsum(term.product for term in found.terms) - found.value) <= 1e-5 * size


def test_a_classifier_without_a_label_is_asked_about_its_own_prediction():
    model = network(*TAIL)
    trace = cnnbp.trace(model, images(model)[0])
    assert trace.source.assumed
    assert trace.source.label == int(np.argmax(trace.prediction))
    assert not cnnbp.trace(model, images(model)[0], 1).source.assumed


def test_the_image_on_show_is_one_of_the_batch():
    model = network(*TAIL)
    with pytest.raises(ModelInputError, match=r"^expected the image on show to be one from 0 to 1, got 2$"):
        cnnbp.trace(model, images(model, 2), [0, 1], shown=2)
    alone = cnnbp.trace(model, images(model, 2)[1], 1)
    both = cnnbp.trace(model, images(model, 2), [0, 1], shown=1)
    assert both.gradient("input[0,1,1]") == pytest.approx(alone.gradient("input[0,1,1]") / 2, rel=1e-13)
    assert both.value("dense_1[0]") == pytest.approx(alone.value("dense_1[0]"), rel=1e-13)


def test_layers_may_have_any_name():
    names = ["loss", "prediction", "x[0]", "<script>"]
    layers = [{**CONV, "name": name, "filters": 1} for name in names]
    model = network(*layers, *TAIL)
    trace = cnnbp.trace(model, images(model), 1)
    for name in names:
        assert trace.terms(f"{name}[0,1,1]").stated
        assert trace.gradient(f"{name}.weight[0,0,1,1]") == trace.array(f"{name}.weight", "gradient")[0, 0, 1, 1]
    json.loads(trace.to_json())


def test_numbers_that_are_not_finite_do_not_stop_a_trace():
    model = network(CONV, "relu", *TAIL)
    weight = model.parameters()["conv2d_1.weight"]
    weight[0, 0, 1, 1] = np.inf
    model.set_parameters({"conv2d_1.weight": weight})
    trace = cnnbp.trace(model, images(model), 1)
    document = json.loads(trace.to_json())
    assert document["loss"] is None
    assert document["nodes"][1]["parameters"]["weight"]["value"][0][0][1][1] is None
    for cell in ("dense_1[0]", "conv2d_1[0,1,1]", "input[0,1,1]"):
        for of in ("value", "gradient"):
            json.dumps(trace.cell_document(cell, of), allow_nan=False)


# ---------------------------------------------------------------- documents


def test_the_document_has_the_keys_of_the_contract(toy):
    document = json.loads(toy.to_json())
    assert list(document) == ["format", "version", "mode", "image", "loss", "prediction", "losses", "nodes"]
    assert (document["format"], document["version"], document["mode"]) == ("cnnbp-trace", 1, "evaluation")
    assert document["image"] == {"split": "test", "index": 0, "label": int(toy.source.label)}
    first, conv, relu, pool, *_ = document["nodes"]
    assert list(first) == ["name", "type", "inputs", "shape", "output", "gradient", "parameters"]
    assert (first["name"], first["type"], first["shape"]) == ("input", "input", [1, 6, 6])
    assert list(conv["parameters"]) == ["weight", "bias"]
    assert list(conv["parameters"]["weight"]) == ["shape", "value", "gradient"]
    assert np.shape(pool["winners"]) == (1, 2, 2, 2)
    assert np.shape(relu["gates"]) == (1, 4, 4)
    assert [node["name"] for node in toy.document(["relu_1"])["nodes"]] == ["relu_1"]
    with pytest.raises(CellError, match=r"^there is no layer 'relu_2', did you mean 'relu_1'\?$"):
        toy.document(["relu_2"])


@pytest.mark.parametrize("top", [0, 1, 3, 10, None])
def test_the_products_and_the_others_make_the_value(toy, top):
    for cell, of in [
        ("conv2d_1.weight[0,0,1,1]", "gradient"),
        ("conv2d_1[0,1,1]", "value"),
        ("input[0,2,2]", "gradient"),
    ]:
        document = toy.cell_document(cell, of, top)
        shown = [term["product"] for term in document["terms"]]
        assert fsum([*shown, document["others"]["sum"]]) == document["value"]
        assert len(shown) + document["others"]["count"] == len(toy.terms(cell, of).terms)
        assert list(document)[:9] == [
            "format",
            "version",
            "cell",
            "of",
            "value",
            "formula",
            "filled",
            "terms",
            "others",
        ]
        assert document["format"] == "cnnbp-trace-cell"
        for term in document["terms"]:
            assert list(term) == ["factors", "coefficient", "product"]
            for factor in term["factors"]:
                assert list(factor) == ["tensor", "of", "index", "value"]


def test_the_largest_terms_come_first(toy):
    everything = [abs(term.product) for term in toy.terms("conv2d_1.weight[0,0,1,1]").terms]
    shown = toy.cell_document("conv2d_1.weight[0,0,1,1]", top=4)["terms"]
    assert [abs(term["product"]) for term in shown] == sorted(everything, reverse=True)[:4]


def test_a_notebook_shows_the_page(toy):
    html = toy._repr_html_()
    assert html.startswith("<iframe ")
    assert "&lt;script" in html
    assert "<script" not in html


class HomeMade(Loss[np.ndarray]):
    """Half the squared error, with no terms."""

    def predict(self, z):
        return z

    def forward(self, z, target):
        return ((z - target) ** 2).sum() / 2, z - target

    def backward(self, residuals):
        return residuals

    def count(self, z):
        return z.shape[-1]


def test_a_loss_of_ones_own_is_explained_as_far_as_its_numbers_go():
    config = load_config(
        str(Path(__file__).parents[2] / "configs" / "toy.yaml"), ["model.head=none", "train.loss=mse", "dtype=float64"]
    )
    trace = cnnbp.trace(
        build(config, losses=[WeightedLoss("dense_1", HomeMade())]), np.ones((1, 6, 6)), np.array([2.0])
    )
    found = trace.terms("dense_1[0]")
    assert (found.stated, found.terms) == (False, ())
    assert found.value == trace.value("dense_1[0]") - 2
    assert trace.terms("loss", "value").value == pytest.approx((trace.value("dense_1[0]") - 2) ** 2 / 2)


def test_the_names_of_the_page_s_modules_do_not_collide() -> None:
    """All modules become one script."""
    folder = Path(cnnbp.__file__).parent / "tracing" / "page"
    script = "\n".join((folder / f"{name}.js").read_text(encoding="utf-8") for name in MODULES)
    declared = re.findall(r"^(?:export )?(?:async )?(?:function\*?|const|let|class) (\w+)", script, re.MULTILINE)
    assert len(declared) > 100
    assert [name for name, times in Counter(declared).items() if times > 1] == []
