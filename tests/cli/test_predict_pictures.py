"""Pictures of digits, as people have them: all of one digit are told as that digit, and drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli.bars import Command
from typer.testing import CliRunner

import cnnbp_cli
from cnnbp_cli.cli.app import app
from cnnbp_cli.data.pictures import read_pictures

Image = pytest.importorskip("PIL.Image")

DIGITS = """\
data: {source: mnist-subset, limit: {train: 3000, test: 100}}
model:
  input: [1, 28, 28]
  layers:
    - {type: conv2d, filters: 8, kernel_size: 5, stride: 2}
    - relu
    - {type: max_pool2d, pool_size: 2}
    - flatten
    - {type: dense, units: 10}
train: {epochs: 3, batch_size: 32, workers: 1, optimizer: {type: adam, learning_rate: 0.005}}
"""


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    (folder / "digits.yaml").write_text(DIGITS, encoding="utf-8")
    arguments = ["train", str(folder / "digits.yaml"), "--out", str(folder / "run"), "--quiet"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    return folder / "run"


@pytest.fixture(scope="module")
def samples(digits_run: Path) -> list[tuple[int, np.ndarray]]:
    """One test image of each digit, of which the model is sure."""
    model = cnnbp_cli.load(digits_run)
    test = cnnbp_cli.load_data(model).test
    sure = model.predict(test.images)[np.arange(len(test)), test.labels]
    best = [np.flatnonzero(test.labels == digit)[sure[test.labels == digit].argmax()] for digit in range(10)]
    assert sure[best].min() > 0.7
    return [(digit, test.images[index, 0]) for digit, index in enumerate(best)]


def transparent(pixels: np.ndarray, color: int) -> object:
    """Return strokes of one color, with the digit as their opacity."""
    return Image.fromarray(np.dstack([np.full((28, 28, 3), color, np.uint8), pixels]))


VARIANTS = {
    "gray": lambda pixels: Image.fromarray(pixels),
    "rgb": lambda pixels: Image.fromarray(np.dstack([pixels] * 3)),
    "one bit": lambda pixels: Image.fromarray(pixels).point(lambda value: 255 * (value > 127)).convert("1"),
    "palette": lambda pixels: Image.fromarray(pixels).convert("P"),
    "16 bits": lambda pixels: Image.fromarray(pixels.astype(np.uint16) * 257),
    "inverted": lambda pixels: Image.fromarray(255 - pixels),
    "inverted rgb": lambda pixels: Image.fromarray(np.dstack([255 - pixels] * 3)),
    "opaque rgba": lambda pixels: Image.fromarray(np.dstack([pixels] * 3 + [np.full_like(pixels, 255)])),
    "dark on transparent": lambda pixels: transparent(pixels, 0),
    "light on transparent": lambda pixels: transparent(pixels, 255),
    "280×280": lambda pixels: Image.fromarray(pixels).resize((280, 280), Image.Resampling.BICUBIC),
    "280×280 inverted": lambda pixels: Image.fromarray(255 - pixels).resize((280, 280), Image.Resampling.BICUBIC),
    "tall and narrow": lambda pixels: Image.fromarray(pixels[:, 2:26]),
}
SAME = {"gray", "rgb", "palette", "16 bits", "inverted", "inverted rgb", "opaque rgba"}
"""What becomes the very pixels of the digit."""


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_digit_is_told_from_its_picture(
    variant: str, cnnbp: Command, digits_run: Path, samples: list[tuple[int, np.ndarray]]
) -> None:
    for digit, pixels in samples:
        VARIANTS[variant](pixels).save(f"{digit}.png")
    done = cnnbp("predict", digits_run, *(f"{digit}.png" for digit in range(10)), "--format", "json")
    found = json.loads(done.stdout)["predictions"]
    assert [one["class"] for one in found] == list(range(10))
    is_inverted = "inverted" in variant or variant == "dark on transparent"
    assert [one["inverted"] for one in found] == [is_inverted] * 10
    assert len(done.remarks.splitlines()) == 10 * is_inverted
    if variant in SAME:
        (read,) = read_pictures(Path("7.png"), (1, 28, 28))
        pixels = 255 - read.images if is_inverted else read.images
        np.testing.assert_array_equal(pixels[0, 0], samples[7][1])


def test_inversion_can_be_chosen(cnnbp: Command, digits_run: Path, samples: list[tuple[int, np.ndarray]]) -> None:
    Image.fromarray(samples[3][1]).save("white.png")
    Image.fromarray(255 - samples[3][1]).save("black.png")

    def probabilities(*arguments: str) -> list[float]:
        done = cnnbp("predict", digits_run, *arguments, "--format", "json")
        assert done.remarks == ""
        return json.loads(done.stdout)["predictions"][0]["probabilities"]

    assert probabilities("black.png", "--invert") == probabilities("white.png")
    assert probabilities("black.png", "--no-invert") == probabilities("white.png", "--invert")
    assert probabilities("black.png", "--no-invert") != probabilities("white.png")


def test_a_model_of_light_images_takes_pictures_as_they_are(cnnbp: Command) -> None:
    images = np.full((8, 6, 6), 250, np.uint8)
    images[::2, 2] = images[1::2, :, 2] = 0
    np.savez("light.npz", x_train=images, y_train=np.arange(8) % 2, x_test=images, y_test=np.arange(8) % 2)
    run = cnnbp("train", "bars.yaml", "--set", "data={source: npz, path: light.npz}", "--out", "light", "--quiet")
    assert run.code == 0
    Image.fromarray(images[0]).save("bar.png")
    (one,) = json.loads(cnnbp("predict", "light", "bar.png", "--format", "json").stdout)["predictions"]
    assert one["inverted"] is False


def test_a_photo_is_turned_upright_and_keeps_its_proportions(tmp_path: Path) -> None:
    pixels = np.zeros((20, 40), np.uint8)
    pixels[:10] = 200  # light on top
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: light is at the right then
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    (read,) = read_pictures(tmp_path / "photo.png", (1, 8, 8))
    assert (read.images.shape, read.names, read.light_edges) == ((1, 1, 8, 8), [str(tmp_path / "photo.png")], False)
    image = read.images[0, 0]
    assert (image[:, 5] > 190).all()
    assert (image[:, 2] < 10).all()
    assert (image[:, :2] == image[0, 0]).all()  # the margins, in the median color of the edge
    assert (image[:, 6:] == image[0, 0]).all()


def test_a_picture_for_colors(tmp_path: Path) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) + 180
    Image.fromarray(pixels).save(tmp_path / "colors.png")
    (read,) = read_pictures(tmp_path / "colors.png", (3, 4, 4))
    np.testing.assert_array_equal(read.images[0], pixels.transpose(2, 0, 1))


def test_damaged_details_of_a_readable_picture_are_no_matter(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description that the file will not hold"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "cut.jpg", exif=exif.tobytes()[:-30])
    (read,) = read_pictures(tmp_path / "cut.jpg", (1, 8, 8))  # where a warning would be an error
    assert read.images.max() == 0


def test_a_picture_far_too_large(cnnbp: Command, digits_run: Path) -> None:
    Image.new("1", (20_000, 20_000)).save("large.png")
    done = cnnbp("predict", digits_run, "large.png")
    assert done.code == 2
    assert done.stderr.startswith("error: large.png: has more than ")


class TestDrawing:
    @pytest.fixture(autouse=True)
    def one(self, cnnbp: Command, samples: list[tuple[int, np.ndarray]]) -> None:
        Image.fromarray(samples[1][1]).save("one.png")

    def test_the_digit_beside_its_probabilities(self, cnnbp: Command, digits_run: Path) -> None:
        done = cnnbp("predict", digits_run, "one.png")
        assert done.lines[0].startswith("one.png: class 1, ")
        drawn = [line[:28] for line in done.lines[1:15]]
        assert not any(line.endswith(" ") for line in done.lines)
        assert set("".join(drawn)) <= set(" ▀▄█")
        assert any("█" in line for line in drawn)
        assert len(done.lines) == 15
        bars = [line[30:] for line in done.lines[3:13]]
        assert [bar.split()[0] for bar in bars] == [str(digit) for digit in range(10)]
        assert max(range(10), key=lambda digit: bars[digit].count("█")) == 1

    @pytest.mark.parametrize("columns", [40, 41, 45, 60, 80, 200])
    def test_every_width(self, columns: int, cnnbp: Command, digits_run: Path) -> None:
        done = cnnbp("predict", digits_run, "one.png", columns=columns)
        assert max(map(len, done.lines)) <= columns
        assert sum(line.count("%") for line in done.lines) == 11

    def test_below_where_there_is_no_room(self, cnnbp: Command, digits_run: Path) -> None:
        done = cnnbp("predict", digits_run, "one.png", columns=30)
        assert len(done.lines) == 1 + 14 + 10
        assert max(map(len, done.lines)) <= 30

    def test_not_for_programs(self, cnnbp: Command, digits_run: Path) -> None:
        for format in ("json", "csv"):
            done = cnnbp("predict", digits_run, "one.png", "--format", format)
            assert not set(done.stdout) & set("▀▄█")
        assert len(done.lines) == 2

    def test_a_table_for_many(self, cnnbp: Command, digits_run: Path, samples: list[tuple[int, np.ndarray]]) -> None:
        np.save("many.npy", np.stack([pixels for _, pixels in samples] + [samples[0][1]]))
        done = cnnbp("predict", digits_run, "many.npy", columns=160)
        assert done.lines[0].split()[:4] == ["image", "class", "class", "0"]
        assert [line.split()[1] for line in done.lines[2:]] == [*map(str, range(10)), "0"]


def test_preview_in_ascii_and_in_colors(monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import sys

    from cnnbp_cli.report.preview import preview

    image = np.array([[[0, 255, 128], [0, 255, 128], [255, 0, 0]]], np.uint8)
    monkeypatch.setenv("NO_COLOR", "1")
    assert [line.plain for line in preview(image, 10)] == [" ██", "▀  "]
    assert [line.plain for line in preview(image, 2)] == ["█▀"]
    assert [line.plain for line in preview(np.array([[[np.nan, 1.0, np.inf]]]), 10)] == [" ▀ "]
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    (first, _) = preview(image, 10)
    assert first.plain == "▀▀▀"
    assert [str(span.style) for span in first.spans] == [
        "#000000 on #000000",
        "#ffffff on #ffffff",
        "#808080 on #808080",
    ]
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert [line.plain for line in preview(image, 10)] == [" @+", "=  "]
