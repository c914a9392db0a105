"""One file from a server, whole or to be continued: cut, slow and lying connections are dealt with here.

What arrives goes into `NAME.part`, which a later call continues, and gets its name when it is verified.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import IO, Any, Self
from urllib import error as url_error
from urllib import request as url_request

from cnnbp_cli.data.errors import DataError

TIMEOUT = 30.0
"""Seconds without a byte after which a server is given up."""

SLOWEST = 100
"""Bytes per second, over the same time, below which it is given up as well."""

SLOW = f"the server sends less than {SLOWEST} bytes per second"

ATTEMPTS = 5
"""Connections to one address, as long as each of them brings something."""

READ_SIZE = 1 << 16


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


def compare(path: Path, what: str, found: str, expected: str) -> None:
    if found != expected:
        raise DataError(f"{path}: the md5 of the {what} is {found}, expected {expected}")


def new_md5() -> Any:
    return hashlib.md5(usedforsecurity=False)


def file_md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, new_md5).hexdigest()


@contextmanager
def part_of(path: Path) -> Iterator[IO[bytes]]:
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


def put_in_place(part: IO[bytes], path: Path, verified: str) -> Ready:
    part.flush()
    os.fsync(part.fileno())
    size = os.fstat(part.fileno()).st_size
    if os.name == "nt":
        part.close()
    os.replace(part.name, path)
    return Ready(path, size, True, verified)


def receive(
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
