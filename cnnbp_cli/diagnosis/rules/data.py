"""Rules about the data: their scale, their labels, their splits."""

from __future__ import annotations

from collections.abc import Iterator

from cnnbp_cli.diagnosis.evidence import CLEAR_GAIN, Evidence
from cnnbp_cli.diagnosis.facts import Labels
from cnnbp_cli.diagnosis.findings import Finding
from cnnbp_cli.diagnosis.registry import rule
from cnnbp_cli.diagnosis.remedies import as_remedy

STANDARD = ("data.normalize=standard",)

LARGE_SCALE, SMALL_SCALE = 5.0, 0.05
"""Root mean square of the input. Standardised pixels have 1, pixels from 0 to 1 between 0.1 and 0.7, raw bytes 50 to
200, and what was divided by 255 twice less than 0.003: the limits are a factor of five or more from either side."""


@rule(
    definition="The network gets pixels of a scale that its initial weights and its learning rate are not made for.",
    formula=f"root mean square of the input above {LARGE_SCALE:g}; initialisers assume about 1",
    source="LeCun et al. 1998, Efficient BackProp, section 4.3",
    advice="Standardise the pixels with the training split's mean and deviation: data.normalize: standard.",
)
def unnormalised_input(evidence: Evidence) -> Iterator[Finding]:
    data = evidence.data
    if data and data.scale > LARGE_SCALE:
        yield Finding(
            severity=evidence.verdict(STANDARD),
            evidence=f"the input has a mean of {data.mean:.3g} and a deviation of {data.deviation:.3g}, a root mean "
            f"square of {data.scale:.3g}",
            threshold=f"a root mean square above {LARGE_SCALE:g}",
            why="Activations and gradients of the first layer grow with the input, the loss's curvature with its "
            "square, and no learning rate suits that layer and the others at once.",
            remedy=as_remedy(STANDARD),
        )


@rule(
    definition="The pixels were scaled before they came here, and are scaled again.",
    formula=f"root mean square of the input below {SMALL_SCALE:g}; initialisers assume about 1",
    source="LeCun et al. 1998, Efficient BackProp, section 4.3; Humbatova et al. 2020, arXiv:1910.11015 (wrong "
    "preprocessing)",
    advice="Scale once: data.normalize: standard measures the deviation that the pixels have.",
)
def normalised_twice(evidence: Evidence) -> Iterator[Finding]:
    data = evidence.data
    if data is None:
        return
    mean, deviation, low, high = data.raw
    if 0 < data.scale < SMALL_SCALE:  # images that are all alike have no scale to mend
        yield Finding(
            severity=evidence.verdict(STANDARD),
            evidence=f"pixels from {low:.3g} to {high:.3g} in the source become {data.low:.3g} to {data.high:.3g}, a "
            f"root mean square of {data.scale:.2g}",
            threshold=f"a root mean square below {SMALL_SCALE:g}",
            why="With inputs this small the biases are all that the first layer can use, and its weights get almost "
            "no gradient.",
            remedy=as_remedy(STANDARD),
        )
    elif evidence.config.data.normalize == "standard" and low < 0 and abs(mean) < 0.05 and abs(deviation - 1) < 0.05:
        yield Finding(
            severity="info",
            evidence=f"the source's pixels have a mean of {mean:.2g} and a deviation of {deviation:.3g} already",
            threshold="a mean within 0.05 of 0 and a deviation within 0.05 of 1 before normalisation",
            why="The second normalisation changes next to nothing; raw images given to predict must be scaled like "
            "the source's, though.",
            remedy="--set data.normalize=none",
        )


CHANCE_SKILL = 0.1
"""Skill of a vote of the nearest neighbours below which images and labels have nothing to do with each other. Of 500
votes about 10 classes it is 0 ± 0.015 for shuffled labels, 0.25 on CIFAR-10 and 0.9 on digits."""

CLEAR_AGREEMENT = 0.75
"""Share of right labels where the vote is clearest: 0.98 to 1 for digits, less by the share of wrong labels."""

AGREEMENT_GAP = 0.15
"""By how much it is lower in training than among held-out images, where that alone says that labels are wrong."""


