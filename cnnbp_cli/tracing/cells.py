"""The names of cells: ``conv1[2,5,7]``, ``input[0,3,3]``, ``conv1.weight[0,0,1,2]``, ``dense_1.bias[3]``, ``loss``.

A name is a tensor and an index into its public shape: (c, h, w) of an image, (features,) of a vector, a parameter's as
it is stored. Tensors are the layers by name, ``input``, parameters as ``layer.key``, and what the loss knows:
``prediction``, ``target`` and ``loss`` itself, which is one number and has no index.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cnnbp_cli.config.errors import suggestion
from cnnbp_cli.core.types import Shape
from cnnbp_cli.errors import UserError

LONGEST = 80
"""Characters of a name that a message repeats."""

AXES = {1: ("k",), 2: ("k", "m"), 3: ("c", "h", "w"), 4: ("f", "c", "i", "j")}
"""Letters for the indices of a tensor with so many axes, for messages."""


class CellError(UserError, ValueError):
    """A name that is no cell of this network, or a question that this cell has no answer to."""


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One number of one tensor."""

    tensor: str
    index: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.tensor}[{','.join(map(str, self.index))}]" if self.index else self.tensor


def parse_cell(text: str, shapes: Mapping[str, Shape]) -> Cell:
    """Return the cell that `text` names.

    Parameters
    ----------
    shapes : mapping of str to Shape
        The public shape of every tensor there is.

    Raises
    ------
    CellError
        When there is no such tensor, or the index is not one of its cells.
    """
    text = text.strip()
    quoted = repr(text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")
    if text in shapes:  # also a layer whose own name ends with a bracket
        if shapes[text]:
            raise CellError(f"{quoted}: names a whole tensor; its cells are {described(text, shapes[text])}")
        return Cell(text)
    match = re.fullmatch(r"(.+)\[([^\[\]]*)\]", text, re.DOTALL)
    tensor = match[1].rstrip() if match else text
    if tensor not in shapes:
        raise CellError(f"{quoted}: there is no {tensor[:LONGEST]!r}{suggestion(tensor, list(shapes))}")
    shape, index = shapes[tensor], match[2] if match else ""
    parts = [part.strip() for part in index.split(",")]
    good = len(parts) == len(shape) and all(re.fullmatch(r"[0-9]{1,9}", part) for part in parts)
    if not good or not all(int(part) < size for part, size in zip(parts, shape, strict=True)):
        cells = (
            f"those of {tensor} are {described(tensor, shape)}" if shape else f"it is just {tensor}, without an index"
        )
        raise CellError(f"{quoted}: is no cell; {cells}")
    return Cell(tensor, tuple(map(int, parts)))


def described(tensor: str, shape: Shape) -> str:
    """Say what the cells of a tensor are: ``conv1[c,h,w] with c from 0 to 5, h from 0 to 27, w from 0 to 27``."""
    letters = AXES.get(len(shape), tuple(f"i{axis}" for axis in range(len(shape))))
    ranges = ", ".join(f"{letter} from 0 to {size - 1}" for letter, size in zip(letters, shape, strict=True))
    return f"{tensor}[{','.join(letters)}] with {ranges}"
