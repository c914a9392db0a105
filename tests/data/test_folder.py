"""Folders of pictures: the layouts that occur, what is done to each picture, and pictures that are none."""

import json

import numpy as np
import pytest

from cnnbp_cli.data.dataset import load_dataset
from cnnbp_cli.data.errors import DataError
from cnnbp_cli.data.pictures import read_pictures
from cnnbp_cli.data.progress import listening

Image = pytest.importorskip("PIL.Image")

SHAPE = (1, 6, 8)
RNG = np.random.default_rng(1)


def draw(path, size=(8, 6), mode="L"):
    """Write a picture of random pixels, and return its file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = RNG.integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels, mode if channels > 1 else None).save(path)
    return path


@pytest.fixture
def pets(tmp_path):
    """Four cats and two dogs to learn, and one of each for the test."""
    for k in range(4):
        draw(tmp_path / "train" / "cat" / f"{k}.png")
    for k in range(2):
        draw(tmp_path / "train" / "dog" / f"{k}.jpg")
    draw(tmp_path / "test" / "cat" / "a.PNG")
    draw(tmp_path / "test" / "dog" / "deeper" / "b.bmp")
    return tmp_path


def message(load, *arguments, **fields):
    with pytest.raises(DataError) as caught:
        load(*arguments, **fields)
    return str(caught.value)


@pytest.fixture
def load(data_config):
    def loaded(path, shape=SHAPE, seed=0, **fields):
        return load_dataset(data_config("folder", path=path, **fields), shape, seed)

    return loaded


def test_splits_and_classes(pets, load):
    data = load(pets)
    assert (data.class_names, data.classes, data.name) == (("cat", "dog"), 2, f"folder {pets}")
    assert data.train.labels.tolist() == [0, 0, 0, 0, 1, 1]
    assert data.test.labels.tolist() == [0, 1]
    with Image.open(pets / "train" / "cat" / "2.png") as picture:
        np.testing.assert_array_equal(data.train.images[2, 0], np.asarray(picture))


def test_validation_folder(pets, load):
    draw(pets / "val" / "dog" / "a.png")
    assert load(pets).validation.labels.tolist() == [1]
    assert message(load, pets, validation=0.5) == (
        f"folder {pets}: has a validation split of its own; leave out `data.validation`"
    )


def test_classes_alone_and_a_test_set_aside(pets, load):
    data = load(pets / "train", test=0.34)
    assert (len(data.train), data.test.labels.tolist()) == (4, [0, 1])
    assert [np.count_nonzero(data.train.labels == k) for k in (0, 1)] == [3, 1]
    again, other = load(pets / "train", test=2), load(pets / "train", test=2, seed=1)
    np.testing.assert_array_equal(again.test.images, data.test.images)
    assert not np.array_equal(other.test.images, data.test.images)
    assert load(pets / "train").test is None
    assert message(load, pets, test=0.5) == f"{pets}: has a folder test; leave out `data.test`"
    assert message(load, pets / "train", test=6) == "data.test: 6 sets aside 6 of 6 pictures; leave one to train on"


def test_classes_are_in_natural_order_or_the_declared_one(tmp_path, load):
    for name in ("class 10", "class 9", "class 1"):
        draw(tmp_path / name / "a.png")
    assert load(tmp_path).class_names == ("class 1", "class 9", "class 10")
    assert load(tmp_path, classes=("class 9", "class 10", "class 1")).train.labels.tolist() == [2, 1, 0]
    assert message(load, tmp_path, classes=("class 1", "class 9")) == (
        f"{tmp_path}: label 'class 10' of sample 1 is none of the classes: class 1, class 9"
    )


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(8, 6), (30, 10), (5, 17)])
def test_pictures_are_fitted_as_predict_fits_them(tmp_path, load, mode, channels, size):
    picture = draw(tmp_path / "some" / "a.png", size, mode)
    shape = (channels, *SHAPE[1:])
    np.testing.assert_array_equal(load(tmp_path, shape).train.images, read_pictures(picture, shape)[0].images)


def test_turned_and_deep_pictures(tmp_path, load):
    (tmp_path / "some").mkdir()
    pixels = RNG.integers(0, 256, (8, 6), dtype=np.uint8)
    turned, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    turned.save(tmp_path / "some" / "a.png", exif=exif)
    Image.fromarray(pixels.T.astype(np.uint16) * 257).save(tmp_path / "some" / "b.png")
    images = load(tmp_path).train.images
    np.testing.assert_array_equal(images[0, 0], np.rot90(pixels, -1))
    np.testing.assert_array_equal(images[1, 0], pixels.T)


def test_several_threads_change_nothing(pets, load, monkeypatch):
    alone = load(pets)
    monkeypatch.setattr("cnnbp_cli.data.folder.LARGE", 0)
    monkeypatch.setattr("cnnbp_cli.data.folder.CHUNK", 2)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    heard = []
    with listening(heard.append):
        np.testing.assert_array_equal(load(pets).train.images, alone.train.images)
    assert [(one.done, one.total) for one in heard] == [(2, 8), (4, 8), (6, 8), (8, 8)]


def test_broken_pictures_are_named_and_counted(pets, load):
    for name in ("x.png", "y.png"):
        (pets / "train" / "cat" / name).write_bytes(b"no picture")
    (pets / "train" / "cat" / "notes.txt").write_text("no picture, and not called one")
    (pets / "train" / "cat" / "._0.png").write_bytes(b"hidden")
    path = pets / "train" / "cat" / "x.png"
    assert message(load, pets) == (
        f"{path}: is not a picture that Pillow can read (cannot identify image file {str(path)!r}); 1 more of 10 "
        "cannot be read either: remove them, or leave them out with `data.on_error: skip`"
    )
    data = load(pets, on_error="skip")
    assert len(data.train) == 6
    assert data.remarks == (
        f"folder {pets}: 2 of 10 pictures left out, as they cannot be read: {path}, {path.with_name('y.png')}",
    )


def test_folders_that_are_none(tmp_path, load):
    (tmp_path / "file").write_text("")
    assert message(load, tmp_path / "file") == f"{tmp_path}/file: is a file; `data.path` names a folder of pictures"
    assert message(load, tmp_path / "no") == (
        f"{tmp_path}/no: does not exist; check the path (a relative one starts at the config's folder)"
    )
    assert message(load, tmp_path) == (
        f"{tmp_path}: has no folders; expected one for each class, such as {tmp_path}/cat/1.png"
    )
    (tmp_path / "cat").mkdir()
    assert message(load, tmp_path) == (
        f"{tmp_path}: has no pictures; expected files that end in .png, .jpg, .jpeg, .gif, .bmp, .ppm, .pgm, .pbm, "
        ".webp"
    )
    draw(tmp_path / "cat" / "a.png")
    assert message(load, tmp_path, (2, 6, 8)) == (
        f"{tmp_path}: the model takes 2 channels, and pictures have 1, 3 or 4; give an array (npy)"
    )


def test_converted_it_is_the_same(pets, load, tmp_path, capsys):
    from cnnbp_cli.cli.app import app

    model = "{input: [1, 6, 8], layers: [flatten, {type: dense, units: 2}]}"
    config = tmp_path / "pets.yaml"
    config.write_text(f"data: {{source: folder, path: ., validation: 2}}\nmodel: {model}\n")
    with pytest.raises(SystemExit) as caught:
        app(["data", "convert", str(config), str(tmp_path / "pets.npz"), "--format", "json"])
    assert caught.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {
        "data": {"source": "npz", "path": f"{tmp_path}/pets.npz", "classes": ["cat", "dog"]},
        "counts": {"train": 6, "test": 2},
    }
    before = load(pets)
    with np.load(tmp_path / "pets.npz") as arrays:
        np.testing.assert_array_equal(arrays["x_train"], before.train.images)
        np.testing.assert_array_equal(arrays["y_test"], before.test.labels)
