"""How much each class counts in training, so that rare ones are not passed over."""

from __future__ import annotations

import numpy as np

from cnnbp_cli.config.schema import TrainConfig
from cnnbp_cli.core.types import Array
from cnnbp_cli.data.dataset import DataError, Dataset
from cnnbp_cli.data.labels import listed
from cnnbp_cli.model import Model


def class_weights(train: TrainConfig, data: Dataset, model: Model) -> Array | None:
    """Return the weight of each class (classes,); None where all count the same.

    ``balanced`` is N / (K n_k), with N training images, n_k of them of class k, and K classes that have any: then every
    class counts as much as any other, and the mean weight of an image is 1. Classes without images get 1.

    Raises
    ------
    DataError
        When there are no classes, or not those that the config weighs.

    References
    ----------
    King and Zeng 2001, "Logistic Regression in Rare Events Data"; scikit-learn's ``class_weight="balanced"``.
    """
    wanted = train.class_weights
    if wanted is None:
        return None
    if not (model.classifies and data.train.has_classes):
        raise DataError(f"{data.name}: train.class_weights needs class numbers as labels")
    weights = np.ones(model.classes)
    if wanted == "balanced":
        counts = np.bincount(data.train.labels, minlength=model.classes)
        some = counts > 0
        weights[some] = len(data.train) / (np.count_nonzero(some) * counts[some])
    elif isinstance(wanted, tuple):
        if len(wanted) != model.classes:
            raise DataError(f"train.class_weights: has {len(wanted)} weights, the model has {model.classes} classes")
        weights[:] = wanted
    elif isinstance(wanted, dict):
        numbers = {model.class_name(k): k for k in range(model.classes)}
        numbers |= {str(k): k for k in range(model.classes) if str(k) not in numbers}
        for name, weight in wanted.items():
            if name not in numbers:
                raise DataError(f"train.class_weights: there is no class {name!r}; the model has {listed([*numbers])}")
            weights[numbers[name]] = weight
    return weights
