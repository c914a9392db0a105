"""Attacks by name: what each is refused with, word for word, and that nothing was done for it."""

from __future__ import annotations

import gzip
import json
import os
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
from contextlib import contextmanager
from pathlib import Path
from time import process_time

import numpy as np
import pytest
from cli.bars import BARS, Command
from fuzz.kinds import EVERYTHING, png

from cnnbp_cli import memory
from cnnbp_cli.analysis.summary import summary
from cnnbp_cli.build import build
from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.config.load import load_config, parse_config
from cnnbp_cli.data.csv import read_table
from cnnbp_cli.data.idx import read_folder
from cnnbp_cli.data.npz import read_arrays, read_npz
from cnnbp_cli.data.pictures import read_pictures
from cnnbp_cli.data.synthetic import check_synthetic
from cnnbp_cli.errors import UserError
from cnnbp_cli.loading import load, load_data
from cnnbp_cli.train.events import NonFinite, StepDone
from cnnbp_cli.train.fit import fit

pytestmark = pytest.mark.slow


GIB = 1 << 30
HUGE = """\
name: huge
data: {source: synthetic, kind: bars, train: 60, test: 20}
model:
  input: [1, 6, 6]
  layers:
    - flatten
    - {type: dense, name: wide, units: 1000000}
    - {type: dense, name: wider, units: 1000000}
    - {type: dense, units: 2}
"""


@contextmanager
def little_memory(limit=20_000_000):
    """Fail when more than `limit` bytes are in use at once on the way."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


@contextmanager
def in_seconds(limit=5.0):
    started = process_time()
    yield
    assert process_time() - started < limit


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine with 8 GiB."""
    monkeypatch.setattr(memory, "available", lambda: 8 * GIB)


def refusal(call, *arguments, kind=UserError):
    with pytest.raises(kind) as caught, little_memory(), in_seconds():
        call(*arguments)
    return str(caught.value)


# ---------------------------------------------------------------- memory


def test_a_config_that_asks_for_terabytes_is_summarized_and_validated(cnnbp: Command):
    Path("huge.yaml").write_text(HUGE)
    with little_memory():
        done = cnnbp("summary", "huge.yaml", "--format", "json")
        assert (done.code, json.loads(done.stdout)["total_parameters"]) == (0, 1_000_040_000_002)
        assert cnnbp("validate", "huge.yaml").code == 0


@pytest.mark.parametrize("command", ["train", "gradcheck", "profile", "gradnorms"])
def test_a_config_that_asks_for_terabytes_is_refused(cnnbp: Command, command):
    Path("huge.yaml").write_text(HUGE)
    with little_memory(), in_seconds():
        done = cnnbp(command, "huge.yaml")
    assert (done.code, done.stdout, done.stderr) == (
        2,
        "",
        "huge.yaml:8:7: the parameters take 3.6 TiB, 3.6 TiB of them in layer wider; there are 8.0 GiB of memory: "
        "make the layer smaller\n"
        "  8 |     - {type: dense, name: wider, units: 1000000}\n"
        "    |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n",
    )
    assert sorted(os.listdir()) == ["bars.yaml", "huge.yaml"]


SPREAD = BARS.replace("- relu", "- {type: conv_transpose2d, name: spread, filters: 2, kernel_size: 1, stride: 50000}")
SPREAD = SPREAD.replace("    - {type: max_pool2d, pool_size: 2}\n", "").replace("flatten", "global_avg_pool2d")


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        (
            "train",
            [],
            "the layers' outputs for 12 images take 2.0 TiB, 2.0 TiB of them in layer spread; "
            "there are 8.0 GiB of memory: choose a smaller train.batch_size",
        ),
        (
            "gradcheck",
            ["--batch", "2"],
            "the layers' outputs for 2 images take 1.3 TiB, 1.3 TiB of them in layer spread; "
            "there are 8.0 GiB of memory: give fewer images, as with a smaller --batch",
        ),
        (
            "profile",
            ["--batch", "1"],
            "the layers' outputs for 1 image take 167.6 GiB, 167.6 GiB of them in layer spread; "
            "there are 8.0 GiB of memory: choose a smaller --batch or train.batch_size",
        ),
    ],
)
def test_a_batch_that_takes_too_much(cnnbp: Command, command, options, message):
    Path("wide.yaml").write_text(SPREAD)
    with in_seconds(), little_memory():
        done = cnnbp(command, "wide.yaml", *options)
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.splitlines()[0] == f"wide.yaml:7:7: {message}"


