"""What a config says, as frozen dataclasses: the keys are the fields, and every default is written here.

Layers, initialisers, optimizers and schedules are declared in `core`, where they work; this file adds
what surrounds them. A `FieldErrors` names the keys at fault by their dotted path.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, cast

from cnnbp_cli.config.errors import KeyPath, Problem, Span
from cnnbp_cli.config.nodes import Entry, Items, Node, Table
from cnnbp_cli.core.initializers import AnyInitializer, HeNormal
from cnnbp_cli.core.layers import Operation
from cnnbp_cli.core.optim import Adam, Optimizer
from cnnbp_cli.core.schedules import Constant, LinearWarmup, ReduceOnPlateau, Schedule
from cnnbp_cli.core.types import at_least, require, within

Head = Literal["softmax", "sigmoid", "none"]
LossName = Literal["cross_entropy", "binary_cross_entropy", "mse"]
Monitor = Literal["validation_loss", "validation_accuracy", "train_loss"]

LOSSES: dict[Head, tuple[LossName, ...]] = {
    "softmax": ("cross_entropy", "mse"),
    "sigmoid": ("binary_cross_entropy", "mse"),
    "none": ("mse",),
}
"""The losses that a head allows; the first is its default."""

MOST_WORKERS = 1024
"""Processes that a config may ask for."""

DERIVED: Any = None
"""The default of a field that follows other fields; no finished declaration holds it."""

BadFields = Iterable[tuple[str, str]]


class Positions:
    """Where each value of a config stands in its text, for complaints that arise after reading it."""

    __slots__ = ("_root",)

    def __init__(self, root: Node | None = None) -> None:
        self._root = root

    def problem(self, path: KeyPath, message: str, label: str = "") -> Problem:
        """Return a complaint about the value at `path`, or about the nearest that the text does have."""
        return Problem(message, path, self.span(path), label)

    def span(self, path: KeyPath) -> Span | None:
        """Return the place of the value at `path`, or of the nearest that there is: its type or its key."""
        node, key = self._root, None
        for part in path:
            entry: Entry | None = None
            if isinstance(node, Table):
                entry = node.entries.get(str(part))
            elif isinstance(node, Items) and isinstance(part, int) and part < len(node.items):
                entry = Entry(None, node.items[part])
            if entry is None:
                break
            node, key = entry.node, entry.key
        else:
            return node.span if node else None
        kind = _kind(node)
        return kind.span if kind else key or (node.span if node else None)


def _kind(node: Node | None) -> Node | None:
    """Return the word that says what a mapping declares: the best place for what the mapping lacks."""
    entries = node.entries if isinstance(node, Table) else {}
    return next((entries[key].node for key in ("type", "source") if key in entries), None)


@dataclass(frozen=True, slots=True)
class Augment:
    """Random distortions of training images, drawn anew in every epoch."""

    shift: int = 0
    """Pixels, up to, in each direction."""
    rotate: float = 0.0
    """Degrees, up to, either way."""
    scale: float = 0.0
    """Fraction, up to, larger or smaller."""

    def __post_init__(self) -> None:
        require(at_least(self, 0, "shift"), within(self, 0, 180, "rotate"), within(self, 0, 1, "scale", open_high=True))


@dataclass(frozen=True, slots=True)
class Limit:
    """Caps on how many images are used."""

    train: int | None = None
    """Training images at most; the classes keep their proportions."""
    test: int | None = None
    """Test images at most; the classes keep their proportions."""

    def __post_init__(self) -> None:
        require(at_least(self, 1, "train", "test"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What all data sources have in common."""

    normalize: Literal["standard", "unit", "none"] = "standard"
    """standard (the training images' mean and standard deviation), unit (0..1) or none."""
    validation: float | int = 0
    """Held out of the training images: a fraction below 1, or a count."""
    augment: Augment | None = None
    """Random distortions of training images, for example `{shift: 2, rotate: 10}`."""
    limit: Limit | None = None
    """Caps on how many images are used, for example `{train: 1000}`."""
    target: Literal["auto", "label", "image"] = "auto"
    """What the model learns to give: the label, the image itself, or whichever its output's shape asks for."""

    def __post_init__(self) -> None:
        require(self._problems())

    def _problems(self) -> BadFields:
        yield from at_least(self, 0, "validation")
        if isinstance(self.validation, float) and self.validation >= 1:
            yield "validation", f"expected a fraction below 1 or a count, got {self.validation}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MnistSubset(Data):
    """The 6,000 training and 1,000 test digits that come with the program."""

    source: Literal["mnist-subset"] = "mnist-subset"


