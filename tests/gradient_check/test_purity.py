"""Custom layers whose passes are no functions of their arguments: an error that names the layer, never a verdict."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from cnnbp_cli.config.custom_layers import CustomLayerError
from cnnbp_cli.core.rng import generator
from cnnbp_cli.core.types import Layer
from cnnbp_cli.gradient_check.check import gradcheck

STATE = {"calls": count(), "rng": np.random.default_rng(0), "mask": np.ones(1), "buffer": np.zeros((2, 4, 4, 4))}
DRAW = (
    "draw random numbers from cnnbp_cli.core.rng.generator(ctx.seed, 'mask', ctx.node, ctx.step), "
    "which gives the same ones at each call of a step"
)
OTHER_OUTPUT = "forward of layer bad returned another output for the same arguments"
OTHER_GRADIENTS = "backward of layer bad returned other gradients for the same arguments"
UNKNOWN = "keeps state between calls, or reads a clock or a global"


def into_buffer(x):
    STATE["buffer"][...] = x
    return STATE["buffer"]


def in_place(array, factor=2):
    array.flags.writeable = True
    array *= factor
    return array


def remember(x):
    STATE["mask"] = x > 0
    return x * STATE["mask"]


FORWARDS = {
    "global numpy": (
        lambda x, ctx: x * (np.random.rand(*x.shape) > 0.5),
        f"{OTHER_OUTPUT}, by global random numbers: {DRAW}",
    ),
    "global python": (
        lambda x, ctx: x * random.random(),
        f"{OTHER_OUTPUT}, by global random numbers: {DRAW}",
    ),
    "own generator": (
        lambda x, ctx: x + STATE["rng"].normal(size=x.shape),
        f"{OTHER_OUTPUT}: it has its own random generator, {UNKNOWN}; {DRAW}",
    ),
    "counter": (
        lambda x, ctx: x * next(STATE["calls"]),
        f"{OTHER_OUTPUT}: it has its own random generator, {UNKNOWN}; {DRAW}",
    ),
    "clock": (
        lambda x, ctx: x * time.perf_counter_ns(),
        f"{OTHER_OUTPUT}: it has its own random generator, {UNKNOWN}; {DRAW}",
    ),
    "in place": (lambda x, ctx: in_place(x) * 1, "forward of layer bad changed its input in place: work on a copy"),
    "buffer": (
        lambda x, ctx: into_buffer(x),
        "forward of layer bad returned an array that its next call overwrites: allocate a new one",
    ),
}
BACKWARDS = {
    "global numpy": (
        lambda x, dy: dy * np.random.rand(),
        f"{OTHER_GRADIENTS}, by global random numbers: {DRAW}",
    ),
    "counter": (
        lambda x, dy: dy * next(STATE["calls"]),
        f"{OTHER_GRADIENTS}: it has its own random generator, changes its residuals, {UNKNOWN}; {DRAW}",
    ),
    "residuals": (
        lambda x, dy: dy * in_place(x),
        f"{OTHER_GRADIENTS}: it has its own random generator, changes its residuals, {UNKNOWN}; {DRAW}",
    ),
    "dy in place": (lambda x, dy: in_place(dy) * 1, "backward of layer bad changed dy in place: work on a copy"),
    "buffer": (
        lambda x, dy: into_buffer(dy),
        "backward of layer bad returned an array that its next call overwrites: allocate a new one",
    ),
    "state": (
        lambda x, dy: dy * STATE["mask"],
        "backward of layer bad keeps state between calls: let forward return what backward needs",
    ),
}


@dataclass(frozen=True, slots=True)
class Bad(Layer):
    """Passes that are no functions of their arguments."""

    first: str = ""
    second: str = ""
    type: Literal["bad"] = "bad"

    def forward(self, params, x, ctx):
        forward = FORWARDS[self.first][0] if self.first else lambda x, ctx: remember(x)
        return forward(x, ctx), x.copy()

    def backward(self, params, residuals, dy, ctx):
        backward = BACKWARDS[self.second][0] if self.second else lambda x, dy: dy * (x > 0)
        return backward(residuals, dy), {}


@dataclass(frozen=True, slots=True)
class FromContext(Layer):
    """Dropout as it should be: the mask is drawn from what `ctx` names."""

    type: Literal["from_context"] = "from_context"

    def forward(self, params, x, ctx):
        mask = 2.0 * (generator(ctx.seed, "mask", ctx.node, ctx.step).random(x.shape) > 0.5)
        return x * mask, mask

    def backward(self, params, residuals, dy, ctx):
        return dy * residuals, {}


CONV = {"type": "conv2d", "filters": 2, "kernel_size": 3}
OUT = ("flatten", {"type": "dense", "units": 2})
CASES = [("first", case, text) for case, (_, text) in FORWARDS.items()]
CASES += [("second", case, text) for case, (_, text) in BACKWARDS.items()]


@pytest.mark.parametrize("method", ["complex", "central"])
@pytest.mark.parametrize(("which", "case", "complaint"), CASES, ids=lambda value: value if len(value) < 20 else "")
def test_a_pass_that_is_no_function_of_its_arguments(network, batch, registered, which, case, complaint, method):
    registered(Bad)
    model = network(CONV, {"type": "bad", "name": "bad", which: case}, *OUT)
    with pytest.raises(CustomLayerError) as caught:
        gradcheck(model, *batch(), method=method)
    line = (
        Bad.forward.__code__.co_firstlineno if complaint.startswith("forward") else Bad.backward.__code__.co_firstlineno
    )
    assert str(caught.value) == f"{Path(__file__)}:{line}: Bad.{complaint}"


@pytest.mark.parametrize("layer", [{"type": "bad"}, "from_context"], ids=["stores but does not read", "from ctx"])
def test_pure_layers_pass(network, batch, registered, layer):
    registered(Bad)
    registered(FromContext)
    assert gradcheck(network(CONV, layer, *OUT), *batch()).ok


def test_global_random_numbers_are_left_alone(network, batch, registered):
    registered(FromContext)
    before = np.random.get_state()[1].copy()
    gradcheck(network(CONV, "from_context", *OUT), *batch())
    np.testing.assert_array_equal(np.random.get_state()[1], before)
