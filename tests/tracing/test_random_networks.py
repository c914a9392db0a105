"""Traces of random networks of the whole format: against PyTorch's autograd, and terms against cells."""

from __future__ import annotations

from math import fsum

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proof.example import Example
from proof.networks import networks

import cnnbp_cli as cnnbp
from cnnbp_cli.tracing.cells import Cell
from cnnbp_cli.tracing.trace import Trace

NETWORKS, CELLS = 60, 40
"""2,400 cells in all, two passes each."""

modes = st.sampled_from(["evaluation", "training"])

pytestmark = pytest.mark.slow


def traced(example: Example, mode: str) -> Trace:
    model, images, labels = example.build()
    return cnnbp.trace(model, images, labels, mode=mode, shown=example.seed % len(images))


def questions(trace: Trace, rng: np.random.Generator, count: int) -> list[tuple[Cell, str]]:
    """Draw cells, each tensor as likely as any other, and what to ask about them."""
    found = []
    names = list(trace.shapes)
    for _ in range(count):
        name = names[rng.integers(len(names))]
        asked = ["value"]
        if trace.kind(name) not in ("prediction", "target") and ".running_" not in name:
            asked.append("gradient")
            if trace.kind(name) == "parameter":
                asked.append("update")
        cell = Cell(name, tuple(int(rng.integers(size)) for size in trace.shapes[name]))
        found.append((cell, asked[rng.integers(len(asked))]))
    return found


@settings(max_examples=NETWORKS, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(example=networks(), mode=modes)
def test_the_terms_of_random_cells_add_up_to_them(example, mode):
    trace = traced(example, mode)
    for cell, of in questions(trace, np.random.default_rng(example.seed), CELLS):
        found = trace.terms(cell, of)
        size = fsum(abs(term.product) for term in found.terms)
        assert found.stated
        assert abs(fsum(term.product for term in found.terms) - found.value) <= 1e-12 * size, (cell, of)
        for term in found.terms:
            assert term.product == pytest.approx(term.coefficient * np.prod([f.value for f in term.factors]), rel=1e-14)
            for factor in term.factors:
                if factor.image in (None, trace.shown) and factor.of in ("value", "gradient"):
                    ask = trace.value if factor.of == "value" else trace.gradient
                    assert ask(factor.cell) == factor.value
        if found.value:
            assert found.reason in (None, "canceled")
        elif of == "gradient":
            assert found.reason is not None, cell


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(example=networks(), mode=modes)
def test_a_cell_is_used_by_the_cells_whose_terms_name_it(example, mode):
    trace = traced(example, mode)
    rng = np.random.default_rng(example.seed)
    for cell, of in questions(trace, rng, 15):
        if of == "update" or (of == "gradient" and trace.kind(cell.tensor) in ("parameter", "loss")):
            continue  # nothing in the pass comes after the gradient of a parameter, nor before that of the loss: 1
        users = trace.used_by(cell, of)
        assert len(users) == len(set(users))
        for k in rng.permutation(len(users))[:3]:
            assert cell in named(trace, users[k], of)
        for source in list(named(trace, cell, of))[:3]:  # and the other way round
            if ".running_" not in source.tensor and trace.kind(source.tensor) not in ("target", "prediction"):
                assert cell in trace.used_by(source, of)


def named(trace: Trace, cell: Cell, of: str) -> dict[Cell, None]:
    """Return the cells of the same kind, and of the image on show, that an explanation names."""
    found = trace.terms(cell, of)
    factors = [*(factor for term in found.terms for factor in term.factors), *found.reads]
    return dict.fromkeys(f.cell for f in factors if f.of == of and f.image in (None, trace.shown))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(example=networks(), mode=modes)
def test_the_document_agrees_with_pytorch(example, mode):
    torch = pytest.importorskip("torch")
    from oracles.torch_model import TorchModel, one_thread
    from proof.against_torch import ROUNDING, batch_first, masks, output_gradients, steepest_and_largest

    from cnnbp_cli.core.types import Context

    model, images, labels = example.build()
    trace = traced(example, mode)
    training, shown = mode == "training", trace.shown
    x, ctx = model.images_in(images), Context(training=training, seed=example.seed)
    values, flows = {"input": x}, {}
    zs, tape = model.graph.forward(model.params, x, ctx, values.__setitem__)
    dzs = output_gradients(model, zs, model.targets_in(labels, x))
    model.graph.backward(model.params, tape, dzs, ctx, flows.__setitem__)
    with one_thread():
        other = TorchModel(model.config, model.parameters())
        pixels = batch_first(x).requires_grad_()
        turned = {name: batch_first(value) for name, value in values.items()}
        drawn = masks(model, len(images), ctx) if training else {}
        outputs, differences = other.outputs(pixels, drawn, training=training, values=turned)
        for output in outputs.values():
            output.retain_grad()
        mean = other.total(outputs, pixels, None if labels is None else torch.tensor(labels))
        mean.backward()
    assert max(differences.values()) <= 1e-9
    rounding = ROUNDING * steepest_and_largest(model, tape, values, flows, 1 / model.loss_function.count(zs[0]))

    def assert_agrees(ours, theirs, slack):
        ours, theirs = np.array(ours), np.zeros(np.shape(ours)) if theirs is None else theirs.detach().numpy()
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= max(1e-9 * np.abs(theirs).max(), slack)

    document = trace.document()
    assert document["loss"] == pytest.approx(mean.item(), rel=1e-9, abs=1e-12 * (1 + max(np.abs(z).max() for z in zs)))
    assert [node["name"] for node in document["nodes"]] == ["input", *(node.name for node in model.graph.nodes)]
    for node in document["nodes"]:
        output = outputs[node["name"]]
        assert node["shape"] == list(output.shape[1:])
        assert_agrees(node["output"], output[shown], 0)
        grad = output.grad
        assert_agrees(node["gradient"], None if grad is None else grad[shown], rounding)
        for key, parameter in node["parameters"].items():
            ours = other.values[f"{node['name']}.{key}"]
            assert parameter["shape"] == list(ours.shape)
            if parameter["gradient"] is None:
                assert key.startswith("running_")
            else:
                assert_agrees(parameter["value"], ours, 0)
                assert_agrees(parameter["gradient"], ours.grad, rounding)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(example=networks(), mode=modes)
def test_decisions_in_the_document_are_those_of_the_numbers(example, mode):
    trace = traced(example, mode)
    by_name = {node["name"]: node for node in trace.document()["nodes"]}
    for node in by_name.values():
        assert ("winners" in node) == (node["type"] in ("max_pool2d", "global_max_pool2d"))
        if "gates" in node:
            np.testing.assert_array_equal(node["gates"], np.array(by_name[node["inputs"][0]]["output"]) > 0)
        if "winners" in node:
            image = np.array(by_name[node["inputs"][0]]["output"])
            rows, columns = np.moveaxis(np.array(node["winners"]), -1, 0)
            channels = np.arange(len(image)).reshape(-1, *[1] * (rows.ndim - 1))
            np.testing.assert_array_equal(image[channels, rows, columns], node["output"])