@dataclass(frozen=True, slots=True, kw_only=True)
class Idx(Data):
    """A folder with the four files of MNIST, Fashion-MNIST, EMNIST or KMNIST as published."""

    source: Literal["idx"] = "idx"
    path: Path
    """The folder, relative to the config's, for example `mnist`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Npz(Data):
    """A NumPy file with x_train, y_train, x_test and y_test."""

    source: Literal["npz"] = "npz"
    path: Path
    """The file, relative to the config's folder, for example `images.npz`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Csv(Data):
    """A table with the label first, then the pixels 0..255."""

    source: Literal["csv"] = "csv"
    path: Path
    """The file with training images, relative to the config's folder, for example `train.csv`."""
    test_path: Path | None = None
    """The file with test images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthetic(Data):
    """Images drawn from the seed: digits, or bars for the smallest models. Nothing is stored."""

    source: Literal["synthetic"] = "synthetic"
    kind: Literal["digits", "bars"] = "digits"
    """What is drawn: digits, or vertical and horizontal bars."""
    train: int = 1000
    """Training images."""
    test: int = 200
    """Test images."""
    image: tuple[int, int, int] = DERIVED
    """Channels, height, width; by default [1, 28, 28] for digits and [1, 6, 6] for bars."""
    classes: int = DERIVED
    """By default 10 for digits and 2 for bars."""

    def __post_init__(self) -> None:
        image, classes = {"digits": ((1, 28, 28), 10), "bars": ((1, 6, 6), 2)}[self.kind]
        if self.image is DERIVED:
            object.__setattr__(self, "image", image)
        if self.classes is DERIVED:
            object.__setattr__(self, "classes", classes)
        require(
            self._problems(),
            at_least(self, 1, "train", "image"),
            at_least(self, 0, "test"),
            at_least(self, 2, "classes"),
        )


AnyData = MnistSubset | Idx | Npz | Csv | Synthetic


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """A layer at its place in the network."""

    name: str
    inputs: tuple[str, ...]
    layer: Operation


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The network: an image in, the head's predictions out."""

    input: tuple[int, int, int]
    """Channels, height, width."""
    layers: tuple[LayerSpec, ...]
    """A bare word is a layer without arguments, for example `[flatten, {type: dense, units: 10}]`."""
    init: AnyInitializer = field(default_factory=HeNormal)
    """How weights start in layers that do not say it themselves."""
    head: Head = "softmax"
    """What turns the last layer's outputs into predictions."""

    def __post_init__(self) -> None:
        require(at_least(self, 1, "input"))
        object.__setattr__(self, "layers", tuple(self._with_init(spec) for spec in self.layers))

    def _with_init(self, spec: LayerSpec) -> LayerSpec:
        layer = cast("Any", spec.layer)
        if any(f.name == "init" for f in fields(layer)) and layer.init is None:
            return replace(spec, layer=replace(layer, init=self.init))
        return spec


