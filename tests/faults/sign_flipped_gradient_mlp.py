# expects: diverging-loss
#
# A loss of one"s own whose backward has y − p where p − y belongs: every step goes uphill. A person sees the loss
# rise from the first step on, faster and faster.

from __future__ import annotations

from diagnosis_campaign.corpus import HEALTHY, Pair, load
from diagnosis_campaign.wrong_losses import Flipped


def broken() -> Pair:
    model, data = fixed()
    model.loss_function = Flipped(model.loss_function)
    return model, data


def fixed() -> Pair:
    return load(HEALTHY / "mlp-sgd.yaml", ())
