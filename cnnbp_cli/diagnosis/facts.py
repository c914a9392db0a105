"""The facts of a diagnosis: about the data, the fresh network, and trainings. Plain values, measured in `collect`.

A *skill* tells from 0 to 1 how much of what there is to learn was learned. With classes it is
``(r - 1/K) / (1 - 1/K)``, r the mean recall of the K classes, so that neither guessing nor always naming the
most frequent class is worth anything. Without classes it is ``1 - L / L₀``, L₀ the loss of the best constant answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from statistics import median

from cnnbp_cli.train.events import EpochDone, LayersWatched, NonFinite


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """How well images near each other agree about their labels, in one split or across two.

    Attributes
    ----------
    count : int
        Images that were asked about.
    agreement : float
        Skill of the vote of the nearest other images.
    confident : float
        Share of the images whose own label is that of the vote, among those where the vote is clearest: 1 minus the
        share of wrong labels, also where classes overlap elsewhere.
    by_class : tuple of float or None
        For each class, the share of the images voted into it that bear its label; None where they are too few.
    """

    count: int
    agreement: float
    confident: float
    by_class: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitMatch:
    """How the held-out images differ from the training images, as both are stored.

    Attributes
    ----------
    mean, deviation : (float, float)
        Of the pixels of the training and of the held-out images, in the channel whose means differ most.
    likeness : float
        Correlation of the mean training image with the mean held-out image; 1 where there is no mean picture.
    own_likeness : float
        The same for two halves of the training images: what chance leaves.
    """

    mean: tuple[float, float]
    deviation: tuple[float, float]
    likeness: float
    own_likeness: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """What is known about the data before any training.

    Attributes
    ----------
    count, held_count : int
        Images to train on, and held out (the test split, else the validation split).
    classes : int or None
        None where labels are no class numbers.
    class_counts, held_counts : tuple of int
        Training and held-out images of each class.
    match : SplitMatch or None
        None without held-out images.
    constant : float
        Share of the training images whose pixels are all equal.
    identical : float
        Share of the training images that are the most frequent one.
    raw : (mean, deviation, lowest, highest)
        Of the pixels as they are stored.
    whole_numbers : bool
        Whether pixels are stored as bytes.
    mean, deviation, low, high : float
        Of the pixels as the network gets them.
    target_low, target_high : float or None
        The range of what a network without classes has to give, all but 1% of the values at each end.
    labels, held_labels, across : Labels or None
        Among the training images, among the held-out ones, and of held-out images with training images.
    leaked : float
        Share of the held-out images that are among the training images, to the last pixel.
    leaking : float
        Share of the training images that are among the held-out ones.
    repeated : float
        Share of the training images that occur among the other training images.
    near_leaked, near_repeated : float
        Share of the held-out images, and of the training images, that have a near copy among the (other) training
        images: far closer than nearest neighbors usually are.
    uniform_loss : float
        Loss of an answer that favours nothing: every class alike, or 0.
    constant_loss : float
        Loss of the best answer that does not look at the image.
    constant_output_loss : float
        The same of the network's output alone, which scores are about; training may have further losses.
    """

    count: int
    held_count: int = 0
    classes: int | None = None
    class_counts: tuple[int, ...] = ()
    held_counts: tuple[int, ...] = ()
    match: SplitMatch | None = None
    constant: float = 0.0
    identical: float = 0.0
    raw: tuple[float, float, float, float] = (33.0, 78.0, 0.0, 255.0)
    whole_numbers: bool = True
    mean: float = 0.0
    deviation: float = 1.0
    low: float = -0.5
    high: float = 3.0
    texture: float = 0.9
    target_low: float | None = None
    target_high: float | None = None
    labels: Labels | None = None
    held_labels: Labels | None = None
    across: Labels | None = None
    leaked: float = 0.0
    leaking: float = 0.0
    repeated: float = 0.0
    near_leaked: float = 0.0
    near_repeated: float = 0.0
    uniform_loss: float
    constant_loss: float
    constant_output_loss: float

    @property
    def scale(self) -> float:
        """Root mean square of what the network gets."""
        return (self.mean**2 + self.deviation**2) ** 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerStart:
    """A layer of the fresh network, on one batch.

    Attributes
    ----------
    scale_in, scale : float
        Root mean square of its input and of its output, the latter without its bias.
    dead : float
        Share of its units that are above 0 for no image of the batch.
    saturated : float
        Share of a sigmoid's or tanh's output close to its ends; 0 for other layers.
    twins : float
        Share of its units whose weights and gradients are those of another unit of the layer.
    weight, gradient : float
        Norms over its parameters; 0 without.
    """

    scale_in: float
    scale: float
    dead: float = 0.0
    saturated: float = 0.0
    twins: float = 0.0
    weight: float = 0.0
    gradient: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StartFacts:
    """The fresh network on one batch.

    Attributes
    ----------
    loss : float
    slope : float or None
        How much the loss falls along its negative gradient, divided by how much it should: 1 for a right gradient,
        -1 for one with the wrong sign. None where it could not be measured.
    unseen : float
        Share of the pixels that get no gradient from any image.
    layers : dict of str to LayerStart
    """

    loss: float
    slope: float | None = 1.0
    unseen: float = 0.0
    layers: Mapping[str, LayerStart] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How good a network is on some images.

    Attributes
    ----------
    loss : float
    accuracy : float or None
    skill : float
    recalls : tuple of float or None
        By class; None where the images have none of the class.
    """

    loss: float
    accuracy: float | None = None
    skill: float
    recalls: tuple[float | None, ...] = ()


