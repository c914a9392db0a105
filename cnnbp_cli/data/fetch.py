"""Public data sets from where they are published: under a file's name stands all of it, verified, or nothing.

What arrives goes into `NAME.part`, which a later call continues. It gets its name when its *uncompressed* content has
the digest that is known for it, for mirrors pack the same data differently.

References
----------
MNIST and Fashion-MNIST: md5 of the uncompressed files. KMNIST: md5 of the files as the CODH packs them, and EMNIST: md5
of the archive, both as in torchvision's `datasets/mnist.py`; besides, header and size of each file.
EMNIST's counts: Cohen et al. 2017, arXiv:1702.05373, table II, those of `letters` from the published files.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import socket
import threading
import zipfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from time import monotonic
from typing import IO, Any, Self
from urllib import error as url_error
from urllib import request as url_request
from urllib.parse import urlsplit

from cnnbp_cli.core.types import Shape
from cnnbp_cli.data.errors import DataError
from cnnbp_cli.data.idx import FILE_NAME, open_idx

TIMEOUT = 30.0
"""Seconds without a byte after which a server is given up."""

SLOWEST = 100
"""Bytes per second, over the same time, below which it is given up as well."""

SLOW = f"the server sends less than {SLOWEST} bytes per second"

ATTEMPTS = 5
"""Connections to one address, as long as each of them brings something."""

READ_SIZE = 1 << 16


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """One IDX file of a set.

    Attributes
    ----------
    name : str
        As it is published, compressed.
    shape : tuple of int
        What its header has to declare.
    content_md5, packed_md5 : str
        Of the uncompressed content, header included, and of the file as published; empty where nobody says it.
    """

    name: str
    shape: Shape
    content_md5: str = ""
    packed_md5: str = ""

    @property
    def largest(self) -> int:
        """More bytes than it could take in any packing."""
        return prod(self.shape) * 11 // 10 + READ_SIZE


@dataclass(frozen=True, slots=True)
class PublishedArchive:
    """A ZIP file that all splits of a set are published in, its members below `folder`."""

    name: str
    folder: str
    md5: str
    largest: int


@dataclass(frozen=True, slots=True)
class PublishedSet:
    """A set, and where it is to be had: the addresses are tried in turn."""

    name: str
    addresses: tuple[str, ...]
    classes: int
    files: tuple[PublishedFile, ...]
    archive: PublishedArchive | None = None

    @property
    def input(self) -> Shape:
        """The config's `model.input`."""
        return (1, *self.files[0].shape[1:])


def _four(
    prefix: str = "",
    test: str = "t10k",
    counts: tuple[int, int] = (60_000, 10_000),
    content: Sequence[str] = ("",) * 4,
    packed: Sequence[str] = ("",) * 4,
) -> tuple[PublishedFile, ...]:
    """Return the four files of 28×28 images: training images and labels, test images and labels."""
    names = [f"{prefix}{split}-{kind}-ubyte.gz" for split in ("train", test) for kind in ("images-idx3", "labels-idx1")]
    shapes = [shape for count in counts for shape in ((count, 28, 28), (count,))]
    return tuple(PublishedFile(*fields) for fields in zip(names, shapes, content, packed, strict=True))


PUBLISHED_SETS = {
    "mnist": PublishedSet(
        "mnist",
        ("https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist"),
        10,
        _four(
            content=(
                "6bbc9ace898e44ae57da46a324031adb",
                "a25bea736e30d166cdddb491f175f624",
                "2646ac647ad5339dbf082846283269ea",
                "27ae3e4e09519cfbb04c329615203637",
            )
        ),
    ),
    "fashion-mnist": PublishedSet(
        "fashion-mnist",
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",),
        10,
        _four(
            content=(
                "f4a8712d7a061bf5bd6d2ca38dc4d50a",
                "9018921c3c673c538a1fc5bad174d6f9",
                "8181f5470baa50b63fa0f6fddb340f0a",
                "15d484375f8d13e6eb1aabb0c3f46965",
            )
        ),
    ),
    "kmnist": PublishedSet(
        "kmnist",
        ("https://codh.rois.ac.jp/kmnist/dataset/kmnist", "http://codh.rois.ac.jp/kmnist/dataset/kmnist"),
        10,
        _four(
            packed=(
                "bdb82020997e1d708af4cf47b453dcf7",
                "e144d726b3acfaa3e44228e80efcd344",
                "5c965bf0a639b31b8f53240b1b52f4d7",
                "7320c461ea6c1c855c0b718fb2a4b134",
            )
        ),
    ),
}

EMNIST_SPLITS = {
    "byclass": (62, (697_932, 116_323)),
    "bymerge": (47, (697_932, 116_323)),
    "balanced": (47, (112_800, 18_800)),
    "letters": (27, (124_800, 20_800)),  # labeled from 1 to 26
    "digits": (10, (240_000, 40_000)),
    "mnist": (10, (60_000, 10_000)),
}
"""Classes, and how many images there are to train and to test."""

