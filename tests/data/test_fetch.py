"""Downloads against a server on this machine that cuts, stalls, lies and redirects."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.servers import Handler, serving

from cnnbp_cli.data.download import Ready, Receiving, Retrying
from cnnbp_cli.data.errors import DataError
from cnnbp_cli.data.fetch import PUBLISHED_SETS, PublishedArchive, PublishedFile, PublishedSet, fetch, verify
from cnnbp_cli.data.idx import read_folder
from cnnbp_cli.data.repacked import RepackedSet

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist"


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


rng = np.random.default_rng(0)
ARRAYS = [
    rng.integers(0, 256, (300, 28, 28), np.uint8),
    rng.integers(0, 10, 300, np.uint8),
    rng.integers(0, 256, (50, 28, 28), np.uint8),
    rng.integers(0, 10, 50, np.uint8),
]
NAMES = [f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
CONTENT = dict(zip(NAMES, map(idx, ARRAYS), strict=True))
PACKED = {name: gzip.compress(content, mtime=0) for name, content in CONTENT.items()}
FILES = tuple(PublishedFile(name, a.shape, md5(idx(a))) for name, a in zip(NAMES, ARRAYS, strict=True))
IMAGES = NAMES[0]


Trouble = Callable[[Handler, str], bool]


@pytest.fixture
def server(no_proxies: None) -> Iterator[Any]:
    with serving(PACKED) as server:
        yield server


def source(
    *addresses: str, files: tuple[PublishedFile, ...] = FILES, archive: PublishedArchive | None = None
) -> PublishedSet:
    return PublishedSet("tiny", addresses, 10, files, archive)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_brings_a_set_that_can_be_trained_on(server, tmp_path):
    events = list(fetch(source(server.url), tmp_path / "new" / "tiny"))
    ready = [event for event in events if isinstance(event, Ready)]
    assert [event.path.name for event in ready] == NAMES
    assert all(event.fetched and event.verified == "md5 of the content" for event in ready)
    assert names(tmp_path / "new" / "tiny") == sorted(NAMES)
    train, test = read_folder(tmp_path / "new" / "tiny", (1, 28, 28))
    np.testing.assert_array_equal(train.images[:, 0], ARRAYS[0])
    np.testing.assert_array_equal(test.labels, ARRAYS[3])
    progress = [event for event in events if isinstance(event, Receiving) and event.name == IMAGES]
    assert (progress[0].received, progress[-1].received) == (0, len(PACKED[IMAGES]))
    assert {event.total for event in progress} == {len(PACKED[IMAGES])}


def test_what_is_there_is_not_fetched_again(server, tmp_path):
    list(fetch(source(server.url), tmp_path))
    (tmp_path / NAMES[1]).unlink()
    (tmp_path / NAMES[2]).unlink()
    (tmp_path / NAMES[2].removesuffix(".gz")).write_bytes(CONTENT[NAMES[2]])  # plain will do
    server.requests.clear()
    ready = [event for event in fetch(source(server.url), tmp_path) if isinstance(event, Ready)]
    assert server.requests == [(NAMES[1], None)]
    assert [event.fetched for event in ready] == [False, False, False, True]


def test_another_packing_of_the_same_content_will_do(server, tmp_path):
    server.files[IMAGES] = gzip.compress(CONTENT[IMAGES], 1, mtime=99)
    list(fetch(source(server.url), tmp_path))
    assert (tmp_path / IMAGES).read_bytes() == server.files[IMAGES]


def cut(*ends: int) -> Trouble:
    """Cut the first connections for the images at these bytes."""
    remaining = list(ends)

    def trouble(handler: Handler, name: str) -> bool:
        if name == IMAGES and remaining:
            handler.serve(PACKED[IMAGES], remaining.pop(0))
            return True
        return False

    return trouble


def test_a_cut_connection_is_continued(server, tmp_path):
    server.trouble = cut(70_000, 90_000)
    events = list(fetch(source(server.url), tmp_path))
    assert [part for name, part in server.requests if name == IMAGES] == [None, "bytes=70000-", "bytes=90000-"]
    problems = [event.problem for event in events if isinstance(event, Retrying)]
    total = len(PACKED[IMAGES])
    assert problems[0] == f"{server.url}/{IMAGES}: the connection ended after 70,000 of {total:,} bytes"
    assert (tmp_path / IMAGES).read_bytes() == PACKED[IMAGES]


def test_a_later_call_goes_on(server, tmp_path):
    server.trouble = cut(1000, 0)  # comes a little way, then nothing comes at all
    with pytest.raises(DataError) as caught:
        list(fetch(source(server.url), tmp_path))
    assert str(caught.value) == (
        f"{server.url}/{IMAGES}: the connection ended after 1,000 of {len(PACKED[IMAGES]):,} bytes; "
        "the 1,000 bytes received are kept; the same command continues"
    )
    assert names(tmp_path) == [f"{IMAGES}.part"]
    server.requests.clear()
    list(fetch(source(server.url), tmp_path))
    assert server.requests[0] == (IMAGES, "bytes=1000-")
    assert names(tmp_path) == sorted(NAMES)


def test_a_part_that_is_complete_needs_no_more_bytes(server, tmp_path):
    (tmp_path / f"{IMAGES}.part").write_bytes(PACKED[IMAGES])
    list(fetch(source(server.url), tmp_path))
    assert names(tmp_path) == sorted(NAMES)


@pytest.mark.parametrize("part", [b"something else", PACKED[IMAGES] + b"and more"])
def test_a_part_of_something_else_is_thrown_away(server, tmp_path, part):
    (tmp_path / f"{IMAGES}.part").write_bytes(part)
    events = list(fetch(source(server.url), tmp_path))
    assert any(isinstance(event, Retrying) for event in events)
    assert (tmp_path / IMAGES).read_bytes() == PACKED[IMAGES]


def test_a_server_that_knows_no_ranges_starts_again(server, tmp_path):
    def whole(handler: Handler, name: str) -> bool:
        del handler.headers["Range"]
        return False

    server.trouble = whole
    (tmp_path / f"{IMAGES}.part").write_bytes(PACKED[IMAGES][:5000])
    list(fetch(source(server.url), tmp_path))
    assert (tmp_path / IMAGES).read_bytes() == PACKED[IMAGES]


def refused(server: Any, folder: Path, **arguments: Any) -> str:
    """Fetch what cannot be fetched: nothing is left, and the message is returned."""
    with pytest.raises(DataError) as caught:
        list(fetch(source(server.url), folder, **arguments))
    assert not folder.exists()
    return str(caught.value).replace(server.url, "URL")


def test_wrong_content(server, tmp_path):
    wrong = bytearray(CONTENT[IMAGES])
    wrong[-1] ^= 1
    server.files[IMAGES] = gzip.compress(bytes(wrong))
    assert refused(server, tmp_path / "tiny") == (
        f"URL/{IMAGES}: the md5 of the uncompressed content is {md5(bytes(wrong))}, expected {FILES[0].content_md5}; "
        "try another address with --mirror"
    )


def test_another_set_of_the_same_kind(server, tmp_path):
    server.files[IMAGES] = gzip.compress(idx(ARRAYS[2]))
    assert refused(server, tmp_path / "tiny") == (
        f"URL/{IMAGES}: contains 50 × 28 × 28 values, expected 300 × 28 × 28; try another address with --mirror"
    )


def test_a_page_in_place_of_the_file(server, tmp_path):
    server.files[IMAGES] = b"<html>Please log in</html>"
    assert refused(server, tmp_path / "tiny").startswith(f"URL/{IMAGES}: starts with 3c 68 74 6d, but IDX images ")


def test_a_gzip_bomb_is_unpacked_no_further_than_the_file_goes(server, tmp_path):
    bomb = idx(ARRAYS[0]) + bytes(50_000_000)
    server.files[IMAGES] = gzip.compress(bomb)
    started = time.perf_counter()
    message = refused(server, tmp_path / "tiny")
    assert "is longer than the 235,200 bytes that its header declares" in message
    assert time.perf_counter() - started < 5


def test_a_file_that_is_too_large_is_not_received(server, tmp_path):
    sent: list[int] = []

    def endless(handler: Handler, name: str) -> bool:
        handler.send_response(200)
        handler.end_headers()  # no length: to the end of the connection
        try:
            while not server.stop.is_set():
                sent.append(handler.wfile.write(bytes(100_000)))
        except OSError:
            pass
        return True

    server.trouble = endless
    assert "the server sends more than 324,256 bytes, which the file cannot have" in refused(server, tmp_path / "tiny")
    server.trouble = lambda handler, name: False
    server.files[IMAGES] = bytes(400_000)
    assert "the server sends more than 324,256 bytes" in refused(server, tmp_path / "tiny")


def test_not_found(server, tmp_path):
    del server.files[IMAGES]
    expected = f"URL/{IMAGES}: the server answers 404 (Not Found); try another address with --mirror"
    assert refused(server, tmp_path / "tiny") == expected


def test_connection_refused(server, tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    message = refused(server, tmp_path / "tiny", mirror=url)
    assert message == f"{url}/{IMAGES}: cannot be reached (Connection refused); try another address with --mirror"


def test_the_next_address_is_tried(server, tmp_path):
    events = list(fetch(source(f"{server.url}/nowhere", server.url + "/"), tmp_path))
    problems = {event.problem for event in events if isinstance(event, Retrying)}
    assert f"{server.url}/nowhere/{IMAGES}: the server answers 404 (Not Found)" in problems
    assert names(tmp_path) == sorted(NAMES)


def test_a_silent_server(server, tmp_path):
    server.trouble = lambda handler, name: server.stop.wait(10)
    started = time.perf_counter()
    assert "the server sent nothing for 0.2 s" in refused(server, tmp_path / "tiny", timeout=0.2)
    assert time.perf_counter() - started < 5


def test_a_server_that_falls_silent(server, tmp_path):
    def stall(handler: Handler, name: str) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        return server.stop.wait(10)

    server.trouble = stall
    assert "the server sent nothing for 0.2 s" in refused(server, tmp_path / "tiny", timeout=0.2)


def test_a_server_that_drips(server, tmp_path):
    def drip(handler: Handler, name: str) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        try:
            while not server.stop.wait(0.05):
                handler.wfile.write(b"x")
        except OSError:
            pass
        return True

    server.trouble = drip
    started = time.perf_counter()
    with pytest.raises(DataError, match="the server sends less than 100 bytes per second"):
        list(fetch(source(server.url), tmp_path, timeout=0.3))
    assert time.perf_counter() - started < 10


def test_redirects(server, tmp_path):
    def move(handler: Handler, name: str) -> bool:
        if name.startswith("new/"):
            handler.serve(PACKED[name.removeprefix("new/")])
        else:
            handler.send_response(302)
            handler.send_header("Location", f"/new/{name}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        return True

    server.trouble = move
    (tmp_path / f"{IMAGES}.part").write_bytes(PACKED[IMAGES][:5000])
    list(fetch(source(server.url), tmp_path))
    assert (f"new/{IMAGES}", "bytes=5000-") in server.requests
    assert names(tmp_path) == sorted(NAMES)


@pytest.mark.parametrize("target", ["/loop", "file:///etc/hostname", "ftp://127.0.0.1/x"])
def test_redirects_that_lead_nowhere(server, tmp_path, target):
    def move(handler: Handler, name: str) -> bool:
        handler.send_response(301)
        handler.send_header("Location", target)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    server.trouble = move
    assert refused(server, tmp_path / "tiny").startswith(f"URL/{IMAGES}: ")


@pytest.mark.parametrize(
    "mirror", ["", "example.org", "file:///etc", "ftp://example.org", "http://", "http://[", "http://a b"]
)
def test_an_address_that_is_none(server, tmp_path, mirror):
    assert refused(server, tmp_path / "tiny", mirror=mirror) == (
        f"--mirror: expected an address like https://example.org/mnist, got {mirror!r}"
    )


def test_a_wrong_file_that_was_there_is_left_alone(server, tmp_path):
    (tmp_path / NAMES[2]).write_bytes(PACKED[IMAGES])
    with pytest.raises(DataError) as caught:
        list(fetch(source(server.url), tmp_path))
    assert str(caught.value) == (
        f"{tmp_path / NAMES[2]}: contains 300 × 28 × 28 values, expected 50 × 28 × 28; "
        "it was there before and is not replaced: remove it, or name another folder"
    )
    assert names(tmp_path) == [NAMES[2]]
    assert (tmp_path / NAMES[2]).read_bytes() == PACKED[IMAGES]


def test_a_folder_with_another_set(server, tmp_path):
    (tmp_path / "emnist-letters-train-images-idx3-ubyte.gz").touch()
    with pytest.raises(DataError, match="belongs to another set; give each set its own folder"):
        list(fetch(source(server.url), tmp_path))


def test_a_destination_that_is_a_file(server, tmp_path):
    (tmp_path / "tiny").touch()
    with pytest.raises(DataError) as caught:
        list(fetch(source(server.url), tmp_path / "tiny"))
    assert str(caught.value) == f"{tmp_path / 'tiny'}: cannot be written (File exists); name another folder"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="everything may be written by root")
def test_a_destination_that_may_not_be_written(server, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match=r"cannot be written \(Permission denied\); name another folder"):
        list(fetch(source(server.url), tmp_path))


def test_a_disk_that_fills_up(server, tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(DataError, match=r"cannot be written \(File too large\)"):
            list(fetch(source(server.url), tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert IMAGES not in names(tmp_path)
    list(fetch(source(server.url), tmp_path))  # with room again, it goes on
    assert names(tmp_path) == sorted(NAMES)


def test_two_at_once(server, tmp_path):
    pytest.importorskip("fcntl")
    first = fetch(source(server.url), tmp_path)
    next(first)
    with pytest.raises(DataError, match="another process is fetching it; wait until it has finished"):
        list(fetch(source(server.url), tmp_path))
    list(first)
    assert names(tmp_path) == sorted(NAMES)


def test_a_file_without_a_known_digest_of_its_content(server, tmp_path):
    packed = tuple(PublishedFile(file.name, file.shape, packed_md5=md5(PACKED[file.name])) for file in FILES)
    bare = tuple(PublishedFile(file.name, file.shape) for file in FILES)
    for files, verified in ((packed, "md5 of the file"), (bare, "header and size")):
        folder = tmp_path / verified
        ready = [event for event in fetch(source(server.url, files=files), folder) if isinstance(event, Ready)]
        assert {event.verified for event in ready} == {verified}
    server.files[IMAGES] = gzip.compress(CONTENT[IMAGES], 1)
    with pytest.raises(DataError, match=r"the md5 of the file is [0-9a-f]{32}, expected [0-9a-f]{32}"):
        list(fetch(source(server.url, files=packed), tmp_path / "other"))


def archive_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"gzip/{name}", content)
    return buffer.getvalue()


def test_a_set_in_an_archive(server, tmp_path):
    content = archive_of(PACKED | {"../../evil": b"x"})
    server.files["gzip.zip"] = content
    chosen = source(server.url, archive=PublishedArchive("gzip.zip", "gzip", md5(content), 10**6))
    server.trouble = lambda handler, name: not server.requests[1:] and handler.serve(content, 1000) is None
    ready = [event for event in fetch(chosen, tmp_path / "set") if isinstance(event, Ready)]
    assert server.requests == [("gzip.zip", None), ("gzip.zip", "bytes=1000-")]
    assert {event.verified for event in ready} == {"md5 of the archive"}
    assert names(tmp_path / "set") == sorted(NAMES)
    assert names(tmp_path) == ["set"]


def test_a_wrong_archive_is_not_unpacked(server, tmp_path):
    server.files["gzip.zip"] = archive_of(PACKED)
    chosen = source(server.url, archive=PublishedArchive("gzip.zip", "gzip", "0" * 32, 10**6))
    with pytest.raises(DataError, match=r"/gzip.zip: the md5 of the file is [0-9a-f]{32}, expected 0{32}"):
        list(fetch(chosen, tmp_path / "set"))
    assert not (tmp_path / "set").exists()


def test_the_sets():
    assert list(PUBLISHED_SETS)[:3] == ["mnist", "fashion-mnist", "kmnist"]
    for chosen in PUBLISHED_SETS.values():
        if isinstance(chosen, RepackedSet):
            continue  # see test_repacked.py
        assert chosen.input == (1, 28, 28)
        assert len({file.name for file in chosen.files}) == 4
        assert all(url.startswith("http") and not url.endswith("/") for url in chosen.addresses)
        images, labels, *_ = chosen.files
        assert images.shape[0] == labels.shape[0]
        digests = [file.content_md5 or file.packed_md5 for file in chosen.files]
        assert chosen.archive or len(set(digests)) == 4
        assert all(len(digest) == 32 for digest in (digests if not chosen.archive else [chosen.archive.md5]))


@pytest.mark.skipif(not MNIST.exists(), reason="needs MNIST's four files")
def test_the_digests_of_the_real_mnist(server, tmp_path):
    server.files = {path.name: path.read_bytes() for path in MNIST.glob("*.gz")}
    ready = [event for event in fetch(PUBLISHED_SETS["mnist"], tmp_path, server.url) if isinstance(event, Ready)]
    assert [event.verified for event in ready] == ["md5 of the content"] * 4
    with pytest.raises(DataError, match=f"expected {PUBLISHED_SETS['fashion-mnist'].files[0].content_md5}"):
        verify(tmp_path / IMAGES, PUBLISHED_SETS["fashion-mnist"].files[0])


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
DRIPS = {
    "a status line": (b"HTTP/1.1 200 ", b"O"),
    "a header": (OK + b"X-Header: ", b"x"),
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a redirect's header": (b"HTTP/1.1 302 Found\r\nLocation: /x", b"x"),
    "a record of TLS": (b"\x16\x03\x03\x40\x00", b"\x02"),
    "a chunk's size": (CHUNKED, b"0"),
    "a chunk's extension": (CHUNKED + b"5;", b"x"),
    "a chunk": (CHUNKED + b"fffff\r\n", b"x"),
    "a body": (OK + b"Content-Length: 50000\r\n\r\n", b"x"),
    "a body of unknown length": (OK + b"Connection: close\r\n\r\n", b"x"),
}


@contextmanager
def dripping(start: bytes, drop: bytes) -> Iterator[str]:
    """Serve `start` at once, and then `drop` after `drop` without end, to whoever connects."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(1)
            connection.sendall(start)
            while not stop.wait(0.05):
                connection.sendall(drop)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=listener.accept()[:1]).start()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.mark.parametrize("what", DRIPS)
