"""What a model makes of single images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnbp_cli.core.types import Array
from cnnbp_cli.model import Model


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model makes of one image.

    Attributes
    ----------
    image : str
        Where it came from.
    label : int or None
        The class; None when the model does not classify.
    probabilities : list of float or None
        For each class.
    output : Array or None
        What a model that does not classify gives, without the batch.
    """

    image: str
    label: int | None
    probabilities: list[float] | None
    output: Array | None

    def to_dict(self) -> dict[str, Any]:
        if self.output is not None:
            return {"image": self.image, "output": self.output.tolist()}
        return {"image": self.image, "class": self.label, "probabilities": self.probabilities}


def predict(model: Model, images: Array, names: Sequence[str]) -> list[Prediction]:
    """Return a prediction for each image.

    Parameters
    ----------
    model : Model
    images : Array, shape (N, C, H, W)
        Whole numbers are raw pixels, floats are taken as they are; see `Model.predict`.
    names : sequence of str
        One for each image.
    """
    outputs = model.predict(images)
    if not model.classifies:
        return [Prediction(name, None, None, output) for name, output in zip(names, outputs, strict=True)]
    if outputs.shape[1] == 1:  # a single unit gives the probability of class 1
        outputs = np.concatenate([1 - outputs, outputs], 1)
    return [
        Prediction(name, int(output.argmax()), output.tolist(), None)
        for name, output in zip(names, outputs, strict=True)
    ]
