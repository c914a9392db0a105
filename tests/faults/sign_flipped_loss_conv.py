# expects: diverging-loss
# also-right: bad-initial-loss (a cross-entropy below zero is the first thing to see)
#
# The mean of log p is minimized instead of its negative: the loss falls beautifully, below zero and on, and the
# network learns to be surely wrong. A person sees an accuracy of zero.

from __future__ import annotations

from diagnosis_campaign.corpus import HEALTHY, Pair, load
from diagnosis_campaign.wrong_losses import Flipped


def broken() -> Pair:
    model, data = fixed()
    model.loss_function = Flipped(model.loss_function, gradient_only=False)
    return model, data


def fixed() -> Pair:
    return load(HEALTHY / "conv-momentum.yaml", ())
