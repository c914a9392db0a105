"""Rules about the data: their scale, their labels, their splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean, median

from cnnbp_cli.core.graph import INPUT
from cnnbp_cli.diagnosis.evidence import CLEAR_GAIN, Evidence
from cnnbp_cli.diagnosis.facts import DataFacts, Labels, TrainingRecord
from cnnbp_cli.diagnosis.findings import Finding
from cnnbp_cli.diagnosis.registry import rule
from cnnbp_cli.diagnosis.remedies import as_remedy, width_of, with_layers
from cnnbp_cli.diagnosis.text import percent

STANDARD = ("data.normalize=standard",)

LARGE_SCALE, SMALL_SCALE = 5.0, 0.05
"""Root mean square of the input. Standardized pixels have 1, pixels from 0 to 1 between 0.1 and 0.7, raw bytes 50 to
200, and what was divided by 255 twice less than 0.003: the limits are a factor of five or more from either side."""


@rule(
    definition="The pixels are too large for the initial weights and the learning rate.",
    formula=f"root mean square of the input above {LARGE_SCALE:g}; initializers assume about 1. Silent where a "
    "normalization layer takes the scale out again before the first activation",
    source="LeCun et al. 1998, Efficient BackProp, section 4.3",
    advice="Standardize the pixels with the training split's mean and standard deviation: data.normalize: standard.",
)
def unnormalised_input(evidence: Evidence) -> Iterator[Finding]:
    data = evidence.data
    if data and data.scale > LARGE_SCALE:
        yield Finding(
            severity="info" if evidence.well and _normalizes_itself(evidence) else evidence.verdict(STANDARD),
            evidence=f"the input has mean {data.mean:.3g} and standard deviation {data.deviation:.3g}: a root mean "
            f"square of {data.scale:.3g}",
            threshold=f"a root mean square above {LARGE_SCALE:g}",
            why="Large inputs give the first layer large gradients, so no learning rate suits both it and the others.",
            remedy=as_remedy(STANDARD),
        )


def _normalizes_itself(evidence: Evidence) -> bool:
    """Return whether all that reads the image is a normalization, or a layer with weights right before one."""
    return all(
        reader.layer.normalizes or (reader in evidence.weighted and evidence.is_normalized(reader))
        for reader in evidence.readers[INPUT]
    )


@rule(
    definition="The pixels were scaled before they were stored, and are scaled again.",
    formula=f"root mean square of the input below {SMALL_SCALE:g}; initializers assume about 1",
    source="LeCun et al. 1998, Efficient BackProp, section 4.3; Humbatova et al. 2020, arXiv:1910.11015 (wrong "
    "preprocessing)",
    advice="Scale once: data.normalize: standard uses the standard deviation that the pixels really have.",
)
def normalised_twice(evidence: Evidence) -> Iterator[Finding]:
    data = evidence.data
    if data is None:
        return
    average, deviation, low, high = data.raw
    if 0 < data.scale < SMALL_SCALE:  # images that are all alike have no scale to fix
        yield Finding(
            severity=evidence.verdict(STANDARD),
            evidence=f"pixels are stored as {low:.3g} to {high:.3g} and become {data.low:.3g} to {data.high:.3g}: a "
            f"root mean square of {data.scale:.2g}",
            threshold=f"a root mean square below {SMALL_SCALE:g}",
            why="With inputs this small the first layer's weights get almost no gradient.",
            remedy=as_remedy(STANDARD),
        )
    elif evidence.config.data.normalize == "standard" and low < 0 and abs(average) < 0.05 and abs(deviation - 1) < 0.05:
        yield Finding(
            severity="info",
            evidence=f"the stored pixels already have mean {average:.2g} and standard deviation {deviation:.3g}",
            threshold="a mean within 0.05 of 0 and a standard deviation within 0.05 of 1 before normalization",
            why="Normalizing again changes next to nothing, but images given to predict must be scaled the same way.",
            remedy="--set data.normalize=none",
        )


FEW_CONSTANT, MANY_CONSTANT, SAME_PICTURE = 0.01, 0.25, 0.5
"""Shares of the images without any contrast, from which on it is told, and is an error; and of those that are the
same picture."""


@rule(
    definition="Images are blank: all their pixels are equal, or most images are the same picture.",
    formula=f"share of training images whose pixels are all equal above {percent(FEW_CONSTANT)}, or share of the most "
    f"frequent image above {percent(SAME_PICTURE)}; an error from {percent(MANY_CONSTANT)} on",
    source="Northcutt, Athalye and Mueller 2021, arXiv:2103.14749, and common practice (look at the data first)",
    advice="Look at some images as the network gets them, and at the code that loads, crops or scales them. "
    "data.leave_out: [blank] trains on the others.",
)
def constant_images(evidence: Evidence) -> Iterator[Finding]:
    data = evidence.data
    if data is None or data.count < 2:
        return
    same = data.identical if data.identical > SAME_PICTURE else 0.0
    share = max(data.constant, same)
    if share <= FEW_CONSTANT:
        return
    what = "have a single value in all pixels" if data.constant >= same else "are the same picture"
    remedy = _leave_out(evidence) if data.constant >= same and data.constant <= MOST_LEFT_OUT else ()
    yield Finding(
        severity="error" if share >= MANY_CONSTANT else evidence.verdict(remedy),
        evidence=f"{percent(share)} of the {data.count:,} training images {what}",
        threshold=f"more than {percent(FEW_CONSTANT if data.constant >= same else SAME_PICTURE)}",
        why="A blank image says nothing about its label; the code that writes or loads images may have lost it.",
        remedy=as_remedy(remedy) or "Look at some images, and fix the code that writes or loads them.",
    )


MOST_LEFT_OUT = 0.75
"""Share of the training images up to which those that remain can be trained on."""


def _leave_out(evidence: Evidence) -> tuple[str, ...]:
    """Return the override that leaves out all the training images that are known to be bad."""
    data = evidence.data
    assert data is not None
    bad = {"blank": data.constant > FEW_CONSTANT, "leaked": _leaks(data)}
    kinds = [kind for kind, found in bad.items() if found or kind in evidence.config.data.leave_out]
    return (f"data.leave_out=[{', '.join(kinds)}]",)


CHANCE_SKILL = 0.1
"""Skill of a vote of the nearest neighbors below which images and labels have nothing to do with each other. Of 500
votes about 10 classes it is 0 ± 0.015 for shuffled labels, 0.25 on CIFAR-10 and 0.9 on digits."""

CLEAR_AGREEMENT = 0.75
"""Share of right labels where the vote is clearest: 0.98 to 1 for digits, less by the share of wrong labels."""

AGREEMENT_GAP = 0.15
"""By how much it is lower in training than among held-out images, where that alone says that labels are wrong."""

CLASS_AGREEMENT, CLASS_GAP = 0.6, 0.2
"""The same for a single class: share of right labels among the images voted into it, and by how much that is below the
held-out images' or, without them, below the median class's."""

MIN_QUERIES = 200
"""Images to ask about, for a difference of 0.15 between two shares to be four times its deviation."""

MIN_TEXTURE = 0.1
"""Correlation of pixels next to each other: 0.5 to 0.95 in pictures, 0 ± 0.01 in noise."""


@rule(
    definition="Labels do not belong to their images: all of them, or some.",
    formula="ten nearest neighbors vote on each image's label, by pixel distance, rare classes counting as much as "
    f"frequent ones; their skill is below {CHANCE_SKILL:g}, or where their vote is clearest less than "
    f"{percent(CLEAR_AGREEMENT)} of the labels agree with it, or in one class less than {percent(CLASS_AGREEMENT)}, "
    "or training and held-out images each agree among themselves but not with each other",
    source="Cover and Hart 1967 (the nearest-neighbor rule errs at most twice as often as the best there is); "
    "Northcutt et al. 2021, arXiv:1911.00068 (confident learning); Zhang et al. 2017, arXiv:1611.03530 (networks fit "
    "random labels)",
    advice="Look at some images together with their labels, and at the code that wrote the files: one array was "
    "sorted, shuffled or shifted without the other.",
)
def shuffled_labels(evidence: Evidence) -> Iterator[Finding]:
    data = evidence.data
    if data is None or data.labels is None or data.constant > SAME_PICTURE or data.identical > SAME_PICTURE:
        return
    train, held, across = data.labels, data.held_labels, data.across
    known = held is not None and held.agreement > 3 * CHANCE_SKILL
    learned = evidence.record.held is not None and evidence.record.held.skill >= 0.5
    if train.agreement < CHANCE_SKILL:
        if learned or data.texture < MIN_TEXTURE:  # images without any picture in them say nothing about their labels
            return
        contrast = f"; among the held-out images with one of {percent(held.agreement)}" if held and known else ""
        yield _wrong_labels(
            f"nearest neighbors predict the training labels with a skill of {percent(train.agreement)}{contrast}",
            f"a skill below {percent(CHANCE_SKILL)}",
        )
    elif min(train.count, held.count if held else train.count) < MIN_QUERIES:
        return
    elif (
        across
        and held
        and known
        and not _difference(data)
        and across.agreement < min(train.agreement, held.agreement) / 2
    ):
        yield _wrong_labels(
            f"nearest neighbors predict labels with a skill of {percent(train.agreement)} within the training images, "
            f"{percent(held.agreement)} within the held-out ones, but {percent(across.agreement)} across",
            "less than half of either",
        )
    elif _stands_out(train, held if known else None):
        yield _wrong_labels(
            f"where nearest neighbors agree most, {percent(1 - train.confident)} of the training labels contradict "
            "them",
            f"more than {percent(1 - CLEAR_AGREEMENT)}, or {percent(AGREEMENT_GAP)} more than among the held-out "
            "images",
        )
    elif worst := _wrong_class(train, held if known else None):
        label, share = worst
        yield _wrong_labels(
            f"of the training images that look like class {label}, {percent(1 - share)} are labeled otherwise",
            f"more than {percent(1 - CLASS_AGREEMENT)}, and {percent(CLASS_GAP)} more than elsewhere",
        )


def _stands_out(train: Labels, held: Labels | None) -> bool:
    if held is not None:
        return train.confident < held.confident - AGREEMENT_GAP
    return train.confident < CLEAR_AGREEMENT and train.agreement > 3 * CHANCE_SKILL


def _wrong_class(train: Labels, held: Labels | None) -> tuple[int, float] | None:
    """Return the class whose look-alikes bear other labels most often, if that stands out, and the share of its own."""
    shares = {k: share for k, share in enumerate(train.by_class) if share is not None}
    if not shares:
        return None
    label = min(shares, key=lambda k: shares[k])
    usual = held.by_class[label] if held and label < len(held.by_class) else None
    if usual is None:
        usual = median(shares.values()) if len(shares) > 2 else 0.0
    found = shares[label] < CLASS_AGREEMENT and shares[label] < usual - CLASS_GAP
    return (label, shares[label]) if found else None


def _wrong_labels(seen: str, threshold: str) -> Finding:
    return Finding(
        severity="error",
        evidence=seen,
        threshold=threshold,
        why="Wrong labels can only be memorized, which helps with no other image.",
        remedy="Correct the labels: compare some images with theirs, and look for a sort, a shuffle or a shift of one "
        "array without the other.",
    )


IMBALANCE = 5.0
"""Images of the largest class for one of the smallest. Losses of a recall begin between 5 and 10 (Buda et al.)."""

SUFFERS = 0.75
"""Recall of the rare classes divided by that of the frequent ones: below, the imbalance shows in the results."""

BALANCED = ("train.class_weights=balanced",)


@rule(
    definition="Some classes have many times the training images of others.",
    formula=f"images of the largest class divided by those of the smallest that has any, above {IMBALANCE:g}; an error "
    f"where the recall of the rarer half of the classes is less than {percent(SUFFERS)} of that of the others",
    source="Buda, Maki and Mazurowski 2018, arXiv:1710.05381",
    advice="Let images of rare classes count more: train.class_weights: balanced. Better still, collect more of them; "
    "judge by recall per class, not by accuracy.",
)
def unbalanced_classes(evidence: Evidence) -> Iterator[Finding]:
    counts = evidence.data.class_counts if evidence.data else ()
    present = [count for count in counts if count]
    if len(present) < 2 or max(present) <= IMBALANCE * min(present):
        return
    most, fewest = max(present), min(present)
    frequent, rare = counts.index(most), counts.index(fewest)
    pair = _recalls(counts, evidence.record)
    suffers = _suffers(pair)
    told = f"; recall is {percent(pair[0])} for rare classes, {percent(pair[1])} for frequent ones" if suffers else ""
    weighted = evidence.config.train.class_weights is not None
    remedy = _balancing(evidence) if suffers or not weighted else ()
    if suffers and (tried := evidence.trials.get(remedy)):
        after = _recalls(counts, tried)
        told += f", with the remedy {percent(after[0])} and {percent(after[1])}"
    yield Finding(
        severity="error" if suffers else "info" if weighted else "warning",
        evidence=f"class {frequent} has {most:,} training images, class {rare} has {fewest:,}{told}",
        threshold=f"a ratio above {IMBALANCE:g}",
        why="Naming only the frequent classes is nearly always right, so the rare ones are ignored, and accuracy hides "
        "it.",
        remedy=as_remedy(remedy) or f"Balance the classes: more images of class {rare}, or fewer of class {frequent}.",
    )


def _recalls(counts: Sequence[int], record: TrainingRecord) -> tuple[float, float]:
    """Return the mean recall of the rare and of the frequent classes; the same for both where one is not known."""
    present = [count for count in counts if count]
    limit = (max(present) * min(present)) ** 0.5  # the geometric middle parts the rare from the frequent
    score = record.held or record.train
    known = (
        [(n, recall) for n, recall in zip(counts, score.recalls, strict=False) if n and recall is not None]
        if score
        else []
    )
    of_rare = [recall for count, recall in known if count < limit]
    of_frequent = [recall for count, recall in known if count >= limit]
    return (mean(of_rare), mean(of_frequent)) if of_rare and of_frequent else (1.0, 1.0)


def _suffers(recalls: tuple[float, float]) -> bool:
    return recalls[0] < SUFFERS * recalls[1]


def _balancing(evidence: Evidence) -> tuple[str, ...]:
    """Return the overrides with which a trial no longer passed over rare classes; weights where they were not tried."""
    assert evidence.data is not None
    counts, trials = evidence.data.class_counts, evidence.trials
    for overrides in sorted(trials, key=lambda one: (one != BALANCED, BALANCED[0] not in one, len(one))):
        if evidence.does_well(trials[overrides]) and not _suffers(_recalls(counts, trials[overrides])):
            return overrides
    can_be_weighted = evidence.config.train.class_weights is None and all(
        one.loss == "cross_entropy" for one in evidence.config.losses
    )
    return BALANCED if can_be_weighted and evidence.helps(BALANCED) is not False else ()


ENOUGH_HELD = 20
"""Held-out images for each class, on average, for one without any to be no accident."""


@rule(
    definition="A class has no images, to train on or to test on.",
    formula="class numbers below the number of classes that no training image has; or that none of at least "
    f"{ENOUGH_HELD} held-out images per class has",
    source="By definition; Saito and Rehmsmeier 2015 (what is not tested is not measured)",
    advice="See whether the labels start at 0, whether a file was cut off while sorted by class, and whether the split "
    "keeps the proportions of the classes.",
)
def missing_class(evidence: Evidence) -> Iterator[Finding]:
    data = evidence.data
    if data is None or not data.classes or data.classes < 2:
        return
    untrained = [k for k, count in enumerate(data.class_counts) if not count]
    untested = [k for k, count in enumerate(data.held_counts) if not count and k not in untrained]
    if untrained:
        tested = sum(data.held_counts[k] for k in untrained if k < len(data.held_counts))
        yield Finding(
            severity="error",
            evidence=f"{_classes(untrained)} of {data.classes} no training images"
            + (f", but {tested:,} held-out ones" if tested else ""),
            threshold="at least one training image per class",
            why="The network cannot learn a class that it never sees.",
            remedy=as_remedy(_from_one(evidence) if untrained == [0] and not tested else ())
            or "Add images of each class, or renumber the labels from 0 without gaps.",
        )
    if untested and sum(data.held_counts) >= ENOUGH_HELD * data.classes:
        yield Finding(
            severity="warning",
            evidence=f"{_classes(untested)} of {data.classes} no held-out images among {data.held_count:,}",
            threshold="at least one held-out image per class",
            why="The test says nothing about a class that it does not contain.",
            remedy="Split the data anew, with the same proportions of the classes on both sides.",
        )


def _from_one(evidence: Evidence) -> tuple[str, ...]:
    """Return the overrides for labels that start at 1; nothing where the config says what its classes are."""
    declared, last = evidence.config.data, evidence.weighted[-1] if evidence.weighted else None
    width = width_of(last) if last else None
    if declared.first_label or declared.classes or last is None or width is None or width[1] < 3:
        return ()
    if len(evidence.graph.outputs) > 1:  # all of them would have to become narrower
        return ()
    return ("data.first_label=1", *with_layers(evidence, [(last.name, f".{width[0]}={width[1] - 1}")]))


def _classes(labels: Sequence[int]) -> str:
    if len(labels) == 1:
        return f"class {labels[0]} has"
    return f"classes {', '.join(map(str, labels[:5]))}{', …' * (len(labels) > 5)} have"


NO_AUGMENTATION = ("data.augment=null",)

STRONG_SHIFT, STRONG_ROTATION, STRONG_SCALE = 0.25, 60.0, 0.5
"""Of the image's side, in degrees, and as a fraction. Shifts of a tenth, 15 degrees and a fifth are usual for digits
(Simard et al. 2003); a quarter, 60 degrees and a half leave the picture or make another sign of it."""


@rule(
    definition="The augmentation makes images that no longer show what their label says.",
    formula="a training without augmentation that is otherwise the same has at least "
    f"{CLEAR_GAIN:g} more skill on images that are not augmented; or a shift, rotation or scale beyond "
    f"{percent(STRONG_SHIFT)} of the side, {STRONG_ROTATION:g} degrees or {STRONG_SCALE:g}",
    source="Shorten and Khoshgoftaar 2019, A survey on image data augmentation (safety of a transform); Simard et al. "
    "2003 for usual strengths",
    advice="Distort no further than images of the same class differ anyway: a few pixels, some degrees.",
)
def destructive_augmentation(evidence: Evidence) -> Iterator[Finding]:
    augment = evidence.config.data.augment
    if augment is None:
        return
    side = min(evidence.config.model.input[1:])
    strong = augment.shift > STRONG_SHIFT * side or augment.rotate > STRONG_ROTATION or augment.scale > STRONG_SCALE
    if not strong and not evidence.helps(NO_AUGMENTATION):
        return
    trial = evidence.trials.get(NO_AUGMENTATION)
    told = f"; skill {percent(trial.net_skill)} without, {percent(evidence.record.net_skill)} with it" if trial else ""
    yield Finding(
        severity=evidence.verdict(NO_AUGMENTATION),
        evidence=f"shifts by up to {augment.shift} of {side} pixels, rotations by up to {augment.rotate:g} degrees, "
        f"scaling by up to {percent(augment.scale)}{told}",
        threshold=f"a clear loss of skill, or beyond {percent(STRONG_SHIFT)} of the side, {STRONG_ROTATION:g} degrees "
        f"or {percent(STRONG_SCALE)}",
        why="An image that has left the frame, or looks like another class, teaches something wrong.",
        remedy=as_remedy(NO_AUGMENTATION),
    )


LEAK_SHARE, NEAR_LEAK_SHARE = 0.01, 0.05
"""Share of held-out images: published sets have up to 1% of exact repetitions by accident, and some of near ones
(Barz and Denzler)."""


@rule(
    definition="Images that the network is tested on, or near copies of them, are among those it is trained on.",
    formula=f"share of held-out images that equal a training image in every pixel, above {percent(LEAK_SHARE)} and "
    "above twice the share of repetitions among the training images; or share of those much nearer to a training "
    f"image than training images are to each other, above {percent(NEAR_LEAK_SHARE)} and twice that share among them",
    source="Barz and Denzler 2020, arXiv:1902.00423; Kapoor and Narayanan 2023, Leakage and the reproducibility crisis",
    advice="Split the data anew so that no image is on both sides, and measure again. data.leave_out: [leaked] trains "
    "without the images that are tested; near copies of them stay.",
)
def data_leak(evidence: Evidence) -> Iterator[Finding]:
    data = evidence.data
    if data is None or data.identical > SAME_PICTURE:
        return
    exact = _leaks(data)
    if not exact and data.near_leaked <= max(NEAR_LEAK_SHARE, 2 * data.near_repeated):
        return
    yield Finding(
        severity="error",
        evidence=f"{percent(data.leaked)} of the {data.held_count:,} held-out images are also training images"
        if exact
        else f"{percent(data.near_leaked)} of the {data.held_count:,} held-out images are near copies of training "
        "images",
        threshold=f"more than {percent(LEAK_SHARE if exact else NEAR_LEAK_SHARE)}",
        why="The test rewards memory, so it promises more than the network will do on new images.",
        remedy=as_remedy(_leave_out(evidence) if exact and data.leaking <= MOST_LEFT_OUT else ())
        or "Split the data anew, with every image and its copies on one side only.",
    )


def _leaks(data: DataFacts) -> bool:
    return data.leaked > max(LEAK_SHARE, 2 * data.repeated)


SHIFTED, STRETCHED, UNLIKE = 0.3, 1.5, 0.5
"""Difference of the means in training deviations; ratio of the deviations; correlation of the mean pictures where two
halves of the training images have at least `ALIKE`. Random splits of 500 images stay within 0.05, 1.05 and 0.98."""

ALIKE = 0.9


@rule(
    definition="Held-out images were prepared differently from the training images.",
    formula=f"means of the stored pixels that differ by more than {SHIFTED:g} standard deviations, or standard "
    f"deviations by a factor above {STRETCHED:g}, or mean pictures with a correlation below {UNLIKE:g} where those of "
    f"two halves of the training images have {ALIKE:g} (negative: inverted)",
    source="Humbatova et al. 2020, arXiv:1910.11015 (wrong preprocessing); Breck et al. 2019, Data validation for "
    "machine learning (skew between training and serving)",
    advice="Prepare both splits with the same code: range, inversion, orientation, order of the channels.",
)
def test_preprocessed_differently(evidence: Evidence) -> Iterator[Finding]:
    data = evidence.data
    if data is None or (told := _difference(data)) is None:
        return
    seen, threshold = told
    held = evidence.record.held
    lost = held is not None and evidence.record.skill - held.skill > CLEAR_GAIN
    yield Finding(
        severity="error" if lost else "warning",
        evidence=seen + (f"; skill {percent(evidence.record.skill)} on training images, {percent(held.skill)} on them")
        if held and lost
        else seen,
        threshold=threshold,
        why="What the network learned does not apply to images on another scale, inverted or turned.",
        remedy="Prepare the held-out images exactly as the training images, and measure again.",
    )


def _difference(data: DataFacts) -> tuple[str, str] | None:
    """Return in what the splits differ, and the threshold; None where they do not."""
    if data.match is None:
        return None
    (ours, theirs), (width, other) = data.match.mean, data.match.deviation
    if not width > 0:
        return None
    figures = (
        f"training pixels have mean {ours:.3g} and standard deviation {width:.3g}, held-out ones {theirs:.3g} and "
        f"{other:.3g}"
    )
    inverted = data.match.own_likeness > ALIKE and data.match.likeness < -UNLIKE
    if inverted:
        return f"held-out images look inverted: {figures}", f"a correlation of the mean pictures below {UNLIKE:g}"
    if not 1 / STRETCHED <= (other / width if other else 0.0) <= STRETCHED:
        return figures, f"standard deviations that differ by a factor above {STRETCHED:g}"
    if abs(theirs - ours) > SHIFTED * width:
        return figures, f"means that differ by more than {SHIFTED:g} standard deviations"
    if data.match.own_likeness > ALIKE and data.match.likeness < UNLIKE:
        return (
            f"the mean held-out picture has a correlation of {data.match.likeness:.2f} with the mean training picture",
            f"a correlation below {UNLIKE:g}",
        )
    return None
