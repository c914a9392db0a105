# expects: diverging-loss
#
# The same slip in the loss of a residual network. Batch norm keeps the signal in bounds, so a person sees the loss
# rise without an overflow, and the accuracy fall below that of a guess.

from __future__ import annotations

from diagnosis_campaign.corpus import HEALTHY, Pair, load
from diagnosis_campaign.wrong_losses import Flipped


def broken() -> Pair:
    model, data = fixed()
    model.loss_function = Flipped(model.loss_function)
    return model, data


def fixed() -> Pair:
    return load(HEALTHY / "resnet-adam.yaml", ())