def test_padding_counts():
    config = parse_config(BARS, ["model.layers.edges.dilation=1000000", "model.layers.edges.padding=same"])
    assert refusal(lambda: [*fit(build(config), load_data(config))]).splitlines()[0] == (
        "<text>:6:7: the layers' outputs for 12 images take 174.6 TiB, 174.6 TiB of them in layer edges; "
        "there are 8.0 GiB of memory: choose a smaller train.batch_size"
    )


def test_a_batch_of_absurd_size_is_all_images_in_training(cnnbp: Command):
    assert cnnbp("train", "bars.yaml", "--set", "train.batch_size=1000000000000", "--quiet").code == 0


def test_evaluation_takes_no_more_images_at_once_than_fit():
    model = build(parse_config(SPREAD, ["model.layers.spread.stride=2000"]))
    assert memory.affordable(model.graph, 256, 4) == 3


def test_predictions_that_no_memory_holds():
    model = build(parse_config(SPREAD))
    assert refusal(model.predict, np.zeros((1, 1, 6, 6))).splitlines()[0] == (
        "<text>:7:7: the layers' outputs for 1 image take 167.6 GiB, 167.6 GiB of them in layer spread; "
        "there are 8.0 GiB of memory: make the layer smaller"
    )


def test_many_classes_have_no_table_of_confusions():
    model = build(parse_config(BARS, ["model.layers.dense_1.units=5000"]))
    data = load_data(model)
    from cnnbp_cli.train.evaluate import evaluate

    with little_memory():
        result = evaluate(model, data.test, data.normalization)
    assert (result.confusion, result.per_class) == (None, None)
    assert 0 <= result.accuracy <= 1


@pytest.mark.parametrize(
    ("count", "image", "message"),
    [
        (10**12, (1, 8, 8), "data: 1,000,000,000,000 images of [1, 8, 8] take more than 16.0 GiB; draw fewer"),
        (1, (1, 100_000, 100_000), "data.image: bars have 4,194,304 values at most, got [1, 100000, 100000]"),
    ],
)
def test_synthetic_data_of_absurd_size(count, image, message):
    assert refusal(check_synthetic, "bars", count, image, image) == message


def test_large_synthetic_images_are_drawn_in_small_parts():
    config = parse_config(BARS, ["data.image=[1, 700, 700]", "model.input=[1, 700, 700]", "data.train=100"])
    with little_memory(400_000_000):
        assert load_data(config).train.images.shape[1:] == (1, 700, 700)


# ---------------------------------------------------------------- numbers


def numeric_fields():
    """Return the key path of every number in a config that says everything."""
    from cnnbp_cli.config.errors import Source
    from cnnbp_cli.config.nodes import YamlMapping, YamlScalar, compose

    found = []

    def walk(node, path):
        if isinstance(node, YamlMapping):
            for key, entry in node.entries.items():
                walk(entry.node, [*path, key])
        elif isinstance(node, YamlScalar):
            if type(node.value) in (int, float):
                found.append(".".join(path))
        else:
            for k, item in enumerate(node.items):
                walk(item, [*path, str(k)])

    walk(compose(Source("x", EVERYTHING), []), [])
    return EVERYTHING, found


ABSURD = ("1" + "0" * 30, "-1" + "0" * 30, "9223372036854775807", "1000000000", "-1", "0", ".nan", ".inf", "-.inf")
ABSURD += ("1e308", "1e-320", "-0.0", "1.5")


