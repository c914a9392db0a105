"""How the processes of one run, on many machines, notice that one of them is gone.

Who waits in MPI for a process that died waits for ever, and many launchers let it. So every process has a connection
to the first one, on which both ends say every few seconds that they are there: a process that dies closes it, a
machine that goes falls silent. Either ends the run, from a thread that no wait holds up.

A launcher that notices first kills all processes at once, the one that could say something among them. That one
leaves a child behind for this case, which does nothing but speak the last words.
"""

from __future__ import annotations

import os
import secrets
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

BEAT_SECONDS = 1.0
SILENCE_SECONDS = 15.0
"""How long a process that does not close its connection may say nothing: less than the half minute that a run may take
to end, and more than any moment in which Python runs no other thread."""

CONNECT_SECONDS = 5.0

BEAT, GOODBYE = b".", b"q"
"""Any other byte is a digit: the exit code of a process that failed, and has said why."""

AFTERTHOUGHT_SECONDS = 0.5
"""How long to wait for others that fail of the same cause."""


class Address(NamedTuple):
    """Where the first process listens: on which of the hosts, by the first one that answers."""

    hosts: tuple[str, ...]
    port: int
    token: bytes


class Lifeline:
    """One process's connections: those of the first one to all others, or that of another to the first.

    Parameters
    ----------
    lost : callable
        Called, from a thread, when a process is gone: with its rank, what happened to it, and the exit code that it
        gave if it failed and has said why itself, else None. It ends this process.
    """

    def __init__(self, lost: Callable[[int, str, int | None], None]) -> None:
        self._lost = lost
        self._selector = selectors.DefaultSelector()
        self._heard: dict[int, float] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._closed = threading.Event()

    # ------------------------------------------------------------------ connections

    def listen(self) -> Address:
        """Open the first process's end."""
        self._server = socket.create_server(("", 0), backlog=1024)
        self._token = secrets.token_bytes(16)
        name = socket.gethostname()
        found = [name]
        with suppress(OSError):
            found += [str(info[4][0]) for info in socket.getaddrinfo(name, None, socket.AF_INET)]
        return Address(tuple(dict.fromkeys([*found, "127.0.0.1"])), self._server.getsockname()[1], self._token)

    def accept(self, count: int) -> None:
        """Take up the connections of so many others, which have connected already, and begin to watch them."""
        self._server.settimeout(CONNECT_SECONDS)
        while len(self._sockets) < count:
            try:
                connection, _ = self._server.accept()
                connection.settimeout(CONNECT_SECONDS)
                greeting = connection.recv(20, socket.MSG_WAITALL)
            except OSError:
                break
            if secrets.compare_digest(greeting[:16], self._token):
                self._add(int.from_bytes(greeting[16:], "big"), connection)
            else:
                connection.close()
        self._server.close()
        self._watch()

    def connect(self, address: Address, rank: int) -> bool:
        """Connect to the first process, and begin to watch it; return whether it could be reached."""
        here = address.hosts[0] == socket.gethostname()
        for host in reversed(address.hosts) if here else address.hosts[:-1]:
            try:
                connection = socket.create_connection((host, address.port), CONNECT_SECONDS)
                connection.sendall(address.token + rank.to_bytes(4, "big"))
            except OSError:
                continue
            self._add(0, connection)
            self._watch()
            return True
        return False

    def _add(self, rank: int, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        self._sockets[rank], self._heard[rank] = connection, time.monotonic()
        self._selector.register(connection, selectors.EVENT_READ, rank)

    # ------------------------------------------------------------------ the watch

    def _watch(self) -> None:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        looked, next_beat = time.monotonic(), 0.0
        while not self._closed.is_set() and self._heard:
            ready = self._selector.select(BEAT_SECONDS / 2)
            now = time.monotonic()
            if now - looked > 4 * BEAT_SECONDS:  # this process was stopped itself, and perhaps all of them
                self._heard = dict.fromkeys(self._heard, now)
            looked = now
            for key, _ in ready:
                self._listen_to(key.data)
            if now >= next_beat:  # not as an answer to the beats of others, which would answer it
                self.tell(BEAT)
                next_beat = now + BEAT_SECONDS
            silent = [rank for rank, heard in self._heard.items() if now - heard > SILENCE_SECONDS]
            if silent:
                self._lose(silent[0], f"has not been heard of for {SILENCE_SECONDS:g} s")
        self._closed.wait()
        for connection in self._sockets.values():
            connection.close()

    def _listen_to(self, rank: int) -> None:
        try:
            said = self._sockets[rank].recv(4096)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        self._heard[rank] = time.monotonic()
        code = said.strip(BEAT + GOODBYE)
        if code:
            time.sleep(AFTERTHOUGHT_SECONDS)
            self._lose(rank, "failed", int(code[:1]))
        elif GOODBYE in said:
            self._selector.unregister(self._sockets[rank])
            self._heard.pop(rank)
        elif not said:
            time.sleep(AFTERTHOUGHT_SECONDS)
            self._lose(rank, "has died")

    def _lose(self, rank: int, what: str, code: int | None = None) -> None:
        if not self._closed.is_set():
            self._lost(rank, what, code)

    def tell(self, word: bytes) -> None:
        """Send a word to all that are connected."""
        for connection in list(self._sockets.values()):
            with suppress(OSError):
                connection.send(word)

    def close(self) -> None:
        """Say goodbye: from now on nobody is missed."""
        self.tell(GOODBYE)
        self._closed.set()

    def fail(self, code: int) -> None:
        """Tell the others that this process has failed, and why it says itself."""
        self.tell(b"%d" % code)
        self._closed.set()


def last_words() -> Callable[[str], None]:
    """Leave a child behind that speaks, on standard error, when this process is gone.

    Returns
    -------
    callable
        Given what to say; the last one counts, and an empty one makes the child leave without a word.
    """
    reader, writer = os.pipe()
    ready, tell_ready = os.pipe()
    if os.fork():
        os.close(reader)
        os.close(tell_ready)
        os.read(ready, 1)
        os.close(ready)

        def will_say(text: str) -> None:
            with suppress(OSError):  # it may have been killed alone
                os.write(writer, text.replace("\n", " ").encode() + b"\n")

        return will_say
    os.setsid()  # a launcher may kill the whole group
    os.write(tell_ready, b".")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.dup2(reader, 0)  # the launcher's own connections are no business of the child
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.closerange(3, 4096)
    said = b""
    while heard := os.read(0, 65536):
        said = (said + heard)[-65536:]
    with suppress(OSError):
        if words := said.removesuffix(b"\n").rpartition(b"\n")[2]:
            os.write(2, words + b"\n")
    os._exit(0)