MIN_QUERIES = 200
"""Images to ask about, for a difference of 0.15 between two shares to be four times its deviation."""

MIN_TEXTURE = 0.1
"""Correlation of pixels next to each other: 0.5 to 0.95 in pictures, 0 ± 0.01 in noise."""


@rule(
    definition="Labels do not belong to their images: all of them, or some.",
    formula="ten nearest neighbours vote on each image's label, by pixel distance; their skill is below "
    f"{CHANCE_SKILL:g}, or where their vote is clearest less than {CLEAR_AGREEMENT:.0%} of the labels agree with "
    f"it, or training and "
    "held-out images each agree among themselves but not with each other",
    source="Cover and Hart 1967 (the nearest-neighbour rule errs at most twice as often as the best there is); "
    "Northcutt et al. 2021, arXiv:1911.00068 (confident learning); Zhang et al. 2017, arXiv:1611.03530 (networks fit "
    "random labels)",
    advice="Look at some images together with their labels, and at the code that wrote the files: one was sorted, "
    "shuffled or shifted without the other.",
)
def shuffled_labels(evidence: Evidence) -> Iterator[Finding]:
    data = evidence.data
    if data is None or data.labels is None:
        return
    train, held, across = data.labels, data.held_labels, data.across
    known = held is not None and held.agreement > 3 * CHANCE_SKILL
    learned = evidence.record.held is not None and evidence.record.held.skill >= 0.5
    if train.agreement < CHANCE_SKILL:
        if learned or data.texture < MIN_TEXTURE:  # images without any picture in them say nothing about their labels
            return
        contrast = f"; among the held-out images it is {held.agreement:.0%}" if held and known else ""
        yield _wrong_labels(
            f"neighbours know {train.agreement:.0%} of what there is to know about a training image's label{contrast}",
            f"less than {CHANCE_SKILL:.0%}",
        )
    elif min(train.count, held.count if held else train.count) < MIN_QUERIES:
        return
    elif across and held and known and across.agreement < min(train.agreement, held.agreement) / 2:
        yield _wrong_labels(
            f"neighbours know {train.agreement:.0%} about labels within the training images, {held.agreement:.0%} "
            f"within the held-out ones, but {across.agreement:.0%} from one to the other",
            "less than half of either",
        )
    elif _stands_out(train, held if known else None):
        wrong = 1 - train.confident
        finding = _wrong_labels(
            f"where the neighbours' vote is clearest, {wrong:.0%} of the training labels contradict it",
            f"more than {1 - CLEAR_AGREEMENT:.0%}, or {AGREEMENT_GAP:.0%} more than among the held-out images",
        )
        yield finding


def _stands_out(train: Labels, held: Labels | None) -> bool:
    if held is not None:
        return train.confident < held.confident - AGREEMENT_GAP
    return train.confident < CLEAR_AGREEMENT and train.agreement > 3 * CHANCE_SKILL


def _wrong_labels(seen: str, threshold: str) -> Finding:
    return Finding(
        severity="error",
        evidence=seen,
        threshold=threshold,
        why="What does not hang together with the images can only be learned by heart, which helps with no "
        "other image.",
        remedy="Mend the labels: compare some images with theirs, and look for a sort, a shuffle or a shift of one "
        "array without the other.",
    )


IMBALANCE = 5.0
"""Images of the largest class for one of the smallest. Losses of a recall begin between 5 and 10 (Buda et al.)."""