@pytest.mark.parametrize("value", ABSURD)
def test_absurd_values_of_every_number(value):
    """Each is refused with one message, or trained with: nothing overflows, warns or hangs."""
    text, keys = numeric_fields()
    assert len(keys) > 45
    for key in keys:
        with in_seconds(), warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                config = parse_config(text, [f"{key}={value}"])
                summary(config)
                model = build(config)
                data = load_data(config)
                for event in fit(model, data):
                    if isinstance(event, StepDone | NonFinite) and event.step >= 2:
                        break
            except UserError as error:
                told = str(error)
                assert told.count("\n") <= 8, key


def test_integers_beyond_64_bits():
    assert refusal(parse_config, BARS, ["seed=1" + "0" * 30], kind=ConfigError) == (
        "--set seed=1000000000000000000000000000000:6: seed: expected an integer, got 1000000000000000000000000000000, "
        "which is beyond 64 bits\n"
        "  --set seed=1000000000000000000000000000000\n"
        "             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^"
    )


def test_a_million_processes():
    assert refusal(parse_config, BARS, ["train.workers=1000000"]) == (
        "--set train.workers=1000000:15: workers: expected 1024 processes or fewer, got 1000000\n"
        "  --set train.workers=1000000\n"
        "                      ^^^^^^^"
    )


def test_epochs_without_end_begin():
    config = parse_config(BARS, ["train.epochs=9223372036854775807", "train.schedule=cosine"])
    events = fit(build(config), load_data(config))
    assert type(next(events)).__name__ == "RunStarted"
    assert type(next(events)).__name__ == "StepDone"
    events.close()


# ---------------------------------------------------------------- configs that cost time


def many_layers(count, line):
    layers = "".join(f"    - {line(k)}\n" for k in range(count))
    return f"data: mnist-subset\nmodel:\n  input: [1, 28, 28]\n  layers:\n{layers}"


def test_an_alias_bomb():
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30))
    assert refusal(parse_config, bomb).splitlines()[0] == "<text>:5:45: more than 100,000 values"


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting(opening):
    told = refusal(parse_config, opening * 500)
    assert "nested more than 40 deep" in told or "expected a word as the key" in told


def test_a_tag_of_python():
    told = refusal(parse_config, BARS.replace("name: bars", "name: !!python/object/apply:os.system ['touch ran']"))
    assert told == (
        "<text>:1:7: tags such as !!python/object/apply:os.system are not allowed\n"
        "  1 | name: !!python/object/apply:os.system ['touch ran']\n"
        "    |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^"
    )


def test_layers_that_read_each_other_backwards():
    count = 15_000
    text = many_layers(
        count, lambda k: f"{{type: identity, name: a{k}, inputs: [a{k + 1}]}}" if k < count - 1 else "relu"
    )
    with in_seconds(), pytest.raises(ConfigError):
        parse_config(text)


def test_names_that_are_all_nearly_right():
    text = many_layers(
        6_000, lambda k: f"{{type: relu, name: layer_with_a_name_{k:05}, inputs: [layer_with_name_{k:05}]}}"
    )
    with in_seconds(), pytest.raises(ConfigError) as caught:
        parse_config(text)
    first = str(caught.value).splitlines()[0]
    assert first.startswith(
        "<text>:5:60: unknown layer 'layer_with_name_00000', expected one of: input, layer_with_a_name_00000, "
    )
    assert len(first) < 1020


def test_two_words_of_a_hundred_thousand_letters():
    one, other = "ab" * 50_000, "ba" * 50_000
    text = many_layers(1, lambda k: f"{{type: relu, name: {one}, inputs: [{other}]}}")
    with in_seconds(), pytest.raises(ConfigError) as caught:
        parse_config(text)
    assert len(str(caught.value)) < 1500


def test_ten_thousand_unknown_keys():
    with in_seconds(), pytest.raises(ConfigError) as caught:
        parse_config(BARS + "".join(f"tra{k}: 1\n" for k in range(10_000)))
    assert str(caught.value).splitlines()[-1] == "more than 200 problems, the first 20 shown"


