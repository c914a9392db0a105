"""CSV files: tolerant of a header and of blank lines, exact about everything else."""

import os

import numpy as np
import pytest

from cnnbp_cli.config.schema import Csv
from cnnbp_cli.data.csv import read_table
from cnnbp_cli.data.dataset import check_labels, load_dataset
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


def message(path, key="data.path", **how):
    with pytest.raises(DataError) as caught:
        read_table(path, SHAPE, key, **how)
    return str(caught.value)


def read(path, shape=SHAPE, **fields):
    return load_dataset(Csv(path=path, **fields), shape, seed=0)


@pytest.mark.parametrize(
    "text",
    [
        "7,0,1,2,255\n3,4,5,6,7\n",
        "7,0,1,2,255\r\n3,4,5,6,7",
        "label,p0,p1,p2,p3\n7,0,1,2,255\n3,4,5,6,7\n",
        "\n\nlabel,p0,p1,p2,p3\n\n7,0,1,2,255\n\n3,4,5,6,7\n\n",
        "\ufeff7,0,1,2,255\n3,4,5,6,7\n",
        "\ufefflabel,p0,p1,p2,p3\n 7 , 0,1,+2,255\n3,4,5,006,7\n",
        "label,1x1,1x2,2x1,2x2\n7,0,1,2,255\n3,4,5,6,7\n",
        '"label","a","b","c","d"\n"7","0","1","2","255"\n"3","4","5","6","7"\n',
        "7;0;1;2;255\n3;4;5;6;7\n",
        "7\t0\t1\t2\t255\n3\t4\t5\t6\t7\n",
        "7 0 1  2 255\n3 4 5 6 7\n",
        "p0,p1,p2,p3,class\n0,1,2,255,7\n4,5,6,7,3\n",
        "p0,p1,Label,p2,p3\n0,1,7,2,255\n4,5,3,6,7\n",
    ],
)
def test_accepted(write, text):
    split = read(write(text)).train
    np.testing.assert_array_equal(split.images, [[[[0, 1], [2, 255]]], [[[4, 5], [6, 7]]]])
    np.testing.assert_array_equal(split.labels, [7, 3])
    assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int64)
    assert split.images.flags.c_contiguous


def test_one_sample(write):
    assert read(write("7,0,1,2,255")).train.images.shape == (1, 1, 2, 2)


def test_channels_follow_each_other(write):
    split = read(write("0,1,2,3,4\n"), (2, 1, 2)).train
    np.testing.assert_array_equal(split.images, [[[[1, 2]], [[3, 4]]]])


def test_names_that_pandas_gives_are_a_header(write):
    names = ",".join(map(str, range(10)))
    split = read(write(f"{names}\n1,0,1,2,3,4,5,6,7,255\n"), (1, 3, 3)).train
    np.testing.assert_array_equal(split.images.ravel(), [0, 1, 2, 3, 4, 5, 6, 7, 255])


@pytest.mark.parametrize(
    ("label", "of_first"),
    [("first", 1), ("last", 5), (0, 1), (2, 3), (-1, 5), (-5, 1), ("b", 2), ("class", 5), ("auto", 5)],
)
def test_column_of_the_label(write, label, of_first):
    train = read(write("a,b,c,d,class\n1,2,3,4,5\n6,7,8,9,0\n"), label=label).train
    assert train.labels.tolist() == [of_first, (of_first + 5) % 10]
    assert train.images[0].ravel().tolist() == [k for k in range(1, 6) if k != of_first]


def test_a_choice_that_the_header_does_not_agree_with_is_remarked(write):
    path = write("a,b,c,d,class\n1,2,3,4,5\n6,7,8,9,0\n")
    assert read(path, label="class").remarks == ()
    assert read(path).remarks == (f"csv {path}: the label is 'class', field 5, as the header says",)
    assert read(path, label="first").remarks == (
        f"csv {path}: the label is read from field 1, 'a', but the header calls field 5 'class'; `data.label: class` "
        "reads that one",
    )


def test_names_are_numbered_alphabetically(write, tmp_path):
    path = write('dög,0,1,2,3\n"cat, or so",4,5,6,7\ndög,0,0,0,0\n')
    (tmp_path / "test.csv").write_text('"cat, or so",1,1,1,1\n')
    data = read(path, test_path=tmp_path / "test.csv")
    assert (data.class_names, data.classes) == (("cat, or so", "dög"), 2)
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([1, 0, 1], [0])
    (tmp_path / "test.csv").write_text("cow,1,1,1,1\n")
    with pytest.raises(DataError) as caught:
        read(path, test_path=tmp_path / "test.csv")
    assert str(caught.value) == (
        f"{tmp_path}/test.csv: label 'cow' of sample 0 is none of the classes: cat, or so, dög"
    )


def test_pixels_that_are_not_bytes_are_floats(write, tmp_path):
    data = read(write("0,0.5,1,0,1e-1\n1,0,0,0,0\n"))
    assert data.train.images.dtype == np.float32
    np.testing.assert_array_equal(data.train.images[0].ravel(), np.float32([0.5, 1, 0, 0.1]))
    assert read(write("0,-1,256,0,1000\n")).train.images.ravel().tolist() == [-1, 256, 0, 1000]
    (tmp_path / "test.csv").write_text("0,1,1,1,1\n")
    data = read(write("0,0.5,1,0,1e-1\n1,0,0,0,0\n"), test_path=tmp_path / "test.csv")
    assert (data.train.images.dtype, data.test.images.dtype) == (np.float32, np.float32)