for _split, (_classes, _counts) in EMNIST_SPLITS.items():
    PUBLISHED_SETS[f"emnist-{_split}"] = PublishedSet(
        f"emnist-{_split}",
        ("https://biometrics.nist.gov/cs_links/EMNIST", "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST"),
        _classes,
        _four(f"emnist-{_split}-", "test", _counts),
        PublishedArchive("gzip.zip", "gzip", "58c8d27c78d21e728a6bc7b3cc06412e", 700_000_000),
    )


@dataclass(frozen=True, slots=True)
class Receiving:
    """So much of a file has arrived, of so much in all if the server says it."""

    name: str
    received: int
    total: int | None


@dataclass(frozen=True, slots=True)
class Retrying:
    """An address did not deliver; the same or the next is tried."""

    problem: str


@dataclass(frozen=True, slots=True)
class Ready:
    """A file is in its place.

    Attributes
    ----------
    path : Path
    bytes : int
    fetched : bool
        Whether it came now; otherwise it was there.
    verified : str
        What was compared: the md5 of its content, of the file, or of the archive, or only header and size.
    """

    path: Path
    bytes: int
    fetched: bool
    verified: str


Event = Receiving | Retrying | Ready


def fetch(
    source: PublishedSet, folder: Path, mirror: str | None = None, *, timeout: float = TIMEOUT
) -> Iterator[Event]:
    """Yield what happens until all files of a set are in a folder, the `Ready` of each among it.

    Parameters
    ----------
    source : PublishedSet
    folder : Path
        Made where it is missing. Files that are there and right are not fetched again.
    mirror : str, optional
        An address in place of those of the set: of the folder that has the files.
    timeout : float
        Seconds without a byte after which a server is given up.

    Raises
    ------
    DataError
        When a file cannot be had from any address, is not what it should be, or cannot be written; or when the
        folder has something else under its name, which is left alone.
    """
    addresses = source.addresses if mirror is None else (_checked(mirror),)
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        missing: list[PublishedFile] = []
        for file in source.files:
            if present := _present(folder, file):
                yield present
            else:
                missing.append(file)
        if missing:
            _refuse_other_sets(folder, source)
        if missing and source.archive:
            yield from _fetch_archive(source.archive, missing, folder, addresses, timeout)
        else:
            for file in missing:
                yield from _fetch_file(file, folder, addresses, timeout)
    except OSError as error:
        where = error.filename or folder
        raise DataError(f"{where}: cannot be written ({error.strerror or error}); name another folder") from None
    finally:
        if is_new and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _checked(mirror: str) -> str:
    try:
        parts = urlsplit(mirror)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.netloc or not mirror.isascii() or " " in mirror:
        raise DataError(f"--mirror: expected an address like https://example.org/mnist, got {mirror!r}")
    return mirror


def _refuse_other_sets(folder: Path, source: PublishedSet) -> None:
    """Complain about files of another set, whose names differ: a folder with two sets cannot be read."""
    own = {FILE_NAME.fullmatch(file.name)[1] for file in source.files}  # type: ignore[index]
    for path in sorted(folder.iterdir()):
        if (match := FILE_NAME.fullmatch(path.name)) and match[1] not in own:
            raise DataError(f"{path}: belongs to another set; give each set its own folder")


def _present(folder: Path, file: PublishedFile) -> Ready | None:
    """Return the file that is there already: plain, as the reader prefers it, or packed."""
    for path in (folder / file.name.removesuffix(".gz"), folder / file.name):
        if path.exists():
            try:
                return Ready(path, path.stat().st_size, False, verify(path, file))
            except DataError as error:
                raise DataError(
                    f"{error}; it was there before and is not replaced: remove it, or name another folder"
                ) from None
    return None


def verify(path: Path, file: PublishedFile) -> str:
    """Compare a file with all that is known about it, and say what that was.

    Raises
    ------
    DataError
        When it differs. At most the bytes that `file.shape` stands for are decompressed.
    """
    axes = len(file.shape)
    with open_idx(path, axes) as found:
        if found.shape != file.shape:
            shown = [" × ".join(f"{size:,}" for size in shape) for shape in (found.shape, file.shape)]
            raise DataError(f"{path}: contains {shown[0]} values, expected {shown[1]}")
        content = found.read()
    if file.content_md5:
        digest = _md5()
        digest.update(bytes([0, 0, 8, axes]) + b"".join(size.to_bytes(4, "big") for size in file.shape))
        digest.update(content)
        _compare(path, "uncompressed content", digest.hexdigest(), file.content_md5)
        return "md5 of the content"
    if file.packed_md5 and path.suffix:  # a plain file, which has none, is not packed
        _compare(path, "file", _file_md5(path), file.packed_md5)
        return "md5 of the file"
    return "header and size"