def test_tag_directives_without_end():
    text = "".join(f"%TAG !{k:x}! a\n" for k in range(60_000)) + "--- a\n"
    assert refusal(parse_config, text) == "<text>:1:1: tag directives are not allowed\n  1 | %TAG !0! a\n    | ^^^^"


def test_a_key_path_of_ten_thousand_parts():
    message = refusal(parse_config, BARS, [".".join("a" * 10_000) + "=1"])
    assert message.splitlines()[0].endswith("…:81: nested more than 40 deep")


def test_an_escape_sequence_in_a_word_does_not_reach_the_terminal(cnnbp: Command):
    Path("bars.yaml").write_text(BARS.replace("- relu", '- "\\e[31mred\\nblue"'))
    done = cnnbp("validate", "bars.yaml", "--format", "table")
    assert done.code == 2
    assert "\x1b" not in done.stdout + done.stderr


# ---------------------------------------------------------------- code


RUN_ME = """\
from pathlib import Path
Path(__file__).with_name("ran").touch()
"""

TEMPTATIONS = [
    "!!python/object/apply:os.system ['touch ran']",
    "!!python/object/new:subprocess.Popen [['touch', 'ran']]",
    "!!python/module:evil",
    "!!python/name:evil.run",
    "{type: 'evil.py'}",
    "{type: evil, layers: evil.py}",
    "{type: evil.Layer, file: evil.py}",
    "evil.py",
]

WATCHED = """\
import sys
from pathlib import Path
import cnnbp_cli.cli.main, cnnbp_cli.loading, cnnbp_cli.train.fit
here = str(Path.cwd())
def watch(event, arguments):
    if event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "pickle.find_class", "socket.connect"):
        print("RAN", event, file=sys.stderr)
    if event == "exec" and str(getattr(arguments[0], "co_filename", "")).startswith(here):
        print("RAN", arguments[0].co_filename, file=sys.stderr)
sys.addaudithook(watch)
from cnnbp_cli.cli.app import app
for config in sorted(Path.cwd().glob("*.yaml")):
    for command in ("validate", "summary", "train"):
        try:
            app([command, str(config)], standalone_mode=False)
        except BaseException as error:
            if type(error).__name__ not in ("Exit", "SystemExit"):
                raise
"""


def test_a_config_runs_no_code(tmp_path):
    (tmp_path / "evil.py").write_text(RUN_ME)
    (tmp_path / "sitecustomize.py").write_text(RUN_ME)
    for k, temptation in enumerate(TEMPTATIONS):
        (tmp_path / f"layer{k}.yaml").write_text(BARS.replace("- relu", f"- {temptation}"))
        (tmp_path / f"top{k}.yaml").write_text(BARS + f"layers: {temptation}\n")
        (tmp_path / f"name{k}.yaml").write_text(BARS.replace("name: bars", f"name: {temptation}"))
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-P", "-c", WATCHED],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "RAN" not in done.stderr
    assert not (tmp_path / "ran").exists()


def test_only_the_option_loads_layers_from_a_file(cnnbp: Command):
    Path("mine.py").write_text(RUN_ME)
    Path("bars.yaml").write_text(BARS.replace("- relu", "- mine"))
    assert cnnbp("summary", "bars.yaml").code == 2
    assert not Path("ran").exists()
    assert cnnbp("summary", "bars.yaml", "--layers", "mine.py").code == 2  # it registers nothing
    assert Path("ran").exists()


# ---------------------------------------------------------------- bombs


def npz(path, method=zipfile.ZIP_DEFLATED, **members):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def npy(shape, dtype="|u1", body=b""):
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + body


def test_a_gzip_bomb(tmp_path):
    images = gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", 12, 4, 6) + bytes(100_000_000), 1)
    labels = bytes([0, 0, 8, 1]) + struct.pack(">I", 12) + bytes(12)
    for part in ("train", "t10k"):
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(images)
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    assert refusal(read_folder, tmp_path, (1, 4, 6)) == (
        f"{tmp_path}/train-images-idx3-ubyte.gz: is longer than the 288 bytes that its header declares; "
        "fetch the file again"
    )


