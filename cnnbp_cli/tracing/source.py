"""From what a user names (a config, a run, a checkpoint, an image) to a trace: what `cnnbp trace` loads."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnbp_cli.analysis.trained import split_for
from cnnbp_cli.config.load import Override
from cnnbp_cli.core.types import Array
from cnnbp_cli.errors import UserError
from cnnbp_cli.files import replace_file
from cnnbp_cli.loading import load, load_data
from cnnbp_cli.model import Model, ModelInputError
from cnnbp_cli.tracing.numbers import Mode
from cnnbp_cli.tracing.precision import EXACT, in_double, numbers_in
from cnnbp_cli.tracing.trace import Trace, trace
from cnnbp_cli.tracing.update import Update, next_update

if TYPE_CHECKING:
    from cnnbp_cli.weights import WeightsFrom

PRACTICE_IMAGES, PRACTICE_PIXELS = 40, 40_000
"""Most training images that go into a page, and most of their pixels."""


class TraceError(UserError):
    """A request for a trace of something that there is not."""


@dataclass(frozen=True, slots=True)
class Request:
    """Which pass to trace.

    Attributes
    ----------
    split, image : str and int
        The image on show, by its place in the data.
    file : Path or None
        A picture or an array in its stead.
    label : int or None
        By default the image's own; a picture without one is traced for the class that the network predicts.
    mode : {"evaluation", "training"}
    batch : int
        How many images the mean loss is over, in training mode.
    exact : bool
        Round weights and pixels to eighths first.
    """

    split: str = "test"
    image: int = 0
    file: Path | None = None
    label: int | None = None
    mode: Mode = "evaluation"
    batch: int = 1
    exact: bool = False


def trace_of(
    path: str, request: Request, overrides: Sequence[Override] = (), weights: Path | WeightsFrom | None = None
) -> Trace:
    """Return the trace of a config with fresh weights, a run, or a checkpoint.

    A small network is traced in float64, so that its numbers add up to the last digit shown.

    Raises
    ------
    UserError
        When something cannot be read, or the image, its label or its split does not exist.
    """
    model = load(path, overrides, weights=weights)
    in_data = request.file is None
    images, labels = _from_data(model, request) if in_data else _from_file(model, request)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # whether they are normalized is known
        found = trace(
            model,
            images,
            labels,
            mode=request.mode,
            split=request.split if in_data else None,
            index=request.image if in_data else None,
            exact=request.exact,
            update=_next_update(model, path),
        )
    return in_double(found) if numbers_in(model) <= EXACT else found


def checkpoints_of(path: str) -> Iterator[tuple[str, dict[str, Array]]]:
    """Yield the label and the parameters of a run at its start and at every readable checkpoint."""
    from cnnbp_cli.train.checkpoint import Checkpoint, CheckpointError
    from cnnbp_cli.train.run_directory import RunDirectory

    if Path(path).is_dir():
        run = RunDirectory(Path(path))
        yield "step 0", load(str(run.config)).parameters()
        for file in reversed(run.checkpoints()):
            try:
                checkpoint = Checkpoint.read(file)
            except CheckpointError:
                continue  # damaged: the others are worth seeing all the same
            yield f"step {checkpoint.progress.get('step', 0)}", checkpoint.parameters


def practice_images(model: Model) -> tuple[Array, Array | None] | None:
    """Return some training images and their labels, for the page to train on; None where the data is gone."""
    try:
        split, _ = split_for(model, "train")
    except UserError:
        return None
    count = max(1, min(PRACTICE_IMAGES, PRACTICE_PIXELS // math.prod(model.config.model.input)))
    return split.images[:count], None if model.is_own_target(split.labels) else split.labels[:count]


def _from_data(model: Model, request: Request) -> tuple[Array, Array | None]:
    split, _ = split_for(model, request.split)
    stop = request.image + (request.batch if request.mode == "training" else 1)
    if not 0 <= request.image < len(split):
        raise TraceError(
            f"--image: expected a number from 0 to {len(split) - 1}, the images of the {request.split} split, "
            f"got {request.image}"
        )
    if stop > len(split):
        raise TraceError(
            f"--batch: from image {request.image} on the {request.split} split has only {len(split) - request.image}"
        )
    chosen = slice(request.image, stop)
    labels = None if model.is_own_target(split.labels) else np.array(split.labels[chosen])
    if request.label is not None:
        labels = _labeled(model, labels, request.label)
    return split.images[chosen], labels


def _from_file(model: Model, request: Request) -> tuple[Array, Array | None]:
    from cnnbp_cli.analysis.predict import prepared, read_for

    assert request.file is not None
    if request.mode == "training":
        raise TraceError("--file: is a single image; a batch in training mode comes from the data, by --image")
    if model.normalization is None:
        data = load_data(model)
        model.normalization, model.class_names = data.normalization, data.class_names
    raw = read_for(model, request.file)[0]
    images = prepared(model, raw).images[:1]
    return images, None if request.label is None else _labeled(model, None, request.label)


def _labeled(model: Model, labels: Array | None, label: int) -> Array:
    """Return labels, the first replaced."""
    if not model.classifies:
        raise TraceError("--label: is for networks that classify; the target of this one is not a class")
    if not 0 <= label < model.classes:
        raise TraceError(f"--label: expected a class from 0 to {model.classes - 1}, got {label}")
    found = np.zeros(1, int) if labels is None else labels.astype(int)
    found[0] = label
    return found


def _next_update(model: Model, path: str) -> Update:
    where = Path(path)
    if not where.is_dir() and where.suffix != ".npz":
        return next_update(model)
    from cnnbp_cli.train.checkpoint import Checkpoint
    from cnnbp_cli.train.run_directory import RunDirectory

    file = RunDirectory(where).chosen() if where.is_dir() else where
    try:
        return next_update(model, Checkpoint.read(file))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelInputError(f"{file}: its optimizer's state does not fit ({error})") from None


def write_page(found: Trace, file: Path, path: str, *, light: bool = False) -> list[str]:
    """Write the page of a trace, with the checkpoints of the run that it comes from, replacing the file at once.

    Returns
    -------
    list of str
        What a reader of the page should know that it does not say.

    Raises
    ------
    WriteError
        When the file cannot be written.
    """
    from cnnbp_cli.tracing.payload import room_for_checkpoints  # here, as only the page needs it

    origin, batch = Path(path).name, practice_images(found.model)
    text = found.to_html(origin=origin, checkpoints=checkpoints_of(path), batch=batch, light=light)
    replace_file(file, text.encode())
    if Path(path).is_dir() and room_for_checkpoints(found.model) < 2:
        return [
            "the network is too large for the page to hold the run's other checkpoints: there is no slider over them"
        ]
    return []
