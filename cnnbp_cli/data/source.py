"""What a source hands over to `dataset`, which makes the data set of it: arrays as they stand there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cnnbp_cli.data.split import Split


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """The splits of a source, before anything is held out, and before labels become class numbers.

    Attributes
    ----------
    origin : str
        The source and where it lies, for people.
    train : Split
        Its labels may be of any kind: numbers, booleans, texts, one-hot rows, masks or images.
    validation, test : Split or None
        None where the source has none.
    classes : int or None
        How many it declares.
    class_names : tuple of str, or None
        In the order of the class numbers.
    labels_at : mapping of str to str
        What messages call the labels of ``train``, ``validation`` and ``test``.
    remarks : tuple of str
        What is no error, but should be known.
    """

    origin: str
    train: Split
    validation: Split | None = None
    test: Split | None = None
    classes: int | None = None
    class_names: tuple[str, ...] | None = None
    labels_at: Mapping[str, str] = field(default_factory=dict[str, str])
    remarks: tuple[str, ...] = ()

    def splits(self) -> Iterator[tuple[str, Split]]:
        """Yield the splits that there are, with their names."""
        for name in ("train", "validation", "test"):
            if (split := getattr(self, name)) is not None:
                yield name, split

    def where(self, split: str) -> str:
        """Return what messages call the labels of a split."""
        return self.labels_at.get(split, f"{self.origin}: the labels of the {split} split")