def test_a_zip_bomb(tmp_path):
    path = npz(tmp_path / "set.npz", x_train=npy((12, 4, 6)) + bytes(100_000_000), y_train=npy((12,), body=bytes(12)))
    assert refusal(read_npz, path, (1, 4, 6)) == (
        f"{path}: x_train: declares the shape [12, 4, 6] of uint8, which is not what the file holds; "
        "write it again with numpy.savez"
    )


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_bomb_of_another_method(tmp_path, method):
    path = npz(tmp_path / "set.npz", method, x_train=npy((12, 4, 6)) + bytes(50_000_000), y_train=b"")
    assert refusal(read_npz, path, (1, 4, 6)) == (
        f"{path}: x_train: is compressed in a way that NumPy does not use; write it again with numpy.savez"
    )


def test_members_that_share_what_is_compressed(tmp_path):
    """A zip bomb whose directory names the same compressed bytes again and again."""
    path = npz(tmp_path / "set.npz", a=npy((3_000_000,)) + bytes(3_000_000))
    content = path.read_bytes()
    directory = content.index(b"PK\1\2")
    entry, end = content[directory : content.index(b"PK\5\6")], content[content.index(b"PK\5\6") :]
    count = 2000
    entries = b"".join(entry.replace(b"a.npy", b"a.np%c" % (k % 26 + 97)) for k in range(count))
    end = end[:8] + struct.pack("<HHII", count, count, len(entries), directory) + end[20:]
    path.write_bytes(content[:directory] + entries + end)
    assert refusal(read_arrays, path) == (
        f"{path}: declares 6,000,144,000 bytes, more than a file of its size can hold"
    )


def test_an_npz_of_pickles(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, x_train=np.array([os.system], object), y_train=np.zeros(1))
    assert (
        refusal(read_npz, path, (1, 4, 6))
        == f"{path}: x_train: contains Python objects, which are never loaded; store numbers"
    )


@pytest.mark.parametrize("shape", [(10**30,), (0x7FFFFFFFFFFFFFFF, 2), (1 << 40,)])
def test_an_npy_with_an_absurd_shape(tmp_path, shape):
    path = tmp_path / "a.npy"
    path.write_bytes(npy(shape))
    message = refusal(read_pictures, path, (1, 4, 6))
    assert message in (
        f"{path}: is not a NumPy array; write it again with numpy.save",
        f"{path}: declares the shape [{shape[0]}] of uint8, which is not what the file holds; "
        "write it again with numpy.save",
    )


def test_names_in_archives_lead_nowhere(tmp_path):
    path = npz(
        tmp_path / "x.npz", **{"../../up": npy((4, 6), body=bytes(24)), "/etc/root": npy((4, 6), body=bytes(24))}
    )
    assert [read.name for read in read_pictures(path, (1, 4, 6))] == [f"{path}:../../up", f"{path}:/etc/root"]
    assert os.listdir(tmp_path) == ["x.npz"]


def test_an_archive_of_nothing(tmp_path):
    path = npz(tmp_path / "x.npz")
    assert refusal(read_pictures, path, (1, 4, 6)) == f"{path}: contains no arrays; write it again with numpy.savez"


def test_a_checkpoint_with_infinite_weights(bars_run, tmp_path):
    from cnnbp_cli.train.checkpoint import Checkpoint

    found = Checkpoint.read(next((bars_run / "checkpoints").glob("*.npz")))
    weights = found.parameters | {"edges.bias": np.full(2, 1e308)}  # of which float32 makes infinity
    path = tmp_path / "a.npz"
    Checkpoint(found.config, found.progress, found.normalization, weights, {}).save(path)
    assert refusal(load, path) == (
        f"{path}: parameter edges.bias has values that are not finite; use an earlier checkpoint"
    )


