"""A layer in which one of three workers meets with an accident at one step."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Literal

import cnnbp_cli as cnnbp
from cnnbp_cli.core.types import Array, Context, Layer, Params


@cnnbp.register
@dataclass(frozen=True, slots=True)
class Trap(Layer[None]):
    """The identity, until then."""

    rank: int
    """Whom it befalls."""
    how: Literal["raise", "kill", "stop"]
    """A defect, a kill from outside, or a machine that is heard of no more."""
    at: int = 5
    """After how many steps."""
    type: Literal["trap"] = "trap"

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, None]:
        if ctx.training and ctx.step == self.at and ctx.workers.size == 3 and ctx.workers.rank == self.rank:
            if self.how == "raise":
                raise RuntimeError("the trap has shut")
            os.kill(os.getpid(), signal.SIGKILL if self.how == "kill" else signal.SIGSTOP)
        return x, None

    def backward(self, params: Params, residuals: None, dy: Array, ctx: Context) -> tuple[Array, Params]:
        return dy, {}
