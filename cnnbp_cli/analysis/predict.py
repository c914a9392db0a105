"""What a model makes of single images."""

from __future__ import annotations

import glob
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from cnnbp_cli.core.types import Array, Tick
from cnnbp_cli.data.dataset import image_shape
from cnnbp_cli.data.errors import DataError
from cnnbp_cli.data.normalization import Normalization, have_light_edges, is_normalized
from cnnbp_cli.data.pictures import RawImages, read_pictures
from cnnbp_cli.data.split import middle
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
    is_normalized : bool
        Whether the image was taken as normalized already.
    names : sequence of str
        Of all classes; their numbers where they have no names.
    is_named : bool
        Whether they have.
    id : str
        What the image is called where it comes from; empty where it has no name there.
    """

    image: str
    label: int | None
    probabilities: list[float] | None
    output: Array | None
    pixels: Array
    inverted: bool = False
    is_normalized: bool = False
    names: Sequence[str] = ()
    is_named: bool = False
    id: str = ""

    def best(self, count: int) -> list[tuple[str, float]]:
        """Return the most likely classes, each with its probability, the best first."""
        ranked = sorted(enumerate(self.probabilities or ()), key=lambda pair: (-pair[1], pair[0]))
        return [(self.names[k], value) for k, value in ranked[:count]]

    @property
    def name(self) -> str:
        """What people call the class."""
        return "" if self.label is None else self.names[self.label]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON; the pixels are not among them."""
        start = {"image": self.image, "inverted": self.inverted}
        if self.output is not None:
            return start | {"output": self.output.tolist()}
        named = {"name": self.name} if self.is_named else {}
        return start | {"class": self.label} | named | {"probabilities": self.probabilities}


def predict_files(
    model: Model,
    paths: Sequence[Path],
    *,
    invert: bool | None = None,
    ids: str | None = None,
    progress: Tick | None = None,
) -> list[Prediction]:
    """Return a prediction for each image in pictures and arrays.

    Whatever scale their pixels are in, 0…1, 0…255 or 0…65535, they are brought to that of the training images.

    Parameters
    ----------
    model : Model
    paths : sequence of Path
        See `read_pictures`.
    invert : bool, optional
        Swap dark and light. By default a picture or an array of gray images is inverted if it has light edges and the
        training images had dark ones, or the other way round.
    ids : str, optional
        What a table may call a column that names its images.
    progress : callable, optional
        Called after each file with the number of those done, and of all.

    Raises
    ------
    DataError
        When a file cannot be read, or its images do not fit the model or have another scale than it was trained on.
    """
    files, found = list[RawImages](), list(_globbed(paths))
    for number, path in enumerate(found, start=1):
        files += read_for(model, path, ids)
        if progress is not None:
            progress(number, len(found))
    return [prediction for together in _alike(model, files, invert) for prediction in together]


def read_for(model: Model, path: Path, ids: str | None = None) -> list[RawImages]:
    """Read every image of a file, and cut it to the part that the model takes; see `read_pictures`."""
    data, shape = model.config.data, model.config.model.input
    raw = read_pictures(path, image_shape(data, shape), getattr(data, "label", "auto"), ids)
    return [replace(one, images=one.images[:, :, *middle(one.images.shape[2:], shape[1:])]) for one in raw]


def _globbed(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield paths, and in the place of patterns that no shell has expanded the files that they fit, by name."""
    for path in paths:
        is_pattern = glob.has_magic(str(path)) and not path.exists()
        found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))] if is_pattern else []
        yield from found or [path]


def _alike(model: Model, files: Sequence[RawImages], invert: bool | None) -> Iterator[list[Prediction]]:
    """Yield the predictions of files, many pictures in one pass of the network."""
    for is_picture, some in groupby(files, key=lambda raw: raw.white is not None):
        if not is_picture:
            yield from (_predict_raw(model, raw, invert) for raw in some)
            continue
        pictures = list(some)
        ready = [prepared(model, raw, invert) for raw in pictures]
        images = np.concatenate([one.images for one in ready])
        shown = [one.shown[0] for one in ready]
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # whether they are normalized is known
            found = predict(model, images, [raw.name for raw in pictures])
        yield [
            replace(one, pixels=image, inverted=each.inverted, is_normalized=each.is_normalized, id=raw.ids[0])
            for one, image, each, raw in zip(found, shown, ready, pictures, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Images of a file as the network takes them.

    Attributes
    ----------
    images : Array, shape (N, C, H, W)
        Normalized, but for whole numbers where the model's normalization is not known.
    shown : Array, shape (N, C, H, W)
        What a person should see: pixels where they are known.
    inverted : bool
        Whether dark and light were swapped.
    is_normalized : bool
        Whether they were taken as normalized already.
    """

    images: Array
    shown: Array
    inverted: bool = False
    is_normalized: bool = False


def prepared(model: Model, raw: RawImages, invert: bool | None = None) -> Prepared:
    """Bring images of any scale and polarity to those of the training images; see `predict_files`."""
    norm = model.normalization
    if norm is None or is_normalized(raw.images):
        if invert:
            raise DataError(f"{raw.name}: is taken as normalized already, so that --invert has no meaning")
        return Prepared(raw.images, raw.images, is_normalized=raw.images.dtype.kind == "f")
    pixels = norm.rescale(raw.images, raw.name, raw.white)
    white = norm.white or (255.0 if pixels.dtype == np.uint8 else None)
    if invert is None:
        invert = _is_inverted(pixels, raw.light_edges, norm, white)
    if invert:
        if white is None:
            raise DataError(
                f"{raw.name}: --invert needs pixels, from 0 to 1 or to 255; this model was trained on others"
            )
        colors = np.s_[:, :3]  # not the alpha channel
        pixels = pixels.copy()
        pixels[colors] = white - pixels[colors]
    shown = pixels if white is None else (pixels * (255 / white)).clip(0, 255).round().astype(np.uint8)
    return Prepared(norm.apply(pixels, model.dtype), shown, invert)


def _predict_raw(model: Model, raw: RawImages, invert: bool | None) -> list[Prediction]:
    ready = prepared(model, raw, invert)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # whether they are normalized is known
        found = predict(model, ready.images, raw.names)
    return [
        replace(one, pixels=image, inverted=ready.inverted, is_normalized=ready.is_normalized, id=name)
        for one, image, name in zip(found, ready.shown, raw.ids or [""] * len(found), strict=True)
    ]


def _is_inverted(pixels: Array, light_edges: bool | None, norm: Normalization, white: float | None) -> bool:
    """Return whether most of these gray images are dark on light and the training images were not, or vice versa."""
    if pixels.shape[1] != 1 or white is None or norm.is_light is None:
        return False
    if light_edges is None:
        light_edges = bool(np.mean(have_light_edges(pixels, white)) > 0.5)
    return light_edges != norm.is_light


def predict(model: Model, images: Array, names: Sequence[str]) -> list[Prediction]:
    """Return a prediction for each image.

    Parameters
    ----------
    model : Model
    images : Array, shape (N, C, H, W)
        Whole numbers are raw pixels, floats are normalized already; see `Model.predict`.
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
    classes, is_named = [model.class_name(k) for k in range(model.classes)], model.named_classes is not None
    return [
        Prediction(name, int(output.argmax()), output.tolist(), None, image, names=classes, is_named=is_named)
        for name, output, image in zip(names, outputs, images, strict=True)
    ]
