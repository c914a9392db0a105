"""What a model makes of single images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cnnbp_cli.core.types import Array
from cnnbp_cli.data.pictures import read_pictures
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
    pixels : Array, shape (C, H, W)
        What the model was given, before normalization.
    inverted : bool
        Whether dark and light were swapped.
    """

    image: str
    label: int | None
    probabilities: list[float] | None
    output: Array | None
    pixels: Array
    inverted: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON; the pixels are not among them."""
        start = {"image": self.image, "inverted": self.inverted}
        if self.output is not None:
            return start | {"output": self.output.tolist()}
        return start | {"class": self.label, "probabilities": self.probabilities}


def predict_files(model: Model, paths: Sequence[Path], *, invert: bool | None = None) -> list[Prediction]:
    """Return a prediction for each image in pictures and arrays.

    Parameters
    ----------
    model : Model
    paths : sequence of Path
        See `read_pictures`.
    invert : bool, optional
        Swap dark and light. By default pictures are looked at, unless the model was trained on light images.

    Raises
    ------
    DataError
        When a file cannot be read, or its images do not fit the model.
    """
    norm = model.normalization
    if invert is None and norm and norm.kind == "standard" and min(norm.mean) > 127:
        invert = False
    found: list[Prediction] = []
    for path in paths:
        images, names, inverted = read_pictures(path, model.config.model.input, invert=invert)
        found += [replace(one, inverted=inverted) for one in predict(model, images, names)]
    return found


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
        return [
            Prediction(name, None, None, output, image)
            for name, output, image in zip(names, outputs, images, strict=True)
        ]
    if outputs.shape[1] == 1:  # a single unit gives the probability of class 1
        outputs = np.concatenate([1 - outputs, outputs], 1)
    return [
        Prediction(name, int(output.argmax()), output.tolist(), None, image)
        for name, output, image in zip(names, outputs, images, strict=True)
    ]