def _compare(path: Path, what: str, found: str, expected: str) -> None:
    if found != expected:
        raise DataError(f"{path}: the md5 of the {what} is {found}, expected {expected}")


def _md5() -> Any:
    return hashlib.md5(usedforsecurity=False)


def _file_md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, _md5).hexdigest()


def _fetch_file(file: PublishedFile, folder: Path, addresses: Sequence[str], timeout: float) -> Iterator[Event]:
    path = folder / file.name
    with _part_of(path) as part:
        verified = yield from _receive(
            file.name, addresses, part, file.largest, lambda: verify(Path(part.name), file), timeout
        )
        yield _put_in_place(part, path, verified)


def _fetch_archive(
    archive: PublishedArchive, files: Sequence[PublishedFile], folder: Path, addresses: Sequence[str], timeout: float
) -> Iterator[Event]:
    with _part_of(folder / archive.name) as part:

        def verify_archive() -> str:
            _compare(Path(part.name), "file", _file_md5(Path(part.name)), archive.md5)
            return "md5 of the archive"

        verified = yield from _receive(archive.name, addresses, part, archive.largest, verify_archive, timeout)
        with zipfile.ZipFile(part) as members:
            for file in files:
                path = folder / file.name
                with _part_of(path) as unpacked, members.open(f"{archive.folder}/{file.name}") as member:
                    unpacked.truncate(0)
                    shutil.copyfileobj(member, unpacked, READ_SIZE)
                    unpacked.flush()
                    verify(Path(unpacked.name), file)
                    yield _put_in_place(unpacked, path, verified)
        os.unlink(part.name)


@contextmanager
def _part_of(path: Path) -> Iterator[IO[bytes]]:
    """Open the file that becomes `path`, for this process alone; an empty one does not stay."""
    name = path.with_name(path.name + ".part")
    with name.open("ab+") as part:
        _lock(part)
        try:
            yield part
        finally:
            if name.exists() and not part.closed and os.path.samestat(os.fstat(part.fileno()), name.stat()):
                part.flush()
                if not name.stat().st_size:
                    name.unlink()


def _lock(part: IO[bytes]) -> None:
    """Refuse a file that another process fills, or has just finished and renamed."""
    try:
        import fcntl
    except ImportError:  # Windows, which does not rename an open file
        return
    try:
        fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = os.path.samestat(os.fstat(part.fileno()), os.stat(part.name))
    except (BlockingIOError, FileNotFoundError):
        is_ours = False
    if not is_ours:
        raise DataError(f"{part.name}: another process is fetching it; wait until it has finished")


def _put_in_place(part: IO[bytes], path: Path, verified: str) -> Ready:
    part.flush()
    os.fsync(part.fileno())
    size = os.fstat(part.fileno()).st_size
    if os.name == "nt":
        part.close()
    os.replace(part.name, path)
    return Ready(path, size, True, verified)


def _receive(
    name: str, addresses: Sequence[str], part: IO[bytes], largest: int, verify: Callable[[], str], timeout: float
) -> Generator[Event, None, str]:
    """Fill `part` until `verify` is content with it, from where it ends; return what was verified."""
    problem = ""
    for address in addresses:
        url = f"{address.rstrip('/')}/{name}"
        for _ in range(ATTEMPTS):
            before = part.seek(0, os.SEEK_END)
            if problem:
                yield Retrying(problem)
            try:
                was_late = yield from _transfer(url, name, part, largest, timeout)
            except _TransferError as error:
                problem = f"{url}: {error}"
                if part.seek(0, os.SEEK_END) <= before:
                    break
                continue
            part.flush()
            try:
                return verify()
            except DataError as error:
                problem = f"{url}: {SLOW}" if was_late else f"{url}{str(error).removeprefix(part.name)}"
                part.truncate(0)
                if not before:  # else what was there may have been the beginning of something else
                    break
    kept = part.seek(0, os.SEEK_END)
    hint = f"; the {kept:,} bytes received are kept; the same command continues" if kept else ""
    raise DataError(f"{problem}{hint or '; try another address with --mirror'}")


class _TransferError(Exception):
    """A connection that did not bring the whole file."""


