"""The images that a look inside a model starts with: the first that training would see."""

from __future__ import annotations

from cnnbp_cli.core.types import Array
from cnnbp_cli.data.batches import order
from cnnbp_cli.data.dataset import check_labels
from cnnbp_cli.loading import load_data
from cnnbp_cli.model import Model


def first_batch(model: Model, count: int) -> tuple[Array, Array | None]:
    """Return the first images of the first epoch, normalized but not augmented, and their labels.

    Returns
    -------
    images : Array of float64, shape (count, C, H, W)
        Fewer where the training split has fewer.
    labels : Array or None
        None where the image is its own target.

    Raises
    ------
    DataError
        When the data cannot be read or do not fit the model.
    """
    data = load_data(model)
    if model.classifies:
        check_labels(data, model.classes)
    chosen = order(model.config.seed, 0, len(data.train))[:count]
    images = data.normalization.apply(data.train.images[chosen], "float64")
    return images, None if model.is_own_target(data.train.labels) else data.train.labels[chosen]