def test_tables_without_labels_are_for_prediction(write):
    path = write("pixel0,pixel1,pixel2,pixel3\n0,1,2,3\n")
    table = read_table(path, SHAPE, "IMAGE", may_lack_labels=True)
    assert table.labels is None
    np.testing.assert_array_equal(table.images.ravel(), [0, 1, 2, 3])
    assert message(path) == (
        f"{path}: line 2 has 4 fields, expected 5: a label and the pixels of `model.input: [1, 2, 2]`; is the label "
        "missing? tables without labels are for `cnnbp predict`"
    )
    with pytest.raises(DataError) as caught:
        read(path, label="none")
    assert str(caught.value) == (
        f"{path}: `data.label: none` leaves nothing to learn or to test; name the label's column"
    )
    assert read_table(write("5,0,1,2,3\n"), SHAPE, "IMAGE", may_lack_labels=True).labels.tolist() == ["5"]


COMPLAINTS = {
    "1,0,0,0,0\n2,0,0,0\n": (
        "line 2 has 4 fields, expected 5: a label and the pixels of `model.input: [1, 2, 2]`; is the label missing? "
        "tables without labels are for `cnnbp predict`"
    ),
    "1,0,0,0,0\n2;0;0;0;0\n": "line 2 is separated by ';', not by ','; write `data.delimiter: ';'`",
    "a,class,c,d,digit\n0,0,0,0,1\n": (
        "the header has 'class' (field 2) and 'digit' (field 5), which may all be the label; write `data.label: class`"
    ),
    "head\n\n1,0,0,0,0\n\n2,0,0,0,0,0\n": (
        "line 5 has 6 fields, expected 5: a label and the pixels of `model.input: [1, 2, 2]`; "
        "fix the line or model.input"
    ),
    "1,0,0,0,0\n2,0,x,0,0\n": "line 2, field 3: the pixel is 'x', expected a number",
    "1,0,0,0,0\n2,0,,0,0\n": "line 2, field 3: the pixel is '', expected a number",
    "1,0,0,0,0\n2,0,0,0,nan\n": "line 2, field 5: the pixel is 'nan', expected a number",
    "1,0,0,0,0\n2,0,1e39,0,0\n": "line 2, field 3: the pixel is '1e39', expected a number",
    "1;0;0;0,5;0\n": "line 1, field 4: the pixel is '0,5', expected a number; write decimals with a point",
    "1,0,0,0,0\n,0,0,0,0\n": "line 2, field 1: the label is missing",
    "9" * 5000 + ",0,0,0,0\n": "line 1, field 1: the label has more than 200 characters",
    "1,0,0,0,0\n1,0,0,0\x1d,0,0\n": (
        "line 2 has 6 fields, expected 5: a label and the pixels of `model.input: [1, 2, 2]`; "
        "fix the line or model.input"
    ),
    "1,0,0,0,0\n1,0,0\x1c7,0,0\n": "line 2, field 3: the pixel is '0\\x1c7', expected a number",
    "1,0,0,0,0\n1,0,0,0,é\n": "line 2, field 5: the pixel is 'é', expected a number",
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


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("species", "the header has no column 'species', which `data.label` names; it has a, b, c, d, e"),
        (5, "has no column 5; `data.label` counts from 0 to 4, or from -1 back"),
        (-6, "has no column -6; `data.label` counts from 0 to 4, or from -1 back"),
    ],
)
def test_column_that_is_not_there(write, label, expected):
    path = write("a,b,c,d,e\n1,2,3,4,5\n")
    assert message(path, label=label) == f"{path}: {expected}"
    path = write("1,2,3,4,5\n")
    assert message(path, label="e") == (
        f"{path}: has no header, so that no column is called 'e'; `data.label` may be first, last or an index"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "1,0,0,0,0\none,0,0,0,0\n",
            "label 'one' of sample 1 is text, and others are numbers, such as '1'; if all are names, list them in "
            "`data.classes`",
        ),
        ("1,0,0,0,0\n-1,0,0,0,0\n", "label 1 is -1, expected a class number; classes start at 0; write 0 for -1"),
        ("99999999999999999999,0,0,0,0\n", "label 99999999999999999999 is beyond 64 bits, expected a class number"),
    ],
)
def test_labels_that_are_none(write, text, expected):
    path = write(text)
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value) == f"{path}: {expected}"


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


def test_labels_that_are_no_classes_may_be_in_another_column(tmp_path):
    """As where a table without a header has them last."""
    np.savetxt(tmp_path / "last.csv", [[200, 3, 9, 7, 1], [90, 2, 5, 6, 0]], "%d", ";")
    data = load_dataset(Csv(path=tmp_path / "last.csv"), (1, 2, 2), 0)
    with pytest.raises(DataError) as caught:
        check_labels(data, 2)
    message = str(caught.value)
    assert "label 200 of sample 0 in the train split is outside the model's 2 classes" in message
    assert "; is it in another column? `data.label` says which it is; else the labels are 90, 200: " in message
