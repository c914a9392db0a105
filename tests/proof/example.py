"""A network with numbers in it, as data: what the proof of the gradient check is made of.

Nothing of `cnnbp_cli` is imported before `build`, so that the same example can be built by faulty sources.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from zlib import crc32

import numpy as np

if TYPE_CHECKING:
    from cnnbp_cli.core.types import Array
    from cnnbp_cli.model import Model


@dataclass(frozen=True)
class Example:
    """A config, and how to draw the numbers for it.

    Attributes
    ----------
    model : dict
        The config's `model`.
    train : dict
        The config's `train`.
    target : {"label", "image"}
    images : str
        ``normal``: no two pixels are equal. ``levels``: -0.5, 0 or 0.5, so that every window has ties.
        ``flat``: zero but for a few pixels. ``zeros``: nothing but zeros.
    weights : str
        ``normal``, or ``quarters``: few digits, so that sums are exact, equal windows give equal outputs
        and many outputs are exactly zero.
    dead : float
        How many of the biases of convolutions and dense layers are -10: a ReLU behind them is dead.
    labels : str
        ``classes``, or ``numbers``: a target for every output.
    count : int
        Images.
    seed : int
    """

    model: dict[str, Any]
    train: dict[str, Any]
    target: Literal["label", "image"] = "label"
    images: Literal["normal", "levels", "flat", "zeros"] = "normal"
    weights: Literal["normal", "quarters"] = "normal"
    dead: float = 0.0
    labels: Literal["classes", "numbers"] = "classes"
    count: int = 3
    seed: int = 0

    @property
    def config(self) -> dict[str, Any]:
        data = {"source": "npz", "path": "never-read.npz", "normalize": "none", "target": self.target}
        return {
            "name": "example",
            "seed": self.seed,
            "dtype": "float64",
            "data": data,
            "model": self.model,
            "train": self.train,
        }

    def build(self) -> tuple[Model, Array, Array | None]:
        """Return the model with all parameters drawn, images (N, C, H, W) and labels."""
        from cnnbp_cli.build import build
        from cnnbp_cli.config.load import config_from_dict

        model = build(config_from_dict(self.config))
        model.set_parameters({name: self._parameter(name, value) for name, value in model.parameters().items()})
        images = self.draw_images(self.count)
        return model, images, self.draw_labels(self.count, model.output_shape)

    def _rng(self, *purpose: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, *(crc32(word.encode()) for word in purpose)])

    def _parameter(self, name: str, initial: Array) -> Array:
        rng, key = self._rng(name), name.rpartition(".")[2]
        shape = initial.shape
        if key == "running_var":
            return rng.uniform(0.5, 2, shape)
        if self.weights == "quarters":
            value = rng.integers(-2, 3, shape) / 4
        elif key == "weight" and len(shape) in (2, 4):
            value = initial
        else:
            value = rng.normal(size=shape)
        if key == "bias" and self.dead:
            value = np.where(rng.random(shape) < self.dead, -10.0, value)
        return value

    def draw_images(self, count: int) -> Array:
        rng, shape = self._rng("images"), (count, *self.model["input"])
        if self.images == "normal":
            return rng.normal(size=shape)
        if self.images == "levels":
            return 0.5 * rng.integers(-1, 2, shape)
        if self.images == "flat":
            return np.where(rng.random(shape) < 0.1, rng.integers(1, 5, shape) / 4, 0.0)
        return np.zeros(shape)

    def draw_labels(self, count: int, output: tuple[int, ...]) -> Array | None:
        rng = self._rng("labels")
        if self.target == "image":
            return None
        if self.labels == "classes":
            return rng.integers(0, max(2, output[0]), count)
        numbers = rng.random((count, *output))
        return numbers / numbers.sum(1, keepdims=True) if self.model.get("head", "softmax") == "softmax" else numbers
