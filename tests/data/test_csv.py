"""CSV files: tolerant of a header and of blank lines, exact about everything else."""

import os

import numpy as np
import pytest

from cnnbp_cli.data.csv import read_csv
from cnnbp_cli.data.dataset import load_dataset
from cnnbp_cli.data.errors import DataError

SHAPE = (1, 2, 2)


@pytest.fixture
def write(tmp_path):
    """Return a writer of `set.csv`."""

    def build(content):
        path = tmp_path / "set.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return build


def message(path, key="data.path"):
    with pytest.raises(DataError) as caught:
        read_csv(path, SHAPE, key)
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "7,0,1,2,255\n3,4,5,6,7\n",
        "7,0,1,2,255\r\n3,4,5,6,7",
        "label,p0,p1,p2,p3\n7,0,1,2,255\n3,4,5,6,7\n",
        "\n\nlabel,p0,p1,p2,p3\n\n7,0,1,2,255\n\n3,4,5,6,7\n\n",
        "\ufeff7,0,1,2,255\n3,4,5,6,7\n",
        "\ufefflabel,p0,p1,p2,p3\n 7 , 0,1,+2,255\n3,4,5,006,7\n",
    ],
)
def test_accepted(write, text):
    split = read_csv(write(text), SHAPE, "data.path")
    np.testing.assert_array_equal(split.images, [[[[0, 1], [2, 255]]], [[[4, 5], [6, 7]]]])
    np.testing.assert_array_equal(split.labels, [7, 3])
    assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int64)
    assert split.images.flags.c_contiguous


def test_one_sample(write):
    assert read_csv(write("7,0,1,2,255"), SHAPE, "data.path").images.shape == (1, 1, 2, 2)


def test_channels_follow_each_other(write):
    split = read_csv(write("0,1,2,3,4\n"), (2, 1, 2), "data.path")
    np.testing.assert_array_equal(split.images, [[[[1, 2]], [[3, 4]]]])


COMPLAINTS = {
    "1,0,0,0,0\n2,0,0,0\n": (
        "line 2 has 4 fields, expected 5: a label and the pixels of `model.input: [1, 2, 2]`; is the label missing?"
    ),
    "1;0;0;0;0\n2;0;0;0;0\n": "line 1 is separated by ';'; write commas",
    "1\t0\t0\t0\t0\n": "line 1 is separated by '\\t'; write commas",
    "label;a;b;c;d\n2;0;0;0;0\n": "line 2 is separated by ';'; write commas",
    "1,0,0,0,0\n2.0,0,0,0,0\n": "line 2, field 1: the label is '2.0', expected a whole number; write 2",
    "0.0,0,0,0,0\n": "line 1, field 1: the label is '0.0', expected a whole number; write 0",
    "1,0,0,0,0\n2,0,7.0,0,0\n": "line 2, field 3: the pixel is '7.0', expected a whole number; write 7",
    "a,b,c,d,class\n0,0,0,0,1\n": (
        "the header calls field 5 'class', but the label has to be the first field, which is 'a'; move that column to "
        "the front"
    ),
    '"p0","p1","Label","p2","p3"\n0,0,0,0,1\n': (
        "the header calls field 3 'Label', but the label has to be the first field, which is 'p0'; move that column to "
        "the front"
    ),
    "head\n\n1,0,0,0,0\n\n2,0,0,0,0,0\n": (
        "line 5 has 6 fields, expected 5: a label and the pixels of `model.input: [1, 2, 2]`; "
        "fix the line or model.input"
    ),
    "1,0,0,0,0\n2,0,x,0,0\n": "line 2, field 3: the pixel is 'x', expected a whole number",
    "1,0,0,0,0\n2,0,,0,0\n": "line 2, field 3: the pixel is '', expected a whole number",
    "1,0,0,0,0\n2,0,0,0,nan\n": "line 2, field 5: the pixel is 'nan', expected a whole number",
    "1,0,0,0,0\n2,0,0.5,0,0\n": (
        "line 2, field 3: the pixel is '0.5', expected a whole number; pixels are 0 to 255: multiply them by 255 and "
        "round"
    ),
    "1,0,0,0,0\none,0,0,0,0\n": "line 2, field 1: the label is 'one', expected a whole number",
    "1,0,0,256,0\n": "line 1, field 4: the pixel is 256, expected 0 to 255",
    "1,0,0,-1,0\n": "line 1, field 4: the pixel is -1, expected 0 to 255",
    "1,0,0,0,0\n-1,0,0,0,0\n": "line 2: the label is -1, expected a class number; classes start at 0",
    "99999999999999999999,0,0,0,0\n": (
        "line 1: the label is 99999999999999999999, expected a class number; classes start at 0"
    ),
    "9" * 5000 + ",0,0,0,0\n": (
        "line 1: the label is 99999999999999999999, expected a class number; classes start at 0"
    ),
    "1,0,0,0,0\n1,0,0,0\x1d,0,0\n": (
        "line 2 has 6 fields, expected 5: a label and the pixels of `model.input: [1, 2, 2]`; "
        "fix the line or model.input"
    ),
    "1,0,0,0,0\n1,0,0\x1c7,0,0\n": "line 2, field 3: the pixel is '0\\x1c7', expected a whole number",
    "": "has no samples; expected lines of a label and 4 pixels",
    "\n\n": "has no samples; expected lines of a label and 4 pixels",
    "label,p0,p1,p2,p3\n": "has no samples; expected lines of a label and 4 pixels",
    b"\x1f\x8b\x08\x00": "is not a text file; expected comma-separated numbers, not packed",
    b"1,0,0,0,0\n" * 20000 + b"1,0,0,0,\xff\n": "is not a text file; expected comma-separated numbers, not packed",
}


@pytest.mark.parametrize("content", COMPLAINTS, ids=range(len(COMPLAINTS)))
def test_complaint(write, content):
    path = write(content)
    assert message(path) == f"{path}: {COMPLAINTS[content]}"


def test_missing_file(tmp_path):
    path = tmp_path / "no.csv"
    assert message(path) == f"{path}: does not exist; check the path (a relative one starts at the config's folder)"


def test_folder_in_place_of_a_file(tmp_path):
    assert message(tmp_path, "data.test_path") == f"{tmp_path}: is a folder; `data.test_path` names a file"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert message(tmp_path / "pipe") == f"{tmp_path}/pipe: is not a regular file; copy the data into one"


def test_as_a_source(write, tmp_path, data_config):
    path = write("2,0,1,2,255\n3,4,5,6,7\n")
    test_path = tmp_path / "test.csv"
    test_path.write_text("0,9,9,9,9\n")
    dataset = load_dataset(data_config("csv", path=path, test_path=test_path), SHAPE, seed=0)
    assert (dataset.name, dataset.classes) == (f"csv {path}", 4)
    np.testing.assert_array_equal(dataset.test.images, np.full((1, 1, 2, 2), 9))
    assert load_dataset(data_config("csv", path=path), SHAPE, seed=0).test is None
