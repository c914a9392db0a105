"""Files that are either whole or not there, and a folder that one process at a time may write to."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from cnnbp_cli.errors import UserError

_held: set[tuple[int, Path]] = set()
"""Locks of this process: the system's own lock would not keep a process from taking it twice."""


class WriteError(UserError):
    """A file that cannot be written; what was there before is intact."""


class InUseError(Exception):
    """Somebody else has the lock."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write, which takes the place of `path` once it is on the disk; never in parts.

    Raises
    ------
    OSError
        When it cannot be written. What was there before is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:  # a second Ctrl-C, too
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def replace_file(path: Path, content: bytes) -> None:
    """Write `path`, or replace it at once; a device or a pipe is written to, a link followed.

    Raises
    ------
    WriteError
        When the disk is full or the folder cannot be written.
    """
    try:
        if path.is_char_device() or path.is_fifo():  # replacing would take it from everybody else
            path.write_bytes(content)
            return
        with replacing(path.resolve()) as file:
            file.write(content)
    except OSError as error:
        raise WriteError(f"{path}: cannot be written: {error.strerror or error}") from None


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    if path.is_dir() and not hasattr(os, "O_DIRECTORY"):
        return  # Windows does it by itself
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed in `replacing` have left in a folder."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file for the length of a block.

    The system drops the lock with the process, however it ends. Processes forked meanwhile do not have it. File
    systems without locks are taken as they are.

    Raises
    ------
    InUseError
        When another process has it, with that process's number, or another block of this one.
    OSError
        When the file cannot be made.
    """
    key = (os.getpid(), path.resolve())
    if key in _held:
        raise InUseError(str(os.getpid()))
    file = _take(path)
    _held.add(key)
    try:
        yield
    finally:
        _held.remove(key)
        if sys.platform != "win32":  # which removes no file that is open
            path.unlink(missing_ok=True)
        os.close(file)


@contextmanager
def reserved(folder: Path, what: str, error_class: type[UserError]) -> Iterator[None]:
    """Make a folder, and keep it from other processes for the length of a block.

    Raises
    ------
    error_class
        When it is in use, or when it, which holds `what`, cannot be written.
    """
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder / ".lock"))
        except InUseError as error:
            raise error_class(
                f"{folder}: is in use by process {error}; wait for its end, or choose another with --out"
            ) from None
        except FileExistsError:
            raise error_class(f"{folder}: {what} cannot be written: Not a directory") from None
        except OSError as error:
            raise error_class(f"{folder}: {what} cannot be written: {error.strerror or error}") from None
        yield


def _take(path: Path) -> int:
    """Return a descriptor of the file at `path` that holds its lock."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(file)
            if sys.platform == "win32" or _is_at(path, file):
                os.truncate(file, 0)
                os.write(file, str(os.getpid()).encode())
                return file
        except (BlockingIOError, PermissionError):
            owner = os.read(file, 20).decode("ascii", "replace")
            os.close(file)
            raise InUseError(owner) from None
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # its last owner has just removed it


def _is_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _lock(file: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(file, 1 << 30, os.SEEK_SET)  # far behind the owner's number, which others may read
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(file, 0, os.SEEK_SET)
    else:
        import errno
        import fcntl

        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's, not inherited by workers
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
