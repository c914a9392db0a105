"""What a config says, as frozen dataclasses: the keys are the fields, and every default is written here.

Layers, initializers, optimizers and schedules are declared in `core`, where they work; this file adds
what surrounds them. A `FieldErrors` names the keys at fault by their dotted path.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from math import ceil
from pathlib import Path
from typing import Any, Literal, cast

from cnnbp_cli.config.errors import KeyPath, Problem, Span, suggestion
from cnnbp_cli.config.expansion import NO_BLOCKS, Expansion
from cnnbp_cli.config.nodes import YamlEntry, YamlList, YamlMapping, YamlNode
from cnnbp_cli.core.initializers import AnyInitializer, HeNormal
from cnnbp_cli.core.losses import Head, LossName
from cnnbp_cli.core.optim import Adam, Optimizer
from cnnbp_cli.core.schedules import Constant, LinearWarmup, ReduceOnPlateau, Schedule
from cnnbp_cli.core.types import Operation, Size, at_least, pair, require, show, within

Monitor = Literal["validation_loss", "validation_accuracy", "train_loss"]

LOSSES: dict[Head, tuple[LossName, ...]] = {
    "softmax": ("cross_entropy", "mse"),
    "sigmoid": ("binary_cross_entropy", "mse"),
    "none": ("mse",),
}
"""The losses that a head allows; the first is its default."""

MOST_WORKERS = 1024
"""The most worker processes that a config may ask for."""

DERIVED: Any = None
"""The default of a field that is set from other fields; no finished declaration holds it."""

BadFields = Iterable[tuple[str, str]]


class Positions:
    """Where each value of a config stands in its text, for complaints that arise after reading it.

    Attributes
    ----------
    expansion : Expansion
        The blocks that the text has; the config itself has their layers instead.
    """

    __slots__ = ("_root", "expansion")

    def __init__(self, root: YamlNode | None = None, expansion: Expansion = NO_BLOCKS) -> None:
        self._root, self.expansion = root, expansion

    def problem(self, path: KeyPath, message: str, label: str = "") -> Problem:
        """Return a complaint about the value at `path`, or about the nearest that the text does have."""
        return Problem(message, path, self.span(path), label)

    def sets(self, path: KeyPath, *, by_option: bool = False) -> bool:
        """Whether the text, or an option in its place, has a value at `path`: an option, if it has to be one."""
        node = self._root
        for part in path:
            if not isinstance(node, YamlMapping) or str(part) not in node.entries:
                return False
            node = node.entries[str(part)].node
        return not by_option or (node is not None and node.span is not None and node.span.source.is_option)

    def span(self, path: KeyPath) -> Span | None:
        """Return the place of the value at `path`, or of the nearest that there is: its type or its key."""
        node, key = self._root, None
        for part in path:
            entry: YamlEntry | None = None
            if isinstance(node, YamlMapping):
                entry = node.entries.get(str(part))
            elif isinstance(node, YamlList) and isinstance(part, int) and part < len(node.items):
                entry = YamlEntry(None, node.items[part])
            if entry is None:
                break
            node, key = entry.node, entry.key
        else:
            return node.span if node else None
        kind = _kind(node)
        return kind.span if kind else key or (node.span if node else None)


def _kind(node: YamlNode | None) -> YamlNode | None:
    """Return the word that says what a mapping declares: the best place for what the mapping lacks."""
    entries = node.entries if isinstance(node, YamlMapping) else {}
    return next((entries[key].node for key in ("type", "source", "share") if key in entries), None)


@dataclass(frozen=True, slots=True)
class MeanStd:
    """What pixels are normalized with, (pixel − mean) / std, as published for weights that were trained elsewhere."""

    mean: tuple[float, ...]
    """Mean of each channel, or one for all: of pixels from 0 to 1, for example `[0.485, 0.456, 0.406]`, or to 255."""
    std: tuple[float, ...]
    """Standard deviation of each channel, or one for all, for example `[0.229, 0.224, 0.225]`."""

    def __post_init__(self) -> None:
        require(self._problems())

    def _problems(self) -> BadFields:
        if not self.mean:
            yield "mean", "expected a number for each channel, or one for all, got none"
        elif len(self.std) != len(self.mean):
            yield "std", f"expected as many numbers as mean has, {len(self.mean)}, got {len(self.std)}"
        elif not all(value > 0 for value in self.std):
            yield "std", f"expected numbers above 0, got {show(self.std)}"

    @property
    def white(self) -> float:
        """The value of white in pixels of this scale: 255 where a number is above 1."""
        return 255.0 if max(*self.mean, *self.std) > 1 else 1.0


@dataclass(frozen=True, slots=True)
class Crop:
    """A part of each image at a random place, of the size of `model.input`; evaluation takes the middle."""

    padding: int = 0
    """Pixels of 0 on each side, before the part is chosen."""
    size: Size | None = None
    """Height and width of the part: those of `model.input`, which need not be said."""

    def __post_init__(self) -> None:
        require(at_least(self, 0, "padding"), at_least(self, 1, "size"))


@dataclass(frozen=True, slots=True)
class Augment:
    """Random distortions of the training images and of masks or images that are their targets, drawn anew in every
    epoch."""

    shift: int = 0
    """Largest shift in pixels: up, down, left and right; what comes in is 0. The same as padding and cropping."""
    rotate: float = 0.0
    """Largest rotation in degrees, in either direction."""
    scale: float = 0.0
    """Largest change in size, as a fraction: 0.1 scales by 0.9 to 1.1."""
    flip: bool = False
    """Whether every other image is mirrored, left to right: for photos, not for digits."""
    crop: Crop | None = None
    """A random crop, for example `{padding: 4}`, or `{}` where `data.image_size` is larger than `model.input`."""

    def __post_init__(self) -> None:
        ranges = (within(self, 0, 180, "rotate"), within(self, 0, 1, "scale", open_high=True))
        require(at_least(self, 0, "shift"), *ranges, self._moved_twice())

    def _moved_twice(self) -> BadFields:
        if self.crop is not None and self.shift:
            yield "shift", f"crop moves the images already; leave one out, or write `crop: {{padding: {self.shift}}}`"


@dataclass(frozen=True, slots=True)
class Limit:
    """Limits on how many images are used."""

    train: int | None = None
    """Maximum number of training images; the classes keep their proportions."""
    test: int | None = None
    """Maximum number of test images; the classes keep their proportions."""

    def __post_init__(self) -> None:
        require(at_least(self, 1, "train", "test"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What all data sources have in common."""

    normalize: Literal["standard", "unit", "none"] | MeanStd = "standard"
    """standard (training mean 0 and standard deviation 1), unit (0..1), none, or given numbers, for example
    `{mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}`."""
    validation: float | int = 0
    """Training images held out for validation: a fraction below 1, or a count."""
    augment: Augment | None = None
    """Random distortions of the training images, for example `{shift: 2, rotate: 10}`."""
    limit: Limit | None = None
    """Limits on how many images are used, for example `{train: 1000}`."""
    target: Literal["auto", "label", "mask", "image"] = "auto"
    """What the model learns to output: the label, a mask (a class for each pixel), an image (the input itself, or an
    array of targets), or auto: whichever its output shape and its head fit."""
    classes: int | tuple[str, ...] | None = None
    """Names of the classes in the order of their numbers, or how many there are, for example `[cat, dog]`."""
    first_label: int = 0
    """The label of the first class, where labels are numbers: 1 for data whose labels start at 1."""
    image_size: Size | None = None
    """Height and width of the images in the data, where the network sees a part of them: the middle, or in training a
    random one with `augment.crop`. Pictures are resized to it. By default those of `model.input`."""
    leave_out: tuple[Literal["blank", "leaked"], ...] = ()
    """Training images to leave out: `blank` ones, with the same value in all pixels, and `leaked` ones, which are
    validation or test images as well."""
    shuffle: Literal["full", "blocks"] = "full"
    """How an epoch mixes the training images: all of them, or blocks of them for files larger than the memory."""

    def __post_init__(self) -> None:
        require(self._problems())

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes, if they are declared."""
        return self.classes if isinstance(self.classes, tuple) else None

    @property
    def class_count(self) -> int | None:
        """How many classes are declared, if that is said."""
        return len(self.classes) if isinstance(self.classes, tuple) else self.classes

    @property
    def may_have_targets(self) -> bool:
        """Whether there may be masks, or images to learn other than the input itself."""
        return False

    @property
    def may_validate(self) -> bool:
        """Whether there may be images for validation, some of the source's own among them."""
        return bool(self.validation)

    @property
    def has_test(self) -> bool:
        """Whether there are images for a test."""
        return True

    def _problems(self) -> BadFields:
        yield from at_least(self, 0, "validation")
        yield from at_least(self, 1, "image_size")
        if isinstance(self.validation, float) and self.validation >= 1:
            yield "validation", f"expected a fraction below 1 or a count, got {self.validation}"
        yield from self._bad_classes()

    def _bad_classes(self) -> BadFields:
        if self.class_count is not None and self.class_count < 1:
            yield "classes", f"expected 1 or more, got {self.class_count}"
        names = self.class_names or ()
        for place, name in enumerate(names):
            if not name.strip() or not name.isprintable():
                yield "classes", f"expected names that can be shown, got {name!r}"
            elif names.index(name) < place:
                yield "classes", f"{name!r} is there twice; each class has a name of its own"


