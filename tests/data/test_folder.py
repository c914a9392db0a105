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


@pytest.fixture
def into_files(pets, data_config):
    """Return what converts the pets into a folder of npy files, and the folder."""
    from cnnbp_cli.data.convert_pictures import convert_pictures

    def converted(out, **fields):
        return convert_pictures(data_config("folder", path=pets, **fields), SHAPE, 0, out)

    return converted


def test_converted_to_files_it_is_the_same(pets, load, into_files, tmp_path, data_config):
    assert into_files(tmp_path / "npy") == {"train": 6, "test": 2}
    assert not (tmp_path / "npy" / "progress.json").exists()
    before = load(pets)
    after = load_dataset(data_config("npy", path=tmp_path / "npy", classes=("cat", "dog")), SHAPE, 0)
    for one, other in ((before.train, after.train), (before.test, after.test)):
        np.testing.assert_array_equal(other.images, one.images)
        np.testing.assert_array_equal(other.labels, one.labels)
    assert after.class_names == before.class_names


def test_a_conversion_that_was_stopped_goes_on(pets, into_files, tmp_path, monkeypatch):
    from cnnbp_cli.data import convert_pictures

    whole, out = tmp_path / "whole", tmp_path / "npy"
    into_files(whole)
    monkeypatch.setattr(convert_pictures, "AT_A_TIME", 2)
    read = []
    inner = convert_pictures.fitted_pictures

    def stopping(paths, *rest):
        for k, picture in enumerate(inner(paths, *rest)):
            if k == 3 and not read:
                read.append(k)
                raise KeyboardInterrupt
            yield picture

    monkeypatch.setattr(convert_pictures, "fitted_pictures", stopping)
    with pytest.raises(KeyboardInterrupt):
        into_files(out)
    assert json.loads((out / "progress.json").read_text())["done"]["train"]["read"] == 2
    seen = []
    monkeypatch.setattr(
        convert_pictures, "fitted_pictures", lambda paths, *rest: seen.append(len(paths)) or inner(paths, *rest)
    )
    into_files(out)
    assert seen == [4, 2]
    for name in ("x_train", "y_train", "x_test", "y_test"):
        assert (out / f"{name}.npy").read_bytes() == (whole / f"{name}.npy").read_bytes()


def test_other_pictures_are_converted_anew(pets, into_files, tmp_path, monkeypatch):

    (tmp_path / "npy").mkdir()
    (tmp_path / "npy" / "progress.json").write_text(
        '{"pictures": "others", "done": {"train": {"read": 3, "broken": [0]}}}'
    )
    assert into_files(tmp_path / "npy") == {"train": 6, "test": 2}
    assert np.load(tmp_path / "npy" / "x_train.npy").shape == (6, *SHAPE)


def test_broken_pictures_are_left_out_of_files(pets, into_files, tmp_path):
    (pets / "train" / "cat" / "1.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"1.png.*remove it, or leave it out with `data.on_error: skip`"):
        into_files(tmp_path / "npy")
    assert into_files(tmp_path / "npy", on_error="skip") == {"train": 5, "test": 2}
    images, labels = (np.load(tmp_path / "npy" / f"{name}_train.npy") for name in "xy")
    assert images.shape == (5, *SHAPE)
    assert labels.tolist() == ["cat"] * 3 + ["dog"] * 2


def test_files_with_a_test_set_aside(pets, load, into_files, tmp_path, data_config):
    for folder in sorted((pets / "test").rglob("*"), reverse=True):
        folder.unlink() if folder.is_file() else folder.rmdir()
    (pets / "test").rmdir()
    (pets / "train").rename(pets / "pictures")
    from cnnbp_cli.data.convert_pictures import convert_pictures

    config = data_config("folder", path=pets / "pictures", test=2)
    assert convert_pictures(config, SHAPE, 0, tmp_path / "npy") == {"train": 4, "test": 2}
    before = load(pets / "pictures", test=2)
    np.testing.assert_array_equal(np.load(tmp_path / "npy" / "x_test.npy"), before.test.images)


@pytest.mark.parametrize("name", ["x_train.npy", "y_test.npy"])
def test_files_that_no_conversion_left_are_not_touched(into_files, tmp_path, name):
    np.save(tmp_path / name, np.arange(5))
    before = (tmp_path / name).read_bytes()
    with pytest.raises(DataError, match=rf"{name}: exists already; remove it, or choose another folder"):
        into_files(tmp_path)
    assert (tmp_path / name).read_bytes() == before