def damaged(run, folder, old, new):
    """Copy a run, but for one text in its events."""
    copy = folder / "damaged"
    copy.mkdir()
    (copy / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    events = (run / "events.jsonl").read_text("utf-8")
    assert old in events
    (copy / "events.jsonl").write_text(events.replace(old, new, 1), encoding="utf-8")
    return copy


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"event": "step", "step": 2,',
            '"event": "step", "step": 1,',
            "/events.jsonl:5: is damaged: step 1 after step 1",
        ),
        (
            '"event": "step", "step": 1,',
            '"event": "step", "step": 1' + "0" * 30 + ",",
            "/events.jsonl:3: is not an event of a run",
        ),
        ('"event": "watched", "step": 2, "layers": {"edges"', '"event": "watched", "step": 2, "layers": {"hedges"', ""),
        ("{", "[" * 100_000 + "{", "/events.jsonl:1: is not an event of a run"),
    ],
)
def test_events_that_only_look_right(cnnbp: Command, bars_run, tmp_path, old, new, message):
    run = damaged(bars_run, tmp_path, old, new)
    message = message or ": the events are damaged: step 2 has other layers than the steps before"
    done = cnnbp("gradnorms", run)
    assert (done.code, done.stderr) == (2, f"error: {run}{message}\n")


def test_a_csv_line_without_end(tmp_path):
    path = tmp_path / "set.csv"
    path.write_bytes(b"1," * 5_000_000)
    assert refusal(read_table, path, (1, 2, 2), "data.path", "auto", "auto") == (
        f"{path}: line 1 has more than 1,048,576 characters, expected a label and 4 pixels"
    )


def test_characters_that_crash_numpy(tmp_path):
    """NumPy's reader of numbers looks up any character in a table of 256: a few of these ended the process."""
    path = tmp_path / "set.csv"
    for character in ("\U000af6ff", "\U0010ffff", "\uffff", "\u0663", "\xd9"):
        path.write_text(f"1,0,0,0,0\n{character * 3},0,0,0,0\n", encoding="utf-8")
        assert read_table(path, (1, 2, 2), "data.path", "auto", "auto").labels.tolist() == ["1", character * 3]
        path.write_text(f"1,0,0,0,0\n1,0,{character * 3},0,0\n", encoding="utf-8")
        assert refusal(read_table, path, (1, 2, 2), "data.path", "auto", "auto").startswith(
            f"{path}: line 2, field 3: "
        )
    path.write_text("größe,p0,p1,p2,p3\n1,0,0,0,0\n", encoding="utf-8")
    assert len(read_table(path, (1, 2, 2), "data.path", "auto", "auto").images) == 1


def test_a_picture_of_absurd_size(tmp_path):
    pytest.importorskip("PIL")
    path = tmp_path / "a.png"
    path.write_bytes(png(50_000, 50_000, 8, 0, b"", bytes(1000)))
    assert refusal(read_pictures, path, (1, 28, 28)) == f"{path}: has more than 89,478,485 pixels; make it smaller"


def test_a_picture_that_is_a_program(tmp_path):
    pytest.importorskip("PIL")
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(x) run\n")
    assert refusal(read_pictures, path, (1, 28, 28)) == (
        f"{path}: is not a picture that Pillow can read (cannot identify image file {str(path)!r})"
    )


# ---------------------------------------------------------------- what is no file


@pytest.fixture(params=["folder", "pipe", "/dev/zero", "loop"])
def no_file(request, tmp_path):
    path = tmp_path / "thing"
    if request.param == "folder":
        path.mkdir()
    elif request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "loop":
        path.symlink_to(path)
    else:
        path.symlink_to(request.param)
    return path, request.param


def test_a_config_that_is_no_file(no_file):
    path, what = no_file
    assert (
        refusal(load_config, path)
        == {
            "folder": f"{path}: a directory, expected a YAML file",
            "pipe": f"{path}: not a regular file, expected a YAML file; - is standard input",
            "/dev/zero": f"{path}: not a regular file, expected a YAML file; - is standard input",
            "loop": f"{path}: cannot be read: Too many levels of symbolic links",
        }[what]
    )