class _Watchdog:
    """Shuts down the connections of a server that takes too long, whatever it sends meanwhile.

    A socket's own timeout starts again with each byte, so that headers, chunk sizes or trailers that drip, or one
    `100 Continue` after the other, would never end.
    """

    def __init__(self, timeout: float) -> None:
        self._period = 1.25 * timeout  # the socket's own timeout, which tells silence from slowness, comes first
        self._deadline, self._received = monotonic() + self._period, 0
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._twins: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.has_expired = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()
        for twin in self._twins:
            twin.close()

    def watch(self, connection: socket.socket) -> None:
        """Keep an eye on a connection; its twin stays valid when TLS takes the socket over."""
        with self._lock:
            self._twins.append(connection.dup())
            if self.has_expired:
                self._shut_down()

    def received(self, count: int) -> None:
        """Count what has arrived of the content."""
        self._received += count

    def renew(self) -> None:
        """Begin a new period."""
        self._deadline, self._received = monotonic() + self._period, 0

    def _run(self) -> None:
        while not self._done.wait(max(0.0, self._deadline - monotonic())):
            if monotonic() < self._deadline:
                continue
            if self._received < SLOWEST * self._period:
                with self._lock:
                    self.has_expired = True
                    self._shut_down()
                return
            self.renew()

    def _shut_down(self) -> None:
        for twin in self._twins:
            with suppress(OSError):  # it is closed already
                twin.shutdown(socket.SHUT_RDWR)


def _transfer(url: str, name: str, part: IO[bytes], largest: int, timeout: float) -> Generator[Receiving, None, bool]:
    """Append to `part` what is missing of it, over one connection; return whether its end came too late to be seen."""
    with _Watchdog(timeout) as watchdog:
        yield from _append(url, name, part, largest, timeout, watchdog)
    return watchdog.has_expired


def _append(
    url: str, name: str, part: IO[bytes], largest: int, timeout: float, watchdog: _Watchdog
) -> Iterator[Receiving]:
    received = part.seek(0, os.SEEK_END)
    headers = {"User-Agent": "cnnbp"} | ({"Range": f"bytes={received}-"} if received else {})
    late = f"the server has not answered after {timeout:g} s"
    try:
        response = _opener(watchdog).open(url_request.Request(url, headers=headers), timeout=timeout)
    except url_error.HTTPError as error:
        error.close()
        if error.code == 416 and received:  # there is no more: all of it was here
            return
        raise _TransferError(f"the server answers {error.code} ({error.reason})") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _TransferError(late if watchdog.has_expired else _reason(error, timeout)) from None
    watchdog.renew()
    with closing(response):
        if watchdog.has_expired:  # a header that was cut short passes for a whole one
            raise _TransferError(late)
        if response.status != 206:
            received = 0
            part.truncate(0)
        elif not (response.headers["Content-Range"] or "").startswith(f"bytes {received}-"):
            part.truncate(0)
            raise _TransferError("the server resumed at the wrong byte")
        total = None if response.length is None else received + response.length
        yield Receiving(name, received, total)
        while total is None or received < total:
            if max(received, total or 0) > largest:
                part.truncate(0)
                raise _TransferError(f"the server sends more than {largest:,} bytes, which the file cannot have")
            try:
                chunk = response.read1(READ_SIZE)
            except (OSError, http.client.HTTPException) as error:
                raise _TransferError(SLOW if watchdog.has_expired else _reason(error, timeout)) from None
            if not chunk:
                if watchdog.has_expired and not response.chunked:  # whose content may be complete
                    raise _TransferError(SLOW)
                break
            watchdog.received(len(chunk))
            part.write(chunk)
            received += len(chunk)
            yield Receiving(name, received, total)
    if total is not None and received < total:
        raise _TransferError(f"the connection ended after {received:,} of {total:,} bytes")


def _opener(watchdog: _Watchdog) -> url_request.OpenerDirector:
    """Return what opens http and https, also after redirects, and nothing else: no local files, no FTP."""

    class Watched(url_request.AbstractHTTPHandler):
        def do_open(self, http_class: Any, req: Any, **arguments: Any) -> Any:
            def connection(*args: Any, **more: Any) -> Any:
                made = http_class(*args, **more)
                create = made._create_connection

                def watched(*address: Any, **options: Any) -> socket.socket:
                    connected: socket.socket = create(*address, **options)
                    watchdog.watch(connected)
                    return connected

                made._create_connection = watched
                return made

            return super().do_open(connection, req, **arguments)

    class WatchedHTTP(Watched, url_request.HTTPHandler):
        pass

    class WatchedHTTPS(Watched, url_request.HTTPSHandler):
        pass

    opener = url_request.OpenerDirector()
    for handler in (
        url_request.ProxyHandler,
        WatchedHTTP,
        WatchedHTTPS,
        url_request.HTTPDefaultErrorHandler,
        url_request.HTTPRedirectHandler,
        url_request.HTTPErrorProcessor,
        url_request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


def _reason(error: Exception, timeout: float) -> str:
    """Say in words why a connection failed."""
    inner = getattr(error, "reason", error)
    if isinstance(inner, TimeoutError):
        return f"the server sent nothing for {timeout:g} s"
    if isinstance(inner, http.client.IncompleteRead):
        return "the connection ended too early"
    return f"cannot be reached ({getattr(inner, 'strerror', None) or inner})"