@dataclass(frozen=True, slots=True, kw_only=True)
class MnistSubset(Data):
    """The 6,000 training and 1,000 test digits of MNIST that are part of the package."""

    source: Literal["mnist-subset"] = "mnist-subset"


@dataclass(frozen=True, slots=True, kw_only=True)
class Idx(Data):
    """A folder with the four files of MNIST, Fashion-MNIST, EMNIST or KMNIST, as published."""

    source: Literal["idx"] = "idx"
    path: Path
    """The folder, relative to the config's folder, for example `mnist`."""


@dataclass(frozen=True, slots=True)
class Keys:
    """What the arrays of an npz file are called; those left out are found by their usual names."""

    x_train: str | None = None
    """Training images, for example `images`."""
    y_train: str | None = None
    """Training labels, for example `labels`."""
    x_validation: str | None = None
    """Validation images, for example `val_images`."""
    y_validation: str | None = None
    """Validation labels, for example `val_labels`."""
    x_test: str | None = None
    """Test images, for example `test_images`."""
    y_test: str | None = None
    """Test labels, for example `test_labels`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedArrays(Data):
    """Arrays that are told apart by their names, some of which may be masks, target images or held-out images."""

    @property
    def may_have_targets(self) -> bool:
        return True

    @property
    def may_validate(self) -> bool:
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Npz(NamedArrays):
    """A NumPy file with x_train, y_train, x_test and y_test, or the like."""

    source: Literal["npz"] = "npz"
    path: Path
    """The file, relative to the config's folder, for example `images.npz`."""
    keys: Keys = field(default_factory=Keys)
    """What the arrays are called, where that is not usual, for example `{x_train: pictures, y_train: species}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Npy(NamedArrays):
    """NumPy files, x_train.npy, y_train.npy, x_test.npy and y_test.npy, which stay on disk where they are large."""

    source: Literal["npy"] = "npy"
    path: Path
    """The folder of the files, relative to the config's folder, for example `images`."""
    keys: Keys = field(default_factory=Keys)
    """What the files are called, where that is not usual, for example `{x_train: pictures, y_train: species}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Csv(Data):
    """A CSV file per split: in each line the label and the pixels, channel by channel."""

    source: Literal["csv"] = "csv"
    path: Path
    """The file with training images, relative to the config's folder, for example `train.csv`."""
    test_path: Path | None = None
    """The file with test images, relative to the config's folder."""
    label: int | str = "auto"
    """The column of the label: first, last, its name in the header, its index from 0, or none; auto is the one that
    the header calls so, else the first."""
    delimiter: str = "auto"
    """What separates the fields: a single character, or auto."""

    @property
    def has_test(self) -> bool:
        return self.test_path is not None

    def _problems(self) -> BadFields:
        yield from Data._problems(self)  # slots: a dataclass made anew is not what super() knows
        if self.delimiter != "auto" and (len(self.delimiter) != 1 or self.delimiter in '"\n\r'):
            yield "delimiter", f"expected a single character or auto, got {self.delimiter!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures(Data):
    """A folder of pictures: train and test, with a folder for each class in them, or the classes alone."""

    source: Literal["folder"] = "folder"
    path: Path
    """The folder, relative to the config's folder, for example `animals`."""
    test: float | int = 0
    """Pictures set aside for the test where there is no folder for it: a fraction below 1, or a count."""
    on_error: Literal["stop", "skip"] = "stop"
    """What to do about pictures that cannot be read: stop, or skip them and say so."""

    @property
    def may_validate(self) -> bool:
        return True

    def _problems(self) -> BadFields:
        yield from Data._problems(self)
        yield from at_least(self, 0, "test")
        if isinstance(self.test, float) and self.test >= 1:
            yield "test", f"expected a fraction below 1 or a count, got {self.test}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthetic(Data):
    """Images generated from the seed: digits, or bars for very small models. Nothing is stored."""

    source: Literal["synthetic"] = "synthetic"
    kind: Literal["digits", "bars"] = "digits"
    """What to draw: digits, or vertical and horizontal bars."""
    train: int = 1000
    """Number of training images."""
    test: int = 200
    """Number of test images."""
    image: tuple[int, int, int] = DERIVED
    """Image shape as [channels, height, width]; by default [1, 28, 28] for digits and [1, 6, 6] for bars."""
    classes: int | tuple[str, ...] | None = DERIVED
    """Number of classes, or their names; by default 10 for digits and 2 for bars."""

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
            self._undrawable(),
        )

    def _bad_classes(self) -> BadFields:
        most = {"digits": 10, "bars": 4}[self.kind]
        if not 2 <= (self.class_count or 0) <= most:
            yield "classes", f"{self.kind} have 2 to {most} classes, got {self.class_count}"
        else:
            yield from Data._bad_classes(self)
        if self.first_label:
            yield "first_label", "synthetic labels start at 0"

    def _undrawable(self) -> BadFields:
        smallest = {"digits": 8, "bars": 4}[self.kind]
        if min(self.image) >= 1 and min(self.image[1:]) < smallest:
            yield "image", f"{self.kind} need a height and width of {smallest} or more, got {show(self.image)}"