def test_a_config_through_a_pipe_of_the_shell():
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as file:
        file.write(BARS)
    assert load_config(f"/dev/fd/{reading}").name == "bars"
    os.close(reading)


def test_data_that_are_no_file(no_file):
    path, what = no_file
    expected = {
        "folder": f"{path}: is a folder; `data.path` names a file",
        "pipe": f"{path}: is not a regular file; copy the data into one",
        "/dev/zero": f"{path}: is not a regular file; copy the data into one",
        "loop": f"{path}: cannot be read (Too many levels of symbolic links); check the path and the disk",
    }[what]
    assert refusal(read_npz, path, (1, 4, 6)) == expected
    assert refusal(read_table, path, (1, 4, 6), "data.path", "auto", "auto") == expected


def test_a_set_of_files_that_are_none(no_file, tmp_path):
    path, _ = no_file
    path.rename(tmp_path / "train-images-idx3-ubyte")
    assert refusal(read_folder, tmp_path, (1, 4, 6)).startswith(
        f"{tmp_path}: has no train images and no train labels and no "
    )


def test_a_checkpoint_or_a_picture_that_is_no_file(no_file, tmp_path, cnnbp: Command, bars_run):
    path, _ = no_file
    for name in ("a.npz", "a.npy", "a.png"):
        path = path.rename(tmp_path / name)
        with in_seconds():
            done = cnnbp("predict", bars_run, path)
        assert done.code == 2
        assert done.stderr.startswith(f"error: {path}: ")
        assert done.stderr.count("\n") == 1


def test_events_that_are_no_file(no_file, tmp_path, cnnbp: Command, bars_run):
    path, kind = no_file
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(BARS)
    path.rename(run / "events.jsonl")
    done = cnnbp("compare", bars_run, run)
    assert done.code == 2
    what = {"folder": "a folder", "pipe": "a named pipe", "/dev/zero": "a device"}.get(kind)
    assert done.stderr == (
        f"error: {run}/events.jsonl: is {what}; a run consists of regular files: remove it\n"
        if what
        else f"error: {run}: is not a run directory; `cnnbp train` makes one from a config\n"
    )


def test_layers_that_are_no_file(no_file, cnnbp: Command):
    path, _ = no_file
    done = cnnbp("summary", "bars.yaml", "--layers", path)
    assert done.code == 2
    assert done.stderr.startswith(f"error: {path}: ")


def test_a_checkpoint_with_hostile_progress(tmp_path, bars_run):
    from cnnbp_cli.core.schedules import Constant
    from cnnbp_cli.train.state import RunState

    for wrong in (
        {"step": "3"},
        {"step": -1},
        {"step": True},
        {"seen": 10**30},
        {"history": [None]},
        {"history": [{"a": 1}]},
        {"history": 3},
        {"figures": {"train_loss": 1.0}},
        {"figures": []},
        {"epochs": -1},
        {"first_loss": "x"},
        {"plateau": 3},
        {"plateau": [1.0, 0, 0, 0]},
        {"plateau": ["x", 0, 0]},
        {"plateau": [1.0, 0, -1]},
        {"unknown": 1},
        {"best": "x"},
        {"loss_sum": 10**400},
        {"loss_sums": 1.0},
        {"loss_sums": [1.0]},
        {"loss_sums": ["x"], "loss_counts": [1]},
        {"stopped": 1},
    ):
        with pytest.raises(TypeError):
            RunState.from_dict(wrong, Constant())


def test_a_checkpoint_whose_config_is_another_network(bars_run, tmp_path):
    from cnnbp_cli.train.checkpoint import Checkpoint

    found = Checkpoint.read(next((bars_run / "checkpoints").glob("*.npz")))
    path = tmp_path / "a.npz"
    Checkpoint(
        found.config.replace("units: 2", "units: 50000000"), found.progress, found.normalization, found.parameters, {}
    ).save(path)
    assert refusal(load, path) == (
        f"{path}: does not fit the model: parameter dense_1.weight: expected shape (50000000, 8), got (2, 8)"
    )