@rule(
    definition="Some classes have many times the training images of others.",
    formula=f"images of the largest class divided by those of the smallest, above {IMBALANCE:g}; an error where the "
    f"recall "
    "of the rarer half of the classes is less than half of that of the others",
    source="Buda, Maki and Mazurowski 2018, arXiv:1710.05381",
    advice="Collect or repeat images of the rare classes, or leave some of the common ones out; judge by recall per "
    "class, not by accuracy.",
)
def unbalanced_classes(evidence: Evidence) -> Iterator[Finding]:
    data = evidence.data
    if data is None or len(data.class_counts) < 2:
        return
    counts = data.class_counts
    most, fewest = max(counts), min(counts)
    if most <= IMBALANCE * fewest:
        return
    rare = counts.index(fewest)
    score = evidence.record.held or evidence.record.train
    limit = (most * max(1, fewest)) ** 0.5  # the geometric middle parts the rare from the common
    recalls = list(zip(counts, score.recalls, strict=False)) if score else []
    of_rare = [recall for count, recall in recalls if recall is not None and count < limit]
    of_common = [recall for count, recall in recalls if recall is not None and count >= limit]
    suffers = bool(of_rare and of_common) and _mean(of_rare) < _mean(of_common) / 2
    told = f"; recall {_mean(of_rare):.0%} for the rare, {_mean(of_common):.0%} for the common" if suffers else ""
    yield Finding(
        severity="error" if suffers or not fewest else "warning",
        evidence=f"class {counts.index(most)} has {most:,} training images, class {rare} has {fewest:,}{told}",
        threshold=f"a ratio above {IMBALANCE:g}",
        why="Always naming the common classes is nearly right and soon learned, so the rare ones get little gradient, "
        "and accuracy hides it.",
        remedy=f"Bring the classes closer together: more images of class {rare}, or fewer of class "
        f"{counts.index(most)}.",
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


NO_AUGMENTATION = ("data.augment=null",)

STRONG_SHIFT, STRONG_ROTATION, STRONG_SCALE = 0.25, 60.0, 0.5
"""Of the image's side, in degrees, and as a fraction. Shifts of a tenth, 15 degrees and a fifth are usual for digits
(Simard et al. 2003); a quarter, 60 degrees and a half leave the picture or make another sign of it."""


@rule(
    definition="The augmentation makes images that no longer show what their label says.",
    formula="a training without augmentation that is otherwise the same has at least "
    f"{CLEAR_GAIN:g} more skill on images that are not augmented; or a shift, turn or scale beyond "
    f"{STRONG_SHIFT:.0%} of the "
    f"side, {STRONG_ROTATION:g} degrees or {STRONG_SCALE:g}",
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
    helps = evidence.helps(NO_AUGMENTATION)
    if not strong and (evidence.well or not helps):
        return
    trial = evidence.trials.get(NO_AUGMENTATION)
    told = f"; without it the skill is {trial.skill:.0%} instead of {evidence.record.skill:.0%}" if trial else ""
    yield Finding(
        severity=evidence.verdict(NO_AUGMENTATION),
        evidence=f"shifts of up to {augment.shift} of {side} pixels, turns of up to {augment.rotate:g} degrees, scales "
        f"of up to ±{augment.scale:.0%}{told}",
        threshold=f"more than {CLEAR_GAIN:g} of skill lost, or beyond {STRONG_SHIFT:.0%} of the side, "
        f"{STRONG_ROTATION:g} "
        f"degrees or {STRONG_SCALE:.0%}",
        why="An image that has left the picture, or looks like another class, teaches something wrong.",
        remedy=as_remedy(NO_AUGMENTATION),
    )


LEAK_SHARE = 0.01
"""Share of held-out images: published sets have up to 1 % of exact repetitions by accident (Barz and Denzler)."""


@rule(
    definition="Images that the network is tested on are among those that it is trained on.",
    formula=f"share of held-out images that equal a training image in every pixel, above {LEAK_SHARE:.0%} and "
    "above twice the "
    "share of repetitions among the training images",
    source="Barz and Denzler 2020, arXiv:1902.00423; Kapoor and Narayanan 2023, Leakage and the reproducibility crisis",
    advice="Split the data anew so that no image is on both sides, and measure again.",
)
def data_leak(evidence: Evidence) -> Iterator[Finding]:
    data = evidence.data
    if data and data.leaked > max(LEAK_SHARE, 2 * data.repeated):
        yield Finding(
            severity="error",
            evidence=f"{data.leaked:.0%} of the {data.held_count:,} held-out images are among the training images, to "
            "the last pixel",
            threshold=f"more than {LEAK_SHARE:.0%}",
            why="What was learned by heart counts as understood, so the test promises more than new images will keep.",
            remedy="Split the data anew, with every image on one side only.",
        )
