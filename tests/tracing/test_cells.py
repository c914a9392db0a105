"""The names of cells: what is understood, what is complained about, and how."""

from __future__ import annotations

import pytest

from cnnbp_cli.tracing.cells import Cell, CellError, parse_cell

SHAPES = {
    "input": (1, 6, 6),
    "conv1": (2, 4, 4),
    "odd[1]": (3,),
    "dense_1": (3,),
    "conv1.weight": (2, 1, 3, 3),
    "conv1.bias": (2,),
    "loss": (),
}


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("conv1[1,2,3]", Cell("conv1", (1, 2, 3))),
        (" conv1 [ 1, 2 ,3 ] ", Cell("conv1", (1, 2, 3))),
        ("dense_1[0]", Cell("dense_1", (0,))),
        ("conv1.weight[1,0,2,2]", Cell("conv1.weight", (1, 0, 2, 2))),
        ("odd[1][2]", Cell("odd[1]", (2,))),
        ("loss", Cell("loss")),
    ],
)
def test_a_name_is_a_tensor_and_an_index(text, cell):
    assert parse_cell(text, SHAPES) == cell
    assert parse_cell(str(cell), SHAPES) == cell


CONV = "conv1[c,h,w] with c from 0 to 1, h from 0 to 3, w from 0 to 3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("conv1", f"'conv1': names a whole tensor; its cells are {CONV}"),
        ("conv1[1,2]", f"'conv1[1,2]': is no cell; those of conv1 are {CONV}"),
        ("conv1[1,2,4]", f"'conv1[1,2,4]': is no cell; those of conv1 are {CONV}"),
        ("conv1[1,2,-1]", f"'conv1[1,2,-1]': is no cell; those of conv1 are {CONV}"),
        ("conv1[1,2,x]", f"'conv1[1,2,x]': is no cell; those of conv1 are {CONV}"),
        ("conv1[]", f"'conv1[]': is no cell; those of conv1 are {CONV}"),
        ("conv1[٣,0,0]", f"'conv1[٣,0,0]': is no cell; those of conv1 are {CONV}"),
        ("cnv1[0,0,0]", "'cnv1[0,0,0]': there is no 'cnv1', did you mean 'conv1'?"),
        ("conv1.wieght[0]", "'conv1.wieght[0]': there is no 'conv1.wieght', did you mean 'conv1.weight'?"),
        ("conv1.bias[2]", "'conv1.bias[2]': is no cell; those of conv1.bias are conv1.bias[k] with k from 0 to 1"),
        ("loss[0]", "'loss[0]': is no cell; it is just loss, without an index"),
    ],
)
def test_what_is_no_cell_is_told_with_what_there_is(text, message):
    with pytest.raises(CellError) as caught:
        parse_cell(text, SHAPES)
    assert str(caught.value) == message


def test_a_message_does_not_repeat_what_is_endless():
    with pytest.raises(CellError) as caught:
        parse_cell("<script>" * 2000 + "[0]", SHAPES)
    assert len(str(caught.value)) < 400