AnyData = MnistSubset | Idx | Npz | Npy | Csv | Pictures | Synthetic


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """A layer at its place in the network; `shares` is the one whose parameters it uses, if they are not its own."""

    name: str
    inputs: tuple[str, ...]
    layer: Operation[Any]
    trainable: bool = True
    shares: str = ""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The network, from the image to the head's predictions."""

    input: tuple[int, int, int]
    """Image shape as [channels, height, width]."""
    layers: tuple[LayerSpec, ...]
    """Layers in order; a bare word is a layer without arguments, for example `[flatten, {type: dense, units: 10}]`."""
    init: AnyInitializer = field(default_factory=HeNormal)
    """Initializer of the layers that do not set their own."""
    head: Head = "softmax"
    """Turns the last layer's outputs into predictions."""
    freeze: tuple[str, ...] = ()
    """Layers whose parameters training leaves as they are, by name or pattern, for example `[conv1, "block1_*"]`."""

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
    """The value to monitor."""
    patience: int = 3
    """Number of epochs without improvement before training stops."""
    min_delta: float = 0.0
    """The smallest change that counts as an improvement."""

    def __post_init__(self) -> None:
        require(at_least(self, 1, "patience"), at_least(self, 0, "min_delta"))


@dataclass(frozen=True, slots=True)
class LossAt:
    """A loss at the output of one layer, which is compared with the same targets as the network's output."""

    layer: str
    """The layer, for example `classifier`."""
    weight: float = 1.0
    """How much the loss counts in the sum that training minimizes."""
    loss: LossName = DERIVED
    """Loss function; by default train.loss."""

    def __post_init__(self) -> None:
        require(within(self, 0, float("inf"), "weight", open_low=True))


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How to train the network."""

    loss: LossName = DERIVED
    """Loss function; by default cross_entropy for softmax, binary_cross_entropy for sigmoid, mse for no head."""
    losses: tuple[LossAt, ...] = ()
    """Losses at several layers, the last one among them, for auxiliary classifiers; by default one, at the last layer,
    for example `[{layer: classifier}, {layer: aux1, weight: 0.3}]`."""
    label_smoothing: float = 0.0
    """Fraction of each label that is spread evenly over all classes, for example `0.1`."""
    class_weights: Literal["balanced"] | tuple[float, ...] | dict[str, float] | None = None
    """How much each class counts in training: balanced (rare classes more), a number for each, or for some by name."""
    epochs: int = 5
    """Number of passes over the training images, for example `5`."""
    max_steps: int | None = None
    """Maximum number of updates; training ends there or after the epochs, whichever comes first."""
    batch_size: int = 64
    """Number of images per update."""
    optimizer: Optimizer = field(default_factory=Adam)
    """How gradients become updates, for example `{type: sgd, learning_rate: 0.05, momentum: 0.9}`."""
    schedule: Schedule = field(default_factory=Constant)
    """How the learning rate changes during training, for example `cosine`."""
    clip_norm: float | None = None
    """Maximum total L2 norm of the gradients; larger gradients are scaled down to it."""
    early_stopping: EarlyStopping | None = None
    """Stop when a monitored value no longer improves, for example `{patience: 3}`."""
    workers: Literal["auto"] | int = "auto"
    """Number of worker processes, or auto."""
    checkpoint_every: int | None = None
    """Number of steps between checkpoints within an epoch; each epoch ends with one in any case."""
    checkpoint_minutes: float | None = 10.0
    """Minutes without a checkpoint after which one is saved within an epoch, too."""
    keep_checkpoints: int = 3
    """Number of latest checkpoints to keep, besides the best."""

    def __post_init__(self) -> None:
        require(
            within(self, 0, 1, "label_smoothing", open_high=True),
            at_least(self, 1, "epochs", "max_steps", "batch_size", "workers", "checkpoint_every", "keep_checkpoints"),
            within(self, 0, float("inf"), "clip_norm", "checkpoint_minutes", open_low=True),
            self._too_many_workers(),
            self._bad_weights(),
        )

    @property
    def main_schedule(self) -> tuple[str, Schedule]:
        """The schedule that follows the warm-up, if there is one, and its key."""
        if isinstance(self.schedule, LinearWarmup):
            return "train.schedule.then", self.schedule.then or Constant()
        return "train.schedule", self.schedule

    def steps_per_epoch(self, samples: int) -> int:
        """Return the updates of one pass over so many training images."""
        return ceil(samples / self.batch_size)

    def total_steps(self, samples: int) -> int:
        """Return the updates of the whole run, unless it stops early."""
        steps = self.steps_per_epoch(samples) * self.epochs
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def _bad_weights(self) -> BadFields:
        weights = self.class_weights
        for weight in weights.values() if isinstance(weights, dict) else weights if isinstance(weights, tuple) else ():
            if not 0 < weight < float("inf"):
                yield "class_weights", f"expected numbers above 0, got {show(weight)}"
                return

    def _too_many_workers(self) -> BadFields:
        if self.workers != "auto" and self.workers > MOST_WORKERS:
            yield "workers", f"expected {MOST_WORKERS} processes or fewer, got {self.workers}"


@dataclass(frozen=True, slots=True)
class Config:
    """A training run: its data, its network and its training."""

    name: str
    """Name of the run directory; by default the name of the config file."""
    seed: int = field(default=0, kw_only=True)
    """Seed of the initial weights, shuffling, dropout, augmentation and synthetic data."""
    dtype: Literal["float32", "float64"] = field(default="float32", kw_only=True)
    """Floating-point type of all numbers."""
    data: AnyData
    """The images and their labels."""
    model: ModelConfig
    """The network, from the image to the head's predictions."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """How to train the network."""
    positions: Positions = field(default_factory=Positions, compare=False, repr=False)

    def __post_init__(self) -> None:
        train = self.train
        loss = LOSSES[self.model.head][0] if train.loss is DERIVED else train.loss
        losses = tuple(replace(one, loss=loss) if one.loss is DERIVED else one for one in train.losses)
        object.__setattr__(self, "train", replace(train, loss=loss, losses=losses))
        require(
            self._bad_name(),
            at_least(self, 0, "seed"),
            self._bad_losses(),
            self._bad_loss(),
            self._bad_crop(),
            self._bad_normalize(),
            self._bad_monitor(),
        )

    @property
    def losses(self) -> tuple[LossAt, ...]:
        """The losses that training minimizes the weighted sum of, that of the network's output first."""
        output = self.model.layers[-1].name
        losses = self.train.losses or (LossAt(output, loss=self.train.loss),)
        return tuple(sorted(losses, key=lambda one: one.layer != output))

    def _bad_name(self) -> BadFields:
        name = self.name
        if not name.strip() or name in (".", "..") or not name.isprintable() or "/" in name or "\\" in name:
            yield "name", f"expected a name that a folder can have, got {name!r}"

    def _bad_losses(self) -> BadFields:
        names = [spec.name for spec in self.model.layers]
        chosen = [one.layer for one in self.train.losses]
        for k, layer in enumerate(chosen):
            if layer not in names:
                yield f"train.losses.{k}.layer", f"unknown layer '{layer}'{suggestion(layer, names)}"
            elif layer in chosen[:k]:
                yield f"train.losses.{k}.layer", f"{layer} has a loss already; change its weight"
        if chosen and names[-1] not in chosen and set(chosen) <= set(names):
            yield "train.losses", f"the last layer {names[-1]}, the network's output, needs a loss among them"

    def _bad_crop(self) -> BadFields:
        crop, (_, height, width) = self.data.augment and self.data.augment.crop, self.model.input
        if crop and crop.size is not None and pair(crop.size) != (height, width):
            expected = f"expected [{height}, {width}], as model.input says"
            yield "data.augment.crop.size", f"{expected}; data.image_size is what the part is taken from"

    def _bad_normalize(self) -> BadFields:
        numbers, channels = self.data.normalize, self.model.input[0]
        if isinstance(numbers, MeanStd) and len(numbers.mean) not in (1, channels):
            wanted = "1 number" if channels == 1 else f"{channels} numbers, one for each channel of model.input, or 1"
            yield "data.normalize.mean", f"expected {wanted}, got {len(numbers.mean)}"

    def _bad_loss(self) -> BadFields:
        head, train = self.model.head, self.train
        places = {"train.loss": train.loss} | {f"train.losses.{k}.loss": at.loss for k, at in enumerate(train.losses)}
        wrong = {place: loss for place, loss in places.items() if loss not in LOSSES[head]}
        for place, loss in wrong.items():
            yield place, f"the head {head} requires {' or '.join(LOSSES[head])}, got {loss}"
        other = next((one.loss for one in self.losses if one.loss != "cross_entropy"), None)
        if other is None or wrong:
            return
        if train.label_smoothing:
            yield "train.label_smoothing", f"applies only to the loss cross_entropy, not to {other}"
        elif train.class_weights is not None:
            yield "train.class_weights", f"apply only to the loss cross_entropy, not to {other}"

    def _bad_monitor(self) -> BadFields:
        if self.data.may_validate:
            return
        stopping = self.train.early_stopping
        if stopping and stopping.monitor.startswith("validation"):
            yield "train.early_stopping.monitor", _unmonitored(stopping.monitor)
        path, schedule = self.train.main_schedule
        if isinstance(schedule, ReduceOnPlateau) and schedule.monitor.startswith("validation"):
            yield f"{path}.monitor", _unmonitored(schedule.monitor)


def _unmonitored(monitor: str) -> str:
    return f"{monitor} needs held-out images: set data.validation, or monitor train_loss"