def test_what_drips_is_given_up_in_time(what, server, tmp_path):
    scheme = "https" if "TLS" in what else "http"
    with dripping(*DRIPS[what]) as address:
        started = time.perf_counter()
        with pytest.raises(DataError) as caught:
            list(fetch(source(f"{scheme}://{address}"), tmp_path, timeout=0.3))
        seconds = time.perf_counter() - started
    reasons = ["the server has not answered after 0.3 s"]
    if "chunk" in what or "body" in what:
        reasons = ["the server sends less than 100 bytes per second"]
    elif "TLS" in what:  # which has a deadline of its own for the whole handshake
        reasons.append("the server sent nothing for 0.3 s")
    assert str(caught.value).partition("; ")[0] in [f"{scheme}://{address}/{IMAGES}: {reason}" for reason in reasons]
    assert seconds < 0.3 * 1.25 * 2 * 5 + 2  # an answer and a body, five attempts


def test_trailers_that_drip_do_not_matter(server, tmp_path):
    def trouble(handler: Handler, name: str) -> bool:
        if name == IMAGES:
            content = PACKED[IMAGES]
            handler.wfile.write(CHUNKED + b"%x\r\n%b\r\n0\r\nX-Trailer: " % (len(content), content))
            with suppress(OSError):
                while not server.stop.wait(0.05):
                    handler.wfile.write(b"x")
        return name == IMAGES

    server.trouble = trouble
    started = time.perf_counter()
    list(fetch(source(server.url), tmp_path, timeout=0.5))
    assert names(tmp_path) == sorted(NAMES)
    assert time.perf_counter() - started < 5


def test_a_slow_but_steady_server_is_not_given_up(server, tmp_path):
    def trouble(handler: Handler, name: str) -> bool:
        if name != NAMES[1]:
            return False
        content = PACKED[name]
        handler.wfile.write(OK + b"Content-Length: %d\r\n\r\n" % len(content))
        for start in range(0, len(content), 50):  # over more than one period
            server.stop.wait(0.15)
            handler.wfile.write(content[start : start + 50])
        return True

    server.trouble = trouble
    events = list(fetch(source(server.url), tmp_path, timeout=0.5))
    assert not any(isinstance(event, Retrying) for event in events)
    assert names(tmp_path) == sorted(NAMES)