@dataclass(frozen=True, slots=True)
class EarlyStopping:
    """Stop when the monitored value has not improved by more than `min_delta` for `patience` epochs."""

    monitor: Monitor = "validation_loss"
    """The value that should improve."""
    patience: int = 3
    """Epochs without improvement that are tolerated."""
    min_delta: float = 0.0
    """Smaller improvements do not count."""

    def __post_init__(self) -> None:
        require(at_least(self, 1, "patience"), at_least(self, 0, "min_delta"))


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How the network learns."""

    loss: LossName = DERIVED
    """By default what belongs to the head: cross_entropy, binary_cross_entropy, or mse for none."""
    label_smoothing: float = 0.0
    """The share of each label that is spread over all classes, for example `0.1`."""
    epochs: int = 5
    """Passes over the training images, for example `5`."""
    max_steps: int | None = None
    """Updates at most; whichever of this and epochs ends first."""
    batch_size: int = 64
    """Images per update."""
    optimizer: Optimizer = field(default_factory=Adam)
    """How gradients become updates, for example `{type: sgd, learning_rate: 0.05, momentum: 0.9}`."""
    schedule: Schedule = field(default_factory=Constant)
    """How the learning rate changes over the run, for example `cosine`."""
    clip_norm: float | None = None
    """The largest L2 norm of the whole gradient; longer ones are scaled down to it."""
    early_stopping: EarlyStopping | None = None
    """Stop when a value does not improve any more, for example `{patience: 3}`."""
    workers: Literal["auto"] | int = "auto"
    """The number of processes, or auto."""
    checkpoint_every: int | None = None
    """Steps from one checkpoint to the next within an epoch; there is one at each epoch's end in any case."""
    keep_checkpoints: int = 3
    """How many of the latest checkpoints to keep, besides the best."""

    def __post_init__(self) -> None:
        require(
            within(self, 0, 1, "label_smoothing", open_high=True),
            at_least(self, 1, "epochs", "max_steps", "batch_size", "workers", "checkpoint_every", "keep_checkpoints"),
            within(self, 0, float("inf"), "clip_norm", open_low=True),
            self._too_many_workers(),
        )

    def _too_many_workers(self) -> BadFields:
        if self.workers != "auto" and self.workers > MOST_WORKERS:
            yield "workers", f"expected {MOST_WORKERS} processes or fewer, got {self.workers}"


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that a run depends on."""

    name: str
    """Names the run's directory; by default the name of the file."""
    seed: int = field(default=0, kw_only=True)
    """Initial weights, shuffling, dropout, augmentation and synthetic data all derive from it."""
    dtype: Literal["float32", "float64"] = field(default="float32", kw_only=True)
    """The precision of all numbers."""
    data: AnyData
    """The images and their labels."""
    model: ModelConfig
    """The network: an image in, the head's predictions out."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """How the network learns."""
    positions: Positions = field(default_factory=Positions, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.train.loss is DERIVED:
            object.__setattr__(self, "train", replace(self.train, loss=LOSSES[self.model.head][0]))
        require(self._bad_name(), at_least(self, 0, "seed"), self._bad_loss(), self._bad_monitor())

    def _bad_name(self) -> BadFields:
        name = self.name
        if not name.strip() or name in (".", "..") or not name.isprintable() or "/" in name or "\\" in name:
            yield "name", f"expected a name that a folder can have, got {name!r}"

    def _bad_loss(self) -> BadFields:
        head, loss = self.model.head, self.train.loss
        if loss not in LOSSES[head]:
            yield "train.loss", f"the head {head} goes with {' or '.join(LOSSES[head])}, got {loss}"
        elif self.train.label_smoothing and loss != "cross_entropy":
            yield "train.label_smoothing", f"goes with the loss cross_entropy only, not with {loss}"

    def _bad_monitor(self) -> BadFields:
        if self.data.validation:
            return
        stopping = self.train.early_stopping
        if stopping and stopping.monitor.startswith("validation"):
            yield "train.early_stopping.monitor", _unmonitored(stopping.monitor)
        outer = self.train.schedule
        then = outer.then if isinstance(outer, LinearWarmup) else None
        for path, schedule in (("train.schedule", outer), ("train.schedule.then", then)):
            if isinstance(schedule, ReduceOnPlateau) and schedule.monitor.startswith("validation"):
                yield f"{path}.monitor", _unmonitored(schedule.monitor)


def _unmonitored(monitor: str) -> str:
    return f"{monitor} needs held-out images: set data.validation, or monitor train_loss"
