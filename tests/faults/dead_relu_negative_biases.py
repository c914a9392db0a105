# expects: dead-relu
#
# Weights that come from elsewhere have biases of −40 in the second layer, where another program had counted on pixels
# of 0 to 255: its units are off for every image. A person sees the loss of a guess, which stays.

from __future__ import annotations

import numpy as np
from diagnosis_campaign.corpus import HEALTHY, Pair, load


def broken() -> Pair:
    model, data = fixed()
    biases = model.parameters()["dense_2.bias"]
    model.set_parameters({"dense_2.bias": np.full_like(biases, -40)})
    return model, data


def fixed() -> Pair:
    return load(HEALTHY / "mlp-sgd.yaml")