FAILED = Score(loss=inf, skill=0.0)
"""The score of a network whose values went bad."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord:
    """A training: the probe's, or that of a recorded run.

    Attributes
    ----------
    losses, norms, rates : tuple of float
        By step: the batch's loss before the update, the norm of the whole gradient, the learning rate.
    planned : int
        Steps that the config asks for.
    planned_rates : float
        The sum of the learning rates of those.
    watched : tuple of LayersWatched
    epochs : tuple of EpochDone
    bad : NonFinite or None
    train, held : Score or None
        At the end, in evaluation mode, on images to train on without augmentation, and on held-out ones.
    batch_mode : Score or None
        As `train`, but normalized by the batch's own statistics; None without batch norm.
    """

    losses: tuple[float, ...]
    norms: tuple[float, ...] = ()
    rates: tuple[float, ...] = ()
    planned: int = 0
    planned_rates: float = 0.0
    watched: tuple[LayersWatched, ...] = ()
    epochs: tuple[EpochDone, ...] = ()
    bad: NonFinite | None = None
    train: Score | None = None
    held: Score | None = None
    batch_mode: Score | None = None

    @property
    def steps(self) -> int:
        return len(self.losses)

    @property
    def skill(self) -> float:
        """How well it learned what it was shown, whatever became of the rest."""
        return max((score.skill for score in (self.train, self.batch_mode) if score), default=0.0)

    @property
    def net_skill(self) -> float:
        """Its skill on training or on held-out images, whichever is lower."""
        return min(self.skill, self.held.skill) if self.held else self.skill

    @property
    def window(self) -> int:
        """Steps over which a loss is averaged: a tenth of all."""
        return max(1, self.steps // 10)

    @property
    def first_loss(self) -> float:
        return self.losses[0] if self.losses else inf

    @property
    def early_loss(self) -> float:
        return median(self.losses[: self.window]) if self.losses else inf

    @property
    def last_loss(self) -> float:
        """Median over the last window; infinite where values went bad."""
        return inf if self.bad or not self.losses else median(self.losses[-self.window :])

    def series(self, layer: str, statistic: str) -> list[tuple[int, float]]:
        """Return a statistic of a layer by watched step."""
        found: list[tuple[int, float]] = []
        for watched in self.watched:
            value = getattr(watched.layers.get(layer), statistic, None)
            if value is not None:
                found.append((watched.step, value))
        return found

    @property
    def late(self) -> Sequence[LayersWatched]:
        """The watched steps of the second half; the first, at least."""
        return self.watched[len(self.watched) // 2 :]

    def late_median(self, layer: str, statistic: str) -> float | None:
        """Return the median of a layer's statistic over the second half; None where the layer has none."""
        values = [getattr(watched.layers.get(layer), statistic, None) for watched in self.late]
        known = [value for value in values if value is not None and isfinite(value)]
        return median(known) if known else None


@dataclass(frozen=True, slots=True, kw_only=True)
class OverfitTest:
    """The result of overfitting one batch, without augmentation, dropout and decay.

    Attributes
    ----------
    images, steps : int
    first, last : float
        The loss before and after.
    skill : float
        At the end, on the batch itself.
    """

    images: int
    steps: int
    first: float
    last: float
    skill: float
